//! What buildkitd, and `git` that it starts, find in the place of files of the machine: the names that a job knows, and the authorities
//! that it trusts. Neither can be told by a variable: Go's resolver reads `/etc/hosts`, and git gets no variables of ours.
//!
//! So buildkitd is in a mount namespace of its own then. What it mounts below the folder of its cache containerd must see: that folder
//! is a mount which both namespaces share, and all others are the machine's, one way.

use std::{
    ffi::{CStr, CString},
    fs,
    io::Write,
    net::IpAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Result as SystemResult,
    mount::{
        MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change, move_mount,
        open_tree, unmount,
    },
    thread::{UnshareFlags, unshare_unsafe},
};

use super::{Options, remains::Folders};
use crate::{
    backend::builds::Around,
    model::{Error, Result, error::Context},
    processes::mounts::mounted_below,
};

const HOSTS: &str = "/etc/hosts";

/// All that is done between fork and exec, which may take no memory.
pub(super) struct Sight {
    cache: CString,
    /// A file, and in whose place it is.
    files: Vec<[CString; 2]>,
    /// Mounts of other tenants, which would last as long as buildkitd otherwise.
    others: Vec<CString>,
}

impl Sight {
    /// `None` if there is nothing to be told. The folders are there; what [`mounted_below`] tells of the cache's is to be unmounted at the end.
    pub(super) fn prepare(options: &Options, folders: &Folders, around: &Around) -> Result<Option<Self>> {
        let mut files = Vec::new();
        if !around.hosts.is_empty() {
            files.push([path_of(&write_hosts(folders, &around.hosts)?)?, path_of(Path::new(HOSTS))?]);
        }
        if let Some((source, machines)) =
            around.file.as_ref().and_then(|file| Some((&file.source, file.machines.as_ref()?)))
        {
            files.push([path_of(source)?, path_of(machines)?]);
        }
        if files.is_empty() {
            return Ok(None);
        }
        let root = &folders.root;
        mount_bind(root, root)
            // First alone: as one more of a mount that is shared, what is mounted there would be there twice.
            .and_then(|()| mount_change(root, MountPropagationFlags::PRIVATE))
            .and_then(|()| mount_change(root, MountPropagationFlags::SHARED))
            .context(format!("making {} a mount", root.display()))?;
        let others = others(options, folders).iter().map(|point| path_of(point)).collect::<Result<_>>()?;
        Ok(Some(Self { cache: path_of(root)?, files, others }))
    }

    /// Has the calling process, which has one thread, see them.
    pub(super) fn enter(&self) -> SystemResult<()> {
        // SAFETY: the caller has one thread, and no memory or descriptors are unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        // Taken before all become one-way: it stays what both share.
        let cache = open_tree(CWD, self.cache.as_c_str(), flags)?;
        mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        move_mount(cache, c"", CWD, self.cache.as_c_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        for [file, place] in &self.files {
            mount_bind(file.as_c_str(), place.as_c_str())?;
        }
        for point in &self.others {
            let _gone_with_another = unmount(point.as_c_str() as &CStr, UnmountFlags::DETACH);
        }
        Ok(())
    }
}

/// The machine's names, and before them those of the job.
fn write_hosts(folders: &Folders, hosts: &[(String, IpAddr)]) -> Result<PathBuf> {
    let path = folders.run.join("hosts");
    let written = || {
        let mut file = fs::File::create(&path)?;
        hosts.iter().try_for_each(|(name, address)| writeln!(file, "{address}\t{name}"))?;
        file.write_all(&fs::read(HOSTS)?)
    };
    written().context("telling BuildKit the names that its job knows")?;
    Ok(path)
}

/// What is mounted for containers and for other builders.
fn others(options: &Options, folders: &Folders) -> Vec<PathBuf> {
    let builders = options.data_root.join("buildkit");
    let tops = [&options.exec_root, &builders].into_iter().chain(&options.place.folders);
    let is_ours = |point: &PathBuf| {
        point.starts_with(&folders.root) || folders.root.starts_with(point) || folders.run.starts_with(point)
    };
    tops.flat_map(|top| mounted_below(top).into_iter().filter(move |point| point != top))
        .filter(|point| !is_ours(point))
        .collect()
}

fn path_of(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::invalid("a path with a zero byte"))
}
