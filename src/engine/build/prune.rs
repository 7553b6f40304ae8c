//! `POST /build/prune`, and what `/system/df` tells of the build cache: steps of the classic builder, and what BuildKit keeps.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use indexmap::IndexMap;
use tracing::warn;

use super::cache::{COMMAND, PARENT};
use crate::{
    backend::{
        builds::{CacheFilter, CachePrune, CacheRecord, CacheRoom},
        images::ImageRecord,
    },
    engine::{Engine, tenants::Scope},
    model::{Error, Result, error::Context, event::EventType, filters::Filters, reference::Digest, time::Timestamp},
};

/// What to prune.
#[derive(Clone, Debug, Default)]
pub struct PruneRequest {
    /// Also steps of images that are here.
    pub all: bool,
    /// `until`, and those that [`FIELDS`] names.
    pub filters: Filters,
    /// How much is to stay, of steps the newest. Each of both caches is measured by itself, the classic builder's first.
    pub room: CacheRoom,
}

/// Filters of records.
const FIELDS: [&str; 7] = ["id", "parent", "type", "description", "inuse", "shared", "private"];

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

    /// What records must be.
    fn filter(&self) -> Result<CacheFilter> {
        let text = |name: &str| match self.filters.get(name) {
            [] => Ok(None),
            [value] => Ok(Some(value.clone())),
            _ => Err(one_value()),
        };
        let truth = |name: &str| text(name).and_then(|_| self.filters.boolean(name));
        Ok(CacheFilter {
            id: text("id")?,
            parent: text("parent")?,
            kind: text("type")?,
            description: text("description")?,
            in_use: truth("inuse")?,
            shared: truth("shared")?,
            private: truth("private")?,
        })
    }
}

/// Whether a step is among those that are named.
fn matches(filter: &CacheFilter, step: &CacheRecord) -> bool {
    let is = |wanted: Option<bool>, truth: bool| wanted.is_none_or(|wanted| wanted == truth);
    let parent = step.parents.first().map_or("", String::as_str);
    filter.id.as_ref().is_none_or(|id| step.id.starts_with(id.as_str()))
        && filter.parent.as_ref().is_none_or(|wanted| parent.starts_with(wanted.as_str()))
        && filter.kind.as_ref().is_none_or(|kind| *kind == step.kind)
        && filter.description.as_ref().is_none_or(|description| *description == step.description)
        && is(filter.in_use, step.in_use)
        && is(filter.shared, step.shared)
        && is(filter.private, !step.shared)
}

/// Bytes of `total` that stay where `free` are free on the disk, as BuildKit weighs it (`cache/manager.go`); `None` if nothing is to stay.
fn kept(room: CacheRoom, total: u64, free: u64) -> Option<u64> {
    if room == CacheRoom::default() {
        return None;
    }
    let lacking = room.min_free.saturating_sub(free);
    let may_stay = match (room.max_used, room.min_free) {
        (0, 0) => 0,
        (0, _) => total.saturating_sub(lacking),
        (max_used, _) if lacking == 0 => max_used,
        (max_used, _) => max_used.min(total.saturating_sub(lacking)),
    };
    Some(may_stay.max(room.reserved))
}

/// Bytes that are free on the disk of a folder.
fn free_at(folder: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(folder).context(format!("looking at the disk of {}", folder.display()))?;
    Ok(disk.f_bfree.saturating_mul(disk.f_frsize))
}

fn point_in_time(filter: &str, value: &str) -> Result<Timestamp> {
    let told = format!("{filter:?} filter expects a duration (e.g., '24h') or a timestamp");
    Timestamp::parse_query(value).map_err(|error| error.context(told))
}

fn one_value() -> Error {
    Error::invalid("filters expect only one value")
}

impl Engine {
    /// The build cache: the classic builder's, oldest first, then BuildKit's, which is left out if its builder does not come up: what
    /// else takes room can be told all the same.
    pub async fn build_cache_usage(&self, scope: &Scope) -> Result<Vec<CacheRecord>> {
        let (tenant, steps) = (scope.tenant(), self.classic_steps(scope).await?);
        let kept = self.backends.builders.cache_usage(tenant, self.build_tenant(tenant)).await;
        let kept = kept.unwrap_or_else(|error| {
            warn!("what BuildKit keeps is not told: {}", error.chain());
            Vec::new()
        });
        Ok(steps.into_iter().chain(kept).collect())
    }

