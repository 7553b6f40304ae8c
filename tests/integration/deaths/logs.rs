//! What containers wrote before their daemon was killed is in their logs afterwards.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::Daemon;

/// Containers that write when the daemon dies.
const WRITERS: usize = 4;

const LIMIT: Duration = Duration::from_secs(60);

/// Writes numbered lines, and tells in a file how far it is: that much is written for certain.
const SCRIPT: &str = "i=0; while :; do i=$((i+1)); echo line $i; echo $i > /told/$NAME; done";

#[tokio::test]
async fn no_line_that_was_written_before_the_death_is_lost() {
    let mut daemon = Daemon::with_box().await;
    let told = tempfile::tempdir().unwrap();
    let bind = format!("{}:/told", told.path().display());
    let mut ids = Vec::new();
    for n in 0..WRITERS {
        let name = format!("writer{n}");
        let extra = json!({"Env": [format!("NAME={name}")], "HostConfig": {"Binds": [bind]}});
        let id = daemon.create(&name, SCRIPT, extra).await;
        daemon.launch(&id).await;
        ids.push((name, id));
    }
    let count = |name: &str| -> u64 {
        std::fs::read_to_string(told.path().join(name)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let deadline = Instant::now() + LIMIT;
    while ids.iter().any(|(name, _)| count(name) < 50) {
        assert!(Instant::now() < deadline, "they do not write");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before: Vec<u64> = ids.iter().map(|(name, _)| count(name)).collect();
    daemon.kill();
    daemon.restart().await;
    for ((name, id), before) in ids.iter().zip(before) {
        let text = daemon.output(id).await;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() as u64 >= before, "{name}: {} of {before} lines", lines.len());
        for (n, line) in lines.iter().enumerate().take(lines.len().saturating_sub(1)) {
            assert_eq!(*line, format!("line {}", n + 1), "{name}: each line once and in order");
        }
    }
}

#[tokio::test]
async fn a_line_that_was_not_finished_is_not_lost() {
    let mut daemon = Daemon::with_box().await;
    let id = daemon.create("prompt", "echo first; printf 'Password: '; sleep 1000", json!({})).await;
    daemon.launch(&id).await;
    let unfinished = daemon.folder().join("data/containers").join(&id);
    let deadline = Instant::now() + LIMIT;
    while !holds(&unfinished, b"Password: ") {
        assert!(Instant::now() < deadline, "it does not write");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.kill();
    daemon.restart().await;
    assert_eq!(daemon.output(&id).await, "first\nPassword: ");
}

/// Whether a file of a folder holds a text.
fn holds(folder: &std::path::Path, text: &[u8]) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let contents = files.map(|file| std::fs::read(file.path()).unwrap_or_default());
    contents.into_iter().any(|content| content.windows(text.len()).any(|part| part == text))
}
