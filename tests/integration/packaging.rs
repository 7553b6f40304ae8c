//! The unit of systemd and the file for compose in `packaging/`: what they say is what ringer does.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    daemon::Daemon,
    launches::until_logged,
    part,
    place::{self, Place},
};

const UNIT: &str = include_str!("../../packaging/ringer.service");

/// A forge at which nobody listens: the daemon is there all the same.
fn config() -> String {
    format!("[gitea]\ninstance_url = 'http://{}:1'\ntoken = 'x'\n", place::ADDRESS)
}

/// What the unit says of a key.
fn said(key: &str) -> &'static str {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("the unit has no {key}"))
}

fn seconds(key: &str) -> Duration {
    Duration::from_secs(said(key).parse().expect("a number of seconds"))
}

/// Waits until the daemon has told systemd this.
fn until_told(systemd: &UnixDatagram, words: &str, limit: Duration) {
    let (deadline, mut message) = (Instant::now() + limit, [0; 256]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        systemd.set_read_timeout(Some(left)).expect("a socket of ours");
        let length = systemd.recv(&mut message).unwrap_or_else(|error| panic!("nobody tells {words}: {error}"));
        if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == words) {
            return;
        }
    }
}

#[tokio::test]
async fn the_unit_starts_reloads_and_stops_the_daemon_as_it_says() {
    let place = Place::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let systemd = UnixDatagram::bind(folder.path().join("notify")).expect("a socket in our folder");
    assert_eq!(said("Type"), "notify");
    // ringer ends what is its own, in its order; what is there after a kill the next one ends, by the shims that systemd has let live (`deaths`).
    assert_eq!(said("KillMode"), "process");
    assert_eq!(said("ExecStart"), "/usr/local/bin/ringer run --config /etc/ringer/config.toml");
    let socket = format!("NOTIFY_SOCKET={}", folder.path().join("notify").display());
    let mut daemon = Daemon::launching_under(&place, &["env", &socket], &config()).await;
    until_told(&systemd, "READY=1", seconds("TimeoutStartSec"));

    let reload = said("ExecReload").replace("$MAINPID", &daemon.pid().to_string());
    assert!(Command::new("sh").args(["-c", &reload]).status().expect("sh is there").success());
    until_logged(&daemon, "the configuration is read again").await;

    let asked = Instant::now();
    assert!(daemon.end().success());
    until_told(&systemd, "STOPPING=1", Duration::from_secs(1));
    assert!(asked.elapsed() < seconds("TimeoutStopSec"));
}

/// By this code systemd knows that another start would come to the same.
#[test]
fn a_configuration_that_is_wrong_ends_with_the_code_that_the_unit_names() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.toml");
    fs::write(&file, "[gitea]\ntokn = 'x'\n").expect("a file in our folder");
    let mut ringer = Command::new(env!("CARGO_BIN_EXE_ringer"));
    let ended = ringer.args(["run", "--config"]).arg(&file).output().expect("ringer runs");
    assert_eq!(ended.status.code().map(|code| code.to_string()).as_deref(), Some(said("RestartPreventExitStatus")));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("line 2"), "{ended:?}");
}

#[test]
fn compose_takes_its_file() {
    let Some(compose) = part("RINGER_TEST_COMPOSE") else { return };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");
    let mut command = Command::new(compose.join("usr/libexec/docker/cli-plugins/docker-compose"));
    let output = command.args(["--project-directory", folder, "config", "--format", "json"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ringer = &read["services"]["ringer"];
    assert_eq!((&ringer["cgroup"], &ringer["privileged"]), (&"host".into(), &true.into()), "{read}");
    assert_eq!(ringer["volumes"][0]["target"], "/etc/ringer/config.toml", "{read}");
}