    /// What an image is made of is shared with it; only a build that runs would have it in use.
    async fn classic_steps(&self, scope: &Scope) -> Result<Vec<CacheRecord>> {
        let mut records = self.images.backend.list_images(&scope.tenant().of_builds()).await?;
        records.sort_by_key(|record| record.created);
        let used = self.used_steps(scope, &records).await?;
        let mut steps = Vec::new();
        for record in &records {
            steps.push(CacheRecord {
                id: record.name.clone(),
                parents: Some(label(record, PARENT)).filter(|parent| !parent.is_empty()).into_iter().collect(),
                kind: REGULAR.to_owned(),
                description: label(record, COMMAND),
                in_use: false,
                shared: used.contains(&record.target.digest),
                size: self.step_size(record).await,
                created: record.created,
                last_used: None,
                usage_count: 1,
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
        request.filters.allow_only(&[&WHEN[..], &FIELDS].concat())?;
        let (until, filter) = (request.until()?, request.filter()?);
        let mut pruned = self.prune_steps(scope, request, until, &filter).await?;
        let of_buildkit = CachePrune {
            all: request.all,
            filter,
            unused_for: until.map(Timestamp::elapsed).unwrap_or_default(),
            room: request.room,
        };
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
        filter: &CacheFilter,
    ) -> Result<BuildPruned> {
        let mut pruned = BuildPruned::default();
        let steps = self.classic_steps(scope).await?;
        let total = steps.iter().map(|step| step.size).sum();
        let room = kept(request.room, total, free_at(&self.config.data_root)?);
        let mut stays: u64 = 0;
        // The newest stay within what may be kept.
        for step in steps.iter().rev() {
            let is_meant = (request.all || !step.shared)
                && until.is_none_or(|until| step.created <= until)
                && matches(filter, step);
            // Without a limit also those go that take no space.
            let fits = room.is_some_and(|room| stays.saturating_add(step.size) <= room);
            if !is_meant || fits {
                stays = stays.saturating_add(step.size);
                continue;
            }
            self.images.backend.delete_image(&scope.tenant().of_builds(), &step.id, false).await?;
            pruned.deleted.push(step.id.clone());
            if !step.shared {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stay_is_weighed_as_buildkit_weighs_it() {
        let room = |reserved, max_used, min_free| CacheRoom { reserved, max_used, min_free };
        // Of 100 bytes, while 50 are free.
        for (room, expected) in [
            (room(0, 0, 0), None),
            (room(30, 0, 0), Some(30)),
            (room(0, 40, 0), Some(40)),
            (room(60, 40, 0), Some(60)),
            (room(0, 0, 50), Some(100)),
            (room(0, 0, 70), Some(80)),
            (room(0, 0, 1000), Some(0)),
            (room(30, 0, 1000), Some(30)),
            (room(0, 40, 70), Some(40)),
            (room(0, 90, 70), Some(80)),
        ] {
            assert_eq!(kept(room, 100, 50), expected, "{room:?}");
        }
    }

    #[test]
    fn a_step_is_judged_as_it_is_shown() {
        let step = CacheRecord {
            id: "sha256:abc".to_owned(),
            parents: Vec::new(),
            kind: REGULAR.to_owned(),
            description: "RUN x".to_owned(),
            in_use: false,
            shared: true,
            size: 1,
            created: Timestamp::zero(),
            last_used: None,
            usage_count: 1,
        };
        let is_meant = |name: &str, value: &str| {
            let filters = Filters::parse(&serde_json::json!({name: [value]}).to_string()).unwrap();
            matches(&PruneRequest { filters, ..PruneRequest::default() }.filter().unwrap(), &step)
        };
        for (name, yes, no) in [
            ("inuse", "false", "true"),
            ("shared", "true", "false"),
            ("private", "false", "true"),
            ("id", "sha256:a", "b"),
            ("type", "regular", "internal"),
            ("description", "RUN x", "RUN"),
            ("parent", "", "sha256:a"),
        ] {
            assert!(is_meant(name, yes) && !is_meant(name, no), "{name}");
        }
    }
}
