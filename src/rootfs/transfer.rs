//! Copying between roots, and what the copied is known by: `COPY` and `ADD` of a build.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use bytes::{Buf, Bytes};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{
    decompress::decompress,
    extract::ExtractOptions,
    path::{clean_absolute, split_last},
    resolve::{Owner, is_dir},
    tree,
    view::{RootView, reopen},
    walk::Walk,
};
use crate::{
    model::{Error, Result, error::Context},
    work,
};

/// Pieces between the reading and the writing side.
const PIECES: usize = 4;

/// What becomes of owner and mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placing {
    /// Everything belongs to this user; `None` leaves it with its own.
    pub owner: Option<Owner>,
    /// Everything has this mode.
    pub mode: Option<u32>,
}

/// What a path is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentHash {
    /// One file.
    File(String),
    /// All in a folder.
    Folder(String),
}

impl RootView {
    /// A folder of the host as a root: a build's context.
    pub fn folder(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(CWD, path, flags, Mode::empty()).context(format!("opening {}", path.display()))?;
        Self::outside(root)
    }

    /// Opens a file inside, links followed there.
    pub fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        Ok(File::from(super::resolve::open_in_root(self.root(), clean_absolute(path).as_str(), flags)?))
    }

    /// What is at `path`, without its times. A link at its end is followed.
    pub fn content_hash(&self, path: &str) -> io::Result<ContentHash> {
        let cleaned = clean_absolute(path);
        let file = self.resolve(&cleaned)?;
        let stat = rustix::fs::fstat(&file)?;
        if tree::file_type(stat.st_mode) != FileType::Directory {
            return Ok(ContentHash::File(hash_entry(&cleaned, &stat, b"", file.as_fd())?));
        }
        let mut hashes = hash_folder(file.as_fd(), &cleaned)?;
        hashes.sort_unstable();
        Ok(ContentHash::Folder(hex(&Sha256::digest(hashes.join(",")))))
    }

    /// Paths that `pattern` matches whole, as Go's walk has them; `depth` is how many parts a match has.
    pub fn matching(&self, depth: usize, is_match: &dyn Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut matches = Vec::new();
        let mut walk = Walk::new(self.root(), b"")?;
        while let Some(found) = walk.next()? {
            if walk.depth() + 1 < depth {
                if tree::file_type(found.stat.st_mode) == FileType::Directory {
                    walk.enter(found)?;
                }
                continue;
            }
            let path = String::from_utf8_lossy(walk.path());
            if is_match(&path) {
                matches.push(path.into_owned());
            }
        }
        Ok(matches)
    }

    /// The first bytes of a file say whether `ADD` unpacks it: a tar, perhaps compressed.
    pub fn is_archive(&self, path: &str) -> io::Result<bool> {
        let file = self.resolve(path)?;
        if tree::file_type(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let file = File::from(reopen(file.as_fd(), OFlags::RDONLY)?);
        let Ok(body) = decompress(file) else { return Ok(false) };
        let mut tar = super::entries::Tar::new(body);
        let first = tar.entries().map(|mut entries| entries.next().is_some_and(|entry| entry.is_ok()));
        Ok(first.unwrap_or(false))
    }

    /// Unpacks the archive that `source` has at `from` into the folder `to`, with its own owners.
    pub fn unpack_from(&self, source: &Self, from: &str, to: &str) -> Result<()> {
        let file = source.resolve(from).context(format!("opening {from}"))?;
        let file = File::from(reopen(file.as_fd(), OFlags::RDONLY).context(format!("opening {from}"))?);
        self.ensure_dir(to, Owner::default()).context(format!("making {to}"))?;
        self.extract(to, "", file, ExtractOptions::default())
    }

    /// Copies what `source` has at `from`: a folder's contents into the folder `to`, a file to `to`, or into it if it
    /// is a folder or ends with a slash.
    pub fn copy_from(&self, source: &Self, from: &str, to: &str, placing: Placing) -> Result<()> {
        let opened = source.resolve(from).context(format!("opening {from}"))?;
        match is_dir(opened.as_fd()).context(format!("looking at {from}"))? {
            true => self.copy_folder(source, from, to, placing),
            false => self.copy_file(opened.as_fd(), from, to, placing),
        }
    }

    fn copy_folder(&self, source: &Self, from: &str, to: &str, placing: Placing) -> Result<()> {
        self.ensure_dir(to, placing.owner.unwrap_or_default()).context(format!("making {to}"))?;
        let target = source.find(&format!("{}/.", from.trim_end_matches('/')), "")?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let options = ExtractOptions { owner: placing.owner, mode: placing.mode, ..ExtractOptions::default() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Moved in, so that the other side sees the end.
                let sender = sender;
                source.archive(&target, &sender);
            });
            self.extract(to, "", Pieces { pieces, rest: Bytes::new() }, options)
        })
    }

    fn copy_file(&self, file: BorrowedFd<'_>, from: &str, to: &str, placing: Placing) -> Result<()> {
        let stat = rustix::fs::fstat(file).context(format!("looking at {from}"))?;
        if tree::file_type(stat.st_mode) != FileType::RegularFile {
            return Err(Error::system(format!("{from} is neither a file nor a folder")));
        }
        let path = match self.is_folder(to) {
            true => {
                let named = clean_absolute(from);
                format!("{}/{}", to.trim_end_matches('/'), split_last(&named).map_or("", |(_, name)| name))
            }
            false => to.to_owned(),
        };
        let owner = placing.owner.unwrap_or(Owner { uid: stat.st_uid, gid: stat.st_gid });
        // Through links, also to what is not there yet.
        let place = self.ensure_place(&path, placing.owner.unwrap_or_default());
        let (folder, name) = place.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => Error::system(format!("too many links in {path}")).with_source(error),
            _ => Error::system(format!("making the folder of {path}: {error}")).with_source(error),
        })?;
        match tree::remove_all(folder.as_fd(), &name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(format!("replacing {path}"));
            }
            _ => {}
        }
        let content = File::from(reopen(file, OFlags::RDONLY).context(format!("opening {from}"))?);
        super::extract::put_file(content, folder.as_fd(), &name, &stat, owner, placing.mode)
            .context(format!("writing {path}"))
    }

    /// Whether a file that is copied to `path` goes into it.
    fn is_folder(&self, path: &str) -> bool {
        path.ends_with('/') || self.resolve(path).and_then(|there| is_dir(there.as_fd())).unwrap_or(false)
    }
}

