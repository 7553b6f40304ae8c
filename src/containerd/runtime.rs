//! [`Runtime`] by containerd: each method is one call into the module of its subject.

use std::{collections::HashSet, fs::File, path::PathBuf};

use async_trait::async_trait;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use tokio::sync::broadcast;

use super::{Containerd, containers, io, snapshots, tasks, usage};
use crate::{
    backend::runtime::{
        Exit, FoundTask, NewContainer, RootfsMount, Runtime, RuntimeInfo, Stdio, StoredContainer, TaskIo,
    },
    model::{
        Error, Result,
        error::Context,
        id::{ContainerId, ExecId, TenantId},
        job::JobLimits,
        output::OutputStream,
        stats::ResourceUsage,
    },
};

#[async_trait]
impl Runtime for Containerd {
    fn info(&self) -> &RuntimeInfo {
        self.runtime_info()
    }

    fn resolve_runtime(&self, name: &str) -> Result<String> {
        self.runtimes().resolve(name)
    }

    async fn create_container(&self, container: &NewContainer) -> Result<()> {
        containers::create(self, container).await
    }

    async fn update_record(&self, id: &ContainerId, record: Vec<u8>) -> Result<()> {
        containers::update_record(self, id, record).await
    }

    async fn delete_container(&self, id: &ContainerId) -> Result<()> {
        containers::delete(self, id).await
    }

    async fn list_containers(&self) -> Result<Vec<StoredContainer>> {
        containers::list(self).await
    }

    async fn rootfs(&self, id: &ContainerId) -> Result<Vec<RootfsMount>> {
        let mounts = snapshots::mounts(self, id.as_str()).await?;
        Ok(mounts.into_iter().map(snapshots::to_rootfs_mount).collect())
    }

    async fn usage(&self, id: &ContainerId) -> Result<u64> {
        snapshots::usage(self, id.as_str()).await
    }

    async fn create_task(&self, id: &ContainerId, spec: &Spec, stdio: Stdio) -> Result<(u32, TaskIo)> {
        tasks::create(self, id, spec, stdio).await
    }

    async fn reopen_io(&self, id: &ContainerId, stdio: Stdio) -> Result<TaskIo> {
        tasks::reopen_io(self, id, stdio)
    }

    async fn start_task(&self, id: &ContainerId) -> Result<()> {
        tasks::start(self, id, None).await.map(drop)
    }

    async fn wait(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<Exit> {
        tasks::wait(self, id, exec).await
    }

    async fn kill(&self, id: &ContainerId, exec: Option<&ExecId>, signal: u32, all: bool) -> Result<()> {
        tasks::kill(self, id, exec, signal, all).await
    }

    async fn delete_task(&self, id: &ContainerId) -> Result<()> {
        tasks::delete(self, id).await
    }

    async fn end_found_task(&self, id: &ContainerId) -> Result<()> {
        tasks::end_found(self, id).await
    }

    fn take_unread(&self, id: &ContainerId) -> Vec<(OutputStream, Vec<u8>)> {
        io::take_unread(&self.exec_root().join(io::UNREAD).join(id.as_str()))
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        tasks::pause(self, id).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        tasks::resume(self, id).await
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<u32>> {
        tasks::pids(self, id).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<ResourceUsage> {
        tasks::stats(self, id).await
    }

    async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        tasks::update_resources(self, id, resources).await
    }

    async fn resize(&self, id: &ContainerId, exec: Option<&ExecId>, width: u32, height: u32) -> Result<()> {
        tasks::resize(self, id, exec, width, height).await
    }

    async fn close_stdin(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<()> {
        tasks::close_stdin(self, id, exec).await
    }

    async fn create_exec(&self, id: &ContainerId, exec: &ExecId, process: &Process, stdio: Stdio) -> Result<TaskIo> {
        tasks::create_exec(self, id, exec, process, stdio).await
    }

    async fn start_exec(&self, id: &ContainerId, exec: &ExecId) -> Result<u32> {
        tasks::start_exec(self, id, exec).await
    }

    async fn delete_exec(&self, id: &ContainerId, exec: &ExecId) -> Result<()> {
        tasks::delete_exec(self, id, exec).await
    }

    async fn list_tasks(&self) -> Result<Vec<FoundTask>> {
        tasks::list(self).await
    }

    async fn list_begun(&self) -> Result<HashSet<ContainerId>> {
        tasks::list_begun(self).await
    }

    async fn end_begun(&self, id: &ContainerId) -> Result<()> {
        tasks::end_begun(self, id).await
    }

    fn ooms(&self) -> broadcast::Receiver<ContainerId> {
        self.oom().subscribe()
    }

    async fn tidy(&self) {
        if let Ok(tasks) = self.list_tasks().await {
            tasks::end_forgotten(self, &tasks).await;
            // Pipes of a task that a killed daemon was about to make belong to nobody.
            if tasks.is_empty() {
                let _not_there = std::fs::remove_dir_all(self.exec_root().join("io"));
            }
        }
        let _not_there = std::fs::remove_dir_all(self.exec_root().join(io::UNREAD));
        self.remove_empty_remains();
    }

    async fn make_parent(&self, tenant: &TenantId, limits: &JobLimits) -> Result<()> {
        self.cgroup_parents().make(self.cgroups(), tenant, limits).context(format!("making the cgroup of {tenant}"))
    }

    async fn parent_stats(&self, tenant: &TenantId) -> Result<ResourceUsage> {
        let missing = || Error::not_found(format!("{tenant} has no cgroup of its own"));
        let cgroup = self.cgroup_parents().made_for(tenant).ok_or_else(missing)?;
        usage::find(self.cgroups(), cgroup).await?.ok_or_else(missing)
    }

    async fn remove_parent(&self, tenant: &TenantId) -> Result<()> {
        self.cgroup_parents().remove(self.cgroups(), tenant).await
    }

    fn cgroup_path(&self, tenant: &TenantId, id: &ContainerId, parent: &str) -> String {
        self.cgroup_parents().cgroup(tenant, parent, id)
    }

    fn open_cgroup(&self, tenant: &TenantId, id: &ContainerId) -> Result<Vec<File>> {
        let cgroup = self.cgroup_path(tenant, id, "");
        self.cgroups().open(&cgroup).context(format!("opening the cgroup {cgroup}"))
    }

    async fn end_cgroup(&self, tenant: &TenantId, id: &ContainerId) -> Result<()> {
        let cgroup = self.cgroup_path(tenant, id, "");
        match self.cgroups().end(&cgroup).await {
            true => Ok(()),
            false => Err(Error::unavailable(format!("processes are left in the cgroup {cgroup}"))),
        }
    }

    fn state_dir(&self, id: &ContainerId) -> PathBuf {
        self.exec_root().join("containers").join(id.as_str())
    }
}
