//! Exits that containerd forgot, and signals that it does not pass on.
//!
//! From 1.7 on, containerd throws away a shim whose container ended while containerd itself was down, and the
//! exit code with it. The kernel (since 6.15) still tells it to whoever holds a descriptor of the process.

use std::{
    collections::HashMap,
    mem,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::cgroups::{self, Cgroups};
use crate::{
    backend::runtime::Exit,
    model::{id::ContainerId, time::Timestamp},
};

/// What dockerd reports of a container whose end it did not see.
const UNKNOWN: i64 = 255;

/// Descriptors of the first processes of running containers.
#[derive(Default)]
pub(super) struct LostExits(Mutex<HashMap<ContainerId, Process>>);

/// One of them.
struct Process {
    descriptor: OwnedFd,
    /// The folder of the container's cgroup.
    cgroup: Option<PathBuf>,
    /// SIGKILL was sent past the runtime.
    killed: bool,
}

impl Process {
    fn kill_rest(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroups::kill_all(cgroup);
        }
    }

    fn status(&self) -> Status {
        match wait_status(&self.descriptor) {
            // Of our own SIGKILL we know it.
            Status::Unknown if self.killed => Status::Ended(shell_code(Signal::KILL.as_raw())),
            status => status,
        }
    }
}

/// What is known of a task that containerd does not know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing: it was not there, or was deleted.
    NeverKnown,
    /// Its process lives.
    Lives,
    /// It has ended; the code is the true one where the kernel tells it.
    Ended(Exit),
}

impl LostExits {
    /// Remembers the process of a new task.
    pub(super) fn watch(&self, id: &ContainerId, pid: u32, cgroups: &Cgroups) {
        let named = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // One that cannot be watched costs us the code of an exit in a rare moment, no more.
        if let Some(descriptor) = named.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
            let cgroup = cgroups.folder_of(id.as_str(), pid);
            self.lock().insert(id.clone(), Process { descriptor, cgroup, killed: false });
        }
    }

    /// Forgets a task that was deleted.
    pub(super) fn forget(&self, id: &ContainerId) {
        self.lock().remove(id);
    }

    /// How the process of a task ended that containerd does not know any more.
    pub(super) fn find(&self, id: &ContainerId) -> Lost {
        match self.lock().get(id).map(Process::status) {
            None => Lost::NeverKnown,
            Some(Status::Lives) => Lost::Lives,
            Some(Status::Ended(code)) => Lost::Ended(exit(code)),
            Some(Status::Unknown) => Lost::Ended(exit(UNKNOWN)),
        }
    }

    /// Whether the true exit of a process that has ended can be told without containerd. Kernels before 6.15 do not tell it.
    pub(super) fn tells_exit(&self, id: &ContainerId) -> bool {
        self.lock().get(id).is_some_and(|process| matches!(process.status(), Status::Ended(_)))
    }

    /// Sends a signal to the process itself, and SIGKILL to all in its cgroup as well: who is in another pid namespace
    /// would go on, and hold the shim up. Whether the process is known.
    pub(super) fn signal(&self, id: &ContainerId, signal: u32) -> bool {
        let Some(signal) = i32::try_from(signal).ok().and_then(Signal::from_named_raw) else { return false };
        let mut processes = self.lock();
        let Some(process) = processes.get_mut(id) else { return false };
        if signal == Signal::KILL {
            process.killed = true;
            process.kill_rest();
        }
        // Of one that has ended the exit is on its way.
        matches!(pidfd_send_signal(&process.descriptor, signal), Ok(()) | Err(Errno::SRCH))
    }

    /// Kills what goes on in the cgroup of a container.
    pub(super) fn kill_rest(&self, id: &ContainerId) {
        if let Some(process) = self.lock().get(id) {
            process.kill_rest();
        }
    }

    /// Comes when the process of a task has ended; never if it is not watched.
    pub(super) async fn process_ended(&self, id: &ContainerId) {
        let descriptor = self.lock().get(id).and_then(|process| process.descriptor.try_clone().ok());
        let watched = descriptor.and_then(|descriptor| {
            // SAFETY: an `OwnedFd` answers with the same open descriptor for as long as it lives, and the `AsyncFd` owns it.
            unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.ok()
        });
        let Some(watched) = watched else { return std::future::pending().await };
        if watched.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exit(code: i64) -> Exit {
    Exit { code, at: Timestamp::now(), oom_killed: false }
}

#[derive(Debug, PartialEq, Eq)]
enum Status {
    Lives,
    Ended(i64),
    /// It has ended, and this kernel does not tell how.
    Unknown,
}

/// `struct pidfd_info` of the kernel's first version, which all later ones accept.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// Asks for the exit, `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl = (3 << 30) | ((mem::size_of::<PidfdInfo>() as libc::Ioctl) << 16) | (0xff << 8) | 11;

fn wait_status(descriptor: &OwnedFd) -> Status {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the descriptor is open, and the kernel writes at most the size that the request number carries.
    let answer = unsafe { libc::ioctl(descriptor.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if answer == 0 && info.mask & INFO_EXIT != 0 {
        return Status::Ended(shell_code(info.exit_code));
    }
    // Readable once it has ended, reaped or not.
    let mut ended = [PollFd::new(descriptor, PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec::default())) {
        Ok(0) => Status::Lives,
        _ => Status::Unknown,
    }
}

/// 128 + signal for a killed process.
fn shell_code(status: i32) -> i64 {
    match status & 0x7f {
        0 => i64::from((status >> 8) & 0xff),
        signal => 128 + i64::from(signal),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_living_process_has_no_exit() {
        let exits = LostExits::default();
        let id = ContainerId::random();
        exits.watch(&id, std::process::id(), &Cgroups::detect());
        assert_eq!(exits.find(&id), Lost::Lives);
        exits.forget(&id);
        assert_eq!(exits.find(&id), Lost::NeverKnown);
    }

    #[test]
    fn a_process_that_we_kill_ourselves_has_a_true_exit_on_every_kernel() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let (exits, id) = (LostExits::default(), ContainerId::random());
        exits.watch(&id, child.id(), &Cgroups::detect());
        assert!(!exits.tells_exit(&id), "it lives");
        exits.lock().get_mut(&id).unwrap().cgroup = None;
        assert!(exits.signal(&id, 9));
        child.wait().unwrap();
        assert!(exits.tells_exit(&id));
        let Lost::Ended(exit) = exits.find(&id) else { panic!("it has ended") };
        assert_eq!(exit.code, 137);
    }

    #[test]
    fn the_kernel_tells_how_a_process_ended_if_it_can() {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", "read x; exit 7"]).stdin(Stdio::piped()).spawn().unwrap();
        let (exits, id) = (LostExits::default(), ContainerId::random());
        exits.watch(&id, child.id(), &Cgroups::detect());
        assert_eq!(child.wait().unwrap().code(), Some(7));
        let Lost::Ended(exit) = exits.find(&id) else { panic!("it has ended") };
        assert!([7, UNKNOWN].contains(&exit.code), "{}", exit.code);
    }

    #[test]
    fn codes_are_as_a_shell_tells_them() {
        assert_eq!(shell_code(7 << 8), 7);
        assert_eq!(shell_code(9), 137);
    }
}
