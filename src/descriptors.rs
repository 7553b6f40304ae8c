//! How many descriptors this process may have open. A container takes some as long as it runs, so the soft limit is
//! raised to the hard one; programs that are started get back what we were given, since what containerd and its shims
//! have is what containers have.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    process::Command,
    sync::OnceLock,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are kept for what is under way, and for answers that say so, when clients take nearly all.
const RESERVE: u64 = 64;

static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit to the hard one. Called once, before anything else is started.
pub fn raise_limit() -> io::Result<()> {
    let inherited = getrlimit(Resource::Nofile);
    let _first_call_counts = INHERITED.set(inherited);
    if inherited.current == inherited.maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: inherited.maximum, ..inherited })?)
}

/// Gives a program the limits that we were started with.
pub fn give_back(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let Some(inherited) = INHERITED.get().copied() else { return };
    // SAFETY: between fork and exec there is nothing but one system call, which takes no lock and no memory.
    unsafe { command.pre_exec(move || Ok(setrlimit(Resource::Nofile, inherited)?)) };
}

/// How many published ports may hold: the other half is for what clients and containers need to go on.
pub fn for_ports() -> u64 {
    getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / 2)
}

/// Whether hardly any descriptor is left: the kernel gives the lowest free number, so a high one tells.
pub fn are_scarce(newest: impl AsFd) -> bool {
    let number = u64::try_from(newest.as_fd().as_raw_fd()).unwrap_or(0);
    getrlimit(Resource::Nofile).current.is_some_and(|limit| number + RESERVE.min(limit / 4) >= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_number_tells_that_few_are_left() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!are_scarce(&file));
        let limit = getrlimit(Resource::Nofile).current.unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&file, i32::try_from(limit - 1).unwrap()).unwrap();
        assert!(are_scarce(&high));
    }
}
