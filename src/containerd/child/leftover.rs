//! What a killed daemon left of its containers: shims, their processes, bundles, mounts, the OCI runtime's state.
//!
//! A containerd whose daemon was killed may be in the middle of starting a container, and goes on with that: whoever
//! asks it what there is gets an answer that is not true any more a moment later. So it is ended first, then
//! everything of its containers, which are ended at a restart in any case; the next containerd begins with none.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    ChildOptions,
    begun::{arguments, beginning, end_containers, end_processes, is_shim, remove_cgroups},
};
use crate::{
    containerd::io,
    processes::mounts::{mounted_below, unmount_below},
};

/// What shims get to pass on what the containers wrote last.
const PASSING_ON: Duration = Duration::from_millis(20);

/// Ends everything and takes it away. Goes on after failures; what a process holds on to is named in the log. Folders that
/// nobody needs any more are set aside, to be removed by [`remove_gone`] when nobody waits for it.
pub(super) fn end_all(options: &ChildOptions) {
    let pipes = options.exec_root.join("io");
    // What containers wrote and nobody has read yet goes with the last end of their pipes.
    let folders = io::container_folders(&pipes);
    let held: Vec<_> = folders.iter().flat_map(|folder| io::hold_all(folder)).collect();
    let address = options.address();
    let runtime = options.exec_root.join("oci");
    let is_ours = |pid: u32| {
        is_shim(&arguments(pid), &address) || beginning(pid).is_some_and(|container| container.starts_with(&runtime))
    };
    let cgroups = end_containers(&is_ours);
    // Their shims still pass on what they wrote.
    if !folders.is_empty() {
        std::thread::sleep(PASSING_ON);
    }
    io::keep_unread(&folders, &options.exec_root.join(io::UNREAD));
    end_processes(&is_ours);
    drop(held);
    let gone = gone(options);
    set_aside(&pipes, &gone);
    let [state, data] = options.task_folders();
    remove_sockets(&state);
    unmount_below(&state, "an earlier daemon");
    for folder in [state, data, options.exec_root.join("oci")] {
        // What is still mounted somewhere below would be emptied.
        if mounted_below(&folder).is_empty() {
            set_aside(&folder, &gone);
        }
    }
    remove_cgroups(cgroups);
}

/// Removes what was set aside, also by a daemon that died before it had done so.
pub(super) fn remove_gone(options: &ChildOptions) {
    let _not_there = fs::remove_dir_all(gone(options));
}

fn gone(options: &ChildOptions) -> PathBuf {
    options.run().join("gone")
}

/// Takes a folder out of the way: thousands of files take their time. At once if it lies on another disk.
fn set_aside(folder: &Path, gone: &Path) {
    let free = (0_u32..).map(|n| gone.join(n.to_string())).find(|place| !place.exists());
    let moved = free.is_some_and(|place| fs::create_dir_all(gone).and_then(|()| fs::rename(folder, place)).is_ok());
    if !moved {
        let _not_there = fs::remove_dir_all(folder);
    }
}

/// Sockets of shims, which lie elsewhere: each bundle tells where.
fn remove_sockets(tasks: &Path) {
    let namespaces = fs::read_dir(tasks).into_iter().flatten().flatten();
    let bundles = namespaces.flat_map(|namespace| fs::read_dir(namespace.path()).into_iter().flatten().flatten());
    for bundle in bundles {
        let address = fs::read_to_string(bundle.path().join("address")).unwrap_or_default();
        if let Some(socket) = address.trim().strip_prefix("unix://") {
            let _gone_already = fs::remove_file(socket);
        }
    }
}
