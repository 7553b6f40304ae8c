//! [`Projects`] by the kernel, on ext4 mounted with `prjquota` and XFS with `pquota`.
//!
//! `quotactl_fd(2)`, of Linux 5.14, asks the file system of a descriptor, so that no device has to be found for it.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    ptr,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    ioctl::{Getter, Opcode, Setter, ioctl, opcode},
};

use crate::{
    backend::projects::{Projects, Room},
    model::job::ProjectId,
};

/// `PRJQUOTA`, beside those of users and groups.
const OF_PROJECTS: libc::c_int = 2;

/// `Q_XGETQSTAT`, which ext4 answers as well.
const GET_STATE: libc::c_int = ((b'X' as libc::c_int) << 8) + 5;

/// `FS_QUOTA_PDQ_ENFD`: what projects take is not only counted.
const PROJECTS_ARE_LIMITED: u16 = 1 << 5;

/// Bytes of the unit in which `struct dqblk` has limits.
const UNIT: u64 = 1024;

/// `FS_XFLAG_PROJINHERIT`: what is made in a folder is of its project.
const IS_INHERITED: u32 = 0x200;

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`.
const GET: Opcode = opcode::read::<Attributes>(b'X', 31);
const SET: Opcode = opcode::write::<Attributes>(b'X', 32);

/// `struct fsxattr`.
#[derive(Debug)]
#[repr(C)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copied_extent_size: u32,
    rest: [u8; 8],
}

/// `struct fs_quota_stat`.
#[derive(Default)]
#[repr(C)]
struct State {
    version: i8,
    flags: u16,
    rest: [u64; 9],
}

/// The kernel's.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxProjects;

impl Projects for LinuxProjects {
    fn are_limited(&self, folder: &Path) -> bool {
        let mut state = State::default();
        let asked = open(folder, OFlags::empty()).and_then(|folder| quotactl(&folder, GET_STATE, 0, &mut state));
        asked.is_ok() && state.flags & PROJECTS_ARE_LIMITED != 0
    }

    fn room(&self, folder: &Path, project: ProjectId) -> io::Result<Room> {
        let mut quota = quota_of(None);
        match quotactl(&open(folder, OFlags::empty())?, libc::Q_GETQUOTA, project.number(), &mut quota) {
            // XFS, of a project that nobody has used.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Room::default()),
            asked => asked.map(|()| {
                let most = quota.dqb_bhardlimit.saturating_mul(UNIT);
                Room { taken: quota.dqb_curspace, most: (most > 0).then_some(most) }
            }),
        }
    }

    fn limit(&self, folder: &Path, project: ProjectId, most: Option<u64>) -> io::Result<()> {
        quotactl(&open(folder, OFlags::empty())?, libc::Q_SETQUOTA, project.number(), &mut quota_of(most))
    }

    fn add(&self, folder: &Path, project: ProjectId) -> io::Result<()> {
        let folder = open(folder, OFlags::NOFOLLOW)?;
        // SAFETY: the number of the call carries the size of `Attributes`, which it fills.
        let mut attributes = unsafe { ioctl(&folder, Getter::<GET, Attributes>::new()) }?;
        attributes.flags |= IS_INHERITED;
        attributes.project = project.number();
        // SAFETY: the number of the call carries the size of `Attributes`, which it reads.
        Ok(unsafe { ioctl(&folder, Setter::<SET, Attributes>::new(attributes)) }?)
    }
}

fn open(folder: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, folder, flags, Mode::empty())?)
}

/// A limit of bytes alone; 0 is none to the kernel.
fn quota_of(most: Option<u64>) -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: most.map_or(0, |bytes| (bytes / UNIT).max(1)),
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: libc::QIF_BLIMITS,
    }
}

/// `T` is the structure of that call.
fn quotactl<T>(folder: &OwnedFd, call: libc::c_int, project: u32, structure: &mut T) -> io::Result<()> {
    let call = libc::QCMD(call, OF_PROJECTS);
    // SAFETY: the structure is that of the call, and lives through it.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, folder.as_raw_fd(), call, project, ptr::from_mut(structure)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `linux/fs.h` and `linux/dqblk_xfs.h` have them on all machines that we build for.
    #[test]
    fn the_kernel_knows_our_structures() {
        assert_eq!((size_of::<Attributes>(), size_of::<State>()), (28, 80));
        assert_eq!((GET, SET), (0x801c_581f, 0x401c_5820));
        assert_eq!(std::mem::offset_of!(State, flags), 2);
    }

    #[test]
    fn the_least_limit_is_none_of_no_limit() {
        let limit = |most| quota_of(most).dqb_bhardlimit;
        assert_eq!((limit(None), limit(Some(1)), limit(Some(5 << 20))), (0, 1, 5 << 10));
    }

    #[test]
    fn file_systems_without_projects_limit_none() {
        assert!(!LinuxProjects.are_limited(Path::new("/proc")) && !LinuxProjects.are_limited(Path::new("/not-there")));
    }
}
