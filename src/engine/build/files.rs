//! A folder below the data root that goes with its value.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::{
    model::{Result, error::Context, id::ContainerId},
    rootfs::remove_folder,
    work::blocking,
};

/// Removed when dropped.
#[derive(Debug)]
pub struct TempFolder(PathBuf);

impl TempFolder {
    /// Makes one that only root can walk into: a context may hold secrets.
    pub fn make(data_root: &Path) -> Result<Self> {
        let parent = all(data_root);
        let path = parent.join(ContainerId::random().short());
        let making = || format!("making {}", path.display());
        fs::create_dir_all(&parent).context(making())?;
        fs::DirBuilder::new().mode(0o700).create(&path).context(making())?;
        Ok(Self(path))
    }

    /// One with a file in it, which everybody may read who is shown it.
    pub fn with_file(data_root: &Path, name: &str, text: &str, mode: u32) -> Result<Self> {
        let folder = Self::make(data_root)?;
        let path = folder.path().join(name);
        let written = fs::write(&path, text).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)));
        written.context(format!("writing {name}"))?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it where blocking is fine.
    pub async fn remove(self) {
        let removed = blocking(move || {
            drop(self);
            Ok(())
        });
        let _only_panics = removed.await;
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.0) {
            warn!("removing the build's folder {}: {error}", self.0.display());
        }
    }
}

/// Where all of them are; nothing else is.
pub fn all(data_root: &Path) -> PathBuf {
    data_root.join("tmp").join("build")
}
