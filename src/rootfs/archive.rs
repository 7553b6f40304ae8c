//! Reading: a path of a container as a tar, named as Docker names it, and what Docker tells of the path beside it.

use std::{
    collections::HashMap,
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{
    fs::{FileType, OFlags, Stat, major, minor},
    io::Errno,
};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    header::{BLOCK, Header, kind_of},
    path::{clean_absolute, split_last},
    resolve::{open_entry, open_in_root},
    tree,
    view::{RootView, reopen},
    walk::Walk,
};
use crate::{
    model::{Error, Result, error::Context, time::Timestamp},
    work,
};

/// An answer's pieces; a few wait for a slow client, so memory stays bounded.
const CHUNK: usize = 256 * 1024;

/// What the header `X-Docker-Container-Path-Stat` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathStat {
    /// Last part of the path, `.` where the client wrote it.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Bits of Go's `os.FileMode`.
    pub mode: u32,
    /// Last change.
    pub mtime: Timestamp,
    /// Where a link leads in the container, fully resolved; empty for others.
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// A path that was found: a descriptor, and how its entries are named.
#[derive(Debug)]
pub struct Target {
    file: OwnedFd,
    stat: Stat,
    /// What Docker tells of it.
    pub path_stat: PathStat,
}

impl RootView {
    /// Finds what `GET` and `HEAD` ask for. A link at the end is itself the result, unless `/` or `/.` follows.
    /// `container` is how the client named the container, for the error texts.
    pub fn find(&self, path: &str, container: &str) -> Result<Target> {
        let cleaned = clean_absolute(path);
        let has_dot = path.rsplit('/').next() == Some(".");
        let opened = if has_dot || path.ends_with('/') {
            open_in_root(self.root(), cleaned.as_str(), OFlags::PATH | OFlags::DIRECTORY)
        } else {
            self.resolve_no_follow(&cleaned)
        };
        let file = opened.map_err(|error| not_found(error, path, container))?;
        let is_hidden =
            || Ok::<_, io::Error>(self.is_kernel_interface(file.as_fd())? && !self.is_mount_point(file.as_fd())?);
        if is_hidden().context("looking at the file system")? {
            return Err(Error::no_such_path(path, container));
        }
        let name = match split_last(&cleaned) {
            _ if has_dot => ".",
            Some((_, last)) => last,
            None => "/",
        };
        let looking = || format!("looking at {path}");
        let stat = rustix::fs::fstat(&file).context(looking())?;
        let link_target = match tree::file_type(stat.st_mode) {
            FileType::Symlink => self.link_target(&cleaned, file.as_fd()).context(looking())?,
            _ => String::new(),
        };
        let path_stat = PathStat {
            name: name.to_owned(),
            size: stat.st_size,
            mode: go_mode(stat.st_mode),
            mtime: Timestamp::from_unix(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            link_target,
        };
        Ok(Target { file, stat, path_stat })
    }

    fn link_target(&self, path: &str, link: BorrowedFd<'_>) -> io::Result<String> {
        if let Ok(end) = self.resolve(path) {
            return self.container_path(end.as_fd());
        }
        // It leads nowhere: what it says, from where it is.
        let text = rustix::fs::readlinkat(link, c"", Vec::new())?;
        let text = text.to_string_lossy();
        let folder = split_last(path).map_or("/", |(folder, _)| folder);
        let folder = self.container_path(self.resolve(folder)?.as_fd())?;
        Ok(if text.starts_with('/') { clean_absolute(&text) } else { clean_absolute(&format!("{folder}/{text}")) })
    }

    /// Writes all files as a tar, named from the root on.
    pub fn export(&self, sender: &mpsc::Sender<Result<Bytes>>) {
        let mut writer = ArchiveWriter { view: self, sink: Sink::new(sender), links: HashMap::new() };
        let written = (|| {
            writer.contents(self.root(), b"")?;
            writer.sink.finish()
        })();
        tell(written, sender);
    }

    /// Writes a found path as a tar, with all that is below it. Ends early when the receiver is gone.
    pub fn archive(&self, target: &Target, sender: &mpsc::Sender<Result<Bytes>>) {
        let mut writer = ArchiveWriter { view: self, sink: Sink::new(sender), links: HashMap::new() };
        let written = writer.target(target).and_then(|()| writer.sink.finish());
        tell(written, sender);
    }
}

/// Tells the receiver of a failure. One that hung up needs no telling.
pub fn tell(written: io::Result<()>, sender: &mpsc::Sender<Result<Bytes>>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            let _ = work::send(sender, Err(error).context("reading the container's files"));
        }
    }
}

/// dockerd's words for a path that cannot be opened.
pub fn not_found(error: io::Error, path: &str, container: &str) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::no_such_path(path, container),
        io::ErrorKind::NotADirectory => Error::system(format!("lstat {path}: not a directory")),
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            Error::system(format!("lstat {path}: too many levels of symbolic links"))
        }
        _ => Error::system(format!("lstat {path}: {error}")).with_source(error),
    }
}

/// Permissions and kind as Go's `os.FileMode` has them.
fn go_mode(mode: u32) -> u32 {
    let kind = match tree::file_type(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special: u32 = special.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go).sum();
    kind | special | mode & 0o777
}

