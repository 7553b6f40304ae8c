//! What a run needs before there is a task: network, mounts, user, names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    engine::{
        Engine,
        container::{Container, Turn},
        networks::RunNetwork,
    },
    model::{
        Error, Result,
        container::{ContainerRecord, MountPoint},
        error::Context,
        id::ContainerId,
    },
    oci::{self, HostFacts, Joined, ResolvedUser, SpecInput, user},
    rootfs::{self, RootView, UserFiles},
    work::blocking,
};

/// What a start has set up before the task.
pub(crate) struct Prepared {
    network: RunNetwork,
    mounts: Vec<MountPoint>,
    user: ResolvedUser,
    joined: Joined,
    shm: Option<PathBuf>,
    init: Option<PathBuf>,
    cgroups_path: String,
    mountinfo: String,
    recursive_read_only: bool,
}

impl Prepared {
    /// Everything as the spec wants it.
    pub(crate) fn spec_input<'a>(&'a self, record: &'a ContainerRecord, host: &'a HostFacts) -> SpecInput<'a> {
        SpecInput {
            record,
            mounts: &self.mounts,
            user: &self.user,
            hostname: &self.network.hostname,
            rootfs: Path::new("rootfs"),
            cgroups_path: &self.cgroups_path,
            network: self.network.namespace.as_oci(),
            joined: &self.joined,
            files: &self.network.files,
            shm: self.shm.as_deref(),
            init: self.init.as_deref(),
            mountinfo: &self.mountinfo,
            recursive_read_only: self.recursive_read_only,
            host,
        }
    }
}

impl Engine {
    /// Sets a run up. Whatever a failure leaves is taken back by the run's tear-down.
    pub(crate) async fn prepare_run(&self, turn: &Turn) -> Result<Prepared> {
        let record = turn.record();
        let record = self.with_given_variables(record)?;
        let joined = self.joined_namespaces(&record)?;
        let init = self.init_program(&record)?;
        let user = self.resolve_user(turn, &record.config.user).await?;
        let mut mounts = self.mount_run(&record).await?;
        mounts.extend(self.given_mount(&record));
        let network = self.connect_run(&record).await?;
        turn.update(|record| {
            record.networking.attachments.clone_from(&network.attachments);
            record.networking.published.clone_from(&network.published);
            record.networking.sandbox = network.sandbox_path();
            // Also of an exec, and in inspect: who shares a network has its owner's name.
            record.config.hostname.clone_from(&network.hostname);
        });
        let shm = self.prepare_shm(&record).await?;
        let mountinfo =
            match mounts.iter().any(|mount| !matches!(mount.propagation.as_str(), "" | "rprivate" | "private")) {
                true => std::fs::read_to_string("/proc/self/mountinfo").context("reading the host's mounts")?,
                false => String::new(),
            };
        oci::without_impossible_slaves(&mut mounts, &mountinfo);
        let parent = &record.host_config.cgroup_parent;
        let cgroups_path = self.backends.runtime.cgroup_path(&record.tenant, turn.id(), parent);
        let programs = &self.backends.runtime.info().runtimes;
        // Of shims of other kinds nobody knows what they can do.
        let recursive_read_only =
            programs.iter().any(|program| program.name == record.runtime && program.recursive_read_only);
        Ok(Prepared { network, mounts, user, joined, shm, init, cgroups_path, mountinfo, recursive_read_only })
    }

    /// Where files of a container's own are kept.
    pub(crate) fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.config.data_root.join("containers").join(id.as_str())
    }

    /// Looks `spec` up in the container's own user database.
    pub(crate) async fn resolve_user(&self, container: &Arc<Container>, spec: &str) -> Result<ResolvedUser> {
        let record = container.record();
        let (files, _place) = UserFiles::held(|most| self.user_files(container, most)).await?;
        let groups = record.host_config.group_add.as_deref().unwrap_or_default();
        user::resolve(spec, groups, user::UserFiles { passwd: &files.passwd, group: &files.group })
    }

    async fn user_files(&self, container: &Container, most: u64) -> Result<UserFiles> {
        if let Some(live) = container.state().live() {
            let pid = live.pid;
            return blocking(move || RootView::running(pid)?.user_files(most)).await;
        }
        let mounts = self.backends.runtime.rootfs(container.id()).await?;
        blocking(move || rootfs::user_files(&mounts, most)).await
    }

    /// Namespaces of the containers that `PidMode` and `IpcMode` name.
    fn joined_namespaces(&self, record: &ContainerRecord) -> Result<Joined> {
        let path = |name: Option<&str>, namespace: &str| -> Result<Option<String>> {
            let Some(name) = name else { return Ok(None) };
            let other = self.containers.get(&record.tenant, name)?;
            let state = other.state();
            let live = state.live().ok_or_else(|| {
                Error::conflict(format!("cannot join {namespace} of a non running container: {}", other.id()))
            })?;
            Ok(Some(format!("/proc/{}/ns/{namespace}", live.pid)))
        };
        let config = &record.host_config;
        Ok(Joined { pid: path(config.pid_mode.container(), "pid")?, ipc: path(config.ipc_mode.container(), "ipc")? })
    }

    fn init_program(&self, record: &ContainerRecord) -> Result<Option<PathBuf>> {
        if !record.host_config.init.unwrap_or(self.config.init) {
            return Ok(None);
        }
        match &self.backends.runtime.info().init {
            Some(program) => Ok(Some(PathBuf::from(&program.path))),
            None => Err(Error::system(
                "container asks for an init process, but neither docker-init nor tini is installed on this host",
            )),
        }
    }
}
