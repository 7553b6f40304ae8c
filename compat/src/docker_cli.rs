//! Runs the `.case` steps with a docker CLI.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::case_file::{Step, Subject};
use crate::command;
use crate::http::{Body, Client};
use crate::leftovers;
use crate::normal::normal;
use crate::report::{Observed, Outcome};
use crate::socket::Socket;

/// Loads image archives on a daemon.
pub fn load_images(socket: &Socket, images: &[PathBuf]) -> anyhow::Result<()> {
    let mut client = Client::new(&socket.path);
    for image in images {
        let answer = client.request("POST", "/images/load?quiet=1", Body::TarFile(image))?;
        let answer = answer.success().with_context(|| format!("loading {} on {}", image.display(), socket.name))?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(!text.contains("\"error\""), "loading {} on {}: {text}", image.display(), socket.name);
    }
    Ok(())
}

/// A docker CLI and what its steps may use.
pub struct DockerCli {
    /// What the table calls it.
    pub name: String,
    /// The `docker` program.
    pub program: PathBuf,
    /// Bash functions that every step may call.
    pub prelude: PathBuf,
    /// Where registries listen in the network namespace of each daemon: without and with a login.
    pub registries: [String; 2],
    /// Image archives that are loaded again when a subject removed what was in them.
    pub images: Vec<PathBuf>,
    /// What else a step finds in its environment.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl DockerCli {
    /// Runs those of a subject's steps on one socket that it is asked, in order, and removes what they left.
    pub fn run(
        &self,
        subject: &Subject,
        socket: &Socket,
        is_asked: impl Fn(usize) -> bool,
    ) -> anyhow::Result<Vec<Outcome>> {
        let folder = Folder::new(&self.name, socket)?;
        std::os::unix::fs::symlink(&self.program, folder.0.join("bin/docker"))?;
        let before = leftovers::holdings(&socket.path)?;
        let run = |(at, step)| match is_asked(at) {
            true => self.step(step, socket, &folder.0).map(Outcome::Answer),
            false => Ok(Outcome::NotAsked),
        };
        let observed = subject.steps.iter().enumerate().map(run).collect();
        leftovers::sweep(&socket.path, &before)?;
        if leftovers::lost_images(&socket.path, &before)? {
            load_images(socket, &self.images)?;
        }
        observed
    }

    fn step(&self, step: &Step, socket: &Socket, folder: &Path) -> anyhow::Result<Observed> {
        let mut command = match socket.netns {
            None => Command::new("bash"),
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/proc/{pid}/ns/net")).arg("bash");
                command
            }
        };
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-c", &format!(". {}\n{}", self.prelude.display(), step.script)])
            .current_dir(folder.join("work"))
            .env_clear()
            .env("PATH", format!("{}:{path}", folder.join("bin").display()))
            .env("HOME", folder)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("DOCKER_HOST", format!("unix://{}", socket.path.display()))
            .env("SOCKET", &socket.path)
            .env("REGISTRY", &self.registries[0])
            .env("LOGIN_REGISTRY", &self.registries[1])
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = command::run(&mut command, step.timeout).context("starting bash")?;
        let clean = |text: &str| {
            let text = normal(text, folder, &socket.path);
            if step.sorted { sorted(&text) } else { text }
        };
        Ok(Observed { code: output.code, stdout: clean(&output.stdout), stderr: clean(&output.stderr) })
    }
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The steps' own home and working folder, gone when the subject is done.
struct Folder(PathBuf);

impl Folder {
    fn new(client: &str, socket: &Socket) -> anyhow::Result<Self> {
        let name = format!("ringer-compat-{}-{client}-{}", std::process::id(), socket.name);
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(folder.0.join("bin"))?;
        std::fs::create_dir_all(folder.0.join("work"))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary folder is a nuisance, not a failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
