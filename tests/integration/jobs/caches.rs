//! What outlives jobs.

use serde_json::json;

use super::{
    Job,
    cli::{run_in, stderr},
    remains,
};
use crate::support::daemon::Daemon;

fn flags<'a>(key: &'a str, volume: &'a str) -> [&'a str; 5] {
    ["--no-bind", "--cache-key", key, "--volume-cache", volume]
}

#[tokio::test]
async fn cache_volumes_outlive_jobs_under_their_key_and_under_no_other() {
    let mut daemon = Daemon::start().await;
    std::fs::write(daemon.folder().join("box.tar"), crate::support::boxes::rootfs()).unwrap();
    let mount = |script: &str| format!("docker run --rm -v cargo:/c box sh -c '{script}'");
    let run = |key, volume, script: &str| {
        let output = run_in(&daemon, daemon.folder(), &flags(key, volume), &mount(script));
        (String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output), output.status.success())
    };
    assert_eq!(run("org/a", "cargo", "ls /c; echo first >/c/file"), (String::new(), true));
    assert_eq!(run("org/a", "cargo", "cat /c/file"), ("first\n".to_owned(), true));
    assert_eq!(run("org/b", "cargo", "ls /c"), (String::new(), true), "another key");
    let (said, written) = run("org/a", "cargo:ro", "cat /c/file; echo x >/c/file");
    assert!(!written && said.starts_with("first\n") && said.contains("Read-only file system"), "{said}");

    // The job that removes its volume has one of its own from then on.
    let script = format!("docker volume rm cargo >/dev/null && {}", mount("ls /c; echo x >/c/file"));
    let output = run_in(&daemon, daemon.folder(), &flags("org/a", "cargo"), &script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{}", stderr(&output));
    // A daemon that is killed and what it was about to do take nothing of it.
    let job = Job::create(&daemon, &["--cache-key", "org/a", "--volume-cache", "cargo"]);
    daemon.kill();
    daemon.restart().await;
    job.client.import_box().await;
    let binds = json!({"HostConfig": {"Binds": ["cargo:/c"]}});
    assert_eq!(job.client.run("reader", "cat /c/file", binds).await, (0, "first\n".to_owned()));
    job.remove(&daemon);
    remains::gone_of(&daemon, "job-").await;

    for bad in
        [&["--volume-cache", "../x"][..], &["--volume-cache", "cc", "--volume-cache", "cc:ro"], &["--cache-key", ""]]
    {
        let output = daemon.ringer(&[&["job", "create"], bad].concat()).output().unwrap();
        assert!(!output.status.success() && !output.stderr.is_empty(), "{bad:?}");
    }
}
