//! Exits that containerd forgot.
//!
//! From 1.7 on, containerd throws away a shim whose container ended while containerd itself was down, and the
//! exit code with it. The kernel (since 6.15) still tells it to whoever holds a descriptor of the process.

use std::{
    collections::HashMap,
    mem,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{
    backend::runtime::Exit,
    model::{id::ContainerId, time::Timestamp},
};

/// What dockerd reports of a container whose end it did not see.
const UNKNOWN: i64 = 255;

/// Descriptors of the first processes of running containers.
#[derive(Default)]
pub(super) struct LostExits(Mutex<HashMap<ContainerId, OwnedFd>>);

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
    pub(super) fn watch(&self, id: &ContainerId, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // One that cannot be watched costs us the code of an exit in a rare moment, no more.
        if let Some(descriptor) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
            self.lock().insert(id.clone(), descriptor);
        }
    }

    /// Forgets a task that was deleted.
    pub(super) fn forget(&self, id: &ContainerId) {
        self.lock().remove(id);
    }

    /// How the process of a task ended that containerd does not know any more.
    pub(super) fn find(&self, id: &ContainerId) -> Lost {
        match self.lock().get(id).map(wait_status) {
            None => Lost::NeverKnown,
            Some(Status::Lives) => Lost::Lives,
            Some(Status::Ended(code)) => Lost::Ended(exit(code)),
            Some(Status::Unknown) => Lost::Ended(exit(UNKNOWN)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, OwnedFd>> {
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
        exits.watch(&id, std::process::id());
        assert_eq!(exits.find(&id), Lost::Lives);
        exits.forget(&id);
        assert_eq!(exits.find(&id), Lost::NeverKnown);
    }

    #[test]
    fn the_kernel_tells_how_a_process_ended_if_it_can() {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", "read x; exit 7"]).stdin(Stdio::piped()).spawn().unwrap();
        let (exits, id) = (LostExits::default(), ContainerId::random());
        exits.watch(&id, child.id());
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
