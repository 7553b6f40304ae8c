//! An image's layers into a folder of this machine: what they take away, and what a hostile one tries.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use tar::EntryType;

use super::extract::{Item, file, item, tar};
use crate::{model::reference::Digest, rootfs::RootView};

const PLENTY: u64 = 1 << 20;

/// A folder of its own with a neighbour that nothing may touch.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("files")).unwrap();
        fs::create_dir(place.path("outside")).unwrap();
        fs::write(place.path("outside/kept"), "mine").unwrap();
        place
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn view(&self) -> RootView {
        RootView::of_empty_folder(&self.path("files")).unwrap()
    }

    fn is_there(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path("files").join(path)).is_ok()
    }
}

fn stored(bytes: &[u8]) -> File {
    let mut stored = tempfile::tempfile().unwrap();
    stored.write_all(bytes).unwrap();
    stored
}

fn put(view: &RootView, items: &[Item<'_>], left: u64) -> Result<u64, String> {
    let layer = tar(items);
    view.unpack_layer(&stored(&layer), &Digest::of(&layer), left).map_err(|error| error.message().to_owned())
}

#[test]
fn a_layer_takes_away_from_those_below_it_and_not_from_itself() {
    let (place, folder) = (Place::new(), |name| item(name, EntryType::Directory, ""));
    let view = place.view();
    put(&view, &[folder("a"), file("a/x"), file("a/y"), file("b/z"), file("c/k")], PLENTY).unwrap();
    // Marks may follow what they do not mean.
    let second = [file("a/.wh.x"), file("b/new"), file("b/.wh..wh..opq"), file(".wh.c"), file("a/.wh.none")];
    put(
        &view,
        &[&second[..], &[file("none/.wh.k"), file(".wh..wh.plnk"), file("c/own"), file(".wh.c")]].concat(),
        PLENTY,
    )
    .unwrap();
    let expected = [("a/x", false), ("a/y", true), ("b/z", false), ("b/new", true), ("c/k", false), ("c/own", true)];
    for (path, is_there) in expected {
        assert_eq!(place.is_there(path), is_there, "{path}");
    }
    for mark in ["a/.wh.x", "b/.wh..wh..opq", ".wh.c", ".wh..wh.plnk", "none"] {
        assert!(!place.is_there(mark), "{mark}");
    }
}

#[test]
fn a_hostile_layer_stays_within_its_folder() {
    let outside = |place: &Place| place.path("outside").to_string_lossy().into_owned();
    let link = EntryType::Symlink;
    let refused: [(&str, &[Item<'_>]); 7] = [
        ("invalid entry name", &[file("../outside/evil")]),
        ("invalid entry name", &[file("a/../../outside/evil")]),
        ("invalid entry name", &[file(".wh...")]),
        ("invalid entry name", &[file("a"), file("d/.wh..")]),
        ("invalid hardlink target", &[item("hard", EntryType::Link, "../outside/kept")]),
        ("a device does not belong", &[item("null", EntryType::Char, "")]),
        ("a device does not belong", &[item("disk", EntryType::Block, "")]),
    ];
    for (words, items) in refused {
        let place = Place::new();
        let error = put(&place.view(), items, PLENTY).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let place = Place::new();
    let (target, view) = (outside(&place), place.view());
    // Links lead to where they lead within the folder.
    put(&view, &[item("out", link, &target), item("up", link, "../../.."), file("out/evil"), file("up/top")], PLENTY)
        .unwrap();
    assert!(place.is_there("top") && place.is_there(&format!("{}/evil", target.trim_start_matches('/'))));
    put(&view, &[file("out/.wh.kept"), file("up/.wh.top"), file("up/outside/.wh..wh..opq")], PLENTY).unwrap();
    assert!(!place.is_there("top"));
    // One to a file is replaced, not written through.
    put(&view, &[item("file", link, &format!("{target}/kept")), file("file")], PLENTY).unwrap();
    assert_eq!(fs::read_to_string(place.path("outside/kept")).unwrap(), "mine");
    assert_eq!(fs::read_dir(place.path("outside")).unwrap().count(), 1);
    view.clear().unwrap();
    assert_eq!(fs::read_dir(place.path("files")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(place.path("outside/kept")).unwrap(), "mine");
}

#[test]
fn files_are_the_callers_without_set_id_bits_and_sizes_have_an_end() {
    let place = Place::new();
    let view = place.view();
    let left = put(&view, &[Item::with_mode("bin/su", 0o6755)], PLENTY).unwrap();
    assert!(left < PLENTY);
    let made = fs::metadata(place.path("files/bin/su")).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o7777), (rustix::process::geteuid().as_raw(), 0o755));
    let error = put(&view, &[file("a"), file("b")], 5000).unwrap_err();
    assert!(error.contains("larger than is allowed"), "{error}");
    assert!(!place.is_there("a"), "nothing is written of a layer that is too large");
    let zeros = zstd::encode_all(std::io::repeat(0).take(64 << 20), 1).unwrap();
    let error = view.unpack_layer(&stored(&zeros), &Digest::of(b"other"), PLENTY).unwrap_err();
    assert!(error.message().contains("something else"), "{error}");
    assert!(RootView::of_empty_folder(Path::new("/etc")).unwrap_err().message().contains("is not empty"));
}
