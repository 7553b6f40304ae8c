//! Mounting a stopped container's root in a mount namespace of its own.
//!
//! A thread makes the namespace and the mounts and ends; a descriptor of the namespace keeps them. No process
//! lives in it, no other process sees it, and a daemon that is killed leaves nothing behind.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::{
    backend::runtime::RootfsMount,
    model::{Error, Result, error::Context},
    processes::Process,
    rootfs::{
        resolve::{Owner, is_dir},
        view::{Attached, RootView},
    },
};

/// A folder that is there on every Linux and that nothing below needs once all sources are open.
pub const PLACE: &str = "/proc";
/// What the kernel takes as mount options: a page, less the final zero.
const MAX_OPTIONS: usize = 4095;

/// A root that was mounted apart.
pub struct Mounted {
    pub root: OwnedFd,
    pub namespace: OwnedFd,
}

/// Mounts a root and what belongs on top of it.
pub fn mount_apart(rootfs: &[RootfsMount], read_only: bool, attached: &[Attached]) -> Result<Mounted> {
    on_a_thread_of_its_own(|| mount_here(rootfs, read_only, attached))
}

/// Does what changes the thread that does it; that ends with it.
pub fn on_a_thread_of_its_own<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("rootfs".to_owned()).spawn_scoped(scope, work);
        let worker = worker.context("starting a thread")?;
        worker.join().unwrap_or_else(|_| Err(Error::system("mounting failed")))
    })
}

/// Does what the kernel does only for a thread that sees a process's mounts, whose namespace this is.
pub fn in_mounts<T: Send>(
    mounts: BorrowedFd<'_>,
    doing: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T> {
    let there = || -> io::Result<T> {
        // SAFETY: FS changes only what this thread, which ends after this, has as its root and working folder.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        move_into_link_name_space(mounts, Some(LinkNameSpaceType::Mount))?;
        work()
    };
    on_a_thread_of_its_own(|| there().context(doing))
}

/// Unmounts what is at a folder or file, and removes that; what is not mounted is left.
pub fn unmount_and_remove(place: &Path) -> Result<()> {
    // What is mounted below goes with it, and must not go where that is shared with others.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    let _not_mounted = rustix::mount::mount_change(place, private);
    match rustix::mount::unmount(place, UnmountFlags::DETACH) {
        Ok(()) => remove_place(place).context(format!("removing {}", place.display())),
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error).context(format!("unmounting {}", place.display())),
    }
}

