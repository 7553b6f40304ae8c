//! Unpacking, compared with what dockerd 20.10 and 28 did with the same archives.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    path::Path,
};

use tar::{EntryType, Header};

use super::Layers;
use crate::rootfs::{Attached, ExtractOptions, Owner, RootView};

/// An entry with a name that the tar crate would refuse.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    name: &'a str,
    kind: EntryType,
    link: &'a str,
    mode: u32,
}

const FILE: Item<'_> = Item { name: "", kind: EntryType::Regular, link: "", mode: 0o640 };

impl<'a> Item<'a> {
    /// A file with other permissions.
    pub(super) fn with_mode(name: &'a str, mode: u32) -> Self {
        Self { name, mode, ..FILE }
    }
}

pub(super) fn file(name: &str) -> Item<'_> {
    Item { name, ..FILE }
}

pub(super) fn item<'a>(name: &'a str, kind: EntryType, link: &'a str) -> Item<'a> {
    Item { name, kind, link, mode: 0o755 }
}

pub(super) fn tar(items: &[Item<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for item in items {
        let content: &[u8] = if item.kind == EntryType::Regular { b"new\n" } else { b"" };
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..item.name.len()].copy_from_slice(item.name.as_bytes());
        header.as_old_mut().linkname[..item.link.len()].copy_from_slice(item.link.as_bytes());
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn put(view: &RootView, path: &str, items: &[Item<'_>]) -> Result<(), String> {
    view.extract(path, "c", &tar(items)[..], ExtractOptions::default()).map_err(|error| error.message().to_owned())
}

fn upper(layers: &Layers, path: &str) -> fs::Metadata {
    fs::symlink_metadata(layers.path(&format!("upper/{path}"))).unwrap()
}

#[test]
fn owner_mode_and_time_are_the_archives_and_missing_folders_are_roots() {
    let layers = Layers::new();
    put(&layers.view(), "/", &[file("x/y/f")]).unwrap();
    let file = upper(&layers, "x/y/f");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.mtime()), (7, 8, 0o640, 1_000_000_000));
    let folder = upper(&layers, "x/y");
    assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o7777), (0, 0, 0o755));
}

#[test]
fn owner_can_be_forced() {
    let layers = Layers::new();
    let options = ExtractOptions { owner: Some(Owner { uid: 5, gid: 6 }), ..ExtractOptions::default() };
    layers.view().extract("/", "c", &tar(&[file("f")])[..], options).unwrap();
    assert_eq!((upper(&layers, "f").uid(), upper(&layers, "f").gid()), (5, 6));
}

#[test]
fn names_do_not_leave_the_folder() {
    let layers = Layers::new();
    let view = layers.view();
    put(&view, "/", &[file("/abs/f"), file("a/../b")]).unwrap();
    assert!(upper(&layers, "abs/f").is_file() && upper(&layers, "b").is_file());
    assert_eq!(put(&view, "/run", &[file("../../esc")]), Err("invalid entry name \"../../esc\"".to_owned()));
    let hard = item("h", EntryType::Link, "../../etc/passwd");
    assert_eq!(put(&view, "/run", &[hard]), Err("invalid hardlink target \"../../etc/passwd\"".to_owned()));
}

#[test]
fn links_of_the_archive_are_followed_inside_the_container() {
    let layers = Layers::new();
    let view = layers.view();
    let link = |name, target| item(name, EntryType::Symlink, target);
    put(&view, "/", &[link("al", "/etc"), file("al/one"), link("rl", "../../../../etc"), file("rl/two")]).unwrap();
    put(&view, "/", &[item("d", EntryType::Directory, ""), file("d/x"), link("d", "/etc"), file("d/three")]).unwrap();
    for name in ["one", "two", "three"] {
        assert!(upper(&layers, &format!("etc/{name}")).is_file());
        assert!(!Path::new("/etc").join(name).exists());
    }
    assert_eq!(fs::read_link(layers.path("upper/rl")).unwrap(), Path::new("../../../../etc"));
}

