//! The commands of `docs/jobs.md` do what is said there.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{cli, remains, until_only};
use crate::support::{daemon::Daemon, part};

const PAGE: &str = include_str!("../../../docs/jobs.md");

/// For what the daemon tells at once.
const LIMIT: Duration = Duration::from_secs(60);

/// What the page's command runs in a container; the image has no Rust in it.
const CARGO: &str = "FROM box\nRUN mkdir -p /usr/local/cargo/registry && printf '#!/bin/sh\\necho fetched > /usr/local/cargo/registry/crate\\n' > /bin/cargo && busybox chmod 755 /bin/cargo\n";

/// A project that binds the folder that it lies in.
pub const COMPOSE: &str =
    "services:\n  tests:\n    image: box\n    command: cat /app/compose.yaml\n    volumes: ['.:/app']\n";

/// A page's scripts for a shell, in their order.
pub fn scripts(page: &str) -> Vec<&str> {
    page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().expect("split gives one part")).collect()
}

/// A script as somebody runs it who has ringer in his PATH.
pub fn bash(daemon: &Daemon, folder: &Path, script: &str) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_ringer")).parent().expect("it lies in a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").expect("there is a PATH"));
    let as_for_ringer = daemon.ringer(&[]);
    let set = as_for_ringer.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).envs(set).env("PATH", path).current_dir(folder);
    bash
}

/// Runs one that goes on for ever, until it has told of a volume, which are made until then.
fn until_told_of_a_volume(daemon: &Daemon, folder: &Path, script: &str) {
    let mut told = bash(daemon, folder, script).process_group(0).stdout(Stdio::piped()).spawn().expect("bash runs");
    let lines = BufReader::new(told.stdout.take().expect("it is piped")).lines();
    let hearing = std::thread::spawn(move || lines.map_while(Result::ok).any(|line| line.contains("volume")));
    let deadline = Instant::now() + LIMIT;
    while !hearing.is_finished() && Instant::now() < deadline {
        assert!(daemon.docker().args(["volume", "create"]).output().expect("docker runs").status.success());
    }
    kill_process_group(Pid::from_child(&told), Signal::KILL).expect("it goes on for ever");
    told.wait().expect("it was started here");
    assert!(hearing.join().expect("it does not panic"), "no event of a volume was told");
}

/// What scripts call compose with, and compose where the CLI looks for it.
pub fn prepare_compose(daemon: &Daemon, folder: &Path) -> Option<()> {
    let compose = part("RINGER_TEST_COMPOSE")?.join("usr/libexec/docker/cli-plugins/docker-compose");
    fs::write(folder.join("compose.yaml"), COMPOSE).unwrap();
    let plugins = daemon.folder().join("docker-config/cli-plugins");
    fs::create_dir_all(&plugins).unwrap();
    std::os::unix::fs::symlink(compose, plugins.join("docker-compose")).unwrap();
    Some(())
}

/// The same, and images that jobs are given.
async fn prepare(daemon: &Daemon, folder: &Path) -> Option<()> {
    prepare_compose(daemon, folder)?;
    daemon.import_box().await;
    fs::write(folder.join("Dockerfile"), CARGO).unwrap();
    let built =
        daemon.docker().env("DOCKER_BUILDKIT", "0").args(["build", "-t", "rust:1"]).arg(folder).output().unwrap();
    assert!(built.status.success(), "{}", cli::stderr(&built));
    Some(())
}

#[tokio::test]
async fn the_commands_of_the_page_do_what_it_says() {
    let daemon = Daemon::start_with(&["--preload", "box", "--preload", "rust:1"]).await;
    let place = tempfile::tempdir().unwrap();
    let Some(()) = prepare(&daemon, place.path()).await else { return };
    let run = |script: &str| bash(&daemon, place.path(), script).output().expect("bash runs");
    let scripts = scripts(PAGE);
    assert_eq!(scripts.len(), 5, "each has its place below: {scripts:?}");

    let compose = run(scripts[0]);
    assert_eq!(compose.status.code(), Some(0), "{}", cli::stderr(&compose));
    assert!(String::from_utf8_lossy(&compose.stdout).contains("command: cat /app"), "{}", cli::stderr(&compose));

    // The owner is the shell, with which the job goes.
    let created = run(scripts[1]);
    assert!(String::from_utf8_lossy(&created.stdout).contains("\"docker_host\": \"unix:"), "{}", cli::stderr(&created));
    until_only(&daemon, &[]).await;

    let made = run("ringer job create --name NAME");
    assert!(made.status.success(), "{}", cli::stderr(&made));
    let told = run(&format!("set -e\n{}", scripts[2]));
    assert!(told.status.success(), "{}", cli::stderr(&told));
    assert!(String::from_utf8_lossy(&told.stdout).contains("NAME: removed 0 containers"), "{told:?}");

    until_told_of_a_volume(&daemon, place.path(), scripts[3]);

    let cached = run(scripts[4]);
    assert!(cached.status.success(), "{}", cli::stderr(&cached));
    let again =
        "ringer job run --cache-key my/repository --volume-cache cargo -- docker run --rm -v cargo:/c box cat /c/crate";
    assert_eq!(String::from_utf8_lossy(&run(again).stdout), "fetched\n");
    remains::gone_of(&daemon, "job-").await;
}
