//! `POST /build/prune`, and what `/system/df` tells of the build cache: steps of the classic builder, and what BuildKit keeps.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::cache::{COMMAND, PARENT};
use crate::{
    backend::{
        builds::{CachePrune, CacheRecord},
        images::ImageRecord,
    },
    engine::{Engine, tenants::Scope},
    model::{Error, Result, event::EventType, filters::Filters, reference::Digest, time::Timestamp},
};

/// What to prune.
#[derive(Clone, Debug, Default)]
pub struct PruneRequest {
    /// Also steps of images that are here.
    pub all: bool,
    /// `until`, and those that [`FIELDS`] names.
    pub filters: Filters,
    /// Bytes that stay, newest first; 0 is no limit, as with the next ones. Each of both caches is measured by itself.
    pub reserved: u64,
    /// Bytes that may stay.
    pub max_used: u64,
    /// Bytes that should be free on the disk.
    pub min_free: u64,
}

/// Filters of records: by what BuildKit calls them, and how a value is compared.
const FIELDS: [(&str, &str); 7] = [
    ("id", "~="),
    ("parent", "=="),
    ("type", "=="),
    ("description", "=="),
    ("inuse", "=="),
    ("shared", "=="),
    ("private", "=="),
];

/// Filters of when a record was last used: two words for one.
const WHEN: [&str; 2] = ["until", "unused-for"];

/// What all steps of the classic builder are, in BuildKit's words.
const REGULAR: &str = "regular";

/// What was pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildPruned {
    /// Ids of the steps.
    pub deleted: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// A step that the classic builder keeps.
struct BuildStep {
    /// Its image's id.
    id: String,
    /// The image before it.
    parent: String,
    /// Its command.
    description: String,
    /// Whether an image of the tenant is made of it.
    in_use: bool,
    /// Bytes of its layer on disk.
    size: u64,
    /// When it was made.
    created: Timestamp,
}

impl From<BuildStep> for CacheRecord {
    /// What an image is made of is shared with it; only a build that runs would have it in use.
    fn from(step: BuildStep) -> Self {
        Self {
            id: step.id,
            parents: Some(step.parent).filter(|parent| !parent.is_empty()).into_iter().collect(),
            kind: REGULAR.to_owned(),
            description: step.description,
            in_use: false,
            shared: step.in_use,
            size: step.size,
            created: step.created,
            last_used: None,
            usage_count: 1,
        }
    }
}

impl PruneRequest {
    /// The last point in time at which what goes was used, in dockerd's words.
    fn until(&self) -> Result<Option<Timestamp>> {
        let [until, unused_for] = WHEN.map(|name| self.filters.get(name));
        match (until, unused_for) {
            ([], []) => Ok(None),
            ([one], []) => point_in_time(WHEN[0], one).map(Some),
            ([], [one]) => point_in_time(WHEN[1], one).map(Some),
            ([_, ..], [_, ..]) => Err(Error::invalid(r#"conflicting filters: "until" and "unused-for""#)),
            _ => Err(one_value()),
        }
    }

    /// For BuildKit.
    fn of_buildkit(&self, until: Option<Timestamp>) -> Result<CachePrune> {
        let mut filter = Vec::new();
        for (name, comparison) in FIELDS {
            match self.filters.get(name) {
                [] => {}
                [value] => filter.push(format!("{name}{comparison}{value}")),
                _ => return Err(one_value()),
            }
        }
        Ok(CachePrune {
            all: self.all,
            filter: filter.join(","),
            unused_for: until.map(Timestamp::elapsed).unwrap_or_default(),
            reserved: self.reserved,
            max_used: self.max_used,
            min_free: self.min_free,
        })
    }

    /// Bytes of the classic builder's steps that may stay. What is free on the disk is BuildKit's measure alone.
    fn kept_steps(&self) -> u64 {
        match self.reserved.max(self.max_used) {
            0 if self.min_free > 0 => u64::MAX,
            kept => kept,
        }
    }
}

fn point_in_time(filter: &str, value: &str) -> Result<Timestamp> {
    let told = format!("{filter:?} filter expects a duration (e.g., '24h') or a timestamp");
    Timestamp::parse_query(value).map_err(|error| error.context(told))
}

fn one_value() -> Error {
    Error::invalid("filters expect only one value")
}

impl Engine {
    /// The build cache: the classic builder's, oldest first, then BuildKit's.
    pub async fn build_cache_usage(&self, scope: &Scope) -> Result<Vec<CacheRecord>> {
        let (tenant, steps) = (scope.tenant(), self.classic_steps(scope).await?);
        let kept = self.backends.builders.cache_usage(tenant, self.build_tenant(tenant)).await?;
        Ok(steps.into_iter().map(Into::into).chain(kept).collect())
    }

    async fn classic_steps(&self, scope: &Scope) -> Result<Vec<BuildStep>> {
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

    /// Takes some of it away. Without `all` those stay of which an image of the tenant is made.
    pub async fn build_prune(&self, scope: &Scope, request: &PruneRequest) -> Result<BuildPruned> {
        let pruned = self.prune_builds(scope, request).await;
        let pruned = pruned.map_err(|error| error.context("failed to prune build cache"))?;
        let attributes = IndexMap::from([("reclaimed".to_owned(), pruned.reclaimed.to_string())]);
        self.events.publish(scope.tenant(), EventType::Builder, "prune", "", attributes);
        Ok(pruned)
    }

    async fn prune_builds(&self, scope: &Scope, request: &PruneRequest) -> Result<BuildPruned> {
        request.filters.allow_only(&[&WHEN[..], &FIELDS.map(|(name, _)| name)].concat())?;
        let until = request.until()?;
        let of_buildkit = request.of_buildkit(until)?;
        let mut pruned = self.prune_steps(scope, request, until).await?;
        let tenant = scope.tenant();
        let gone = self.backends.builders.prune_cache(tenant, self.build_tenant(tenant), &of_buildkit).await?;
        pruned.reclaimed += gone.iter().map(|record| record.size).sum::<u64>();
        pruned.deleted.extend(gone.into_iter().map(|record| record.id));
        Ok(pruned)
    }

    async fn prune_steps(
        &self,
        scope: &Scope,
        request: &PruneRequest,
        until: Option<Timestamp>,
    ) -> Result<BuildPruned> {
        let filters = &request.filters;
        let [in_use, shared, private] = ["inuse", "shared", "private"].map(|name| filters.boolean(name));
        let (in_use, shared, private) = (in_use?, shared?, private?);
        let keep = request.kept_steps();
        let mut kept: u64 = 0;
        let mut pruned = BuildPruned::default();
        let steps = self.classic_steps(scope).await?;
        // The newest stay within what may be kept.
        for step in steps.iter().rev() {
            let matches = (request.all || !step.in_use)
                && until.is_none_or(|until| step.created <= until)
                && in_use.is_none_or(|in_use| step.in_use == in_use)
                && shared.is_none_or(|shared| step.in_use == shared)
                && private.is_none_or(|private| step.in_use != private)
                && filters.matches_exact("type", REGULAR)
                && filters.matches_exact("description", &step.description)
                && filters.matches_prefix("id", &step.id)
                && filters.matches_prefix("parent", &step.parent);
            // Without a limit also those go that take no space.
            let fits = keep > 0 && kept.saturating_add(step.size) <= keep;
            if !matches || fits {
                kept = kept.saturating_add(step.size);
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
