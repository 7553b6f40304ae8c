//! `POST /build/prune`, and what `/system/df` tells of the build cache.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::cache::{COMMAND, PARENT};
use crate::{
    backend::images::ImageRecord,
    engine::{Engine, tenants::Scope},
    model::{Error, Result, event::EventType, filters::Filters, reference::Digest, time::Timestamp},
};

/// What to prune.
#[derive(Clone, Debug, Default)]
pub struct PruneRequest {
    /// Also steps of images that are here.
    pub all: bool,
    /// `until`, `id`, `parent`, `inuse`.
    pub filters: Filters,
    /// Bytes that may stay, newest first.
    pub keep: u64,
}

/// What was pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildPruned {
    /// Ids of the steps.
    pub deleted: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// A step that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildStep {
    /// Its image's id.
    pub id: String,
    /// The image before it.
    pub parent: String,
    /// Its command.
    pub description: String,
    /// Whether an image of the tenant is made of it.
    pub in_use: bool,
    /// Bytes of its layer on disk.
    pub size: u64,
    /// When it was made.
    pub created: Timestamp,
}

impl Engine {
    /// The build cache, oldest first.
    pub async fn build_cache_usage(&self, scope: &Scope) -> Result<Vec<BuildStep>> {
        let mut records = self.images.backend.list_images(&scope.tenant().of_builds()).await?;
        records.sort_by_key(|record| record.created);
        let used = self.used_steps(scope, &records).await?;
        let mut steps = Vec::new();
        for record in &records {
            steps.push(BuildStep {
                id: record.name.clone(),
                parent: label(record, PARENT),
                description: label(record, COMMAND),
                in_use: used.contains(&record.target.digest),
                size: self.step_size(record).await,
                created: record.created,
            });
        }
        Ok(steps)
    }

    /// Takes steps away. Without `all` those stay of which an image of the tenant is made.
    pub async fn build_prune(&self, scope: &Scope, request: &PruneRequest) -> Result<BuildPruned> {
        let known = request.filters.allow_only(&["until", "id", "parent", "inuse"]);
        known.map_err(|error| error.context("failed to prune build cache"))?;
        let until = match request.filters.get("until") {
            [] => None,
            [one] => Some(Timestamp::parse_query(one)?),
            _ => return Err(Error::invalid("more than one until filter specified")),
        };
        let in_use = request.filters.boolean("inuse")?;
        let mut kept = 0;
        let mut pruned = BuildPruned::default();
        let steps = self.build_cache_usage(scope).await?;
        // The newest stay within what may be kept.
        for step in steps.iter().rev() {
            let matches = (request.all || !step.in_use)
                && until.is_none_or(|until| step.created <= until)
                && in_use.is_none_or(|in_use| step.in_use == in_use)
                && request.filters.matches_prefix("id", &step.id)
                && request.filters.matches_prefix("parent", &step.parent);
            // Without a limit also those go that take no space.
            let fits = request.keep > 0 && kept + step.size <= request.keep;
            if !matches || fits {
                kept += step.size;
                continue;
            }
            self.images.backend.delete_image(&scope.tenant().of_builds(), &step.id, false).await?;
            pruned.deleted.push(step.id.clone());
            if !step.in_use {
                pruned.reclaimed += step.size;
            }
        }
        if !pruned.deleted.is_empty() {
            self.images.backend.collect_garbage().await?;
        }
        let attributes = IndexMap::from([("reclaimed".to_owned(), pruned.reclaimed.to_string())]);
        self.events.publish(scope.tenant(), EventType::Builder, "prune", "", attributes);
        Ok(pruned)
    }

    /// Steps that lead to an image of the tenant.
    async fn used_steps(&self, scope: &Scope, records: &[ImageRecord]) -> Result<HashSet<Digest>> {
        let by_id: HashMap<&str, &ImageRecord> = records.iter().map(|record| (record.name.as_str(), record)).collect();
        let mut used = HashSet::new();
        for image in self.images.backend.list_images(scope.tenant()).await? {
            let mut next = image.target.digest.to_string();
            while let Some(record) = by_id.get(next.as_str()) {
                if !used.insert(record.target.digest.clone()) {
                    break;
                }
                next = label(record, PARENT);
            }
        }
        Ok(used)
    }

    /// Bytes of the step's own layer; 0 if it made none.
    async fn step_size(&self, record: &ImageRecord) -> u64 {
        let Ok(tree) = self.images.known_whole_tree(&record.target).await else { return 0 };
        let Some((_, content)) = tree.choose(None) else { return 0 };
        if content.document.history.last().is_none_or(|entry| entry.empty_layer) {
            return 0;
        }
        self.images.snapshot_size(&content.top_chain()).await
    }
}

fn label(record: &ImageRecord, name: &str) -> String {
    record.labels.get(name).cloned().unwrap_or_default()
}