/// Collects output into large pieces.
pub struct Sink<'a> {
    sender: &'a mpsc::Sender<Result<Bytes>>,
    buffer: Box<[u8]>,
    used: usize,
}

impl<'a> Sink<'a> {
    pub fn new(sender: &'a mpsc::Sender<Result<Bytes>>) -> Self {
        Self { sender, buffer: vec![0; CHUNK].into_boxed_slice(), used: 0 }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.used += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Exactly `size` bytes of a file; zeros for what it has lost meanwhile. Then up to the next block.
    fn copy(&mut self, mut file: &File, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let room = self.room()?;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            let count = match file.read(&mut room[..wanted])? {
                0 => {
                    room[..wanted].fill(0);
                    wanted
                }
                count => count,
            };
            self.used += count;
            left -= count as u64;
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.write(&[0; BLOCK][..usize::try_from(padding).expect("less than a block")])
    }

    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.used == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.used..])
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = Bytes::copy_from_slice(&self.buffer[..self.used]);
        self.used = 0;
        work::send(self.sender, Ok(chunk))
    }

    pub fn finish(&mut self) -> io::Result<()> {
        self.write(&[0; 2 * BLOCK])?;
        self.flush()
    }
}

/// Writes files into a tar.
pub struct ArchiveWriter<'a> {
    pub view: &'a RootView,
    pub sink: Sink<'a>,
    /// Where the first of several names of a file is in the archive.
    pub links: HashMap<(u64, u64), Vec<u8>>,
}

impl ArchiveWriter<'_> {
    fn target(&mut self, target: &Target) -> io::Result<()> {
        let name = target.path_stat.name.as_bytes();
        let file = target.file.as_fd();
        if tree::file_type(target.stat.st_mode) != FileType::Directory {
            return self.file(name.to_vec(), file, &target.stat);
        }
        let name = if name == b"/" { b"/".to_vec() } else { [name, b"/"].concat() };
        self.header(&name, &target.stat, b"", None)?;
        if self.view.is_kernel_interface(file)? {
            return Ok(());
        }
        self.contents(file, &name)
    }

    fn contents(&mut self, folder: BorrowedFd<'_>, prefix: &[u8]) -> io::Result<()> {
        let mut walk = Walk::new(folder, prefix)?;
        while let Some(found) = walk.next()? {
            work::check()?;
            match self.file(walk.path().to_vec(), found.file.as_fd(), &found.stat) {
                // It went away meanwhile.
                Err(error) if tree::is_gone(&error) => continue,
                written => written?,
            }
            let is_folder = tree::file_type(found.stat.st_mode) == FileType::Directory;
            if is_folder && !(found.is_mount && self.view.is_kernel_interface(found.file.as_fd())?) {
                walk.enter(found)?;
            }
        }
        Ok(())
    }

    /// One entry of a folder; of a folder not what it holds.
    pub fn single(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: Vec<u8>) -> io::Result<()> {
        let file = open_entry(folder, name)?;
        let stat = rustix::fs::fstat(&file)?;
        self.file(path, file.as_fd(), &stat)
    }

    /// One file by its `O_PATH` descriptor; of a folder not what it holds. Nothing but a regular file is opened: opening a
    /// device may do something, and a FIFO waits.
    fn file(&mut self, mut path: Vec<u8>, file: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        match tree::file_type(stat.st_mode) {
            FileType::Directory => {
                path.push(b'/');
                self.header(&path, stat, b"", None)
            }
            FileType::RegularFile => self.regular(&path, file, stat),
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(file, c"", Vec::new())?;
                self.header(&path, stat, link.to_bytes(), None)
            }
            _ => self.header(&path, stat, b"", None),
        }
    }

    /// An empty file that belongs to nobody, as marks in layers are.
    pub fn empty_file(&mut self, path: &[u8]) -> io::Result<()> {
        let header = Header {
            name: path,
            kind: b'0',
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: b"",
            device: (0, 0),
            capability: None,
        };
        self.write_header(&header)
    }

    fn regular(&mut self, path: &[u8], file: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id).cloned() {
                return self.write_header(&Header { kind: b'1', link: &first, ..header_of(path, stat) });
            }
            self.links.insert(id, path.to_vec());
        }
        let content = File::from(reopen(file, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let mut value = [0; 64];
        let capability = rustix::fs::fgetxattr(&content, c"security.capability", &mut value[..]).ok();
        self.header(path, stat, b"", capability.map(|length| &value[..length]))?;
        self.sink.copy(&content, u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Writes a header; sockets have none, they are left out.
    fn header(&mut self, path: &[u8], stat: &Stat, link: &[u8], capability: Option<&[u8]>) -> io::Result<()> {
        match kind_of(stat) {
            Some(_) => self.write_header(&Header { link, capability, ..header_of(path, stat) }),
            None => Ok(()),
        }
    }

    fn write_header(&mut self, header: &Header<'_>) -> io::Result<()> {
        let size = if header.kind == b'0' { header.size } else { 0 };
        self.sink.write(&Header { size, ..*header }.encode())
    }
}

fn header_of<'a>(name: &'a [u8], stat: &Stat) -> Header<'a> {
    Header {
        name,
        kind: kind_of(stat).unwrap_or(b'0'),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: stat.st_mtime,
        link: b"",
        device: (major(stat.st_rdev), minor(stat.st_rdev)),
        capability: None,
    }
}
