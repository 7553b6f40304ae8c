//! What jobs have pulled stays when they are gone, under names of no tenant, so that the next job fetches no layer again. Nobody sees it
//! there: who wants it pulls it, and the registry says yes or no to his own credentials. What was not pulled for long goes, and of the
//! rest the longest unused when it takes too much room. A job's own names and the leases of pulls are not touched by that.

use std::cmp::Reverse;

use super::prune::SizesByName;
use crate::{
    backend::images::ImageRecord,
    engine::{Engine, tenants::Scope},
    model::{Result, id::TenantId, image::Descriptor, time::Timestamp},
};

impl Engine {
    /// Keeps what a job has pulled just now. A failure costs the next job time, not this one. Only what `grows` by that is trimmed: to look
    /// at all that is kept takes calls for each layer of it.
    pub(super) async fn keep_for_other_jobs(&self, scope: &Scope, target: &Descriptor, grows: bool) {
        if *scope.tenant() == TenantId::default_tenant() {
            return;
        }
        let now = Timestamp::now();
        let record = ImageRecord {
            tenant: TenantId::of_cache(),
            name: target.digest.to_string(),
            target: target.clone(),
            labels: std::collections::HashMap::new(),
            created: now,
            updated: now,
        };
        if let Err(error) = self.images.backend.put_image(&record).await {
            tracing::warn!("keeping {} for other jobs: {}", target.digest, error.chain());
            return;
        }
        if !grows {
            return;
        }
        let engine = self.clone();
        self.spawn("trim_cache", async move {
            if let Err(error) = engine.trim_cache().await {
                tracing::warn!("trimming the cache of images: {}", error.chain());
            }
        });
    }

    /// Lets go of what is too old or too much.
    pub(crate) async fn trim_cache(&self) -> Result<()> {
        let _alone = self.images.trimming.lock().await;
        let (most, longest) = self.config.cache_limits();
        let mut records = self.images.backend.list_images(&TenantId::of_cache()).await?;
        records.sort_by_key(|record| Reverse(record.updated));
        let (mut kept, mut has_removed) = (SizesByName::default(), false);
        for record in records {
            if record.updated.elapsed() <= longest
                && let Some(with_it) = self.with_sizes(&kept, &record).await
                && with_it.total() <= most
            {
                kept = with_it;
                continue;
            }
            self.images.backend.delete_image(&record.tenant, &record.name, false).await?;
            tracing::info!("image {} goes from the cache", record.name);
            has_removed = true;
        }
        if has_removed {
            self.collect_garbage_soon();
        }
        Ok(())
    }

    /// What is taken together with one more; `None` if that cannot be read any more.
    async fn with_sizes(&self, kept: &SizesByName, record: &ImageRecord) -> Option<SizesByName> {
        let tree = self.images.whole_tree(&record.target).await.ok()?;
        let mut with_it = SizesByName(kept.0.clone());
        self.images.add_sizes(&tree, &mut with_it).await;
        Some(with_it)
    }
}
