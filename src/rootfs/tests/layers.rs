//! Random trees and random edits, several layers deep: what is packed, unpacked elsewhere, is what the container saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use tempfile::TempDir;

use super::{super::Changes, *};
use crate::model::container::ChangeKind;

/// Trees that one run makes; `RINGER_TEST_RUSH` is a factor.
const TREES: u64 = 10;
/// Layers on each tree.
const LAYERS: usize = 4;
/// Edits that make a layer.
const EDITS: usize = 14;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// One of few paths, so that edits meet each other.
    fn path(&mut self) -> PathBuf {
        let depth = 1 + self.below(3);
        (0..depth).map(|_| ["a", "b", "c", ".hidden"][usize::try_from(self.below(4)).unwrap()]).collect()
    }
}

/// What describes an entry, and which names are the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds; layers keep seconds.
    mtime: (i64, i64),
    content: Vec<u8>,
    capability: Option<Vec<u8>>,
    same_as: Option<PathBuf>,
}

fn seen(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    look(root, Path::new(""), &mut found, &mut BTreeMap::new());
    found
}

/// As a layer keeps it.
fn in_seconds(mut seen: BTreeMap<PathBuf, Seen>) -> BTreeMap<PathBuf, Seen> {
    seen.values_mut().for_each(|seen| seen.mtime.1 = 0);
    seen
}

/// As a layer ties names to one file: those that it holds, apart from those that it does not hold. Where folders are renamed
/// without a copy, a name can have come into the layer while another of the same file stays in the one below; everywhere
/// else overlayfs makes two files of them.
fn tied_within(mut seen: BTreeMap<PathBuf, Seen>, layer: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Seen> {
    let mut firsts = BTreeMap::new();
    for (path, seen) in &mut seen {
        let Some(first) = &mut seen.same_as else { continue };
        *first = firsts.entry((first.clone(), layer.contains(path))).or_insert_with(|| path.clone()).clone();
    }
    seen
}

/// The names of a layer's entries.
fn names_in(layer: &[u8]) -> BTreeSet<PathBuf> {
    let mut archive = tar::Archive::new(layer);
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().components().collect()).collect()
}

fn look(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, Seen>, firsts: &mut BTreeMap<u64, PathBuf>) {
    let mut names: Vec<_> = fs::read_dir(root.join(at)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let (path, whole) = (at.join(&name), root.join(at).join(&name));
        let metadata = fs::symlink_metadata(&whole).unwrap();
        let (kind, content) = match metadata.file_type() {
            kind if kind.is_dir() => ('d', Vec::new()),
            kind if kind.is_symlink() => ('l', fs::read_link(&whole).unwrap().as_os_str().as_encoded_bytes().to_vec()),
            kind if kind.is_fifo() => ('p', Vec::new()),
            _ => ('f', fs::read(&whole).unwrap()),
        };
        let mut value = [0; 64];
        let capability = rustix::fs::lgetxattr(&whole, "security.capability", &mut value[..]);
        let same_as = (kind == 'f').then(|| firsts.entry(metadata.ino()).or_insert_with(|| path.clone()).clone());
        let seen = Seen {
            kind,
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            capability: capability.ok().map(|length| value[..length].to_vec()),
            same_as,
        };
        found.insert(path.clone(), seen);
        if kind == 'd' {
            look(root, &path, found, firsts);
        }
    }
}

/// Does something at random. Much of it cannot be done where it falls; that is no matter.
fn edit(root: &Path, dice: &mut Dice) {
    let (path, other) = (root.join(dice.path()), root.join(dice.path()));
    let _impossible: io::Result<()> = match dice.below(14) {
        0 | 1 => fs::create_dir_all(&path),
        2 | 3 => put(&path, &vec![b'x'; usize::try_from(dice.below(100)).unwrap()]),
        4 => remove(&path),
        // A folder made anew, with names that it had: overlayfs marks it, and nothing that is in it.
        5 | 6 => remove(&path)
            .and_then(|()| fs::create_dir_all(path.join("a/b")))
            .and_then(|()| put(&path.join("c"), b"new")),
        7 => remove(&path).and_then(|()| symlink("../a", &path)),
        8 => remove(&path).and_then(|()| put(&path, b"in place")),
        9 => fs::hard_link(&path, &other),
        10 => fs::rename(&path, &other),
        11 if !path.is_symlink() => fs::set_permissions(
            &path,
            fs::Permissions::from_mode([0o600, 0o4711, 0o755][usize::try_from(dice.below(3)).unwrap()]),
        ),
        11 | 12 => lchown(&path, Some(u32::try_from(dice.below(3)).unwrap()), Some(7)),
        _ => match dice.below(3) {
            0 => touch(&path, i64::try_from(dice.below(1_000_000)).unwrap()),
            1 => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).map_err(io::Error::from),
            _ if path.is_file() && !path.is_symlink() => set_capability(&path),
            _ => Ok(()),
        },
    };
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|there| there.file_type().is_symlink() || there.file_type().is_fifo()) {
        return Ok(());
    }
    fs::write(path, content)
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn touch(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// `cap_net_raw+ep`.
fn set_capability(path: &Path) -> io::Result<()> {
    let value = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Ok(rustix::fs::lsetxattr(path, "security.capability", &value, XattrFlags::empty())?)
}

/// How a layer's marks are carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// On the files themselves.
    Plain,
    /// As a folder for overlayfs.
    Overlay,
}

