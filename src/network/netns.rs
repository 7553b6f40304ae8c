//! Network namespaces: made by a thread of our own, held by a bind mount, entered by short-lived threads.
//!
//! A socket belongs to the namespace of the thread that makes it, for ever and wherever it is used; so does what a thread
//! sees below /proc/sys/net. So all that is done for a host is done on a thread that is in it.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use rustix::{
    mount::{UnmountFlags, mount_bind, unmount},
    thread::{UnshareFlags, unshare_unsafe},
};
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::oneshot,
};

use super::links::Links;
use crate::dns::Sockets;
pub use crate::processes::enter_network as enter;

const LOOPBACK: u32 = 1;

/// The network namespace of a host.
#[derive(Clone, Debug)]
pub enum Namespace {
    /// The daemon's own, in which all its threads are: the machine.
    Machine,
    /// One that is held: a job's.
    Held(Arc<Held>),
}

/// A network namespace that lives at least as long as this.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    file: File,
}

impl Held {
    /// For threads that enter it.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Namespace {
    /// Makes a namespace that is held at `path`, with loopback up, or takes up the one that is there.
    pub async fn hold(path: PathBuf) -> io::Result<Self> {
        let opened = path.clone();
        let file = on_own_thread("host", move || {
            enter_or_create(&opened)?;
            File::open(&opened)
        })
        .await?;
        Ok(Self::Held(Arc::new(Held { path, file })))
    }

    /// Where it is held; `None` is the machine's.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Machine => None,
            Self::Held(held) => Some(&held.path),
        }
    }

    /// Runs what blocks in the namespace.
    pub async fn run<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Machine => tokio::task::spawn_blocking(work).await.unwrap_or_else(|panicked| Err(panicked.into())),
            Self::Held(_) => self.run_apart(name, work).await,
        }
    }

    /// The same on a thread that ends with it: `work` may change its namespaces.
    pub async fn run_apart<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let namespace = self.clone();
        on_own_thread(name, move || {
            if let Self::Held(held) = namespace {
                enter(&held.file)?;
            }
            work()
        })
        .await
    }
}

/// For what speaks to containers, and for name servers that are asked from here.
#[async_trait]
impl Sockets for Namespace {
    async fn connect_tcp(&self, peer: SocketAddr) -> io::Result<TcpStream> {
        let make = move || if peer.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = match self {
            Self::Machine => make()?,
            Self::Held(_) => self.run_apart("dial", make).await?,
        };
        socket.connect(peer).await
    }

    async fn connect_udp(&self, peer: SocketAddr) -> io::Result<UdpSocket> {
        let make = move || {
            let any = match peer {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            };
            let socket = std::net::UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(peer)?;
            Ok(socket)
        };
        let socket = match self {
            Self::Machine => make()?,
            Self::Held(_) => self.run_apart("dial", make).await?,
        };
        UdpSocket::from_std(socket)
    }
}

/// Runs `work` on a thread of its own, which ends with it. The thread may change its namespaces.
pub async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, result) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(move || {
        let _ = answer.send(work());
    })?;
    result.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended without an answer")))
}

/// Moves the calling thread into the namespace that is held at `path`, which is made if it is not there, and brings its
/// loopback up.
pub fn enter_or_create(path: &Path) -> io::Result<()> {
    if is_namespace(path) {
        enter(File::open(path)?)?;
    } else {
        create(path)?;
    }
    Links::open()?.set_up(LOOPBACK)
}

/// Makes a new network namespace held by a bind mount at `path`; the calling thread is in it afterwards.
fn create(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    // SAFETY: only CLONE_NEWNET; no descriptor table or memory is unshared, and the thread is ours alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    mount_bind("/proc/thread-self/ns/net", path).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })?;
    Ok(())
}

/// Whether a namespace is mounted at `path`; a plain file is left of a daemon that was killed in between.
fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between architectures")]
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as i64 == NSFS_MAGIC)
}

/// Lets go of the namespace. It lives on while a process or a socket is in it.
pub fn release(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        // INVAL: not a mount point any more, the file may still be there.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
