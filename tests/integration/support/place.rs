//! Network namespaces that several programs of a test share, and connections into them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::daemon::Daemon;

/// An address of the namespace itself that is not loopback: what jobs can be let through to.
pub const ADDRESS: &str = "10.99.0.1";

/// A network namespace that is there until the guard is dropped, whoever comes and goes in it.
pub struct Place {
    holder: Child,
}

impl Place {
    /// Makes one with loopback and [`ADDRESS`].
    pub fn start() -> Self {
        let script =
            format!("ip link set lo up && ip addr add {ADDRESS}/32 dev lo && echo ready && exec sleep infinity");
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut line = String::new();
        let output = holder.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("the pipe can be read");
        assert_eq!(line, "ready\n", "no network namespace");
        Self { holder }
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// The beginning of a command that runs in it.
    pub fn entry(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.path().display())]
    }

    /// A listener in it, at [`ADDRESS`] or its loopback, for this runtime.
    pub fn listener(&self, address: &str) -> tokio::net::TcpListener {
        let listener = listen(&self.path(), address.parse().expect("an address and a port")).expect("a free port");
        listener.set_nonblocking(true).expect("a listener of ours");
        tokio::net::TcpListener::from_std(listener).expect("a listener of ours")
    }

    /// A program in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let [nsenter, namespace] = self.entry();
        let mut command = Command::new(nsenter);
        command.arg(namespace).arg(program);
        command
    }

    /// `ringer config check` in it, with this file and these variables: its exit code, and all that it says.
    pub fn config_check(&self, file: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut check = self.command(env!("CARGO_BIN_EXE_ringer"));
        check.args(["config", "check", "--config"]).arg(file).envs(variables.iter().copied());
        let checked = check.output().expect("nsenter is there");
        let said = [checked.stdout, checked.stderr].map(|output| String::from_utf8_lossy(&output).into_owned());
        (checked.status.code(), said.concat())
    }

    /// The same beside a daemon, with its file, so that it asks from inside a job as well.
    pub fn config_check_beside(&self, daemon: &Daemon) -> (Option<i32>, String) {
        self.config_check(&daemon.folder().join("config.toml"), &[("RINGER_ADMIN_HOST", &daemon.admin_host())])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ended_already = self.holder.kill();
        let _reaped_already = self.holder.wait();
    }
}

/// A listener that belongs to a network namespace, whoever accepts from it.
pub fn listen(namespace: &Path, address: SocketAddr) -> io::Result<TcpListener> {
    within(namespace, move || TcpListener::bind(address))
}

/// A connection that belongs to a network namespace, whoever uses it.
pub fn connect(namespace: &Path, address: SocketAddr) -> io::Result<TcpStream> {
    within(namespace, move || TcpStream::connect(address))
}

fn within<T: Send + 'static>(namespace: &Path, open: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let namespace = File::open(namespace)?;
    let opening = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        open()
    });
    opening.join().expect("opening does not panic")
}

/// A server of the test's own at a place, on a thread of its own: it answers also while the test waits for a program. Connections and all
/// break off when it is dropped.
pub struct Serving {
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Serving {
    /// Listens at a port of [`ADDRESS`].
    pub fn start<F: Future<Output = ()>>(
        place: &Place,
        port: u16,
        serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
    ) -> Self {
        let address = format!("{ADDRESS}:{port}").parse().expect("a constant");
        let listener = listen(&place.path(), address).expect("its port is free");
        listener.set_nonblocking(true).expect("a listener");
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener) => {}
                    _ = ended => {}
                }
            });
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a server of the test panicked");
        }
    }
}
