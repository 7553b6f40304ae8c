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

use super::changes::bind;
use crate::rootfs::{
    Changes, ExtractOptions, Owner, Placing, RootView, copy_up, folder_size, open_part, remove_folder, resolve::beneath,
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

/// Packs a tree's changes and unpacks them: how many folders lie in each other, and how many entries there are.
fn packed(changes: &Changes) -> (usize, usize) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1 << 16);
    changes.layer(&sender);
    drop(sender);
    let mut bytes = Vec::new();
    while let Some(chunk) = receiver.blocking_recv() {
        bytes.extend(chunk.unwrap());
    }
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned());
    let depths: Vec<usize> =
        names.map(|name| name.split(|byte| *byte == b'/').filter(|part| *part == b"d").count()).collect();
    (depths.iter().copied().max().unwrap_or_default(), depths.len())
}

/// A walk that recursed gave up at a depth of 400; each folder on the way to a change costs a header, no descriptor.
#[test]
fn changes_are_found_however_deep() {
    let depth = 1500;
    let (image, own, bare) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    for folder in [&image, &own] {
        make_deep(folder, depth);
    }
    let mut last: OwnedFd = open_part(own.path(), "").unwrap();
    for _ in 0..depth {
        last = beneath(last.as_fd(), c"d", OFlags::PATH | OFlags::DIRECTORY).unwrap();
    }
    rustix::fs::openat(&last, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    with_little_stack(|| {
        let made = Changes::open(&bind(bare.path()), &bind(own.path())).unwrap();
        assert_eq!(made.list().unwrap().len(), depth + 2, "all is new");
        assert_eq!(packed(&made), (depth, depth + 2));
        let changed = Changes::open(&bind(image.path()), &bind(own.path())).unwrap().list().unwrap();
        let last = changed.last().map(|change| change.path.as_str());
        assert!(last.is_some_and(|path| path.ends_with("/d/new")), "{last:?}");
        let gone = Changes::open(&bind(own.path()), &bind(bare.path())).unwrap();
        assert_eq!((gone.list().unwrap().len(), packed(&gone)), (1, (0, 1)), "one mark");
    });
    for folder in [image, own] {
        remove_folder(&folder.path().join("d")).unwrap();
    }
}

#[test]
fn what_no_path_leads_to_is_in_no_layer() {
    let (own, bare) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    make_deep(&own, 5000);
    with_little_stack(|| {
        let made = Changes::open(&bind(bare.path()), &bind(own.path())).unwrap();
        let (deepest, entries) = packed(&made);
        assert_eq!((deepest, made.list().unwrap().len()), (entries, entries));
        assert!((1500..2048).contains(&deepest), "{deepest}");
    });
    remove_folder(&own.path().join("d")).unwrap();
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
