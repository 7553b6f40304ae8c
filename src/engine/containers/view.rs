//! `GET /containers/{id}/json`: what inspect shows beside the record.

use std::sync::Arc;

use crate::{
    engine::{Engine, tenants::Scope},
    model::{Result, container::ContainerRecord, id::ExecId},
};

/// Paths of a container's files on the host; empty before its first start, and where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFiles {
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// `/etc/hostname`.
    pub hostname: String,
    /// `/etc/hosts`.
    pub hosts: String,
    /// The log.
    pub log: String,
}

/// Bytes that a container takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerSize {
    /// Its writable layer.
    pub writable: u64,
    /// Its writable layer and its image.
    pub whole: u64,
}

/// A container for inspect.
pub struct ContainerView {
    /// The record.
    pub record: Arc<ContainerRecord>,
    /// Execs that have not ended.
    pub exec_ids: Vec<ExecId>,
    /// Its files.
    pub files: ContainerFiles,
    /// Legacy links, `/db:/web/alias`.
    pub links: Vec<String>,
    /// If it was asked for.
    pub size: Option<ContainerSize>,
    /// Who keeps its root file system.
    pub snapshotter: String,
}

impl Engine {
    /// Everything on a container.
    pub async fn container_inspect(&self, scope: &Scope, reference: &str, size: bool) -> Result<ContainerView> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let record = container.record();
        let dir = self.container_dir(&record.id);
        let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let mut files = ContainerFiles { log: container.log.path(), ..ContainerFiles::default() };
        if record.state.has_run() {
            files.resolv_conf = file("resolv.conf");
            files.hostname = file("hostname");
            files.hosts = file("hosts");
        }
        Ok(ContainerView {
            exec_ids: self.execs.live_of(&record.tenant, &record.id).iter().map(|exec| exec.id.clone()).collect(),
            files,
            links: self.shown_links(&record),
            size: if size { Some(self.container_size(&record).await?) } else { None },
            snapshotter: self.backends.images.snapshotter().to_owned(),
            record,
        })
    }

    /// Measures what a container takes on disk.
    pub async fn container_size(&self, record: &ContainerRecord) -> Result<ContainerSize> {
        let writable = self.images.written_size(&record.id, self.backends.runtime.usage(&record.id)).await?;
        let image = self.image_size(record).await.unwrap_or_default();
        Ok(ContainerSize { writable, whole: writable + image })
    }
}