/// The way of act, forgejo-runner and Gitea's runner: dockerd 28.5 fails here.
#[test]
fn absolute_link_of_the_image_is_followed() {
    let layers = Layers::new();
    let volume = tempfile::TempDir::new().unwrap();
    let attached = [Attached {
        source: volume.path().to_owned(),
        destination: "/var/run/act".to_owned(),
        read_only: false,
        recursive: true,
    }];
    let view = RootView::stopped(&layers.mounts(), false, &attached).unwrap();
    put(&view, "/", &[file("var/run/act/one")]).unwrap();
    put(&view, "/var/run/act/", &[file("workflow/two")]).unwrap();
    assert!(volume.path().join("one").is_file() && volume.path().join("workflow/two").is_file());
}

#[test]
fn every_kind_of_entry_is_made() {
    let layers = Layers::new();
    let view = layers.view();
    let items = [
        file("f"),
        item("hard", EntryType::Link, "f"),
        item("soft", EntryType::Symlink, "f"),
        item("dev", EntryType::Char, ""),
        item("fifo", EntryType::Fifo, ""),
        Item { name: "suid", mode: 0o4755, ..FILE },
        item("dir/", EntryType::Directory, ""),
        file("dir/late"),
    ];
    put(&view, "/", &items).unwrap();
    assert_eq!(upper(&layers, "hard").ino(), upper(&layers, "f").ino());
    assert!(upper(&layers, "soft").is_symlink() && upper(&layers, "fifo").file_type().is_fifo());
    assert_eq!(upper(&layers, "dev").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(upper(&layers, "suid").mode() & 0o7777, 0o4755);
    assert_eq!(upper(&layers, "dir").mtime(), 1_000_000_000, "what went in later does not count");
    assert_eq!(upper(&layers, "soft").uid(), 7);
}

#[test]
fn what_is_there_is_replaced_unless_kinds_must_stay() {
    let layers = Layers::new();
    fs::create_dir_all(layers.path("lower/data/sub/deep")).unwrap();
    fs::write(layers.path("lower/data/f"), "old").unwrap();
    symlink("f", layers.path("lower/data/sym")).unwrap();
    let view = layers.view();
    put(&view, "/", &[file("data/sym")]).unwrap();
    assert!(upper(&layers, "data/sym").is_file(), "a link is replaced, not followed");

    let keep = ExtractOptions { keep_kinds: true, ..ExtractOptions::default() };
    let folder = item("data/f", EntryType::Directory, "");
    let refused = |items: &[Item<'_>]| view.extract("/", "c", &tar(items)[..], keep).unwrap_err().message().to_owned();
    assert_eq!(refused(&[folder]), "cannot overwrite non-directory \"data/f\" with directory \"/\"");
    assert_eq!(refused(&[file("data/sub")]), "cannot overwrite directory \"data/sub\" with non-directory \"/\"");

    put(&view, "/", &[folder, file("data/sub")]).unwrap();
    assert!(upper(&layers, "data/f").is_dir() && upper(&layers, "data/sub").is_file());
}

#[test]
fn mounts_are_not_replaced() {
    let layers = Layers::new();
    let dir = tempfile::TempDir::new().unwrap();
    fs::write(dir.path().join("hosts"), "mounted").unwrap();
    let attached = |source: &Path, destination: &str| Attached {
        source: source.to_owned(),
        destination: destination.to_owned(),
        read_only: false,
        recursive: true,
    };
    let attached = [attached(&dir.path().join("hosts"), "/etc/hosts"), attached(dir.path(), "/run/volume")];
    let view = RootView::stopped(&layers.mounts(), false, &attached).unwrap();
    assert!(put(&view, "/", &[file("etc/hosts")]).unwrap_err().contains("busy"));
    assert!(put(&view, "/", &[file("run")]).unwrap_err().contains("busy"));
    assert_eq!(fs::read(dir.path().join("hosts")).unwrap(), b"mounted");
}

#[test]
fn places_that_cannot_be_written_are_told_in_dockerds_words() {
    let layers = Layers::new();
    let volume = tempfile::TempDir::new().unwrap();
    let attached = [Attached {
        source: volume.path().to_owned(),
        destination: "/ro".to_owned(),
        read_only: true,
        recursive: true,
    }];
    let view = RootView::stopped(&layers.mounts(), false, &attached).unwrap();
    for (path, text) in [
        ("/nope", "Could not find the file /nope in container c"),
        ("/etc/passwd", "extraction point is not a directory"),
        ("/etc/passwd/", "extraction point is not a directory"),
        ("/ro", "mounted volume is marked read-only"),
    ] {
        assert_eq!(put(&view, path, &[file("f")]), Err(text.to_owned()));
    }
}

#[test]
fn whole_file_modes_of_go_are_read() {
    let layers = Layers::new();
    let mut archive = tar(&[item("link", EntryType::Symlink, "t")]);
    // GNU's base-256, as Go's writer puts 01000000777.
    archive[100..108].copy_from_slice(&[0x80, 0, 0, 0, 0x08, 0, 0x01, 0xff]);
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    layers.view().extract("/", "c", &archive[..], ExtractOptions::default()).unwrap();
    assert!(upper(&layers, "link").is_symlink());
}

#[test]
fn pax_records_are_carried_out() {
    let layers = Layers::new();
    let mut archive = tar::Builder::new(Vec::new());
    let name = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: [(&str, &[u8]); 4] = [
        ("path", name.as_bytes()),
        ("uid", b"3000000"),
        ("mtime", b"12.5"),
        ("SCHILY.xattr.security.capability", &capability),
    ];
    archive.append_pax_extensions(records).unwrap();
    let mut bytes = archive.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(tar(&[file("short")]));
    layers.view().extract("/", "c", &bytes[..], ExtractOptions::default()).unwrap();
    let file = upper(&layers, &name);
    assert_eq!((file.uid(), file.mtime(), file.mtime_nsec()), (3_000_000, 12, 500_000_000));
    let mut value = [0; 64];
    let path = layers.path(&format!("upper/{name}"));
    assert_eq!(rustix::fs::lgetxattr(&path, "security.capability", &mut value[..]).unwrap(), capability.len());
}

#[test]
fn compressed_archives_are_unpacked() {
    let plain = tar(&[file("f")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for body in [gzip.finish().unwrap(), bzip2.finish().unwrap(), xz.finish().unwrap(), zstd] {
        let layers = Layers::new();
        layers.view().extract("/", "c", &body[..], ExtractOptions::default()).unwrap();
        assert!(upper(&layers, "f").is_file());
    }
}

#[test]
fn bad_archives_are_told_and_empty_ones_are_nothing() {
    let layers = Layers::new();
    let view = layers.view();
    let put = |body: &[u8]| {
        view.extract("/", "c", body, ExtractOptions::default()).map_err(|error| error.message().to_owned())
    };
    assert_eq!(put(b""), Ok(()));
    assert_eq!(put(&tar(&[])), Ok(()));
    assert_eq!(put(&b"not a tar".repeat(100)), Err("archive/tar: invalid tar header".to_owned()));
    let plain = tar(&[file("f")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    assert_eq!(put(&gzip[..gzip.len() - 20]), Err("unexpected EOF".to_owned()));
}

/// Whatever an archive says, nothing outside of the root is there afterwards.
#[test]
fn no_bytes_make_it_panic_or_leave_the_root() {
    let good = [
        tar(&[file("a"), item("d", EntryType::Directory, ""), item("d/l", EntryType::Symlink, "/etc"), file("d/l/b")]),
        tar(&[file("a"), item("h", EntryType::Link, "a"), item("p", EntryType::Fifo, ""), file("var/run/x")]),
        tar(&[
            item("../out", EntryType::Symlink, "../.."),
            file("../out/x"),
            item("l", EntryType::Link, "../../lower/etc/passwd"),
        ]),
    ];
    let layers = Layers::new();
    fs::write(layers.path("beside"), "").unwrap();
    let before = names(layers.dir.path());
    let good: Vec<&[u8]> = good.iter().map(Vec::as_slice).collect();
    let mut view = layers.view();
    let mut round = 0;
    crate::model::fuzz::each(&good, |input| {
        drop(view.extract("/", "c", input, ExtractOptions::default()));
        round += 1;
        // What is there already changes what comes: now and then anew.
        if round % 100 == 0 {
            assert_eq!(names(layers.dir.path()), before);
            assert_eq!(fs::read_to_string(layers.path("lower/etc/passwd")).unwrap(), "root:x:0:0::/root:/bin/sh\n");
            view = layers.view();
        }
    });
    assert_eq!(names(layers.dir.path()), before);
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
