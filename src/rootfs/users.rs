//! Reading `/etc/passwd` and `/etc/group`. A stopped container's are looked for in its layers, which takes no mount.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    resolve::open_entry,
    tree,
    view::{RootView, reopen},
};
use crate::{
    backend::runtime::RootfsMount,
    model::{Result, error::Context, limits},
    work::{Carried, Place},
};

/// Contents; empty where a file is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFiles {
    /// `/etc/passwd`.
    pub passwd: Vec<u8>,
    /// `/etc/group`.
    pub group: Vec<u8>,
}

impl UserFiles {
    /// What `read` reads, of each file so many bytes; if that is much, with the place that a request needs for it.
    pub async fn held<R, F>(read: R) -> Result<(Self, Option<Place>)>
    where
        R: Fn(u64) -> F,
        F: Future<Output = Result<Self>>,
    {
        let small = limits::SMALL_HOLDING as u64 / 2;
        let files = read(small).await?;
        if !files.are_cut(small) {
            return Ok((files, None));
        }
        let place = Carried::here().place().await?;
        Ok((read(limits::SMALL_FILE).await?, Some(place)))
    }

    /// Whether there may be more than was read.
    fn are_cut(&self, most: u64) -> bool {
        [&self.passwd, &self.group].into_iter().any(|file| file.len() as u64 >= most)
    }
}

impl RootView {
    /// The user database as the container sees it, `most` bytes of each file.
    pub fn user_files(&self, most: u64) -> Result<UserFiles> {
        let read = |path: &str| match self.resolve(path) {
            Ok(file) => read_regular(file.as_fd(), most),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        Ok(UserFiles {
            passwd: read("/etc/passwd").context("reading /etc/passwd")?,
            group: read("/etc/group").context("reading /etc/group")?,
        })
    }
}

/// The same of a container that does not run, from its layers. Volumes over `/etc` are not seen.
pub fn user_files(rootfs: &[RootfsMount], most: u64) -> Result<UserFiles> {
    if let Some(files) = from_layers(rootfs, most) {
        return Ok(files);
    }
    RootView::stopped(rootfs, true, &[])?.user_files(most)
}

/// What a look into one layer gave.
enum Found {
    File(Vec<u8>),
    /// Not here; layers below may have it.
    Below,
    /// Taken away here.
    Gone,
}

/// `None` where only a mount tells: links, redirected folders, other kinds of file systems.
fn from_layers(rootfs: &[RootfsMount], most: u64) -> Option<UserFiles> {
    let [mount] = rootfs else { return None };
    let folders: Vec<&str> = match mount.kind.as_str() {
        "overlay" => mount.option("upperdir=").into_iter().chain(mount.option("lowerdir=")?.split(':')).collect(),
        "bind" => vec![mount.source.as_str()],
        _ => return None,
    };
    let layers: Vec<OwnedFd> = folders.into_iter().map(open_folder).collect::<Option<_>>()?;
    Some(UserFiles { passwd: search(&layers, c"passwd", most)?, group: search(&layers, c"group", most)? })
}

fn open_folder(path: &str) -> Option<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn search(layers: &[OwnedFd], name: &CStr, most: u64) -> Option<Vec<u8>> {
    for layer in layers {
        match look(layer.as_fd(), name, most)? {
            Found::File(bytes) => return Some(bytes),
            Found::Gone => break,
            Found::Below => {}
        }
    }
    Some(Vec::new())
}

fn look(layer: BorrowedFd<'_>, name: &CStr, most: u64) -> Option<Found> {
    match kind(layer, c"etc")? {
        None => return Some(Found::Below),
        Some(FileType::Directory) => {}
        Some(FileType::CharacterDevice) => return Some(Found::Gone),
        Some(_) => return None,
    }
    if tree::xattr(layer, c"etc", c"trusted.overlay.redirect").ok()?.is_some() {
        return None;
    }
    let is_opaque = tree::xattr(layer, c"etc", c"trusted.overlay.opaque").ok()?.is_some_and(|value| value == b"y");
    let below = if is_opaque { Found::Gone } else { Found::Below };
    let etc = super::resolve::beneath(layer, c"etc", OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW).ok()?;
    match kind(etc.as_fd(), name)? {
        None => Some(below),
        Some(FileType::CharacterDevice) => Some(Found::Gone),
        Some(FileType::RegularFile) => {
            if tree::xattr(etc.as_fd(), name, c"trusted.overlay.metacopy").ok()?.is_some() {
                return None;
            }
            Some(Found::File(read_regular(open_entry(etc.as_fd(), name).ok()?.as_fd(), most).ok()?))
        }
        Some(_) => None,
    }
}

/// What an entry is, `Some(None)` if it is not there, `None` if that cannot be told.
fn kind(folder: BorrowedFd<'_>, name: &CStr) -> Option<Option<FileType>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Some(Some(tree::file_type(stat.st_mode))),
        Err(Errno::NOENT) => Some(None),
        Err(_) => None,
    }
}

/// By an `O_PATH` descriptor, so that nothing else is opened: a FIFO waits, a device may do something.
fn read_regular(file: BorrowedFd<'_>, most: u64) -> io::Result<Vec<u8>> {
    let stat = rustix::fs::fstat(file)?;
    if tree::file_type(stat.st_mode) != FileType::RegularFile {
        return Ok(Vec::new());
    }
    let content = File::from(reopen(file, OFlags::RDONLY | OFlags::NONBLOCK)?);
    let mut bytes =
        Vec::with_capacity(usize::try_from(u64::try_from(stat.st_size).unwrap_or(0).min(most)).unwrap_or(0));
    content.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn long_files_of_users_are_held_with_a_place() {
        let places = Arc::new(Semaphore::new(0));
        let held = |length: usize| {
            let read = move |most: u64| async move {
                let length = length.min(usize::try_from(most).unwrap());
                Ok(UserFiles { passwd: vec![b'x'; length], ..UserFiles::default() })
            };
            Carried::of(places.clone()).during(UserFiles::held(read))
        };
        assert!(held(100).await.is_ok());
        assert!(held(limits::SMALL_HOLDING).now_or_never().is_none(), "it waits");
        places.add_permits(1);
        let (files, _place) = held(limits::SMALL_HOLDING).await.unwrap();
        assert_eq!((files.passwd.len(), places.available_permits()), (limits::SMALL_HOLDING, 0));
    }
}
