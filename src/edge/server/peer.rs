//! Who is at the other end of a connection, as the kernel knows it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::net::UnixStream;
use tokio_util::either::Either;

use super::hangup::Socket;
use crate::model::caller::{Caller, Peer, PeerProcess};

/// `SO_PEERPIDFD` of `asm-generic/socket.h`, since Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

/// Nobody vouches for a tcp client.
pub fn caller(socket: &Socket) -> io::Result<Caller> {
    match socket {
        Either::Left(unix) => unix_peer(unix).map(Caller::Process),
        Either::Right(tcp) => tcp.peer_addr().map(Caller::Remote),
    }
}

fn unix_peer(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    // Process number 0 stands for one that our pid namespace does not have.
    let process = match credentials.pid().and_then(Pid::from_raw) {
        Some(pid) => peer_process(stream, pid),
        None => PeerProcess::Outside,
    };
    Ok(Peer { process, uid: credentials.uid(), gid: credentials.gid() })
}

fn peer_process(stream: &UnixStream, pid: Pid) -> PeerProcess {
    let descriptor = match peer_pidfd(stream) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => by_number(stream, pid),
        asked => asked.ok(),
    };
    descriptor.map_or(PeerProcess::Gone, |descriptor| PeerProcess::Known(Arc::new(descriptor)))
}

/// A descriptor of the process that connected, even if it has ended and its number is another one's.
fn peer_pidfd(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut descriptor: libc::c_int = -1;
    let mut length = libc::socklen_t::try_from(size_of_val(&descriptor)).expect("four bytes");
    // SAFETY: both pointers are to variables that live through the call, and `length` is the size of the first.
    let answer = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            std::ptr::from_mut(&mut descriptor).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The same on kernels before 6.5. The number is still that of who connected if its end of the connection is open
/// after the process was held.
fn by_number(stream: &UnixStream, pid: Pid) -> Option<OwnedFd> {
    let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    is_open(stream).ok()?.then_some(descriptor)
}

fn is_open(stream: impl AsFd) -> Result<bool, Errno> {
    let mut asked = [PollFd::new(&stream, PollFlags::RDHUP)];
    poll(&mut asked, Some(&Timespec::default()))?;
    Ok(!asked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use tokio::net::UnixListener;

    use super::*;

    async fn connection() -> (UnixStream, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let (ours, accepted) = tokio::join!(UnixStream::connect(folder.path().join("socket")), listener.accept());
        (ours.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn who_connected_is_held_by_a_descriptor() {
        let (theirs, ours) = connection().await;
        let peer = unix_peer(&ours).unwrap();
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        let PeerProcess::Known(descriptor) = peer.process else { panic!("this process lives") };
        let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd())).unwrap();
        assert!(told.contains(&format!("Pid:\t{}\n", std::process::id())), "{told}");
        drop(theirs);
    }

    #[tokio::test]
    async fn number_is_believed_as_long_as_the_other_end_is_open() {
        let (theirs, ours) = connection().await;
        let own = rustix::process::getpid();
        assert!(by_number(&ours, own).is_some());
        drop(theirs);
        assert!(by_number(&ours, own).is_none());
        let mut gone = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        gone.wait().unwrap();
        let (_theirs, ours) = connection().await;
        let number = Pid::from_raw(i32::try_from(gone.id()).unwrap()).unwrap();
        assert!(by_number(&ours, number).is_none());
    }
}