fn hash_folder(folder: BorrowedFd<'_>, path: &str) -> io::Result<Vec<String>> {
    let mut hashes = Vec::new();
    let mut walk = Walk::new(folder, format!("{}/", path.trim_end_matches('/')).as_bytes())?;
    while let Some(found) = walk.next()? {
        let path = String::from_utf8_lossy(walk.path());
        let kind = tree::file_type(found.stat.st_mode);
        let link = if kind == FileType::Symlink { found.link()? } else { CString::default() };
        hashes.push(hash_entry(&path, &found.stat, link.to_bytes(), found.file.as_fd())?);
        if kind == FileType::Directory {
            walk.enter(found)?;
        }
    }
    Ok(hashes)
}

/// Name, kind, mode, owner, link and content; times do not count, since a checkout makes them anew.
fn hash_entry(path: &str, stat: &Stat, link: &[u8], file: BorrowedFd<'_>) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{path}\0{:o}\0{}\0{}\0{}\0", stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev));
    hash.update(link);
    if tree::file_type(stat.st_mode) == FileType::RegularFile {
        let mut content = File::from(reopen(file, OFlags::RDONLY)?);
        let mut capability = [0; 64];
        if let Ok(length) = rustix::fs::fgetxattr(&content, c"security.capability", &mut capability[..]) {
            hash.update(&capability[..length]);
        }
        work::copy(&mut content, &mut hash)?;
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An archive that another thread writes.
struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes>>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(into.len());
        self.rest.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn folders() -> (tempfile::TempDir, tempfile::TempDir, RootView, RootView) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(from.path().join("d/sub")).unwrap();
        std::fs::write(from.path().join("a"), "one").unwrap();
        std::fs::write(from.path().join("d/sub/b"), "two").unwrap();
        std::os::unix::fs::symlink("a", from.path().join("link")).unwrap();
        let views = (RootView::folder(from.path()).unwrap(), RootView::folder(to.path()).unwrap());
        (from, to, views.0, views.1)
    }

    #[test]
    fn file_goes_to_a_name_or_into_a_folder() {
        let (_from, to, source, view) = folders();
        let placing = Placing { mode: Some(0o711), ..Placing::default() };
        view.copy_from(&source, "a", "/new/x", placing).unwrap();
        view.copy_from(&source, "link", "/new/", Placing::default()).unwrap();
        view.copy_from(&source, "a", "/new", Placing::default()).unwrap();
        let read = |path: &str| std::fs::read_to_string(to.path().join(path)).unwrap();
        assert_eq!((read("new/x"), read("new/link"), read("new/a")), ("one".into(), "one".into(), "one".into()));
        let metadata = to.path().join("new/x").metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o711);
        assert!(metadata.is_file() && metadata.nlink() == 1);
    }

    #[test]
    fn links_at_the_end_stay_and_what_they_name_is_made() {
        let (_from, to, source, view) = folders();
        let path = |name: &str| to.path().join(name);
        let links = [("one", "two"), ("two", "/deep/er/three"), ("out", "../../../out-made"), ("circle", "circle")];
        for (link, target) in links {
            std::os::unix::fs::symlink(target, path(link)).unwrap();
        }
        view.copy_from(&source, "a", "/one", Placing::default()).unwrap();
        view.copy_from(&source, "a", "/out", Placing::default()).unwrap();
        for (link, made) in [("one", "deep/er/three"), ("out", "out-made")] {
            assert!(path(link).is_symlink() && path(made).symlink_metadata().unwrap().is_file());
        }
        assert!(path("two").is_symlink());
        let error = view.copy_from(&source, "a", "/circle", Placing::default()).unwrap_err();
        assert_eq!(error.message(), "too many links in /circle");
    }

    #[test]
    fn contents_of_a_folder_are_merged() {
        let (_from, to, source, view) = folders();
        std::fs::create_dir_all(to.path().join("t/sub")).unwrap();
        std::fs::write(to.path().join("t/sub/kept"), "").unwrap();
        view.copy_from(&source, "d", "/t", Placing::default()).unwrap();
        assert!(to.path().join("t/sub/kept").exists() && to.path().join("t/sub/b").exists());
    }

    #[test]
    fn hash_tells_content_and_mode_but_not_time() {
        let (from, _to, source, _view) = folders();
        let before = source.content_hash("/d").unwrap();
        let file = from.path().join("d/sub/b");
        std::fs::write(&file, "two").unwrap();
        assert_eq!(source.content_hash("d").unwrap(), before);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(source.content_hash("d").unwrap(), before);
        assert!(matches!(source.content_hash("link").unwrap(), ContentHash::File(_)));
    }

    #[test]
    fn matches_are_found_at_their_depth() {
        let (_from, _to, source, _view) = folders();
        let any = |_: &str| true;
        assert_eq!(source.matching(1, &any).unwrap(), ["a", "d", "link"]);
        assert_eq!(source.matching(3, &any).unwrap(), ["d/sub/b"]);
    }
}
