//! Processes of this machine, and what each of them sees: its files, its cgroups, which processes. A number is another process's
//! some time; what is asked here is of one process throughout.

pub mod ends;
pub mod environment;
pub mod mounts;

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, Mode, OFlags, StatxFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// `NS_GET_PARENT` of `linux/nsfs.h`.
const NS_GET_PARENT: libc::Ioctl = 0xb702;
/// How deep pid namespaces lie within each other at most, by the kernel.
const MAX_PID_NAMESPACES: usize = 33;

/// Has a program start in a network namespace.
pub fn start_in_network(command: &mut Command, namespace: File) {
    // SAFETY: between fork and exec there is nothing but one system call, which takes no lock and no memory.
    unsafe { command.pre_exec(move || enter_network(&namespace)) };
}

/// Moves the calling thread into a network namespace.
pub fn enter_network(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// A process, by its folder below `/proc`: once it has ended there is nothing in that, whoever has the number.
#[derive(Debug)]
pub struct Process {
    folder: OwnedFd,
    number: u32,
}

/// Which namespace: two processes with the same see the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace(u64, u64);

/// Which folder a process has as `/`: by mount, device and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootFolder(u64, u32, u32, u64);

impl Process {
    /// Ourselves.
    pub fn own() -> io::Result<Self> {
        Self::open("self", std::process::id())
    }

    /// The process that has this number now.
    pub fn numbered(pid: u32) -> io::Result<Self> {
        Self::open(&pid.to_string(), pid)
    }

    /// The process of a pidfd. `NotFound` if it has ended.
    pub fn of(pidfd: BorrowedFd<'_>) -> io::Result<Self> {
        let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
        let number = told.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok());
        let process = Self::numbered(number.ok_or(io::ErrorKind::NotFound)?)?;
        // It had the number until now, so what was opened is its.
        let mut asked = [PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default()))?;
        if asked[0].revents().is_empty() { Ok(process) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn open(name: &str, number: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open(format!("/proc/{name}"), flags, Mode::empty())?, number })
    }

    /// The number that it has, or had.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its root, as a descriptor.
    pub fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, c"root", flags, Mode::empty())?)
    }

    /// Which root that is.
    pub fn root_folder(&self) -> io::Result<RootFolder> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(self.root()?, c"", AtFlags::EMPTY_PATH, wanted)?;
        Ok(RootFolder(stat.stx_mnt_id, stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
    }

    /// A descriptor of the mounts that it sees.
    pub fn mounts(&self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.folder, c"ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Which mounts it sees.
    pub fn mount_namespace(&self) -> io::Result<Namespace> {
        namespace(self.mounts()?.as_fd())
    }

    /// The pid namespaces that it is in, its own first, as far up as we see.
    pub fn pid_namespaces(&self) -> io::Result<Vec<Namespace>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut open = rustix::fs::openat(&self.folder, c"ns/pid", flags, Mode::empty())?;
        let mut found = vec![namespace(open.as_fd())?];
        while found.len() < MAX_PID_NAMESPACES {
            let Some(parent) = parent_of(open.as_fd()) else { break };
            found.push(namespace(parent.as_fd())?);
            open = parent;
        }
        Ok(found)
    }

    /// Its places in the trees of cgroups, as we see these.
    pub fn cgroups(&self) -> io::Result<Vec<String>> {
        let file = rustix::fs::openat(&self.folder, c"cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        // `4:memory:/path`
        Ok(text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(str::to_owned).collect())
    }
}

fn namespace(open: BorrowedFd<'_>) -> io::Result<Namespace> {
    let stat = rustix::fs::fstat(open)?;
    Ok(Namespace(stat.st_dev, stat.st_ino))
}

/// `None` for ours, and for one that does not lie within ours.
fn parent_of(namespace: BorrowedFd<'_>) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: this request takes no argument and answers a new descriptor.
    let parent = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) };
    // SAFETY: the kernel has just made it, for us alone.
    (parent >= 0).then(|| unsafe { OwnedFd::from_raw_fd(parent) })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    fn sleeper() -> (Child, OwnedFd) {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        (child, pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    #[test]
    fn child_sees_what_we_see_until_it_ends() {
        let (mut child, pidfd) = sleeper();
        let (process, own) = (Process::of(pidfd.as_fd()).unwrap(), Process::own().unwrap());
        assert_eq!(process.mount_namespace().unwrap(), own.mount_namespace().unwrap());
        assert_eq!(process.root_folder().unwrap(), own.root_folder().unwrap());
        assert_eq!(process.cgroups().unwrap(), own.cgroups().unwrap());
        assert_eq!(process.pid_namespaces().unwrap(), own.pid_namespaces().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(process.mount_namespace().is_err() && process.root().is_err());
        assert_eq!(Process::of(pidfd.as_fd()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
