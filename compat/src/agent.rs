//! Runs CI agents: each takes the demo workflow, or its own dialect of it, as a user would start it by hand.
//!
//! An agent's program is given by its path. Nothing of the agents themselves is part of this package.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use regex::Regex;

use crate::command::{self, Output};
use crate::http::{Body, Client};
use crate::leftovers;
use crate::report::Observed;
use crate::socket::Socket;

const LIMIT: Duration = Duration::from_secs(300);

/// The agents that the harness can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentKind {
    /// nektos/act.
    Act,
    /// forgejo-runner, through its `exec`.
    ForgejoRunner,
    /// Gitea's runner, through its `exec`.
    GiteaRunner,
    /// woodpecker-cli, through its `exec`.
    WoodpeckerCli,
    /// gitlab-runner, through its `exec`, which versions before 16 have.
    GitlabRunner,
}

/// What an agent is made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobCase {
    /// One whole workflow.
    Whole,
    /// Ten at once, each under its own name.
    TenAtOnce,
    /// The agent is killed in mid-job; the daemon must still do the next one.
    KilledInMidJob,
}

impl JobCase {
    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "a whole workflow",
            Self::TenAtOnce => "ten workflows at once",
            Self::KilledInMidJob => "a workflow after one whose agent was killed",
        }
    }
}

impl AgentKind {
    /// In the order of the table.
    pub const ALL: [Self; 5] =
        [Self::Act, Self::ForgejoRunner, Self::GiteaRunner, Self::WoodpeckerCli, Self::GitlabRunner];

    /// As named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::ForgejoRunner => "forgejo-runner",
            Self::GiteaRunner => "gitea-runner",
            Self::WoodpeckerCli => "woodpecker-cli",
            Self::GitlabRunner => "gitlab-runner",
        }
    }

    /// What this agent is made to do.
    pub fn cases(self) -> &'static [JobCase] {
        match self {
            Self::Act => &[JobCase::Whole, JobCase::TenAtOnce, JobCase::KilledInMidJob],
            _ => &[JobCase::Whole],
        }
    }

    /// Which folder of workflows it reads.
    fn dialect(self) -> &'static str {
        match self {
            Self::Act | Self::ForgejoRunner | Self::GiteaRunner => "demo",
            Self::WoodpeckerCli => "woodpecker",
            Self::GitlabRunner => "gitlab",
        }
    }

    /// What a user would type to run the workflow in the current folder.
    fn arguments(self) -> &'static [&'static str] {
        const IMAGE: &str = "ringer/ci:bookworm";
        match self {
            Self::Act => &[
                "push",
                "-W",
                ".github/workflows",
                "-P",
                "ubuntu-latest=ringer/ci:bookworm",
                "--pull=false",
                "--rm",
                "--no-cache-server",
                "--action-offline-mode",
                "--container-daemon-socket",
                "-",
            ],
            Self::ForgejoRunner | Self::GiteaRunner => {
                &["exec", "-E", "push", "-W", ".github/workflows", "-i", IMAGE, "--container-daemon-socket", "-"]
            }
            Self::WoodpeckerCli => &["exec", "--backend-engine", "docker", ".woodpecker.yml"],
            Self::GitlabRunner => &["exec", "docker", "--docker-image", IMAGE, "--docker-pull-policy", "never", "demo"],
        }
    }
}

/// An agent whose program is there.
pub struct Agent {
    /// Which one.
    pub kind: AgentKind,
    /// Its program.
    pub program: PathBuf,
    /// The folder with one workflow repository per dialect.
    pub workflows: PathBuf,
}

impl Agent {
    /// Runs a case on one socket: the exit code, and what is comparable of the log and of what stayed behind.
    pub fn run(&self, case: JobCase, socket: &Socket) -> anyhow::Result<Observed> {
        let before = leftovers::holdings(&socket.path)?;
        let observed = match case {
            JobCase::Whole => self.whole(socket),
            JobCase::TenAtOnce => self.ten_at_once(socket),
            JobCase::KilledInMidJob => self.after_a_killed_one(socket),
        };
        let left = leftovers::sweep(&socket.path, &before)?;
        let mut observed = observed?;
        // A killed agent cannot tidy up, and what a runner keeps on purpose (caches) are volumes.
        if case != JobCase::KilledInMidJob {
            for name in left.iter().filter(|name| !name.starts_with("volumes/")) {
                observed.stdout.push_str(&format!("left behind: {}\n", name.split('/').next().unwrap_or_default()));
            }
        }
        Ok(observed)
    }

    fn whole(&self, socket: &Socket) -> anyhow::Result<Observed> {
        let copy = self.copy_workflow("demo")?;
        Ok(comparable(&command::run(&mut self.command(&copy, socket), LIMIT)?))
    }

    fn ten_at_once(&self, socket: &Socket) -> anyhow::Result<Observed> {
        let outputs: Vec<anyhow::Result<Output>> = thread::scope(|scope| {
            let one = |number: usize| {
                let copy = self.copy_workflow(&format!("demo{number}"))?;
                Ok(command::run(&mut self.command(&copy, socket), LIMIT)?)
            };
            let threads: Vec<_> = (0..10).map(|number| scope.spawn(move || one(number))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the harness panicked")))
            };
            threads.into_iter().map(join).collect()
        });
        let mut observed = Observed { code: Some(0), stdout: String::new(), stderr: String::new() };
        for (number, output) in outputs.into_iter().enumerate() {
            let output = comparable(&output?);
            if output.code != Some(0) {
                observed.code = output.code;
                observed.stderr.push_str(&format!("job {number}:\n{}{}", output.stdout, output.stderr));
            }
        }
        Ok(observed)
    }

