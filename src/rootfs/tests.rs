//! Views of a real overlay (as root), and what is done through them.

mod archive;
mod changes;
mod deep;
mod extract;
mod image_layer;
mod layers;
mod races;

use std::{
    fs,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

use tempfile::TempDir;

use super::{resolve::Owner, *};
use crate::{backend::runtime::RootfsMount, model::ErrorKind};

/// Two layers and a place for changes.
pub struct Layers {
    pub dir: TempDir,
}

impl Layers {
    pub fn new() -> Self {
        let layers = Self { dir: TempDir::new().unwrap() };
        for folder in ["lower/etc", "lower/run", "lower/var", "middle", "upper", "work"] {
            fs::create_dir_all(layers.path(folder)).unwrap();
        }
        symlink("/run", layers.path("lower/var/run")).unwrap();
        fs::write(layers.path("lower/etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        layers
    }

    pub fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    pub fn mounts(&self) -> Vec<RootfsMount> {
        let name = |folder: &str| self.path(folder).to_string_lossy().into_owned();
        let options = vec![
            format!("workdir={}", name("work")),
            format!("upperdir={}", name("upper")),
            format!("lowerdir={}:{}", name("middle"), name("lower")),
        ];
        vec![RootfsMount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options }]
    }

    pub fn view(&self) -> RootView {
        RootView::stopped(&self.mounts(), false, &[]).unwrap()
    }
}

fn attached(source: &Path, destination: &str, read_only: bool) -> Attached {
    Attached { source: source.to_owned(), destination: destination.to_owned(), read_only, recursive: true }
}

fn mounts_of_host() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn stopped_view_shows_layers_and_volumes_and_leaves_no_mount() {
    let layers = Layers::new();
    let volume = TempDir::new().unwrap();
    fs::write(volume.path().join("f"), "in the volume").unwrap();
    let before = mounts_of_host();
    let attached = [attached(volume.path(), "/var/run/act", false)];
    let view = RootView::stopped(&layers.mounts(), false, &attached).unwrap();
    let file = view.resolve("/var/run/act/f").unwrap();
    assert_eq!(view.container_path(std::os::fd::AsFd::as_fd(&file)).unwrap(), "/run/act/f");
    assert_eq!(mounts_of_host(), before);
    drop((file, view));
    assert!(layers.path("upper/run/act").is_dir(), "the mount point is made where the link leads");
}

#[test]
fn links_do_not_leave_the_root() {
    let layers = Layers::new();
    symlink("/etc/hostname", layers.path("lower/absolute")).unwrap();
    symlink("../../../../../../etc/passwd", layers.path("lower/relative")).unwrap();
    symlink("/proc/self/root/etc", layers.path("lower/magic")).unwrap();
    let view = layers.view();
    assert!(view.resolve("/absolute").is_err(), "the host has this file, the container has not");
    let file = view.resolve("/relative").unwrap();
    let bytes = fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    assert_eq!(bytes, b"root:x:0:0::/root:/bin/sh\n");
    assert!(view.resolve("/magic/hostname").is_err());
    assert!(view.resolve("/../../../../etc/hostname").is_err());
}

#[test]
fn read_only_places_are_told_apart() {
    use std::os::fd::AsFd;
    let layers = Layers::new();
    let (read_only, writable) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let attached = [attached(read_only.path(), "/ro", true), attached(writable.path(), "/rw", false)];
    let view = RootView::stopped(&layers.mounts(), true, &attached).unwrap();
    let check = |path: &str| {
        view.check_writable(view.resolve(path).unwrap().as_fd()).map_err(|error| error.message().to_owned())
    };
    assert_eq!(check("/rw"), Ok(()));
    assert_eq!(check("/ro"), Err("mounted volume is marked read-only".to_owned()));
    assert_eq!(check("/etc"), Err("container rootfs is marked read-only".to_owned()));
}

#[test]
fn folders_are_made_through_links() {
    let layers = Layers::new();
    symlink("/made/by/link", layers.path("lower/dangling")).unwrap();
    let view = layers.view();
    view.ensure_dir("/var/run/a/b", Owner { uid: 5, gid: 6 }).unwrap();
    view.ensure_dir("/dangling/x", Owner::default()).unwrap();
    let made = fs::metadata(layers.path("upper/run/a/b")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (5, 6, 0o755));
    assert!(layers.path("upper/made/by/link/x").is_dir());
    let error = view.ensure_dir("/etc/passwd", Owner::default()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotADirectory);
}

#[test]
fn empty_volume_is_filled_with_owners_modes_and_links() {
    let layers = Layers::new();
    let data = layers.path("lower/data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "content").unwrap();
    fs::hard_link(data.join("file"), data.join("sub/hard")).unwrap();
    symlink("file", data.join("soft")).unwrap();
    fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    std::os::unix::fs::chown(&data, Some(7), Some(8)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();

    let volume = TempDir::new().unwrap();
    let folder = open_part(volume.path(), "").unwrap();
    copy_up(&layers.view(), "/data", folder.as_fd()).unwrap();
    let root = fs::metadata(volume.path()).unwrap();
    assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (7, 8, 0o711));
    let file = fs::metadata(volume.path().join("file")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.nlink()), (0o4750, 2));
    assert_eq!(file.mtime_nsec(), fs::metadata(data.join("file")).unwrap().mtime_nsec());
    assert_eq!(fs::read_link(volume.path().join("soft")).unwrap(), Path::new("file"));
    assert_eq!(fs::read(volume.path().join("sub/hard")).unwrap(), b"content");

    fs::write(data.join("file"), "changed").unwrap();
    copy_up(&layers.view(), "/data", folder.as_fd()).unwrap();
    assert_eq!(fs::read(volume.path().join("file")).unwrap(), b"content", "a volume with content is left alone");
    copy_up(&layers.view(), "/nowhere", folder.as_fd()).unwrap();
}

#[test]
fn users_are_found_in_layers_as_the_mount_shows_them() {
    let layers = Layers::new();
    let both = |layers: &Layers| {
        let found = user_files(&layers.mounts(), u64::MAX).unwrap();
        assert_eq!(found, layers.view().user_files(u64::MAX).unwrap());
        found
    };
    assert_eq!(both(&layers).passwd, b"root:x:0:0::/root:/bin/sh\n");
    assert_eq!(both(&layers).group, b"");

    fs::create_dir(layers.path("middle/etc")).unwrap();
    fs::write(layers.path("middle/etc/group"), "g:x:5:\n").unwrap();
    assert_eq!(both(&layers).group, b"g:x:5:\n");

    let view = layers.view();
    rustix::fs::unlinkat(view.resolve("/etc").unwrap(), "passwd", rustix::fs::AtFlags::empty()).unwrap();
    drop(view);
    assert_eq!(both(&layers).passwd, b"", "a whiteout hides the file below");

    fs::remove_file(layers.path("upper/etc/passwd")).unwrap();
    symlink("../users", layers.path("upper/etc/passwd")).unwrap();
    fs::write(layers.path("upper/users"), "linked\n").unwrap();
    assert_eq!(both(&layers).passwd, b"linked\n");
}

#[test]
fn view_of_a_running_process_is_its_root() {
    let view = RootView::running(std::process::id()).unwrap();
    let passwd = view.user_files(1 << 20).unwrap().passwd;
    assert_eq!(passwd, fs::read("/etc/passwd").unwrap());
    assert!(view.is_kernel_interface(std::os::fd::AsFd::as_fd(&view.resolve("/proc/1").unwrap())).unwrap());
    assert_eq!(RootView::running(u32::MAX).unwrap_err().kind(), ErrorKind::System);
}

#[test]
fn many_layers_are_mounted_though_their_names_are_long() {
    let layers = Layers::new();
    let mut mounts = layers.mounts();
    let long = format!("{}/{}", layers.dir.path().display(), "x".repeat(100));
    let folders: Vec<String> = (0..60).map(|number| format!("{long}/{number}")).collect();
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(format!("{long}/59/bottom"), "").unwrap();
    mounts[0].options[2] = format!("lowerdir={}", folders.join(":"));
    RootView::stopped(&mounts, false, &[]).unwrap().resolve("/bottom").unwrap();
}

#[test]
fn new_container_has_what_docker_puts_there() {
    let layers = Layers::new();
    prepare(&layers.mounts(), "/var/run/work/dir").unwrap();
    assert!(layers.path("upper/.dockerenv").is_file() && layers.path("upper/run/work/dir").is_dir());
    assert_eq!(fs::read_link(layers.path("upper/etc/mtab")).unwrap(), Path::new("/proc/mounts"));
    assert!(layers.path("upper/dev/shm").is_dir() && layers.path("upper/etc/hostname").is_file());
    prepare(&layers.mounts(), "").unwrap();
    let error = prepare(&layers.mounts(), "/etc/passwd").unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::InvalidParameter, "Cannot mkdir: /etc/passwd is not a directory")
    );
}
