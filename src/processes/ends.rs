//! Names of processes that hold over time, and their ends.

use std::{fs, io, os::fd::OwnedFd, str::SplitWhitespace};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

use crate::model::job::ProcessName;

/// A process, held by a descriptor that never comes to mean another one.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// The process that has a number now. `NotFound` if there is none.
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        // The library takes no negative number at all.
        let pid = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Err(rustix::io::Errno::SRCH) => return Err(io::ErrorKind::NotFound.into()),
            other => other?,
        };
        // SAFETY: an `OwnedFd` answers with the same open descriptor for as long as it lives, and the `AsyncFd` owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?))
    }

    /// The process of that name; `None` if it has ended.
    pub fn named(name: &ProcessName) -> io::Result<Option<Self>> {
        // The descriptor first: after the comparison the number might already mean another process.
        let process = match Self::of_pid(name.pid) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let is_it = boot()? == name.boot && start_time(name.pid) == Some(name.start);
        Ok(is_it.then_some(process))
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> &OwnedFd {
        self.0.get_ref()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

/// What the process that has a number now is to be called. `NotFound` if there is none.
pub fn name_of(pid: i32) -> io::Result<ProcessName> {
    let _alive = Watched::of_pid(pid)?;
    let start = start_time(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(ProcessName { pid, start, boot: boot()? })
}

/// Who started the process that has a number now, and lives on.
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_fields(&stat)?.nth(1)?.parse().ok()
}

/// Field 22 of `/proc/PID/stat`: with the number and the boot it names a process for ever.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_fields(&stat)?.nth(19)?.parse().ok()
}

/// The fields of `/proc/PID/stat` from the third on. The second is the program's name in brackets and may itself hold blanks
/// and brackets.
pub fn stat_fields(stat: &str) -> Option<SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

fn boot() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_named_process_is_seen() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let name = name_of(i32::try_from(child.id()).unwrap()).unwrap();
        let process = Watched::named(&name).unwrap().expect("it runs");
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), process.ended()).await;
        assert!(early.is_err(), "it has not ended yet");
        child.kill().unwrap();
        process.ended().await.unwrap();
        child.wait().unwrap();
        assert!(Watched::named(&name).unwrap().is_none());
    }

    #[test]
    fn another_process_with_the_number_is_another() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let own = name_of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(Watched::named(&own).unwrap().is_some());
        let earlier = ProcessName { start: own.start - 1, ..own.clone() };
        assert!(Watched::named(&earlier).unwrap().is_none());
        let other_boot = ProcessName { boot: "x".to_owned(), ..own };
        assert!(Watched::named(&other_boot).unwrap().is_none());
        assert_eq!(name_of(0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
