//! The removal of a job, in order: first nobody can make anything any more, then everything goes. Done again until it
//! came to its end; each step finds what an earlier try, or an earlier daemon, has left.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tracing::{info, warn};

use super::store::Job;
use crate::{
    engine::{Engine, container::Container, containers::delete::DeleteOptions, images::is_given, tenants::Tenant},
    model::{Error, ErrorKind, Result, error::Context, id::TenantId, job::JobReport},
    rootfs,
    work::blocking,
};

/// Before the second try, and the longest between two.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// How long requests that were cut off may take to come to their end.
const LEAVING: Duration = Duration::from_secs(15);

/// How long a container's files are counted for the report: while it runs it may make them faster.
const COUNTING: Duration = Duration::from_secs(60);

/// Containers that are removed at once.
const AT_ONCE: usize = 16;

/// How often containers are looked for again: what was under way may have made one after the last look.
const ROUNDS: usize = 5;

impl Engine {
    /// Removes a job; returns when nothing is left of it, or when the daemon stops.
    pub(super) async fn end_job(&self, job: &Arc<Job>) {
        let (mut report, mut pause, stopping) = (JobReport::default(), PAUSES.0, self.stopping());
        while let Err(error) = self.remove_job(job, &mut report).await {
            let why = error.chain();
            warn!(job.id = %job.id(), "removing job {}, to be tried again: {why}", job.id());
            job.has_trouble(why);
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
            }
        }
        let JobReport { containers, networks, volumes, images, bytes, .. } = report;
        info!(job.id = %job.id(), containers, networks, volumes, images, bytes, "removed job {}", job.record().name);
    }

    async fn remove_job(&self, job: &Job, report: &mut JobReport) -> Result<()> {
        let tenant = self.tenant_of(job).await?;
        let runner = self.tenants.get(&job.id().of_runner())?;
        // The runner goes before its socket does: it would take that for the failure of its job, and tell the forge so. What is its
        // is not the job's, and is not counted.
        runner.close();
        let without_runner = self.remove_things_of(&runner, &mut JobReport::default()).await;
        tenant.close();
        job.close_door().await;
        without_runner?;
        // Its clients leave with it, and nobody can have it started any more.
        self.end_builder(&job.record()).await?;
        self.remove_things_of(&tenant, report).await?;
        self.backends.runtime.remove_parent(tenant.id()).await?;
        let (quota, socket) = (tenant.quota(), self.job_folder(job));
        let clear = move || {
            quota.iter().for_each(|quota| quota.clear());
            rootfs::remove_folder(&socket).context("removing the folder of a job's socket")
        };
        blocking(clear).await?;
        for tenant in [&runner, &tenant] {
            self.tenants.remove(tenant.id());
        }
        self.note_cache_volumes(&job.record()).await?;
        self.jobs.forget(job, *report)?;
        self.measure_cache_volumes();
        self.trim_build_caches_soon(&job.record());
        Ok(())
    }

    async fn remove_things_of(&self, tenant: &Arc<Tenant>, report: &mut JobReport) -> Result<()> {
        self.remove_containers_of(tenant, report).await?;
        self.remove_counted_networks(tenant, report).await?;
        self.remove_volumes_of(tenant, report).await?;
        self.remove_images_of(tenant.id(), report).await?;
        let kept = self.config.data_root.join("tenants").join(tenant.id().as_str());
        blocking(move || rootfs::remove_folder(&kept).context("removing the folder of a tenant")).await?;
        self.containers.forget(tenant.id());
        self.execs.forget_tenant(tenant.id());
        self.networks.forget(tenant.id());
        self.volumes.forget(tenant.id());
        self.events.forget(tenant.id());
        self.rooms.forget(tenant.id());
        Ok(())
    }

    /// Removes containers until none comes any more: requests that were under way may still make some.
    async fn remove_containers_of(&self, tenant: &Arc<Tenant>, report: &mut JobReport) -> Result<()> {
        for _ in 0..ROUNDS {
            let found = self.containers.list(tenant.id());
            let removed =
                stream::iter(found).map(|container| self.remove_with_job(container)).buffer_unordered(AT_ONCE);
            for bytes in removed.collect::<Vec<_>>().await {
                report.bytes += bytes?;
                report.containers += 1;
            }
            if !tenant.unused(LEAVING).await {
                return Err(Error::unavailable("requests of it have not come to their end"));
            }
            if self.containers.list(tenant.id()).is_empty() {
                return Ok(());
            }
        }
        Err(Error::unavailable("containers of it come again and again"))
    }

    /// Answers what its writable layer took.
    async fn remove_with_job(&self, container: Arc<Container>) -> Result<u64> {
        let counted = tokio::time::timeout(COUNTING, self.room_of_layer(container.id(), u64::MAX)).await;
        let bytes = counted.map_or(0, |bytes| bytes.unwrap_or(0));
        let options = DeleteOptions { force: true, volumes: false };
        match self.remove(&container, options).await {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            // Another removal of it is under way.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(bytes),
            Err(error) => Err(error.context(format!("removing container {}", container.id()))),
        }
    }

    async fn remove_counted_networks(&self, tenant: &Tenant, report: &mut JobReport) -> Result<()> {
        let made = self.networks.list(tenant.id()).iter().filter(|record| !record.is_predefined()).count();
        self.remove_networks_of(tenant).await?;
        report.networks += u64::try_from(made).unwrap_or(u64::MAX);
        Ok(())
    }

    async fn remove_volumes_of(&self, tenant: &Tenant, report: &mut JobReport) -> Result<()> {
        for info in self.volumes.list(tenant.id()) {
            if self.outlives_its_job(&info.volume) {
                self.delete_volume(tenant.id(), &info.volume.name, true).await?;
                continue;
            }
            let folder = info.mountpoint.clone();
            report.bytes += blocking(move || rootfs::folder_size(&folder).context("measuring")).await.unwrap_or(0);
            self.delete_volume(tenant.id(), &info.volume.name, true).await?;
            report.volumes += 1;
        }
        // Their files go behind the answer.
        if tenant.unused(LEAVING).await {
            Ok(())
        } else {
            Err(Error::unavailable("files of its volumes are still being removed"))
        }
    }

    /// Names and steps of builds. What nothing else refers to goes with the collector's next pass.
    async fn remove_images_of(&self, tenant: &TenantId, report: &mut JobReport) -> Result<()> {
        let images = &self.images.backend;
        for record in images.list_images(tenant).await? {
            images.delete_image(tenant, &record.name, false).await?;
            report.images += u64::from(!is_given(&record));
        }
        let steps = tenant.of_builds();
        for record in images.list_images(&steps).await? {
            images.delete_image(&steps, &record.name, false).await?;
        }
        self.collect_garbage_soon();
        Ok(())
    }
}
