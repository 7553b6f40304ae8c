//! `POST /images/prune`.

use std::collections::{HashMap, HashSet};

use crate::{
    engine::{
        Engine,
        images::{
            delete::Deleted,
            look_up::Found,
            tree::{Content, Tree},
        },
        tenants::Scope,
    },
    model::{Error, Result, event::EventType, filters::Filters, reference::Digest, time::Timestamp},
};

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Step by step.
    pub deleted: Vec<Deleted>,
    /// Bytes that no other image of the tenant has.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes images that no container uses: those without a name, or with `dangling=false` all.
    pub async fn image_prune(&self, scope: &Scope, filters: &Filters) -> Result<Pruned> {
        filters.allow_only(&["dangling", "label", "label!", "until"])?;
        let dangling = filters.boolean("dangling")?.unwrap_or(true);
        let until = match filters.get("until") {
            [] => None,
            [until] => Some(Timestamp::parse_query(until).map_err(|error| Error::system(error.message()))?),
            _ => return Err(Error::system("more than one until filter specified")),
        };
        let (engine, scope, filters) = (self.clone(), scope.clone(), filters.clone());
        self.run("image_prune", async move { engine.prune_images(&scope, &filters, dangling, until).await }).await
    }

    async fn prune_images(
        &self,
        scope: &Scope,
        filters: &Filters,
        dangling: bool,
        until: Option<Timestamp>,
    ) -> Result<Pruned> {
        let _lock = self.images.names.lock(scope.tenant().as_str()).await;
        let mut before = Vec::new();
        for found in self.images.all_with_steps(scope).await? {
            let mut sizes = SizesByName::default();
            self.images.add_sizes(self.images.tree(&found).await?.as_ref(), &mut sizes).await;
            before.push((found.id().clone(), sizes));
        }
        let mut pruned = Pruned::default();
        for found in self.images.all(scope.tenant()).await? {
            let tree = self.images.tree(&found).await?;
            // What went before may have taken it along, or have been the last that was made on it.
            let is_here = self.images.backend.get_image(scope.tenant(), &found.records[0].name).await?.is_some();
            if is_here && self.is_pruned(scope, &found, &tree, filters, dangling, until) {
                pruned.deleted.extend(self.prune_image(scope, &found).await?);
            }
        }
        let left: HashSet<Digest> =
            self.images.all_with_steps(scope).await?.iter().map(|found| found.id().clone()).collect();
        let (mut staying, mut gone) = (SizesByName::default(), SizesByName::default());
        for (id, sizes) in before {
            let all = if left.contains(&id) { &mut staying } else { &mut gone };
            all.0.extend(sizes.0);
        }
        let freed = gone.0.iter().filter(|(name, _)| !staying.0.contains_key(*name));
        pruned.reclaimed = freed.map(|(_, size)| size).sum();
        let attributes = indexmap::IndexMap::from([("reclaimed".to_owned(), pruned.reclaimed.to_string())]);
        self.events.publish(scope.tenant(), EventType::Image, "prune", "", attributes);
        Ok(pruned)
    }

    /// As dockerd deletes it: what others were made on loses its names, and goes with the last of those.
    async fn prune_image(&self, scope: &Scope, found: &Found) -> Result<Vec<Deleted>> {
        let records: Vec<_> = found.records.iter().collect();
        if !self.images.family(scope).await?.is_parent(found.id()) {
            return self.delete_all(scope, found, &records, false).await;
        }
        match found.references().is_empty() {
            true => Ok(Vec::new()),
            false => self.untag(scope, found, &records, true).await,
        }
    }

    fn is_pruned(
        &self,
        scope: &Scope,
        found: &Found,
        tree: &Tree,
        filters: &Filters,
        dangling: bool,
        until: Option<Timestamp>,
    ) -> bool {
        let document = tree.choose(None).map(|(_, content)| &content.document);
        let label = |key: &str| document?.config.labels.as_ref()?.get(key).map(String::as_str);
        let created = document.and_then(|document| document.created).unwrap_or_default();
        (!dangling || found.references().is_empty())
            && until.is_none_or(|until| created < until)
            && filters.matches_labels(label)
            && self.containers_of(scope, found.id()).is_empty()
    }
}

/// Blobs and snapshots with their bytes.
#[derive(Default)]
pub(crate) struct SizesByName(pub HashMap<String, u64>);

impl SizesByName {
    /// Bytes of all.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl crate::engine::images::ImageStore {
    /// Adds everything that an image consists of.
    pub(crate) async fn add_sizes(&self, tree: &Tree, sizes: &mut SizesByName) {
        sizes.0.insert(tree.target.digest.to_string(), tree.target.size);
        for (variant, content) in tree.available() {
            sizes.0.insert(variant.descriptor.digest.to_string(), variant.descriptor.size);
            let Content { manifest, document } = content;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                sizes.0.insert(blob.digest.to_string(), blob.size);
            }
            let chains: HashSet<String> = document.chain_ids().into_iter().collect();
            for chain in chains {
                let size = self.snapshot_size(&chain).await;
                sizes.0.insert(format!("snapshot {chain}"), size);
            }
        }
    }
}