/// Removes the empty folder or the file that something was mounted at; none is success.
pub fn remove_place(place: &Path) -> io::Result<()> {
    let removed = match std::fs::remove_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => std::fs::remove_file(place),
        other => other,
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Mounts the layers of an image at a folder of the host, for nobody to write.
pub fn mount_read_only(layers: &[RootfsMount], place: &Path) -> Result<()> {
    let [layer] = layers else {
        return Err(Error::not_implemented(format!("an image of {} mounts", layers.len())));
    };
    let layer = without_upper(layer);
    let mount = || -> io::Result<()> {
        // SAFETY: FS changes only what this thread, which ends after this, has as its working folder; long options need
        // another.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        mount_root(&layer, place)?;
        let mounted = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        set_read_only(mounted.as_fd(), true)
    };
    on_a_thread_of_its_own(|| mount().context(format!("mounting an image at {}", place.display())))
}

/// Mounts in a namespace that begins here; the thread must end afterwards.
fn mount_here(rootfs: &[RootfsMount], read_only: bool, attached: &[Attached]) -> Result<Mounted> {
    let [rootfs] = rootfs else {
        return Err(Error::not_implemented(format!("a root file system of {} mounts", rootfs.len())));
    };
    // SAFETY: FS and NEWNS change only what this thread, which ends after this, sees of folders and mounts; the
    // descriptor table (FILES), whose sharing other code relies on, stays shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.context("unsharing mounts")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).context("making mounts private")?;
    let namespace = rustix::fs::open("/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("opening the mount namespace")?;

    // Before the root hides the place. Parents first, as a mount may lie within another.
    let mut attached: Vec<&Attached> = attached.iter().collect();
    attached.sort_by_key(|attached| attached.destination.matches('/').count());
    let mut trees = Vec::new();
    for attached in attached {
        match clone_tree(attached) {
            Ok(tree) => trees.push((attached, tree)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(format!("opening {}", attached.source.display())),
        }
    }
    mount_root(rootfs, Path::new(PLACE)).context("mounting the container's root")?;
    let root = rustix::fs::open(PLACE, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("opening the container's root")?;
    let view = RootView::under_construction(root);
    for (attached, tree) in trees {
        attach(&view, attached, tree.as_fd()).context(format!("mounting at {}", attached.destination))?;
    }
    if read_only {
        set_read_only(view.root(), false).context("making the root read-only")?;
    }
    Ok(Mounted { root: view.into_root(), namespace })
}

/// The same files, the upper folder among the lower ones: two mounts that write to one folder are undefined to the
/// kernel, two that read are not.
pub fn without_upper(mount: &RootfsMount) -> RootfsMount {
    let (Some(upper), Some(lower)) = (mount.option("upperdir="), mount.option("lowerdir=")) else {
        return mount.clone();
    };
    let replaced = ["upperdir=", "lowerdir=", "workdir=", "volatile"];
    let is_kept = |option: &&String| !replaced.iter().any(|name| option.starts_with(name));
    let mut options: Vec<String> = mount.options.iter().filter(is_kept).cloned().collect();
    options.push(format!("lowerdir={upper}:{lower}"));
    RootfsMount { options, ..mount.clone() }
}

fn clone_tree(attached: &Attached) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if attached.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = rustix::mount::open_tree(CWD, &attached.source, flags)?;
    if attached.read_only {
        set_read_only(tree.as_fd(), attached.recursive)?;
    }
    Ok(tree)
}

fn attach(view: &RootView, attached: &Attached, tree: BorrowedFd<'_>) -> io::Result<()> {
    let place = match is_dir(tree)? {
        true => view.ensure_dir(&attached.destination, Owner::default())?,
        false => view.ensure_file(&attached.destination)?,
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, c"", &place, c"", flags)?)
}

/// Mounts what is at a folder of the machine into the files of a process that runs, at a folder there, which is made. It is a mount of
/// that process's own: what happens to the one does not happen to the other.
pub fn mount_into(process: &Process, source: &Path, place: &str) -> Result<()> {
    let view = RootView::seen_by(process)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, source, flags).context(format!("opening {}", source.display()))?;
    let alone = MountAttr { set: MOUNT_ATTR_RDONLY, propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    set_attributes(tree.as_fd(), &alone, false).context("making a mount private")?;
    let mounts = process.mounts().context("opening the container's mounts")?;
    let doing = format!("mounting at {place} of a process");
    let at = view.ensure_dir(place, Owner::default()).context(doing.as_str())?;
    in_mounts(mounts.as_fd(), &doing, || {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(rustix::mount::move_mount(&tree, c"", &at, c"", flags)?)
    })
}

fn mount_root(mount: &RootfsMount, place: &Path) -> io::Result<()> {
    let (flags, mut data) = split_options(&mount.options);
    let is_bind = flags.contains(MountFlags::BIND) || mount.kind == "bind";
    if is_bind {
        rustix::mount::mount_bind_recursive(mount.source.as_str(), place)?;
        return Ok(());
    }
    if data.join(",").len() > MAX_OPTIONS {
        shorten_lower_dirs(&mut data)?;
    }
    let data = CString::new(data.join(","))?;
    Ok(rustix::mount::mount(mount.source.as_str(), place, mount.kind.as_str(), flags, Some(data.as_c_str()))?)
}

/// Mount flags, and what is left for the file system.
fn split_options(options: &[String]) -> (MountFlags, Vec<String>) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "bind" | "rbind" => flags |= MountFlags::BIND,
            "rw" | "" => {}
            other => data.push(other.to_owned()),
        }
    }
    (flags, data)
}

/// Many layers make options longer than a page: their common folder becomes the working folder and the names
/// relative to it, as containerd does.
fn shorten_lower_dirs(data: &mut [String]) -> io::Result<()> {
    let Some(option) = data.iter_mut().find(|option| option.starts_with("lowerdir=")) else { return Ok(()) };
    let folders: Vec<&str> = option["lowerdir=".len()..].split(':').collect();
    let common = common_folder(&folders);
    rustix::process::chdir(common)?;
    let relative: Vec<&str> = folders.iter().map(|folder| folder[common.len()..].trim_start_matches('/')).collect();
    *option = format!("lowerdir={}", relative.join(":"));
    Ok(())
}

fn common_folder<'a>(folders: &[&'a str]) -> &'a str {
    let Some(first) = folders.first() else { return "/" };
    let shared =
        |path: &Path| folders.iter().all(|folder| Path::new(folder).starts_with(path) && Path::new(folder) != path);
    Path::new(first)
        .ancestors()
        .find(|ancestor| shared(ancestor))
        .and_then(Path::to_str)
        .map_or("/", |path| &first[..path.len()])
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[derive(Default)]
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;

fn set_read_only(mount: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    set_attributes(mount, &MountAttr { set: MOUNT_ATTR_RDONLY, ..MountAttr::default() }, recursive)
}

fn set_attributes(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` lives through the call and its size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_dirs_share_their_folder() {
        assert_eq!(common_folder(&["/a/b/1/fs", "/a/b/2/fs"]), "/a/b");
        assert_eq!(common_folder(&["/a/b"]), "/a");
        assert_eq!(common_folder(&["/a", "/b"]), "/");
    }
}
