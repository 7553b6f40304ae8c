//! A job that puts links to the host, FIFOs and devices under names, over and over, while they are worked on: what is
//! outside its root stays as it was, and nothing blocks. For longer: `RINGER_TEST_RUSH` seconds each.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, makedev};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::{
    backend::runtime::RootfsMount,
    rootfs::{
        Changes, ExtractOptions, Owner, Placing, RootView, copy_up, folder_size, open_part, remove_folder,
        tree::{names, remove_all},
        view::path_of,
    },
};

/// Rounds of each race; a slow machine does as many as it can in the time.
const ROUNDS: u32 = 10_000;
const TIME: Duration = Duration::from_secs(4);

/// A folder of the host that a job must not reach, and the job's root beside it.
struct World {
    dir: TempDir,
    before: Vec<Told>,
}

/// What is told of a file outside: everything that anything could change.
type Told = (PathBuf, u32, u32, u64, i64, i64, Vec<u8>);

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for folder in ["outside/sub", "root", "kept"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["outside/f", "outside/secret", "outside/sub/f"] {
            fs::write(dir.path().join(file), "SECRET").unwrap();
        }
        let mut world = Self { dir, before: Vec::new() };
        world.before = world.told();
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn view(&self) -> RootView {
        RootView::of_folder(&self.path("root"))
    }

    fn told(&self) -> Vec<Told> {
        let outside = self.path("outside");
        let files = ["", "f", "secret", "sub", "sub/f"].map(|name| outside.join(name));
        let told = files.map(|path| {
            let stat = fs::symlink_metadata(&path).unwrap();
            let what = if stat.is_file() { fs::read(&path).unwrap() } else { names_in(&path).into_bytes() };
            // The change time tells of attributes and further names too.
            (path, stat.mode(), stat.uid(), stat.nlink(), stat.mtime(), stat.ctime_nsec(), what)
        });
        told.to_vec()
    }

    fn swap(&self, below: &str, names: &'static [&'static str], others: &'static [Other]) -> Swapper {
        Swapper::start(self.path(below), self.path("kept"), self.path("outside"), names, others)
    }

    /// Does something until the rounds or the time are over.
    fn race(&self, mut round: impl FnMut()) {
        let rush = std::env::var("RINGER_TEST_RUSH").ok().and_then(|text| text.parse().ok());
        let deadline = Instant::now() + rush.map_or(TIME, Duration::from_secs);
        for _ in 0..rush.map_or(ROUNDS, |_| u32::MAX) {
            if Instant::now() > deadline {
                break;
            }
            round();
        }
        assert_eq!(self.told(), self.before, "the host was reached");
    }
}

fn names_in(folder: &Path) -> String {
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    format!("{:?}", names(folder.as_fd()).unwrap())
}

/// What is put under a name.
#[derive(Clone, Copy)]
enum Other {
    /// A link to the folder outside.
    LinkToFolder,
    /// A link to a file in it.
    LinkToFile,
    Fifo,
    /// One without a driver: to open it is an error.
    Device,
}

/// Exchanges names with other things until it is dropped.
struct Swapper {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Swapper {
    fn start(
        folder: PathBuf,
        kept: PathBuf,
        outside: PathBuf,
        names: &'static [&'static str],
        others: &'static [Other],
    ) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (folder, kept_fd) = (open(&folder), open(&kept));
        let work = move || {
            let mut exchanged = 0;
            while !ended.load(Ordering::Relaxed) {
                for name in names {
                    for other in others {
                        make(&kept_fd, &outside, *other);
                        exchanged += exchange(&kept_fd, &folder, name);
                        exchanged += exchange(&kept_fd, &folder, name);
                    }
                }
            }
            exchanged
        };
        Self { end, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let exchanged = self.thread.take().expect("dropped once").join();
        assert!(exchanged.is_ok_and(|times| times > 0) || std::thread::panicking(), "nothing was exchanged");
    }
}

