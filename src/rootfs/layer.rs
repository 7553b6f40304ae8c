//! An image's layers, one over the other, into a folder of this machine: for artifact images, which nobody runs here.
//!
//! What a layer says to be gone (OCI's `.wh.` names) is of the layers below it, wherever the mark lies in its tar; so a
//! layer is gone through twice, and the first time, in which its content is checked as well, nothing is written.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Seek},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    process::{getegid, geteuid},
};
use sha2::{Digest as _, Sha256};

use super::{
    decompress::decompress,
    descent::Descent,
    entries::Tar,
    extract::{ExtractOptions, Extraction, Missing, bad_archive, clean_relative},
    resolve::Owner,
    tree,
    view::RootView,
};
use crate::{
    model::{Error, Result, error::Context, limits, reference::Digest},
    work,
};

/// What a file takes of the disk beside its content.
const FILE: u64 = 4096;

/// How a layer marks a name that is gone; no file of a layer can have such a name.
pub(super) const MARK: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl RootView {
    /// A folder of this machine as a root.
    pub fn of_empty_folder(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).context(format!("opening {}", path.display()))?;
        let names = tree::names(root.as_fd()).context(format!("reading {}", path.display()))?;
        match names.is_empty() {
            true => Self::outside(root),
            false => Err(Error::invalid(format!("{} is not empty", path.display()))),
        }
    }

    /// Unpacks a layer, a tar that may be compressed, of which at most `left` bytes of files may come; answers how many are left then.
    /// All belongs to who calls. Set-id bits and extended attributes are not taken over; a device is an error.
    pub fn unpack_layer(&self, layer: &File, diff_id: &Digest, left: u64) -> Result<u64> {
        let left = self.take_away(rewound(layer)?, diff_id, left)?;
        let owner = Some(Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() });
        self.extract(
            "/",
            "image",
            rewound(layer)?,
            ExtractOptions { owner, layer: true, ..ExtractOptions::default() },
        )?;
        Ok(left)
    }

    /// Removes all that is in the root.
    pub fn clear(&self) -> io::Result<()> {
        tree::names(self.root())?.iter().try_for_each(|name| tree::remove_all(self.root(), name))
    }

    fn take_away(&self, layer: &File, diff_id: &Digest, mut left: u64) -> Result<u64> {
        let body = decompress(layer).map_err(|error| bad_archive(&error))?;
        let mut body = Hashed { body, sum: Sha256::new() };
        let root = self.root().try_clone_to_owned().context("looking at the folder")?;
        let mut extraction = Extraction::new(self, Descent::new(root, ()).context("looking at the folder")?);
        for entry in Tar::new(&mut body).entries().map_err(|error| bad_archive(&error))? {
            work::check().context("unpacking")?;
            let entry = entry.map_err(|error| bad_archive(&error))?;
            left = left.checked_sub(cost(&entry)).ok_or_else(too_large)?;
            extraction.take_away(&entry.path_bytes())?;
        }
        // After the end there is padding at most.
        io::copy(&mut body.by_ref().take(limits::TAR_RECORDS), &mut io::sink()).map_err(|error| bad_archive(&error))?;
        match Digest::from_sha256(&body.sum.finalize()) == *diff_id {
            true => Ok(left),
            false => Err(Error::system(format!("a layer holds something else than its image says ({diff_id})"))),
        }
    }
}

impl Extraction<'_> {
    /// Carries out a mark, if it is one.
    fn take_away(&mut self, name: &[u8]) -> Result<()> {
        if !is_mark(name) {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(name);
        let invalid = || Error::system(format!("invalid entry name \"{shown}\""));
        let parts = clean_relative(name).ok_or_else(invalid)?;
        let (last, above) = parts.split_last().ok_or_else(invalid)?;
        let removed = match last.strip_prefix(MARK).unwrap_or_default() {
            b"" | b"." | b".." => return Err(invalid()),
            _ if *last == OPAQUE => self.remove_in(above, None),
            // Notes of file systems that layers were once made from.
            other if other.starts_with(MARK) => Ok(()),
            other => self.remove_in(above, Some(CString::new(other).map_err(|_| invalid())?)),
        };
        match removed {
            Err(error) if tree::is_gone(&error) || error.kind() == io::ErrorKind::NotADirectory => Ok(()),
            other => other.context(format!("removing {shown}")),
        }
    }

    fn remove_in(&mut self, folder: &[&[u8]], name: Option<CString>) -> io::Result<()> {
        self.go_to(folder, Missing::IsError)?;
        self.is_stale = true;
        let names = match name {
            Some(name) => vec![name],
            None => tree::names(self.way.here())?,
        };
        names.iter().try_for_each(|name| tree::remove_all(self.way.here(), name))
    }
}

/// Whether an entry is no file, but says what is gone.
pub fn is_mark(name: &[u8]) -> bool {
    Path::new(std::ffi::OsStr::from_bytes(name)).file_name().is_some_and(|name| name.as_bytes().starts_with(MARK))
}

/// With the folders that its name and that of its target may make.
fn cost<R: Read>(entry: &tar::Entry<'_, R>) -> u64 {
    let parts = |name: &[u8]| name.split(|byte| *byte == b'/').count();
    let made = parts(&entry.path_bytes()) + entry.link_name_bytes().map_or(0, |target| parts(&target));
    entry.size().saturating_add((made as u64).saturating_mul(FILE))
}

fn too_large() -> Error {
    Error::invalid("the image's files are larger than is allowed")
}

fn rewound(mut file: &File) -> Result<&File> {
    file.rewind().context("reading a layer")?;
    Ok(file)
}

struct Hashed<R> {
    body: R,
    sum: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(into)?;
        self.sum.update(&into[..count]);
        Ok(count)
    }
}
