//! What a runner calls before the first step of its job, and waits for: a script and two pipes in a folder of this machine that the runner's
//! container sees. What comes out of it is what any program of the container may have written.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::pin,
};

use futures_util::future::{Either, select};
use rustix::fs::{CWD, FileType, Mode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe::{OpenOptions, Receiver, Sender},
};
use tracing::warn;

use super::{Answer, answer};
use crate::{
    model::{Result, error::Context},
    supervisor::{pool::Pool, runner::Runner},
};

/// Where its folder is in the container.
const FOLDER: &str = "/opt/ringer-hook";

/// What it may say, and what is answered, at most: both fit into a pipe.
const LONGEST: usize = 4096;

/// Lines that it says.
const LINES: usize = 4;

/// The hook of one runner. Its folder goes with it.
pub struct JobHook {
    variable: &'static str,
    folder: PathBuf,
    said: Receiver,
    answer: Sender,
}

impl JobHook {
    /// Makes that of a launch whose runner's container is of this image; `None` where the forge's runner calls nothing.
    pub async fn make(pool: &Pool, runner: &Runner, launch: &str, image: &str) -> Result<Option<Self>> {
        let Some(variable) = pool.forge.job_hook() else { return Ok(None) };
        let own = runner.image_variable(image, variable).await?.unwrap_or_default();
        let folder = pool.shared.hooks.join(launch);
        Self::put(variable, &folder, &own).context(format!("making {}", folder.display())).map(Some)
    }

    fn put(variable: &'static str, folder: &Path, own: &str) -> std::io::Result<Self> {
        // Whoever the image's user is.
        let readable = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        fs::create_dir(folder)?;
        readable(folder, 0o755)?;
        for (name, content) in [("job-started.sh", include_str!("job-started.sh")), ("own", own)] {
            let path = folder.join(name);
            fs::write(&path, content)?;
            readable(&path, 0o644)?;
        }
        for pipe in ["job", "answer"] {
            let path = folder.join(pipe);
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::empty(), 0)?;
            readable(&path, 0o666)?;
        }
        // With both ends of each, the other side neither waits for us nor sees an end.
        let mut open = OpenOptions::new();
        open.read_write(true);
        let (said, answer) = (open.open_receiver(folder.join("job"))?, open.open_sender(folder.join("answer"))?);
        Ok(Self { variable, folder: folder.to_owned(), said, answer })
    }

    /// What is bound, as `docker run -v` has it: pipes are written to all the same.
    pub fn bind(&self) -> String {
        format!("{}:{FOLDER}:ro", self.folder.display())
    }

    /// The variable that tells the runner of it.
    pub fn variable(&self) -> String {
        format!("{}={FOLDER}/job-started.sh", self.variable)
    }

    /// Serves the one job while `other` goes on, and returns what that comes to. Before the job begins `begins` comes to its end.
    pub async fn serving<T>(
        hook: Option<Self>,
        pool: &Pool,
        runner: &Runner,
        begins: impl Future<Output = ()>,
        other: impl Future<Output = T>,
    ) -> T {
        let (served, other) = (pin!(Self::serve(hook, pool, runner, begins)), pin!(other));
        match select(served, other).await {
            Either::Left((_held, other)) => other.await,
            Either::Right((outcome, _)) => outcome,
        }
    }

    async fn serve(hook: Option<Self>, pool: &Pool, runner: &Runner, begins: impl Future<Output = ()>) -> Option<Self> {
        let mut hook = hook?;
        let answered = async {
            let said = hook.listen().await?;
            begins.await;
            let Answer { goes_on, words } = answer(pool, runner, &said).await;
            let word = if goes_on { "ok" } else { "failed" };
            let words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST / 8).collect();
            hook.answer.write_all(format!("{word} {words}\n").as_bytes()).await
        };
        if let Err(error) = answered.await {
            warn!(forge = pool.settings.name, "speaking to a runner that has a job: {error}");
        }
        Some(hook)
    }

    async fn listen(&mut self) -> std::io::Result<String> {
        let mut said = Vec::new();
        while said.len() < LONGEST && said.iter().filter(|byte| **byte == b'\n').count() < LINES {
            self.said.read_buf(&mut said).await?;
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for JobHook {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            warn!("removing {}: {error}", self.folder.display());
        }
    }
}
