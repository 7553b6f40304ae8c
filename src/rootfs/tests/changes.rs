//! What a container changed, of whole trees and of overlayfs's upper folder.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{super::Changes, *};
use crate::{
    backend::runtime::RootfsMount,
    model::container::ChangeKind::{self, Added, Deleted, Modified},
};

pub fn bind(folder: &Path) -> Vec<RootfsMount> {
    let source = folder.display().to_string();
    vec![RootfsMount { kind: "bind".to_owned(), source, options: vec!["rbind".to_owned(), "rw".to_owned()] }]
}

fn listed(changes: &Changes) -> Vec<(String, ChangeKind)> {
    changes.list().unwrap().into_iter().map(|change| (change.path, change.kind)).collect()
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn trees_are_compared_and_stubs_are_no_changes() {
    let (base, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [base.path(), own.path()] {
        write(folder, "d/same", "s");
        write(folder, "etc/passwd", "p");
        let time = std::time::SystemTime::UNIX_EPOCH;
        for name in ["d/same", "etc/passwd", "d", "etc"] {
            fs::File::open(folder.join(name)).unwrap().set_modified(time).unwrap();
        }
    }
    write(base.path(), "d/gone", "g");
    write(own.path(), "d/new", "n");
    write(own.path(), "etc/hosts", "");
    write(own.path(), ".dockerenv", "");
    fs::create_dir_all(own.path().join("dev/pts")).unwrap();
    fs::create_dir(own.path().join("proc")).unwrap();
    symlink("/proc/mounts", own.path().join("etc/mtab")).unwrap();
    let changes = Changes::open(&bind(base.path()), &bind(own.path())).unwrap();
    let of = |path: &str, kind| (path.to_owned(), kind);
    assert_eq!(listed(&changes), [of("/d", Modified), of("/d/gone", Deleted), of("/d/new", Added)]);

    // What the container does with a stub counts.
    write(own.path(), "etc/hosts", "127.0.0.1 localhost");
    write(own.path(), "dev/pts/x", "x");
    let changes = Changes::open(&bind(base.path()), &bind(own.path())).unwrap();
    let listed = listed(&changes);
    assert_eq!(
        listed[3..],
        [
            of("/dev", Added),
            of("/dev/pts", Added),
            of("/dev/pts/x", Added),
            of("/etc", Modified),
            of("/etc/hosts", Added)
        ]
    );
}

/// Layers whose container removed, replaced, changed and made things.
fn changed() -> Layers {
    let layers = Layers::new();
    for name in ["lower/data/sub/deep", "lower/data/f", "lower/data/mode", "lower/was-folder/x", "middle/gone"] {
        write(layers.dir.path(), name, "base");
    }
    let view = layers.view();
    let root = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view.root()));
    let root = Path::new(&root);
    fs::remove_file(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("data/sub")).unwrap();
    fs::create_dir(root.join("data/sub")).unwrap();
    write(root, "data/sub/new", "new");
    fs::set_permissions(root.join("data/mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir_all(root.join("was-folder")).unwrap();
    write(root, "was-folder", "file now");
    write(root, "made/and-gone", "");
    fs::remove_file(root.join("made/and-gone")).unwrap();
    fs::hard_link(root.join("was-folder"), root.join("zlink")).unwrap();
    drop(view);
    layers
}

fn changes(layers: &Layers) -> Changes {
    let own = layers.mounts();
    let mut base = own.clone();
    base[0].options.retain(|option| option.starts_with("lowerdir="));
    Changes::open(&base, &own).unwrap()
}

#[test]
fn upper_folder_tells_what_a_container_changed() {
    let layers = changed();
    let of = |path: &str, kind| (path.to_owned(), kind);
    assert_eq!(
        listed(&changes(&layers)),
        [
            of("/data", Modified),
            of("/data/mode", Modified),
            of("/data/sub", Modified),
            of("/data/sub/deep", Deleted),
            of("/data/sub/new", Added),
            of("/gone", Deleted),
            of("/made", Added),
            of("/was-folder", Modified),
            of("/zlink", Added),
        ]
    );
    assert!(listed(&changes(&Layers::new())).is_empty());
}

/// Names in a layer's tar.
fn packed(changes: &Changes) -> Vec<String> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    changes.layer(&sender);
    drop(sender);
    let mut bytes = Vec::new();
    while let Some(chunk) = receiver.blocking_recv() {
        bytes.extend(chunk.unwrap());
    }
    let mut archive = tar::Archive::new(bytes.as_slice());
    let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| entry.unwrap().path().unwrap().display().to_string();
    archive.entries().unwrap().map(name).collect()
}

/// What a container does in its root.
fn edited(layers: &Layers, edit: impl FnOnce(&Path)) -> Changes {
    let view = layers.view();
    edit(Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view.root()))));
    drop(view);
    changes(layers)
}

