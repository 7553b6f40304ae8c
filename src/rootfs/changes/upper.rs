//! overlayfs's upper folder, and the marks by which it says what is not there and what lies elsewhere.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::{
    backend::runtime::RootfsMount,
    model::{Result, error::Context},
    rootfs::{resolve::beneath, tree, view::RootView},
};

/// An upper folder.
pub struct Upper {
    path: String,
    /// Of what it is the upper folder.
    mount: RootfsMount,
    /// Where its attributes have their names. A container can set those of `user.` itself, so that they mean
    /// something only where the mount says so.
    namespace: &'static str,
    /// Whether things may be elsewhere than in their folder.
    scatters: bool,
    /// All that the container sees, mounted when the upper folder alone does not tell.
    merged: OnceLock<RootView>,
}

impl Upper {
    /// The folder with a container's own files, where the snapshotter keeps them apart.
    pub fn of(own: &[RootfsMount]) -> Option<Self> {
        let [mount] = own else { return None };
        if mount.kind != "overlay" {
            return None;
        }
        let path = mount.option("upperdir=")?;
        let has = |wanted: &str| mount.options.iter().any(|option| option == wanted);
        Some(Self {
            path: path.to_owned(),
            mount: mount.clone(),
            namespace: if has("userxattr") { "user" } else { "trusted" },
            scatters: ["redirect_dir", "metacopy"].iter().any(|way| has(&format!("{way}=on")) || is_default(way)),
            merged: OnceLock::new(),
        })
    }

    /// The folder itself.
    pub fn open(&self) -> Result<RootView> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.path, flags, Mode::empty()).context("opening the container's layer")?;
        Ok(RootView::under_construction(folder))
    }

    /// Whether nothing of the layers below shows through, at any depth: only the topmost of such folders says so.
    pub fn is_opaque(&self, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        Ok(self.attribute(folder, name, "opaque")?.is_some_and(|value| value == b"y"))
    }

    /// Whether what it holds is to be looked for elsewhere: a folder that was renamed without a copy (`redirect_dir`),
    /// a file of which only owner and mode were copied (`metacopy`). Kernels do that only if told or built to. Where
    /// they do, names of one file may lie on both sides and are looked for on one.
    pub fn is_elsewhere(&self, folder: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<bool> {
        match tree::file_type(stat.st_mode) {
            FileType::Directory => Ok(self.attribute(folder, name, "redirect")?.is_some()),
            FileType::RegularFile if self.scatters && stat.st_nlink > 1 => Ok(true),
            FileType::RegularFile => Ok(self.attribute(folder, name, "metacopy")?.is_some()),
            _ => Ok(false),
        }
    }

    fn attribute(&self, folder: BorrowedFd<'_>, name: &CStr, attribute: &str) -> io::Result<Option<Vec<u8>>> {
        let attribute = CString::new(format!("{}.overlay.{attribute}", self.namespace))?;
        tree::xattr(folder, name, &attribute)
    }

    /// A folder as the container sees it; the empty path is its root.
    pub fn merged_folder(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let root = match self.merged.get() {
            Some(merged) => merged,
            None => {
                let merged = RootView::layers(std::slice::from_ref(&self.mount)).map_err(io::Error::other)?;
                self.merged.get_or_init(|| merged)
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match path {
            b"" => beneath(root.root().as_fd(), c".", flags),
            path => beneath(root.root().as_fd(), path, flags),
        }
    }
}

/// overlayfs marks what was deleted by a device of number 0.
pub fn is_whiteout(stat: &Stat) -> bool {
    tree::file_type(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether the kernel does so unless a mount says otherwise. Its own file, which no container can put anything in place of.
fn is_default(parameter: &str) -> bool {
    let mut value = [0];
    let file = File::open(format!("/sys/module/overlay/parameters/{parameter}"));
    file.and_then(|mut file| file.read_exact(&mut value)).is_ok() && value == *b"Y"
}
