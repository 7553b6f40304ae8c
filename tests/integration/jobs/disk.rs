//! A job that takes more of the disk than it was given ends, and it is said why.

use serde_json::json;

use super::{Job, cli, remains, until_only};
use crate::support::daemon::Daemon;

/// Written by a process that would go on, so that only the limit can end it.
const FLOOD: &str = "dd if=/dev/zero of=/data/file bs=1M count=60 2>/dev/null; sleep 1000";

#[tokio::test]
async fn a_job_ends_when_its_containers_and_volumes_take_more_than_its_disk() {
    let daemon = Daemon::start().await;
    let flags = |name| ["--name", name, "--disk", "40m"];
    let modest = Job::with_box(&daemon, &flags("modest")).await;
    assert_eq!(modest.answer["disk"], 40 << 20);
    // A hole takes nothing, and a bind of the machine's would be nobody's here.
    let holes = "dd if=/dev/zero of=/holes bs=1 count=0 seek=1G 2>/dev/null; dd if=/dev/zero of=/file bs=1M count=20 2>/dev/null; echo done";
    let (code, output) = modest.client.run("holes", holes, json!({})).await;
    assert_eq!((code, output.as_str()), (0, "done\n"));

    for (name, binds) in [("layer", json!([])), ("volume", json!(["data:/data"]))] {
        let job = Job::with_box(&daemon, &flags(name)).await;
        let script = format!("mkdir -p /data; {FLOOD}");
        let id = job.client.create("flood", &script, json!({"HostConfig": {"Binds": binds}})).await;
        job.client.launch(&id).await;
        until_only(&daemon, &["modest"]).await;
        let gone = daemon.ringer(&["job", "inspect", name]).output().unwrap();
        let said = cli::stderr(&gone);
        assert_eq!(
            said,
            format!("ringer: no such job: {name} (removed: it took more of the disk than it may)\n"),
            "{}",
            daemon.log()
        );
        remains::gone_of(&daemon, job.id()).await;
    }
    assert!(daemon.log().contains("job volume takes more of the disk than its 41943040 bytes"), "{}", daemon.log());
    modest.remove(&daemon);
}

#[tokio::test]
async fn who_runs_a_command_in_a_job_is_told_that_the_disk_ended_it() {
    let daemon = Daemon::start().await;
    std::fs::write(daemon.folder().join("box.tar"), crate::support::boxes::rootfs()).unwrap();
    let script = format!("docker run --rm -v data:/data box sh -c '{FLOOD}'");
    let output = cli::run_in(&daemon, daemon.folder(), &["--no-bind", "--name", "mine", "--disk", "40m"], &script);
    assert_ne!(output.status.code(), Some(0), "{}", cli::stderr(&output));
    assert!(cli::stderr(&output).contains("it took more of the disk than it may"), "{}", cli::stderr(&output));
    remains::gone_of(&daemon, "job-").await;
}