    fn after_a_killed_one(&self, socket: &Socket) -> anyhow::Result<Observed> {
        use std::os::unix::process::CommandExt;

        let before = leftovers::holdings(&socket.path)?;
        let copy = self.copy_workflow("demo-killed")?;
        let mut command = self.command(&copy, socket);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()?;
        let begun = wait_for_an_exec(socket);
        command::kill_group(&child);
        child.wait()?;
        begun?;
        // What the killed agent left is still running while the next job begins, as on a machine.
        let observed = self.whole(socket);
        leftovers::sweep(&socket.path, &before)?;
        observed
    }

    /// A repository of its own for each run, whose workflow and volume carry the given name: names of containers
    /// and volumes are the daemon's, so two jobs of one name would meet.
    fn copy_workflow(&self, name: &str) -> anyhow::Result<Copy> {
        let root =
            std::env::temp_dir().join(format!("ringer-compat-{}-{}-{name}", std::process::id(), self.kind.name()));
        let copy = Copy { root };
        let script = r#"
            set -e
            mkdir -p "$1/home"
            cp -r "$2" "$1/repository"
            cd "$1/repository"
            find . -name '*.yml' -exec sed -i -e "s/^name: demo$/name: $3/" -e "s/demo-cache/$3-cache/" {} +
            git init --quiet --initial-branch main
            git add --all
            git -c user.name=compat -c user.email=compat@localhost commit --quiet --message workflow
        "#;
        let source = self.workflows.join(self.kind.dialect());
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).arg(&copy.root).arg(&source).arg(name);
        let output = command::run(&mut command, Duration::from_secs(60))?;
        ensure!(output.code == Some(0), "copying {}: {}", source.display(), output.stderr);
        Ok(copy)
    }

    fn command(&self, copy: &Copy, socket: &Socket) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(self.kind.arguments())
            .current_dir(copy.root.join("repository"))
            .env("HOME", copy.root.join("home"))
            .env("XDG_CACHE_HOME", copy.root.join("home/.cache"))
            .env("XDG_CONFIG_HOME", copy.root.join("home/.config"))
            .env("DOCKER_HOST", format!("unix://{}", socket.path.display()));
        command
    }
}

struct Copy {
    root: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary folder is a nuisance, not a failure.
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// Waits until a container of the job runs a step of it.
fn wait_for_an_exec(socket: &Socket) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if running_execs(&socket.path)? > 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no step of the job began within a minute")
}

fn running_execs(socket: &Path) -> anyhow::Result<usize> {
    let mut client = Client::new(socket);
    let containers = client.request("GET", "/v1.41/containers/json", Body::Empty)?.success()?.json()?;
    let mut count = 0;
    for id in containers.as_array().into_iter().flatten().filter_map(|container| container["Id"].as_str()) {
        let answer = client.request("GET", &format!("/v1.41/containers/{id}/json"), Body::Empty)?;
        if answer.status == 200 {
            count += answer.json()?["ExecIDs"].as_array().map_or(0, Vec::len);
        }
    }
    Ok(count)
}

/// The lines of a log that say how steps and jobs ended and what the workflow marks with "demo:", job by job.
fn comparable(output: &Output) -> Observed {
    static LINE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^\[(?P<job>[^\]]+)\] +(?P<what>\| demo: .*|(?:✅|❌) .*|🏁 .*)$").expect("the pattern is fixed")
    });
    static SECONDS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r" \[[0-9.µm]+s\]$").expect("the pattern is fixed"));

    let comparable = |line: &str| match LINE.captures(line) {
        Some(line) => Some((line["job"].trim().to_owned(), SECONDS.replace(line["what"].trim_end(), "").into_owned())),
        // Agents outside act's family have log lines of their own; what the workflow printed is in them too.
        None => line.find("demo: ").map(|at| (String::new(), line[at..].trim_end().to_owned())),
    };
    let mut lines: Vec<(String, String)> = output.stdout.lines().filter_map(comparable).collect();
    // Jobs run side by side; within one, the order is the job's.
    lines.sort_by(|(left, _), (right, _)| left.cmp(right));
    let failed = output.code != Some(0);
    Observed {
        code: output.code,
        stdout: lines.iter().map(|(job, what)| format!("{job} {what}\n")).collect(),
        stderr: if failed { tail(output) } else { String::new() },
    }
}

fn tail(output: &Output) -> String {
    let errors: Vec<_> =
        output.stdout.lines().chain(output.stderr.lines()).filter(|line| line.contains("rror")).collect();
    let last: Vec<_> = errors.into_iter().rev().take(10).collect();
    last.into_iter().rev().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_compared_job_by_job_without_its_times() {
        let output = Output {
            code: Some(0),
            stdout: "[w/b] ✅  Success - Main x [12.5ms]\n[w/a]   | demo: hello\n[w/a]   | other\n".to_owned(),
            stderr: String::new(),
        };
        assert_eq!(comparable(&output).stdout, "w/a | demo: hello\nw/b ✅  Success - Main x\n");
    }
}
