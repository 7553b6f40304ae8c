//! Writing: an archive into a folder of a container, as dockerd unpacks it.
//!
//! Names of entries stay below the folder, links that are already there are followed as the container would, and
//! what is replaced is removed through descriptors of its own folder. A mount is never removed or replaced.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags, Timespec, Timestamps, makedev},
    io::Errno,
};
use tar::EntryType;

use super::{
    archive::not_found,
    attributes,
    decompress::decompress,
    descent::Descent,
    entries::{Tar, is_too_long},
    header::parse_number,
    layer::is_mark,
    path::clean_absolute,
    resolve::{Owner, beneath, is_dir, make_dir, open_entry, open_made},
    tree,
    view::RootView,
};
use crate::{
    model::{Error, Result, error::Context},
    work,
};

/// How long the names of an archive's folders may be together, in bytes: they are kept until its end. A million of usual ones.
const MOST_FOLDERS: usize = 128 << 20;

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractOptions {
    /// Refuse to put a folder where something else is, and the other way round (`noOverwriteDirNonDir`).
    pub keep_kinds: bool,
    /// Everything belongs to this user instead of the archive's (`copyUIDGID`).
    pub owner: Option<Owner>,
    /// Everything but links has this mode instead of the archive's (`--chmod` of a build).
    pub mode: Option<u32>,
    /// It is an image's layer for a folder of this machine: marks of what is gone are passed over, devices are refused, set-id
    /// bits and extended attributes are left out.
    pub layer: bool,
}

impl RootView {
    /// Unpacks `body`, a tar that may be compressed, into the folder `path`. A link at its end is followed.
    pub fn extract(&self, path: &str, container: &str, body: impl Read, options: ExtractOptions) -> Result<()> {
        let folder = self.resolve(&clean_absolute(path)).map_err(|error| not_found(error, path, container))?;
        if self.is_kernel_interface(folder.as_fd()).context("looking at the file system")? {
            return Err(Error::no_such_path(path, container));
        }
        if !is_dir(folder.as_fd()).context("looking at the folder")? {
            return Err(Error::not_a_directory());
        }
        self.check_writable(folder.as_fd())?;
        let body = decompress(body).map_err(|error| bad_archive(&error))?;
        let way = Descent::new(folder, ()).context("looking at the folder")?;
        Extraction { path, options, ..Extraction::new(self, way) }.run(body)
    }
}

/// dockerd's words for what is no tar.
pub(super) fn bad_archive(error: &io::Error) -> Error {
    match error.kind() {
        _ if is_too_long(error) => Error::system(error.to_string()),
        io::ErrorKind::UnexpectedEof => Error::system("unexpected EOF"),
        _ if error.to_string().contains("unexpected EOF") => Error::system("unexpected EOF"),
        io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::system("archive/tar: invalid tar header")
        }
        _ => Error::system(format!("reading the archive: {error}")),
    }
}

/// An archive on its way into a root.
pub(super) struct Extraction<'a> {
    view: &'a RootView,
    /// To the folder that the last entry went into; the next one mostly goes there too, or not far from it.
    pub(super) way: Descent<()>,
    /// Something was replaced that may have been on the way.
    pub(super) is_stale: bool,
    path: &'a str,
    options: ExtractOptions,
    /// Set at the end, since what is put into a folder changes its time.
    folder_times: Vec<(Vec<u8>, Timespec)>,
    /// How long their names are together.
    folder_bytes: usize,
}