/// Unpacks a layer as the specification of images has it.
fn unpack(layer: &[u8], root: &Path, form: Form) {
    let mut archive = tar::Archive::new(layer);
    let mut folders = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        // Without the slash behind a folder's name, by which a link would be followed.
        let path: PathBuf = root.join(entry.path().unwrap()).components().collect();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some(gone) = name.strip_prefix(".wh.") {
            let gone = path.with_file_name(gone);
            remove(&gone).unwrap();
            if form == Form::Overlay {
                rustix::fs::mknodat(CWD, &gone, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
            }
            continue;
        }
        let header = entry.header().clone();
        let is_folder = header.entry_type().is_dir();
        if !(is_folder && path.symlink_metadata().is_ok_and(|there| there.is_dir())) {
            remove(&path).unwrap();
        }
        match header.entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(&path).unwrap(),
            tar::EntryType::Link => {
                fs::hard_link(root.join(entry.link_name().unwrap().unwrap()), &path).unwrap();
                continue;
            }
            tar::EntryType::Symlink => symlink(entry.link_name().unwrap().unwrap(), &path).unwrap(),
            tar::EntryType::Fifo => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            _ => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                fs::write(&path, content).unwrap();
            }
        }
        let number = |id: io::Result<u64>| Some(u32::try_from(id.unwrap()).unwrap());
        lchown(&path, number(header.uid()), number(header.gid())).unwrap();
        if header.entry_type() != tar::EntryType::Symlink {
            fs::set_permissions(&path, fs::Permissions::from_mode(header.mode().unwrap())).unwrap();
        }
        for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
            let extension = extension.unwrap();
            if let Some(attribute) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                rustix::fs::lsetxattr(&path, attribute, extension.value_bytes(), XattrFlags::empty()).unwrap();
            }
        }
        let mtime = i64::try_from(header.mtime().unwrap()).unwrap();
        match is_folder {
            true => folders.push((path, mtime)),
            false => touch(&path, mtime).unwrap(),
        }
    }
    for (path, mtime) in folders {
        touch(&path, mtime).unwrap();
    }
}

fn packed(changes: &Changes) -> Vec<u8> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    let mut bytes = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            changes.layer(&sender);
            drop(sender);
        });
        while let Some(chunk) = receiver.blocking_recv() {
            bytes.extend(chunk.unwrap());
        }
    });
    bytes
}

/// What dockerd's diff would list: times of folders do not count.
fn expected_list(base: &BTreeMap<PathBuf, Seen>, own: &BTreeMap<PathBuf, Seen>) -> BTreeMap<String, ChangeKind> {
    let mut list = BTreeMap::new();
    let shown = |path: &Path| format!("/{}", path.display());
    let parent_stays = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => own.get(parent).is_some_and(|seen| seen.kind == 'd'),
        _ => true,
    };
    let is_same = |base: &Seen, own: &Seen| {
        (base.mode, base.owner, &base.capability) == (own.mode, own.owner, &own.capability)
            && (own.kind == 'd' || (base.mtime, base.content.len()) == (own.mtime, own.content.len()))
    };
    for path in base.keys().filter(|path| !own.contains_key(*path) && parent_stays(path)) {
        list.insert(shown(path), ChangeKind::Deleted);
    }
    for (path, seen) in own {
        match base.get(path) {
            None => drop(list.insert(shown(path), ChangeKind::Added)),
            Some(before) if !is_same(before, seen) => drop(list.insert(shown(path), ChangeKind::Modified)),
            Some(_) => {}
        }
    }
    for path in list.keys().map(PathBuf::from).collect::<Vec<_>>() {
        for above in path.ancestors().skip(1).filter(|above| *above != Path::new("/")) {
            list.entry(above.display().to_string()).or_insert(ChangeKind::Modified);
        }
    }
    list
}

