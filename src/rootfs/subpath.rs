//! A part of a volume. Who has the volume may change its links at any moment: a part is opened once, beneath the volume, and is from
//! then on what was opened.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{
    holding::{hold, tree_of},
    mounting::unmount_and_remove,
    path::clean_absolute,
    resolve::within,
};
use crate::model::{Error, Result, error::Context};

/// An `O_PATH` descriptor of what `subpath` names in the folder `volume`, which is the folder itself if it is empty. Errors are
/// dockerd's: 404 if nothing is there, 400 if a link leads out of the volume.
pub fn open_part(volume: &Path, subpath: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(volume, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => not_accessible(volume, volume).with_source(error),
        _ => Error::system(format!("opening {}", volume.display())).with_source(error),
    })?;
    // What `..` takes back is not looked at, as with dockerd.
    let cleaned = clean_absolute(subpath);
    let wanted = Path::new(&cleaned[1..]);
    if wanted.as_os_str().is_empty() {
        return Ok(root);
    }
    within(root.as_fd(), wanted, OFlags::PATH).map_err(|cause| {
        let whole = volume.join(wanted);
        let refusal = match Errno::from_io_error(&cause) {
            Some(Errno::NOENT) => not_accessible(&whole, &volume.join(first_missing(root.as_fd(), wanted))),
            Some(Errno::XDEV) => Error::escapes_volume(&volume.display().to_string(), subpath),
            Some(Errno::NOTDIR) => unresolved(&whole, "not a directory"),
            Some(Errno::LOOP) => unresolved(&whole, "EvalSymlinks: too many links"),
            _ => unresolved(&whole, &cause.to_string()),
        };
        refusal.with_source(cause)
    })
}

/// Mounts what `subpath` names in the folder `volume` at `place`, where nobody can change what it is. What is mounted below it
/// stays out, as with dockerd. [`unmount_and_remove`] undoes it.
pub fn hold_part(volume: &Path, subpath: &str, place: &Path) -> Result<()> {
    unmount_and_remove(place)?;
    let part = open_part(volume, subpath)?;
    let held = tree_of(part.as_fd(), false).and_then(|tree| hold(tree.as_fd(), place));
    held.context(format!("mounting {subpath} of {} at {}", volume.display(), place.display()))
}

/// dockerd's words for a path that is not there; `missing` is what it is for want of.
pub fn not_accessible(path: &Path, missing: &Path) -> Error {
    let (path, missing) = (path.display(), missing.display());
    Error::not_found(format!("cannot access path {path}: lstat {missing}: no such file or directory"))
}

fn unresolved(path: &Path, why: &str) -> Error {
    Error::system(format!("error while resolving symlinks in combined path \"{}\": {why}", path.display()))
}

fn first_missing<'p>(root: BorrowedFd<'_>, path: &'p Path) -> &'p Path {
    let missing = |part: &&Path| !part.as_os_str().is_empty() && within(root, *part, OFlags::PATH).is_err();
    path.ancestors().take_while(missing).last().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::{model::ErrorKind, rootfs::view::path_of};

    fn volume() -> tempfile::TempDir {
        let volume = tempfile::tempdir().unwrap();
        let root = volume.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        for (link, target) in [
            ("inside", "a/b"),
            ("a/up", "../a/b/file"),
            ("out", "../../.."),
            ("host", "/etc"),
            ("dangling", "none"),
            ("loop", "loop"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        volume
    }

    #[test]
    fn links_that_stay_in_the_volume_are_followed() {
        let volume = volume();
        for (subpath, part) in [
            ("", ""),
            (".", ""),
            ("a/..", ""),
            ("a//b/", "a/b"),
            ("inside", "a/b"),
            ("inside/file", "a/b/file"),
            ("a/up", "a/b/file"),
            // The text is cleaned before any link is looked at.
            ("inside/../a", "a"),
            ("none/../a", "a"),
        ] {
            let opened = open_part(volume.path(), subpath).unwrap();
            let root = volume.path().canonicalize().unwrap();
            assert_eq!(path_of(opened.as_fd()).unwrap(), root.join(part).components().collect::<std::path::PathBuf>());
        }
    }

    /// Texts as dockerd 28 answered them.
    #[test]
    fn what_leads_out_or_nowhere_is_refused() {
        let volume = volume();
        let root = volume.path().display();
        let missing = |path: &str, part: &str| {
            format!("cannot access path {root}/{path}: lstat {root}/{part}: no such file or directory")
        };
        let escape =
            |path: &str| format!("path concatenation escapes the base directory, base: {root}, subpath: {path}");
        let unresolved =
            |path: &str, why: &str| format!("error while resolving symlinks in combined path \"{root}/{path}\": {why}");
        for (subpath, kind, text) in [
            ("no/such", ErrorKind::NotFound, missing("no/such", "no")),
            ("a/such", ErrorKind::NotFound, missing("a/such", "a/such")),
            ("out", ErrorKind::InvalidParameter, escape("out")),
            ("host", ErrorKind::InvalidParameter, escape("host")),
            ("host/passwd", ErrorKind::InvalidParameter, escape("host/passwd")),
            ("a/b/file/x", ErrorKind::System, unresolved("a/b/file/x", "not a directory")),
            ("loop", ErrorKind::System, unresolved("loop", "EvalSymlinks: too many links")),
        ] {
            let error = open_part(volume.path(), subpath).unwrap_err();
            assert_eq!((error.kind(), error.message()), (kind, text.as_str()));
        }
        assert_eq!(open_part(volume.path(), "dangling").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(open_part(&volume.path().join("none"), "a").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
