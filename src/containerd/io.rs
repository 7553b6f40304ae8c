//! The named pipes between a shim and us: made by us, opened by both.
//!
//! The order matters. We open the reading ends before the shim is told to open its own, since it waits for
//! them; and we keep a writing end open until it has opened its own, since a pipe without a writer reads as ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    pipe::fcntl_setpipe_size,
};
use tokio::net::unix::pipe;
use tracing::warn;

use crate::{
    backend::runtime::{InputPipe, OutputPipe, Stdio, TaskIo},
    model::{Result, error::Context, output::OutputStream},
};

/// Bytes that a process may be ahead of us. The shim copies faster through large pipes (0.77 of the time for
/// 256 KiB, no better beyond); four times that would soon reach the kernel's limit for all pipes of a user.
const PIPE_SIZE: usize = 256 << 10;

/// Below the runtime's folder: output that a killed daemon did not read.
pub(super) const UNREAD: &str = "unread";

/// What is saved of an output at once: more than its pipe holds.
const MOST_UNREAD: u64 = 1 << 20;

/// How long, and how far apart, outputs are looked at whose containers have ended.
const UNREAD_PATIENCE: Duration = Duration::from_millis(500);
const UNREAD_PAUSE: Duration = Duration::from_millis(20);

/// The outputs with their names.
const OUTPUTS: [(OutputStream, &str); 2] = [(OutputStream::Stdout, "stdout"), (OutputStream::Stderr, "stderr")];

/// The pipes of one process, below `folder`, by the name of the process.
pub(super) struct Fifos {
    folder: PathBuf,
    stdin: Option<PathBuf>,
    /// Whether nobody writes to `stdin`: it is there to be at its end.
    stdin_is_empty: bool,
    stdout: PathBuf,
    stderr: Option<PathBuf>,
}

/// Writing ends, held until the shim has its own.
pub(super) struct Hold {
    _stdin: Option<File>,
    _stdout: File,
    _stderr: Option<File>,
}

impl Fifos {
    /// Names them: `process` is `init` or an exec's id.
    pub(super) fn new(folder: PathBuf, process: &str, stdio: Stdio) -> Self {
        let path = |stream: &str| folder.join(format!("{process}-{stream}"));
        Self {
            stdin: stdio.stdin.then(|| path("stdin")),
            stdin_is_empty: false,
            stdout: path("stdout"),
            // With a terminal everything comes through one stream. Without, the shim wants both or none.
            stderr: (!stdio.terminal).then(|| path("stderr")),
            folder,
        }
    }

    /// Gives a process that has neither input nor terminal an empty pipe, where the shim would open `/dev/null` for it.
    /// The shim's end has to be closed once it is open ([`has_empty_stdin`](Self::has_empty_stdin)).
    pub(super) fn with_empty_stdin(mut self, process: &str) -> Self {
        if self.stdin.is_none() && self.stderr.is_some() {
            self.stdin = Some(self.folder.join(format!("{process}-stdin")));
            self.stdin_is_empty = true;
        }
        self
    }

    /// Whether there is an input to which nobody writes.
    pub(super) fn has_empty_stdin(&self) -> bool {
        self.stdin_is_empty
    }

    /// Makes the pipes and opens our ends.
    pub(super) fn create(&self) -> Result<(TaskIo, Hold)> {
        fs::create_dir_all(&self.folder).context("making the folder of a container's pipes")?;
        for path in self.paths() {
            make(path).context("making a container's pipe")?;
        }
        let streams = self.open()?;
        Ok((streams, self.hold().context("holding a container's pipe open")?))
    }

    /// Opens our ends again, of pipes whose other ends the shim has, or had: then they end at once.
    pub(super) fn reopen(&self) -> Result<TaskIo> {
        let streams = self.open()?;
        // The kernel tells a reader of a pipe's end only if there was a writer in its time.
        self.hold().map(drop).context("holding a container's pipe open")?;
        Ok(streams)
    }

    fn open(&self) -> Result<TaskIo> {
        let open = || -> io::Result<TaskIo> {
            Ok(TaskIo {
                stdin: self.stdin.as_deref().filter(|_| !self.stdin_is_empty).map(open_input).transpose()?,
                stdout: open_output(&self.stdout)?,
                stderr: self.stderr.as_deref().map(open_output).transpose()?,
            })
        };
        open().context("opening a container's pipe")
    }

    fn hold(&self) -> io::Result<Hold> {
        let open = |path: &Path, read: bool| {
            OpenOptions::new().read(read).write(true).custom_flags(libc::O_NONBLOCK).open(path)
        };
        let writer = |path: &Path| open(path, false);
        // For reading too, or the kernel would refuse it until the shim opens its end.
        let input = |path: &Path| open(path, true);
        let empty = self.stdin.as_deref().filter(|_| self.stdin_is_empty);
        Ok(Hold {
            _stdin: empty.map(input).transpose()?,
            _stdout: writer(&self.stdout)?,
            _stderr: self.stderr.as_deref().map(writer).transpose()?,
        })
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        [self.stdin.as_deref(), Some(self.stdout.as_path()), self.stderr.as_deref()].into_iter().flatten()
    }

    /// Takes the names away; open ends go on.
    pub(super) fn remove(&self) {
        for path in self.paths() {
            // One that is gone already is as wanted.
            let _ = fs::remove_file(path);
        }
    }

    /// As containerd wants it: path or empty.
    pub(super) fn stdin(&self) -> String {
        text(self.stdin.as_deref())
    }

    /// As containerd wants it.
    pub(super) fn stdout(&self) -> String {
        text(Some(&self.stdout))
    }