/// A tree of layers for overlayfs, beside the same files unpacked one layer upon the other.
struct World {
    folder: TempDir,
    layers: Vec<PathBuf>,
    options: &'static [&'static str],
}

impl World {
    fn new(options: &'static [&'static str]) -> Self {
        let folder = TempDir::new().unwrap();
        let empty = folder.path().join("empty");
        let plain = folder.path().join("plain");
        fs::create_dir(&empty).unwrap();
        fs::create_dir(plain).unwrap();
        Self { folder, layers: vec![empty], options }
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{name}{}", self.layers.len()));
        fs::create_dir(&path).unwrap();
        path
    }

    /// Edits in a mount, packs, unpacks both ways, compares.
    fn grow(&mut self, dice: &mut Dice) -> Result<(), String> {
        let names: Vec<String> = self.layers.iter().rev().map(|layer| layer.display().to_string()).collect();
        let lower = format!("lowerdir={}", names.join(":"));
        let mount = |options: Vec<String>| {
            vec![RootfsMount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options }]
        };
        let mut options = vec![lower.clone()];
        options.push(format!("upperdir={}", self.make("upper").display()));
        options.push(format!("workdir={}", self.make("work").display()));
        options.extend(self.options.iter().map(|option| (*option).to_owned()));
        let own = mount(options);
        let base = match self.layers.as_slice() {
            [only] => super::changes::bind(only),
            _ => mount(vec![lower]),
        };
        let plain = self.folder.path().join("plain");
        let before = seen(&plain);

        let view = RootView::stopped(&own, false, &[]).unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view.root())));
        for _ in 0..EDITS {
            edit(&root, dice);
        }
        let saw = seen(&root);
        drop(view);

        let changes = Changes::open(&base, &own).unwrap();
        let listed = changes.list().unwrap().into_iter().map(|change| (change.path, change.kind)).collect();
        same(&expected_list(&before, &saw), &listed, "the list")?;
        let layer = packed(&changes);
        unpack(&layer, &plain, Form::Plain);
        same(&in_seconds(tied_within(saw, &names_in(&layer))), &in_seconds(seen(&plain)), "the files")?;
        let unpacked = self.make("layer");
        unpack(&layer, &unpacked, Form::Overlay);
        self.layers.push(unpacked);
        Ok(())
    }
}

/// A short account of what differs.
fn same<K, V>(wanted: &BTreeMap<K, V>, got: &BTreeMap<K, V>, what: &str) -> Result<(), String>
where
    K: Ord + std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
{
    let keys: BTreeSet<&K> = wanted.keys().chain(got.keys()).collect();
    let differing = keys.into_iter().filter(|key| wanted.get(key) != got.get(key));
    let lines: Vec<String> =
        differing.map(|key| format!("{key:?}: wanted {:?}, got {:?}", wanted.get(key), got.get(key))).collect();
    if lines.is_empty() { Ok(()) } else { Err(format!("{what}:\n{}", lines.join("\n"))) }
}

fn seed() -> u64 {
    let given = std::env::var("RINGER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        now.as_secs().wrapping_mul(1_000_003) ^ u64::from(now.subsec_nanos())
    })
}

fn trees(options: &'static [&'static str]) {
    let factor = std::env::var("RINGER_TEST_RUSH").ok().and_then(|rush| rush.parse().ok()).unwrap_or(1);
    let first = seed();
    for seed in (0..TREES * factor).map(|number| first.wrapping_add(number)) {
        let (mut dice, mut world) = (Dice(seed), World::new(options));
        for layer in 1..=LAYERS {
            if let Err(difference) = world.grow(&mut dice) {
                panic!("RINGER_TEST_SEED={seed}, layer {layer}: {difference}");
            }
        }
    }
}

#[test]
fn layers_of_random_edits_hold_what_the_container_saw() {
    trees(&[]);
}

/// As with kernels that are built so.
#[test]
fn renamed_folders_and_files_without_content_are_packed_whole() {
    trees(&["redirect_dir=on", "metacopy=on"]);
}
