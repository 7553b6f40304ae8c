//! Names, kinds and the header's data as dockerd 20.10 and 28 answered them.

use std::{
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::symlink},
};

use tokio::sync::mpsc;

use super::Layers;
use crate::{
    model::ErrorKind,
    rootfs::{PathStat, RootView},
};

fn layers() -> Layers {
    let layers = Layers::new();
    fs::create_dir_all(layers.path("lower/data/sub")).unwrap();
    fs::write(layers.path("lower/data/f"), "hi\n").unwrap();
    fs::hard_link(layers.path("lower/data/f"), layers.path("lower/data/hard")).unwrap();
    symlink("f", layers.path("lower/data/sym")).unwrap();
    layers
}

fn bytes(view: &RootView, path: &str) -> Vec<u8> {
    let target = view.find(path, "c").unwrap();
    let (sender, mut receiver) = mpsc::channel(4);
    std::thread::scope(|scope| {
        scope.spawn(move || view.archive(&target, &sender));
        let mut bytes = Vec::new();
        while let Some(chunk) = receiver.blocking_recv() {
            bytes.extend(chunk.unwrap());
        }
        bytes
    })
}

/// `name[ -> link]` of each entry.
fn list(view: &RootView, path: &str) -> Vec<String> {
    let bytes = bytes(view, path);
    let mut archive = tar::Archive::new(&bytes[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        match entry.link_name().unwrap() {
            Some(link) => format!("{name} -> {}", String::from_utf8_lossy(link.as_os_str().as_bytes())),
            None => name,
        }
    });
    entries.collect()
}

fn stat(view: &RootView, path: &str) -> PathStat {
    view.find(path, "c").unwrap().path_stat
}

#[test]
fn entries_are_named_by_dockers_rules() {
    let layers = layers();
    let view = layers.view();
    let below = |root: &str| -> Vec<String> {
        let below = [
            format!("{root}/f"),
            format!("{root}/hard -> {root}/f"),
            format!("{root}/sub/"),
            format!("{root}/sym -> f"),
        ];
        [vec![format!("{root}/")], below.to_vec()].concat()
    };
    assert_eq!(list(&view, "/data"), below("data"));
    assert_eq!(list(&view, "data/"), below("data"));
    assert_eq!(list(&view, "/data/sub/.."), below("data"));
    assert_eq!(list(&view, "/data/."), below("."));
    assert_eq!(list(&view, "/data/f"), ["f"]);
    assert_eq!(list(&view, "/data/hard"), ["hard"]);
    assert_eq!(list(&view, "/data/sym"), ["sym -> f"]);
    assert_eq!(list(&view, "/var/run"), ["run -> /run"]);
    assert_eq!(list(&view, "/var/run/"), ["run/"]);
    assert_eq!(list(&view, "/var/run/."), ["./"]);
    assert_eq!(list(&view, "/")[..2], ["/", "/data/"]);
    assert_eq!(list(&view, "/.")[..2], ["./", "./data/"]);
    assert_eq!(list(&view, "/../../etc/passwd"), ["passwd"]);
}

#[test]
fn path_stat_is_as_go_writes_it() {
    let layers = layers();
    symlink("../nowhere", layers.path("lower/data/dangling")).unwrap();
    let view = layers.view();
    let file = stat(&view, "/data/f");
    assert_eq!((file.name.as_str(), file.size, file.mode, file.link_target.as_str()), ("f", 3, 0o644, ""));
    let folder = stat(&view, "/data/.");
    assert_eq!((folder.name.as_str(), folder.mode), (".", 2_147_484_141));
    let link = stat(&view, "/data/sym");
    assert_eq!((link.size, link.mode, link.link_target.as_str()), (1, 134_218_239, "/data/f"));
    assert_eq!(stat(&view, "/var/run").link_target, "/run");
    assert_eq!(stat(&view, "/data/dangling").link_target, "/nowhere");
    assert_eq!(stat(&view, "/").name, "/");
    let json = serde_json::to_value(&file).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["name", "size", "mode", "mtime", "linkTarget"]);
}

#[test]
fn what_is_not_there_is_told_in_dockerds_words() {
    let layers = layers();
    let view = layers.view();
    let error = |path: &str| {
        let error = view.find(path, "c1").unwrap_err();
        (error.kind(), error.message().to_owned())
    };
    let missing = |path: &str| (ErrorKind::NotFound, format!("Could not find the file {path} in container c1"));
    for path in ["/nope", "nope", "/data/nope/x"] {
        assert_eq!(error(path), missing(path));
    }
    for path in ["/data/f/", "/data/f/.", "/data/sym/", "/data/f/x"] {
        assert_eq!(error(path), (ErrorKind::System, format!("lstat {path}: not a directory")));
    }
}

#[test]
fn content_of_every_size_comes_back() {
    let layers = Layers::new();
    fs::create_dir(layers.path("lower/d")).unwrap();
    let sizes = [0, 1, 511, 512, 513, 262_144, 262_145, 1_000_000];
    let content = |size: usize| -> Vec<u8> { (0..size).map(|at| (at % 251) as u8).collect() };
    for size in sizes {
        fs::write(layers.path(&format!("lower/d/{size:07}")), content(size)).unwrap();
    }
    fs::write(layers.path(&format!("lower/d/{}", "n".repeat(250))), "long name").unwrap();
    let bytes = bytes(&layers.view(), "/d/.");
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut read = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        read.push((entry.path().unwrap().to_string_lossy().into_owned(), content));
    }
    assert_eq!(read.len(), 1 + sizes.len() + 1);
    for (size, (name, read)) in sizes.iter().zip(&read[1..]) {
        assert_eq!((name.clone(), read), (format!("./{size:07}"), &content(*size)));
    }
    assert_eq!(read.last().unwrap().1, b"long name");
    assert_eq!(bytes.len() % 512, 0);
}

#[test]
fn receiver_that_goes_away_ends_the_work() {
    let layers = Layers::new();
    fs::write(layers.path("lower/big"), vec![0; 4 << 20]).unwrap();
    let view = layers.view();
    let target = view.find("/big", "c").unwrap();
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    view.archive(&target, &sender);
}