    /// As containerd wants it: path or empty.
    pub(super) fn stderr(&self) -> String {
        text(self.stderr.as_deref())
    }
}

/// Opens both ends of all pipes in a folder, so that nobody waits for the other end of one.
pub(super) fn hold_all(folder: &Path) -> Vec<File> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let pipes = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_fifo()));
    let open = |entry: fs::DirEntry| {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(entry.path()).ok()
    };
    pipes.filter_map(open).collect()
}

/// The folders of all containers' pipes.
pub(super) fn container_folders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Saves what is in the outputs of containers whose daemon was killed, below `to`, before their pipes go. `folders` are
/// those of the containers. Waits for a moment in which nothing comes.
pub(super) fn keep_unread(folders: &[PathBuf], to: &Path) {
    let deadline = Instant::now() + UNREAD_PATIENCE;
    let keep = |folder: &PathBuf| keep_unread_of(folder, &to.join(folder.file_name().unwrap_or_default()));
    let mut was_quiet = folders.is_empty();
    while !was_quiet && Instant::now() < deadline {
        // All of them, not only until the first that has something.
        was_quiet = folders.iter().filter(|folder| keep(folder)).count() == 0;
        if !was_quiet {
            std::thread::sleep(UNREAD_PAUSE);
        }
    }
}

/// Saves what is in the outputs of one container; whether there was anything.
fn keep_unread_of(folder: &Path, to: &Path) -> bool {
    let mut has_kept = false;
    for (_, name) in OUTPUTS {
        let pipe = folder.join(format!("init-{name}"));
        let is_pipe = fs::symlink_metadata(&pipe).is_ok_and(|data| data.file_type().is_fifo());
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(pipe);
        let Some(pipe) = opened.ok().filter(|_| is_pipe) else { continue };
        let mut bytes = Vec::new();
        // Ends with an error when there is no more for now.
        let _no_more = pipe.take(MOST_UNREAD).read_to_end(&mut bytes);
        if !bytes.is_empty() {
            has_kept = true;
            let file =
                fs::create_dir_all(to).and_then(|()| File::options().create(true).append(true).open(to.join(name)));
            if let Err(error) = file.and_then(|mut file| file.write_all(&bytes)) {
                warn!("saving the output of a container: {error}");
            }
        }
    }
    has_kept
}

/// What was saved of one container, which is forgotten with this.
pub(super) fn take_unread(folder: &Path) -> Vec<(OutputStream, Vec<u8>)> {
    let read = |(stream, name): (OutputStream, &str)| Some((stream, fs::read(folder.join(name)).ok()?));
    let unread = OUTPUTS.into_iter().filter_map(read).collect();
    let _not_there = fs::remove_dir_all(folder);
    unread
}

fn text(path: Option<&Path>) -> String {
    path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

fn make(path: &Path) -> io::Result<()> {
    // One from an earlier run might still be held by a process that inherited it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?),
    }
}

fn open_output(path: &Path) -> io::Result<OutputPipe> {
    let receiver = pipe::OpenOptions::new().open_receiver(path)?;
    // Best effort: beyond a limit the kernel refuses, and the default works as well.
    let _ = fcntl_setpipe_size(&receiver, PIPE_SIZE);
    Ok(Box::pin(receiver) as Pin<Box<_>>)
}

/// Opened for reading too, or the kernel would refuse it until the shim opens its end.
fn open_input(path: &Path) -> io::Result<InputPipe> {
    let sender = pipe::OpenOptions::new().read_write(true).open_sender(path)?;
    Ok(Box::pin(sender) as Pin<Box<_>>)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn output_does_not_end_before_the_other_side_has_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fifos = Fifos::new(folder.path().join("io"), "init", Stdio::default());
        let (mut streams, hold) = fifos.create().unwrap();
        let mut shim = pipe::OpenOptions::new().open_sender(&fifos.stdout).unwrap();
        drop(hold);
        shim.write_all(b"hello").await.unwrap();
        drop(shim);
        let mut text = String::new();
        streams.stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn an_output_whose_other_side_is_gone_ends() {
        let folder = tempfile::tempdir().unwrap();
        let fifos = Fifos::new(folder.path().join("io"), "init", Stdio::default());
        drop(fifos.create().unwrap());
        let mut streams = fifos.reopen().unwrap();
        let mut byte = [0];
        let reading = tokio::time::timeout(std::time::Duration::from_secs(10), streams.stdout.read(&mut byte));
        assert_eq!(reading.await.expect("an end").unwrap(), 0);
    }

    #[tokio::test]
    async fn held_pipes_keep_neither_side_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let fifos = Fifos::new(folder.path().to_owned(), "init", Stdio { stdin: true, terminal: false });
        drop(fifos.create().unwrap());
        fs::write(folder.path().join("file"), "").unwrap();
        let held = hold_all(folder.path());
        assert_eq!(held.len(), 3);
        // Both would block without an other end.
        File::options().write(true).open(&fifos.stdout).unwrap();
        File::open(fifos.stdin.as_ref().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_terminal_has_one_output() {
        let folder = tempfile::tempdir().unwrap();
        let stdio = Stdio { terminal: true, stdin: true };
        let fifos = Fifos::new(folder.path().join("io"), "init", stdio);
        let (streams, _hold) = fifos.create().unwrap();
        assert!(streams.stdin.is_some());
        assert!(streams.stderr.is_none());
        fifos.remove();
        assert_eq!(fs::read_dir(folder.path().join("io")).unwrap().count(), 0);
    }
}
