//! What containers wrote: one log per container, kept until the container is removed.
//!
//! The drivers `json-file` and `local` share one framed format of our own, since Docker's JSON lines make
//! dockerd read at 12 MiB/s; `none` keeps nothing. A run of a container has a [`Writer`], clients read through
//! [`ContainerLog::read`], also while it is written and after a restart of the daemon.
//!
//! On disk: `container.log` is written, `container.log.N` were written before (`N` grows), all in the folder
//! that [`ContainerLog::new`] is given, and beside them what is no whole line yet ([`unfinished`]). [`record`] knows the bytes, [`segments`] the files.

mod attributes;
mod options;
mod reader;
mod record;
mod segments;
mod tail;
mod timestamps;
mod unfinished;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

pub use attributes::Facts;
pub use options::{Driver, Settings, check};
pub use reader::{LogStream, ReadOptions};
pub use writer::Writer;

use crate::model::{Error, Result, container::LogConfig};
use segments::Segments;
use unfinished::Unfinished;

/// A place in the log: which file, and where in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    /// Number of the file; those with smaller numbers were rotated away.
    generation: u64,
    /// Bytes from its start.
    offset: u64,
}

/// How far the writer is; readers that follow watch it.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Where the next record will stand.
    end: Position,
    /// Counts runs of the container.
    run: u64,
    /// Whether the latest run still writes.
    is_writing: bool,
    /// Where the latest ended run stopped.
    ended_at: Position,
}

/// The log of one container.
#[derive(Debug)]
pub struct ContainerLog {
    config: LogConfig,
    /// `k=v,k=v`, shown in front of each line with `details`.
    details: String,
    segments: Segments,
    progress: watch::Sender<Progress>,
    /// Held while files are renamed or opened by number.
    files: Mutex<()>,
}

impl ContainerLog {
    /// The log below `dir`, a folder of the container's own. Touches no file: one that is there already is read
    /// and gone on with. `facts` fill the attributes that `LogConfig` asks for (labels, env, tag).
    pub fn new(dir: impl Into<PathBuf>, config: &LogConfig, facts: &Facts<'_>) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            details: attributes::details(config, facts).unwrap_or_default(),
            segments: Segments::new(dir.into()),
            progress: watch::Sender::default(),
            files: Mutex::new(()),
        })
    }

    /// Opens it for a run of the container. Errors are dockerd's `failed to initialize logging driver: …`.
    pub fn writer(self: &Arc<Self>) -> Result<Writer> {
        let settings = Settings::parse(&self.config)
            .and_then(|settings| attributes::check_tag(&self.config).map(|()| settings))
            .map_err(|error| error.context("failed to initialize logging driver"))?;
        Writer::open(Arc::clone(self), settings)
    }

    /// Streams what is there and, with `follow` and while a writer is open, what comes until that writer ends.
    /// 501 for the driver `none`.
    pub fn read(self: &Arc<Self>, options: ReadOptions) -> Result<LogStream> {
        if Driver::of(&self.config) == Some(Driver::None) {
            return Err(Error::not_implemented("configured logging driver does not support reading"));
        }
        Ok(reader::read(Arc::clone(self), options))
    }

    /// Where the log is written, for `LogPath` of inspect. Empty for `local`, whose files Docker hides, and `none`.
    pub fn path(&self) -> String {
        match Driver::of(&self.config) {
            Some(Driver::JsonFile) => self.segments.live().to_string_lossy().into_owned(),
            _ => String::new(),
        }
    }

    /// The folder of all its files.
    pub fn folder(&self) -> &Path {
        self.segments.folder()
    }

    /// Whether a daemon that died had read the beginning of a line. A writer goes on with it.
    pub fn has_unfinished(&self) -> bool {
        self.segments.unfinished().exists()
    }

    fn unfinished(&self) -> Unfinished {
        Unfinished::new(self.segments.unfinished())
    }

    /// Runs `action` while no file is renamed.
    fn with_files<T>(&self, action: impl FnOnce() -> T) -> T {
        let _held = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        action()
    }

    /// How far the log goes now; read from the disk if no run has been since the daemon started.
    fn progress(&self) -> Progress {
        let progress = *self.progress.borrow();
        if progress.run > 0 {
            return progress;
        }
        let end = self.with_files(|| self.segments.end()).unwrap_or_default();
        Progress { end, ended_at: end, ..progress }
    }
}

#[cfg(test)]
mod tests;
