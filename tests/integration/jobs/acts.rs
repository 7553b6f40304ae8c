//! Ten times the same workflow at once, a job each: on one dockerd nine of ten fail, since names of containers and volumes are the daemon's.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{remains, until_only};
use crate::support::{daemon::Daemon, part};

/// What a user types to run the workflow in a folder.
const WORDS: [&str; 10] = [
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

const PRELOADED: [&str; 6] =
    ["--preload", "busybox", "--preload", "ringer/web:latest", "--preload", "ringer/ci:bookworm"];

/// The repository of the workflow.
fn repository(at: &Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/compat/workflows/demo");
    let script = "cp -r \"$1\" \"$2\" && cd \"$2\" && git init -q -b main && git add -A && \
                  git -c user.name=t -c user.email=t@localhost commit -qm workflow";
    let made = Command::new("sh").args(["-ec", script, "sh", source]).arg(at).status();
    assert!(made.expect("a shell").success());
}

#[tokio::test]
async fn ten_runs_of_one_workflow_pass_at_once_in_ten_jobs() {
    let Some(act) = part("RINGER_TEST_ACT").map(|folder| folder.join("act")) else { return };
    let daemon = Daemon::start_with(&PRELOADED).await;
    for image in ["busybox", "web", "ci"] {
        if !daemon.load_image(image).await {
            return;
        }
    }
    let place = tempfile::tempdir().unwrap();
    let run = |number: usize| -> Child {
        let home = place.path().join(number.to_string());
        std::fs::create_dir(&home).unwrap();
        repository(&home.join("demo"));
        let log = std::fs::File::create(home.join("log")).unwrap();
        let words = [&["job", "run", "--no-bind", "--", act.to_str().unwrap()], &WORDS[..]].concat();
        let mut command = daemon.ringer(&words);
        command.current_dir(home.join("demo")).env("HOME", &home).env_remove("XDG_CACHE_HOME");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    };
    let runs: Vec<Child> = (0..10).map(run).collect();
    for (number, mut run) in runs.into_iter().enumerate() {
        let status = run.wait().unwrap();
        let log = std::fs::read_to_string(place.path().join(number.to_string()).join("log")).unwrap();
        assert!(status.success() && log.contains("Job succeeded"), "{number}: {log}\n{}", daemon.log());
    }
    until_only(&daemon, &[]).await;
    remains::gone_of(&daemon, "job-").await;
}
