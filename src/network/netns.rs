//! Network namespaces: made by a thread of our own, held by a bind mount, entered by short-lived threads.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::Path,
};

use rustix::{
    mount::{UnmountFlags, mount_bind, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use tokio::sync::oneshot;

/// Runs `work` on a thread of its own, which ends with it. The thread may change its namespaces.
pub async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, result) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(move || {
        let _ = answer.send(work());
    })?;
    result.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended without an answer")))
}

/// Makes a new network namespace held by a bind mount at `path`; the calling thread is in it afterwards.
pub fn create(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    // SAFETY: only CLONE_NEWNET; no descriptor table or memory is unshared, and the thread is ours alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    mount_bind("/proc/thread-self/ns/net", path).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })?;
    Ok(())
}

/// Whether a namespace is mounted at `path`; a plain file is left of a daemon that was killed in between.
pub fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between architectures")]
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as i64 == NSFS_MAGIC)
}

/// Moves the calling thread into a namespace.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Lets go of the namespace. It lives on while a process or a socket is in it.
pub fn release(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        // INVAL: not a mount point any more, the file may still be there.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
