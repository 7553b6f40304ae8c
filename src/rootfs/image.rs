//! An image's files at a folder of the host, to be mounted into a container.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{
    mounting::{mount_read_only, unmount_and_remove},
    resolve::open_in_root,
    subpath::not_accessible,
    view::path_of,
};
use crate::{
    backend::runtime::RootfsMount,
    model::{Error, Result, error::Context},
};

/// Mounts an image's layers at `place`, read-only.
pub fn mount_image(layers: &[RootfsMount], place: &Path) -> Result<()> {
    unmount_and_remove(place)?;
    fs::create_dir_all(place).context(format!("making {}", place.display()))?;
    mount_read_only(layers, place)
}

/// Where a path within an image is that is mounted at `place`. Links are resolved within the image; since nobody can write
/// there, the name that results stays what it is.
pub fn path_in_image(place: &Path, subpath: &str) -> Result<PathBuf> {
    if subpath.is_empty() {
        return Ok(place.to_owned());
    }
    let wanted = place.join(subpath);
    let refused = |cause: io::Error| {
        if cause.kind() == io::ErrorKind::NotFound {
            return not_accessible(&wanted, &wanted);
        }
        Error::system(format!("cannot access path {}", wanted.display())).with_source(cause)
    };
    let open = || -> io::Result<PathBuf> {
        let root = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        path_of(open_in_root(root.as_fd(), subpath, OFlags::PATH)?.as_fd())
    };
    open().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_within_the_image() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("etc/deep")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        std::os::unix::fs::symlink("../../..", root.join("etc/up")).unwrap();
        assert_eq!(path_in_image(&root, "").unwrap(), root);
        assert_eq!(path_in_image(&root, "link/deep").unwrap(), root.join("etc/deep"));
        assert_eq!(path_in_image(&root, "etc/up/etc").unwrap(), root.join("etc"));
        let error = path_in_image(&root, "none").unwrap_err();
        let missing = root.join("none").display().to_string();
        assert_eq!(
            error.message(),
            format!("cannot access path {missing}: lstat {missing}: no such file or directory")
        );
    }
}