/// What an entry's header says, PAX records laid over it.
struct Meta {
    kind: EntryType,
    mode: u32,
    owner: Owner,
    mtime: Timespec,
    device: u64,
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl<'a> Extraction<'a> {
    /// One that begins at the root.
    pub(super) fn new(view: &'a RootView, way: Descent<()>) -> Self {
        let options = ExtractOptions::default();
        Self { view, way, is_stale: false, path: "/", options, folder_times: Vec::new(), folder_bytes: 0 }
    }
}

impl Extraction<'_> {
    fn run(mut self, body: impl Read) -> Result<()> {
        let mut archive = Tar::new(body);
        for entry in archive.entries().map_err(|error| bad_archive(&error))? {
            work::check().context("unpacking")?;
            let mut entry = entry.map_err(|error| bad_archive(&error))?;
            if entry.header().entry_type() == EntryType::XGlobalHeader {
                continue;
            }
            let mut meta = Meta::read(&mut entry, self.options.owner).map_err(|error| bad_archive(&error))?;
            meta.mode = self.options.mode.unwrap_or(meta.mode);
            if self.options.layer {
                if is_mark(&entry.path_bytes()) {
                    continue;
                }
                meta.make_harmless(&entry.path_bytes())?;
            }
            self.entry(&mut entry, &meta)?;
        }
        self.set_folder_times()
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, meta: &Meta) -> Result<()> {
        let name = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let Some(parts) = clean_relative(&name) else {
            return Err(Error::system(format!("invalid entry name \"{shown}\"")));
        };
        let Some((last, above)) = parts.split_last() else { return Ok(()) };
        let last = CString::new(*last).map_err(|_| Error::system(format!("invalid entry name \"{shown}\"")))?;
        let failed = |error: io::Error| Error::system(format!("unpacking {shown}: {error}")).with_source(error);
        let source = if meta.kind == EntryType::Link { Some(self.link_source(entry, failed)?) } else { None };
        self.go_to(above, Missing::IsMade).map_err(failed)?;
        let is_there = self.make_room(&last, meta.kind, &parts.join(&b'/'), failed)?;
        if meta.kind == EntryType::Directory {
            self.remember_time(parts.join(&b'/'), meta.mtime)?;
        }
        let parent = self.way.here();
        let made = match meta.kind {
            EntryType::Directory if is_there => beneath(parent, &last, FOLDER),
            EntryType::Directory => make_folder(parent, &last),
            EntryType::Link => {
                let source = source.expect("it was opened above");
                attributes::link(source.as_fd(), parent, &last).map(|()| source)
            }
            EntryType::Symlink => make_link(parent, &last, &entry.link_name_bytes().unwrap_or_default()),
            EntryType::Char => make_node(parent, &last, FileType::CharacterDevice, meta.device),
            EntryType::Block => make_node(parent, &last, FileType::BlockDevice, meta.device),
            EntryType::Fifo => make_node(parent, &last, FileType::Fifo, meta.device),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => write_file(entry, parent, &last),
            other => return Err(Error::system(format!("unhandled tar header type {}", other.as_byte()))),
        };
        made.and_then(|made| describe(made.as_fd(), meta)).map_err(failed)
    }

    fn remember_time(&mut self, folder: Vec<u8>, mtime: Timespec) -> Result<()> {
        if let Some((last, time)) = self.folder_times.last_mut()
            && *last == folder
        {
            *time = mtime;
            return Ok(());
        }
        self.folder_bytes += folder.len();
        if self.folder_bytes > MOST_FOLDERS {
            return Err(Error::system("the names of the archive's folders are too long together"));
        }
        self.folder_times.push((folder, mtime));
        Ok(())
    }

    /// Goes to a folder, links on the way followed inside the container.
    pub(super) fn go_to(&mut self, parts: &[&[u8]], missing: Missing) -> io::Result<()> {
        let shared = if std::mem::take(&mut self.is_stale) { 0 } else { self.way.shared(parts.iter().copied()) };
        self.way.back_to(shared);
        for part in &parts[self.way.depth()..] {
            let name = CString::new(*part)?;
            let folder = match beneath(self.way.here(), &name, FOLDER) {
                Ok(folder) => folder,
                Err(error) if error.kind() == io::ErrorKind::NotFound => match missing {
                    Missing::IsMade => make_dir(self.way.here(), &name, self.options.owner.unwrap_or_default())?,
                    Missing::IsError => return Err(error),
                },
                Err(_) => self.behind_link(part, missing)?,
            };
            self.way.push(name, folder, ())?;
        }
        Ok(())
    }

    fn behind_link(&self, part: &[u8], missing: Missing) -> io::Result<OwnedFd> {
        let part = std::str::from_utf8(part).map_err(|_| Errno::ILSEQ)?;
        let whole = format!("{}/{part}", self.view.container_path(self.way.here())?);
        match missing {
            Missing::IsMade => self.view.ensure_dir(&whole, self.options.owner.unwrap_or_default()),
            Missing::IsError => self.view.resolve(&whole),
        }
    }

