//! Trees that are deeper than a path can be long, and chains of links: depth that a job or a client chooses costs neither stack nor
//! descriptors.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::symlink,
    },
};

use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use crate::rootfs::{
    ExtractOptions, Owner, Placing, RootView, copy_up, folder_size, open_part, remove_folder, resolve::beneath,
};

/// Where recursion would show: far less than the threads of the daemon have.
fn with_little_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}

fn is_deep(folder: &TempDir, depth: usize) -> bool {
    let mut here = open_part(folder.path(), "").unwrap();
    for _ in 0..depth {
        match beneath(here.as_fd(), c"d", OFlags::PATH | OFlags::DIRECTORY) {
            Ok(next) => here = next,
            Err(_) => return false,
        }
    }
    beneath(here.as_fd(), c"f", OFlags::PATH).is_ok()
}

/// `d/d/…/f`.
fn make_deep(folder: &TempDir, depth: usize) {
    let mut here: OwnedFd = open_part(folder.path(), "").unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = beneath(here.as_fd(), c"d", OFlags::PATH | OFlags::DIRECTORY).unwrap();
    }
    rustix::fs::openat(&here, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
}

#[test]
fn deep_trees_are_copied_hashed_measured_and_removed() {
    with_little_stack(|| {
        let depth = 3000;
        let (from, image, volume) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
        make_deep(&from, depth);
        let (source, target) = (RootView::of_folder(from.path()), RootView::of_folder(image.path()));
        // Packed and unpacked.
        target.copy_from(&source, "/", "/", Placing::default()).unwrap();
        assert!(is_deep(&image, depth));
        let folder = open_part(volume.path(), "").unwrap();
        copy_up(&target, "/", folder.as_fd()).unwrap();
        assert!(is_deep(&volume, depth));
        assert_eq!(source.content_hash("/").unwrap(), RootView::of_folder(image.path()).content_hash("/").unwrap());
        assert_eq!(folder_size(volume.path()).unwrap(), 0);
        for folder in [from, image, volume] {
            remove_folder(&folder.path().join("d")).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    });
}

/// Removing recursively overflows the stack of any thread on it, which ends the daemon.
#[test]
fn folder_of_any_depth_is_removed() {
    let folder = TempDir::new().unwrap();
    make_deep(&folder, 8_000);
    with_little_stack(|| remove_folder(&folder.path().join("d")).unwrap());
    remove_folder(&folder.path().join("d")).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn folders_behind_chains_of_links_are_made() {
    let folder = TempDir::new().unwrap();
    let far = "x/".repeat(100);
    for link in 0..30 {
        symlink(format!("/l{}/{far}", link + 1), folder.path().join(format!("l{link}"))).unwrap();
    }
    with_little_stack(|| {
        let view = RootView::of_folder(folder.path());
        view.ensure_dir("/l0", Owner::default()).unwrap();
        symlink("loop", folder.path().join("loop")).unwrap();
        let error = view.ensure_dir("/loop/x", Owner::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
    });
    remove_folder(&folder.path().join("l30")).unwrap();
}

/// An entry may replace what led to it.
#[test]
fn what_was_replaced_is_not_written_through() {
    let folder = TempDir::new().unwrap();
    let entry = |name: &str, kind: tar::EntryType, link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_path(name).unwrap();
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        header
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, link) in [
        ("k/up", Symlink, "/"),
        ("k/up/k/first", Regular, ""),
        // The folder that the walk came through.
        ("k/up/k", Symlink, "/other"),
        ("k/up/k/second", Regular, ""),
        ("other", Regular, ""),
        ("e/e/e", Directory, ""),
        ("e/e", Regular, ""),
        ("e/f/g", Regular, ""),
    ] {
        archive.append(&entry(name, kind, link), &b""[..]).unwrap();
    }
    let view = RootView::of_folder(folder.path());
    let unpacked = view.extract("/", "c", &archive.into_inner().unwrap()[..], ExtractOptions::default());
    // `k` is a link now, and `k/up` no longer there: it is made where the link leads.
    unpacked.unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(path("k").is_symlink() && path("other").is_file() && path("e/e").is_file() && path("e/f/g").is_file());
}