fn make(kept: &OwnedFd, outside: &Path, other: Other) {
    let _ = remove_all(kept.as_fd(), c"other");
    let mode = Mode::RUSR;
    // The daemon's side may be filling what was exchanged, which then stays for this time.
    let _made = match other {
        Other::LinkToFolder => rustix::fs::symlinkat(outside, kept, "other"),
        Other::LinkToFile => rustix::fs::symlinkat(outside.join("secret"), kept, "other"),
        Other::Fifo => rustix::fs::mknodat(kept, "other", FileType::Fifo, mode, 0),
        Other::Device => rustix::fs::mknodat(kept, "other", FileType::CharacterDevice, mode, makedev(499, 77)),
    };
}

fn exchange(kept: &OwnedFd, folder: &OwnedFd, name: &str) -> u64 {
    rustix::fs::renameat_with(kept, "other", folder, name, RenameFlags::EXCHANGE).is_ok().into()
}

fn entry(name: &str, kind: tar::EntryType, link: &str) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4777);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1_000_000_000);
    header.set_size(0);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_cksum();
    header
}

/// With an attribute each.
fn archive(entries: &[tar::Header]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for header in entries {
        archive.append_pax_extensions([("SCHILY.xattr.trusted.test", &b"1"[..])]).unwrap();
        archive.append(header, &b""[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

const LINKS: &[Other] = &[Other::LinkToFile, Other::LinkToFolder];
const ALL: &[Other] = &[Other::LinkToFile, Other::LinkToFolder, Other::Fifo, Other::Device];

#[test]
fn put_changes_nothing_outside() {
    use tar::EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};
    let world = World::new();
    let _swapper = world.swap("root", &["d", "p", "h", "c", "s"], LINKS);
    let entries = [
        entry("d/", Directory, ""),
        entry("d/f", Regular, ""),
        entry("p", Fifo, ""),
        entry("c", Char, ""),
        entry("s", Symlink, "d"),
        entry("h", Link, "d/f"),
    ];
    let (whole, folders) = (archive(&entries), archive(&vec![entries[0].clone(); 5]));
    let view = world.view();
    let mut even = false;
    world.race(|| {
        even = !even;
        // What the job does to itself may be an error.
        let _ = view.extract("/", "c", if even { &whole[..] } else { &folders[..] }, ExtractOptions::default());
    });
}

#[test]
fn folders_on_the_way_are_made_inside() {
    let world = World::new();
    let _swapper = world.swap("root", &["w"], LINKS);
    let view = world.view();
    world.race(|| {
        let _ = view.ensure_dir("/w/x/y", Owner { uid: 7, gid: 8 });
        let _ = view.ensure_dir("/w", Owner { uid: 7, gid: 8 });
        let _ = remove_all(view.root(), c"w");
    });
}

#[test]
fn copies_of_a_build_stay_inside() {
    let (world, context) = (World::new(), TempDir::new().unwrap());
    fs::create_dir_all(context.path().join("t/d")).unwrap();
    fs::write(context.path().join("t/d/f"), "copied").unwrap();
    let source = RootView::of_folder(context.path());
    fs::create_dir(world.path("root/d")).unwrap();
    let _swapper = world.swap("root", &["d", "f"], LINKS);
    let view = world.view();
    let placing = Placing { owner: Some(Owner { uid: 7, gid: 8 }), mode: Some(0o4777) };
    world.race(|| {
        let _ = view.copy_from(&source, "/t/d/f", "/d/secret", placing);
        let _ = view.copy_from(&source, "/t/d/f", "/f", placing);
        let _ = view.copy_from(&source, "/t", "/", placing);
    });
}

#[test]
fn volume_is_filled_inside() {
    let (world, image) = (World::new(), TempDir::new().unwrap());
    for folder in ["data/a", "data/d"] {
        fs::create_dir_all(image.path().join(folder)).unwrap();
    }
    fs::write(image.path().join("data/a/f"), "image").unwrap();
    fs::hard_link(image.path().join("data/a/f"), image.path().join("data/z")).unwrap();
    let view = RootView::of_folder(image.path());
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(CWD, image.path().join("data/p"), FileType::Fifo, mode, 0).unwrap();
    let volume = open_part(&world.path("root"), "").unwrap();
    let _swapper = world.swap("root", &["d", "a", "p"], LINKS);
    world.race(|| {
        let _ = copy_up(&view, "/data", volume.as_fd());
        for name in names(volume.as_fd()).unwrap() {
            let _ = remove_all(volume.as_fd(), &name);
        }
    });
}

/// A tree with everything that is exchanged in the reading races.
fn tree(world: &World) {
    for folder in ["root/etc", "root/d/sub"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    for file in ["root/f", "root/d/g", "root/d/sub/f", "root/etc/passwd"] {
        fs::write(world.path(file), "own").unwrap();
    }
}

fn read(write: impl FnOnce(&mpsc::Sender<crate::model::Result<bytes::Bytes>>) + Send) -> Result<Vec<u8>, String> {
    let (sender, mut receiver) = mpsc::channel(64);
    write(&sender);
    drop(sender);
    let mut bytes = Vec::new();
    while let Some(piece) = receiver.blocking_recv() {
        bytes.extend(piece.map_err(|error| error.message().to_owned())?);
    }
    Ok(bytes)
}

fn shows_outside(bytes: &[u8]) -> bool {
    bytes.windows(6).any(|window| window == b"SECRET")
}

#[test]
fn get_and_export_read_nothing_else_and_come_to_their_end() {
    let world = World::new();
    tree(&world);
    let _swapper = world.swap("root", &["f", "d"], ALL);
    let view = world.view();
    world.race(|| {
        let target = view.find("/.", "c").unwrap();
        let archive = read(|sender| view.archive(&target, sender)).unwrap();
        assert!(!shows_outside(&archive) && archive.len() % 512 == 0);
        if let Ok(target) = view.find("/f", "c") {
            assert!(!shows_outside(&read(|sender| view.archive(&target, sender)).unwrap()));
        }
        assert!(!shows_outside(&read(|sender| view.export(sender)).unwrap()));
    });
}

#[test]
fn commit_reads_nothing_else() {
    let world = World::new();
    tree(&world);
    let bind = |path: PathBuf| {
        let options = vec!["rbind".to_owned()];
        vec![RootfsMount { kind: "bind".to_owned(), source: path.to_string_lossy().into_owned(), options }]
    };
    let base = TempDir::new().unwrap();
    let changes = Changes::open(&bind(base.path().to_owned()), &bind(world.path("root"))).unwrap();
    let _swapper = world.swap("root", &["f", "d"], ALL);
    world.race(|| {
        let layer = read(|sender| changes.layer(sender));
        assert!(!layer.is_ok_and(|layer| shows_outside(&layer)));
        let _ = changes.list();
    });
}

#[test]
fn users_are_read_from_files_alone() {
    let world = World::new();
    tree(&world);
    let _swapper = world.swap("root/etc", &["passwd"], ALL);
    let view = world.view();
    world.race(|| {
        if let Ok(files) = view.user_files(1 << 20) {
            assert!(files.passwd.is_empty() || files.passwd == b"own");
        }
    });
}

#[test]
fn sizes_hashes_parts_and_removals_stay_inside() {
    let world = World::new();
    tree(&world);
    let root = fs::canonicalize(world.path("root")).unwrap();
    fs::write(world.path("outside/large"), [0; 100_000]).unwrap();
    let world = World { before: world.told(), ..world };
    let _swapper = world.swap("root", &["f", "d"], ALL);
    let view = world.view();
    world.race(|| {
        assert!(folder_size(&root).unwrap() < 10_000);
        if let Ok(part) = open_part(&root, "d/sub") {
            assert!(!path_of(part.as_fd()).unwrap().starts_with(world.path("outside")));
        }
        let _ = view.content_hash("/");
        fs::create_dir_all(root.join("x/y")).unwrap();
        let _ = symlink(world.path("outside"), root.join("x/link"));
        let _ = remove_folder(&root.join("x"));
        let _ = remove_folder(&root.join("d"));
        let _ = fs::create_dir_all(root.join("d/sub"));
    });
}