    /// Removes what an entry replaces; answers whether a folder is there that may stay.
    fn make_room(
        &mut self,
        last: &CStr,
        kind: EntryType,
        shown: &[u8],
        failed: impl Fn(io::Error) -> Error,
    ) -> Result<bool> {
        let flags = StatxFlags::TYPE;
        let there = match rustix::fs::statx(self.way.here(), last, AtFlags::SYMLINK_NOFOLLOW, flags) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(failed(error.into())),
        };
        let there_kind = tree::file_type(there.stx_mode.into());
        let is_folder = there_kind == FileType::Directory;
        let becomes_folder = kind == EntryType::Directory;
        if is_folder && becomes_folder {
            return Ok(true);
        }
        if self.options.keep_kinds && is_folder != becomes_folder {
            let (shown, path) = (String::from_utf8_lossy(shown), self.path);
            return Err(Error::system(if is_folder {
                format!("cannot overwrite directory \"{shown}\" with non-directory \"{path}\"")
            } else {
                format!("cannot overwrite non-directory \"{shown}\" with directory \"{path}\"")
            }));
        }
        if there.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(failed(Errno::BUSY.into()));
        }
        self.is_stale |= matches!(there_kind, FileType::Directory | FileType::Symlink);
        tree::remove_all(self.way.here(), last).map_err(failed)?;
        Ok(false)
    }

    /// What an entry is a further name of. It is opened before the entry's own folder, and before what is there is removed.
    fn link_source<R: Read>(
        &mut self,
        entry: &tar::Entry<'_, R>,
        failed: impl Fn(io::Error) -> Error,
    ) -> Result<OwnedFd> {
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        let invalid = || Error::system(format!("invalid hardlink target \"{}\"", String::from_utf8_lossy(&target)));
        let parts = clean_relative(&target).ok_or_else(invalid)?;
        let (name, above) = parts.split_last().ok_or_else(invalid)?;
        let name = CString::new(*name).map_err(|_| invalid())?;
        self.go_to(above, Missing::IsMade).and_then(|()| open_entry(self.way.here(), &name)).map_err(&failed)
    }

    fn set_folder_times(mut self) -> Result<()> {
        // Backwards, since the last ones are nearest.
        for (path, mtime) in std::mem::take(&mut self.folder_times).into_iter().rev() {
            match self.set_folder_time(&path, mtime) {
                // A later entry took the folder away, or it was moved meanwhile.
                Err(error) if tree::is_gone(&error) || error.kind() == io::ErrorKind::NotADirectory => {}
                other => other.context("setting times")?,
            }
        }
        Ok(())
    }

    fn set_folder_time(&mut self, path: &[u8], mtime: Timespec) -> io::Result<()> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let (last, above) = parts.split_last().expect("a split gives one part at least");
        self.go_to(above, Missing::IsError)?;
        let folder = beneath(self.way.here(), *last, FOLDER)?;
        attributes::set_times(folder.as_fd(), &times(mtime))
    }
}

/// What becomes of folders that are not there.
#[derive(Clone, Copy)]
pub(super) enum Missing {
    /// They are made.
    IsMade,
    /// It is an error.
    IsError,
}

impl Meta {
    fn read<R: Read>(entry: &mut tar::Entry<'_, R>, owner: Option<Owner>) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let header = entry.header().as_old();
        let number = |field: &[u8]| parse_number(field).ok_or_else(invalid);
        let id = |number: u64| u32::try_from(number).map_err(|_| invalid());
        let device = match entry.header().as_ustar() {
            Some(ustar) => (number(&ustar.dev_major)?, number(&ustar.dev_minor)?),
            None => match entry.header().as_gnu() {
                Some(gnu) => (number(&gnu.dev_major)?, number(&gnu.dev_minor)?),
                None => (0, 0),
            },
        };
        let seconds = i64::try_from(number(&header.mtime)?).map_err(|_| invalid())?;
        let mut meta = Self {
            kind: entry.header().entry_type(),
            // Higher bits are Go's file kinds, which some clients send along.
            mode: u32::try_from(number(&header.mode)? & 0o7777).expect("twelve bits"),
            owner: Owner { uid: id(number(&header.uid)?)?, gid: id(number(&header.gid)?)? },
            mtime: Timespec { tv_sec: seconds, tv_nsec: 0 },
            device: makedev(id(device.0)?, id(device.1)?),
            xattrs: Vec::new(),
        };
        // A name with a slash at its end is a folder in archives older than ustar.
        if meta.kind == EntryType::Regular && entry.path_bytes().ends_with(b"/") {
            meta.kind = EntryType::Directory;
        }
        if let Some(records) = entry.pax_extensions()? {
            for record in records {
                let record = record?;
                meta.lay_over(record.key_bytes(), record.value_bytes());
            }
        }
        if let Some(owner) = owner {
            meta.owner = owner;
        }
        Ok(meta)
    }

