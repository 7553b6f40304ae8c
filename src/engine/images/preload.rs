//! Images that the operator has named for all jobs: those of the default socket. What of them is not there at start is pulled; each
//! job that is made has the names of those that are, and does with them what it likes; its runner has the one that it is launched on.
//! containerd walks all names whenever it collects: those of jobs that wait cost the others.

use std::time::Duration;

use tracing::{info, warn};

use super::PullRequest;
use crate::{
    backend::images::ImageRecord,
    engine::{Engine, tenants::Scope},
    model::{Result, id::TenantId, reference::Reference, registry_auth::Logins},
};

/// Label of a job's name that it was given.
const GIVEN: &str = "ringer.preloaded";

/// Between two tries to pull one: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

impl Engine {
    /// Begins to pull what is not there, with these credentials.
    pub fn preload(&self, logins: &Logins) {
        for image in &self.config.preload {
            let (engine, image) = (self.clone(), image.clone());
            let auth = logins.get(image.registry()).cloned().unwrap_or_default();
            self.spawn("preload", async move {
                let request = PullRequest { image: image.to_string(), auth, ..PullRequest::default() };
                let stopping = engine.stopping();
                tokio::select! {
                    () = engine.pull_until_it_is_there(&request) => {}
                    () = stopping.cancelled() => {}
                }
            });
        }
    }

    async fn pull_until_it_is_there(&self, request: &PullRequest) {
        let mut pause = PAUSES.0;
        while let Err(error) = self.pull_missing(request).await {
            warn!("preloading {}, to be tried again: {}", request.image, error.chain());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        info!("image {} is there for jobs", request.image);
    }

    async fn pull_missing(&self, request: &PullRequest) -> Result<()> {
        let scope = &self.scope_of(&TenantId::default_tenant())?;
        if self.images.find(scope.tenant(), &request.image).await.is_ok() {
            return Ok(());
        }
        self.image_pull_whole(scope, request).await
    }

    /// Gives a new tenant what is there. Without one of them a job is still a job.
    pub(crate) async fn give_preloaded(&self, tenant: &TenantId) {
        for image in &self.config.preload {
            if let Err(error) = self.give(tenant, image).await {
                warn!(job.id = %tenant, "giving {image} to {tenant}: {}", error.chain());
            }
        }
    }

    /// Gives a tenant one of these images, whatever it calls so; `false` if it is none of them or not there.
    pub async fn take_preloaded(&self, scope: &Scope, image: &Reference) -> Result<bool> {
        if self.config.preload.contains(image) { self.give(scope.tenant(), image).await } else { Ok(false) }
    }

    async fn give(&self, tenant: &TenantId, image: &Reference) -> Result<bool> {
        // Nobody takes the name away meanwhile, and with it what it points at.
        let _lock = self.images.names.lock(TenantId::default_tenant().as_str()).await;
        let images = &self.images.backend;
        let Some(record) = images.get_image(&TenantId::default_tenant(), &image.to_string()).await? else {
            return Ok(false);
        };
        let mut labels = record.labels.clone();
        labels.insert(GIVEN.to_owned(), "1".to_owned());
        images.put_image(&ImageRecord { tenant: tenant.clone(), labels, ..record }).await?;
        Ok(true)
    }
}

/// Whether a name is one that its tenant was given.
pub(crate) fn is_given(record: &ImageRecord) -> bool {
    record.labels.contains_key(GIVEN)
}