#[test]
fn what_was_in_a_folder_that_was_made_anew_is_gone_at_any_depth() {
    let layers = Layers::new();
    for name in ["d/old", "d/sub/old", "d/sub/deep/old"] {
        write(&layers.path("lower"), name, "old");
    }
    let changes = edited(&layers, |root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir_all(root.join("d/sub")).unwrap();
        write(root, "d/new", "new");
    });
    let of = |path: &str, kind| (path.to_owned(), kind);
    let gone = [of("/d/sub/deep", Deleted), of("/d/sub/old", Deleted)];
    assert_eq!(listed(&changes)[..3], [of("/d", Modified), of("/d/new", Added), of("/d/old", Deleted)]);
    assert_eq!(listed(&changes)[3..], [&[of("/d/sub", Modified)][..], &gone].concat());
    assert_eq!(packed(&changes), ["d/", "d/new", "d/.wh.old", "d/sub/", "d/sub/.wh.deep", "d/sub/.wh.old"]);
}

#[test]
fn names_that_no_layer_can_hold_take_nothing_away() {
    let layers = Layers::new();
    let changes = edited(&layers, |root| {
        write(root, ".wh.etc", "");
        write(root, ".wh.folder/inner", "");
        write(root, "fine", "");
    });
    assert_eq!(packed(&changes), ["fine"]);
    assert_eq!(listed(&changes).len(), 4, "they are changes nevertheless");
}

#[test]
fn socket_in_place_of_a_file_is_the_end_of_the_file() {
    let layers = Layers::new();
    write(&layers.path("lower"), "run/was", "file");
    let changes = edited(&layers, |root| {
        fs::remove_file(root.join("run/was")).unwrap();
        for name in ["run/was", "run/new"] {
            drop(std::os::unix::net::UnixListener::bind(root.join(name)).unwrap());
        }
    });
    assert_eq!(packed(&changes), ["run/", "run/.wh.was"]);
}

#[test]
fn container_cannot_call_its_folders_opaque_itself() {
    let layers = Layers::new();
    write(&layers.path("lower"), "d/old", "old");
    let changes = edited(&layers, |root| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(root.join("d"), "user.overlay.opaque", b"y", flags).unwrap();
        write(root, "d/new", "new");
    });
    assert_eq!(packed(&changes), ["d/", "d/new"]);
}

#[test]
fn times_of_folders_and_copies_that_changed_nothing_are_packed_and_not_listed() {
    let layers = Layers::new();
    write(&layers.path("lower"), "d/f", "f");
    let changes = edited(&layers, |root| {
        let mode = fs::metadata(root.join("d/f")).unwrap().permissions();
        fs::set_permissions(root.join("d/f"), mode).unwrap();
        fs::File::open(root.join("d")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    });
    assert_eq!((listed(&changes), packed(&changes)), (Vec::new(), vec!["d/".to_owned(), "d/f".to_owned()]));
}

#[test]
fn layer_holds_marks_for_what_is_gone_and_links_once() {
    let layers = changed();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    changes(&layers).layer(&sender);
    drop(sender);
    let mut bytes = Vec::new();
    while let Some(chunk) = receiver.blocking_recv() {
        bytes.extend(chunk.unwrap());
    }
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entry = |entry: tar::Entry<'_, &[u8]>| {
        let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display())).unwrap_or_default();
        format!("{}{link}", entry.path().unwrap().display())
    };
    let entries: Vec<String> = archive.entries().unwrap().map(|found| entry(found.unwrap())).collect();
    assert_eq!(
        entries,
        [
            "data/",
            "data/mode",
            "data/sub/",
            "data/sub/.wh.deep",
            "data/sub/new",
            ".wh.gone",
            "made/",
            "was-folder",
            "zlink -> was-folder"
        ]
    );
}

#[test]
fn export_holds_the_layers_alone() {
    let layers = changed();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    RootView::layers(&layers.mounts()).unwrap().export(&sender);
    drop(sender);
    let mut bytes = Vec::new();
    while let Some(chunk) = receiver.blocking_recv() {
        bytes.extend(chunk.unwrap());
    }
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    let names: Vec<String> = names.collect();
    assert_eq!(names[..4], ["data/", "data/f", "data/mode", "data/sub/"]);
    assert!(!names.contains(&"gone".to_owned()));
}
