//! The same workflow at the same moment in several jobs: on one dockerd all but one fail, since names of containers and volumes are the daemon's.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{remains, until_only};
use crate::support::{daemon::Daemon, part};

const PRELOADED: [&str; 6] =
    ["--preload", "busybox", "--preload", "ringer/web:latest", "--preload", "ringer/ci:bookworm"];

/// A program that runs a workflow in a folder, and what a user types to have it do so.
struct Agent {
    program: PathBuf,
    words: &'static [&'static str],
}

impl Agent {
    fn act() -> Option<Self> {
        const WORDS: &[&str] = &[
            "push",
            "-W",
            ".github/workflows",
            "-P",
            "ubuntu-latest=ringer/ci:bookworm",
            "--pull=false",
            "--rm",
            "--no-cache-server",
            "--action-offline-mode",
            "--container-daemon-socket=-",
        ];
        Some(Self { program: part("RINGER_TEST_ACT")?.join("act"), words: WORDS })
    }

    /// Those that can be had here: the runners of Forgejo and Gitea by the paths that `RINGER_TEST_FORGEJO_EXEC` and `RINGER_TEST_GITEA_EXEC`
    /// name, since no registry of packages has them.
    fn all() -> Vec<Self> {
        const WORDS: &[&str] = &[
            "exec",
            "-E",
            "push",
            "-W",
            ".github/workflows",
            "-i",
            "ringer/ci:bookworm",
            "--container-daemon-socket=-",
        ];
        let named = ["RINGER_TEST_FORGEJO_EXEC", "RINGER_TEST_GITEA_EXEC"].into_iter().filter_map(env::var_os);
        let by_path = named.map(|program| Self { program: program.into(), words: WORDS });
        Self::act().into_iter().chain(by_path).collect()
    }

    fn on_the_machine(&self) -> Vec<String> {
        let program = [self.program.to_str().expect("a path in UTF-8")];
        [&["--no-bind", "--"], &program[..], self.words].concat().into_iter().map(str::to_owned).collect()
    }

    /// The agent in a container, with the job's socket and the folder: what it names there is what the container sees.
    fn in_a_container(&self) -> Vec<String> {
        let folder = self.program.parent().expect("a program lies in a folder").display().to_string();
        let name = self.program.file_name().expect("a program has a name").display().to_string();
        let script = format!(
            "exec docker run --rm -v /var/run/docker.sock:/var/run/docker.sock -v $PWD:$PWD -w $PWD -v {folder}:/agent:ro \
             -e HOME=/tmp ringer/ci:bookworm /agent/{name} {}",
            self.words.join(" ")
        );
        ["--bind", &format!("{folder}:ro"), "--", "sh", "-c", &script].map(str::to_owned).into()
    }
}

/// The repository of the workflow.
fn repository(at: &Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/compat/workflows/demo");
    let script = "cp -r \"$1\" \"$2\" && cd \"$2\" && git init -q -b main && git add -A && \
                  git -c user.name=t -c user.email=t@localhost commit -qm workflow";
    let made = Command::new("sh").args(["-ec", script, "sh", source]).arg(at).status();
    assert!(made.expect("a shell").success());
}

async fn daemon() -> Option<Daemon> {
    let daemon = Daemon::start_with(&PRELOADED).await;
    for image in ["busybox", "web", "ci"] {
        if !daemon.load_image(image).await {
            return None;
        }
    }
    Some(daemon)
}

/// So many runs at once, a job each, all in folders of one name; each passes, and nothing is left.
async fn all_pass(daemon: &Daemon, number: usize, words: &[String]) {
    let place = tempfile::tempdir().unwrap();
    let run = |number: usize| -> Child {
        let home = place.path().join(number.to_string());
        std::fs::create_dir(&home).unwrap();
        repository(&home.join("demo"));
        let log = std::fs::File::create(home.join("log")).unwrap();
        let mut command = daemon.ringer(&["job", "run"]);
        command.args(words).current_dir(home.join("demo")).env("HOME", &home).env_remove("XDG_CACHE_HOME");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    };
    let runs: Vec<Child> = (0..number).map(run).collect();
    for (number, mut run) in runs.into_iter().enumerate() {
        let status = run.wait().unwrap();
        let log = std::fs::read_to_string(place.path().join(number.to_string()).join("log")).unwrap();
        assert!(status.success() && log.contains("Job succeeded"), "{words:?} {number}: {log}\n{}", daemon.log());
    }
    until_only(daemon, &[]).await;
    remains::gone_of(daemon, "job-").await;
}

#[tokio::test]
async fn ten_runs_of_one_workflow_pass_at_once_in_ten_jobs() {
    let Some(act) = Agent::act() else { return };
    let Some(daemon) = daemon().await else { return };
    all_pass(&daemon, 10, &act.on_the_machine()).await;
}

#[tokio::test]
async fn agents_in_containers_of_two_jobs_run_one_workflow_at_once() {
    let Some(daemon) = daemon().await else { return };
    for agent in Agent::all() {
        all_pass(&daemon, 2, &agent.in_a_container()).await;
    }
}

/// Act is above, ten times.
#[tokio::test]
async fn runners_by_path_run_one_workflow_in_two_jobs_at_once() {
    let agents = Agent::all();
    let Some(by_path) = agents.get(1..).filter(|agents| !agents.is_empty()) else { return };
    let Some(daemon) = daemon().await else { return };
    for agent in by_path {
        all_pass(&daemon, 2, &agent.on_the_machine()).await;
    }
}