    /// Takes away what would mean something to this machine.
    fn make_harmless(&mut self, name: &[u8]) -> Result<()> {
        if matches!(self.kind, EntryType::Char | EntryType::Block) {
            let name = String::from_utf8_lossy(name);
            return Err(Error::system(format!(
                "unpacking {name}: a device does not belong into a folder of this machine"
            )));
        }
        self.mode &= 0o777;
        if self.kind == EntryType::Directory {
            // Who unpacks puts more into it, and takes it away again.
            self.mode |= 0o700;
        }
        self.xattrs.clear();
        Ok(())
    }

    fn lay_over(&mut self, key: &[u8], value: &[u8]) {
        let text = || std::str::from_utf8(value).ok();
        match key {
            b"uid" => self.owner.uid = text().and_then(|text| text.parse().ok()).unwrap_or(self.owner.uid),
            b"gid" => self.owner.gid = text().and_then(|text| text.parse().ok()).unwrap_or(self.owner.gid),
            b"mtime" => self.mtime = text().and_then(parse_time).unwrap_or(self.mtime),
            _ => {
                let attribute = key.strip_prefix(b"SCHILY.xattr.").and_then(|name| CString::new(name).ok());
                self.xattrs.extend(attribute.map(|name| (name, value.to_vec())));
            }
        }
    }
}

/// `1234.5678`; Go cuts fractions to nanoseconds as well.
fn parse_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Timespec { tv_sec: seconds.parse().ok()?, tv_nsec: nanos })
}

/// The parts of an entry's name, `.` and `..` resolved; `None` if it leads above the folder. A slash at the start
/// counts for nothing, since older clients send absolute names.
pub(super) fn clean_relative(name: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts)
}

/// How folders on the way to an entry are opened.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

fn make_folder(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
    open_made(parent, name, FileType::Directory)
}

fn make_link(parent: BorrowedFd<'_>, name: &CStr, target: &[u8]) -> io::Result<OwnedFd> {
    rustix::fs::symlinkat(target, parent, name)?;
    open_made(parent, name, FileType::Symlink)
}

fn make_node(parent: BorrowedFd<'_>, name: &CStr, kind: FileType, device: u64) -> io::Result<OwnedFd> {
    rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)?;
    open_made(parent, name, kind)
}

fn write_file(content: &mut impl Read, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    work::copy(content, &mut file)?;
    Ok(file.into())
}

/// Writes a file that is not there yet, with time and capabilities of the file it is a copy of.
pub(super) fn put_file(
    mut content: File,
    parent: BorrowedFd<'_>,
    name: &CStr,
    stat: &rustix::fs::Stat,
    owner: Owner,
    mode: Option<u32>,
) -> io::Result<()> {
    let capability = attributes::xattr(content.as_fd(), c"security.capability")?;
    let meta = Meta {
        kind: EntryType::Regular,
        mode: mode.unwrap_or(stat.st_mode & 0o7777),
        owner,
        mtime: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() },
        device: 0,
        xattrs: capability.map(|value| (c"security.capability".to_owned(), value)).into_iter().collect(),
    };
    let made = write_file(&mut content, parent, name)?;
    describe(made.as_fd(), &meta)
}

/// Owner first, since changing it takes set-id bits and capabilities.
fn describe(file: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    attributes::set_owner(file, meta.owner)?;
    for (attribute, value) in &meta.xattrs {
        attributes::set_xattr(file, attribute, value)?;
    }
    attributes::set_mode(file, meta.mode)?;
    attributes::set_times(file, &times(meta.mtime))
}

fn times(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: mtime, last_modification: mtime }
}
