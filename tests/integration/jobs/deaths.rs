//! A job ends whoever dies first: its owner, the daemon, containerd.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{Job, remains, until_only};
use crate::support::daemon::Daemon;

const LIMIT: Duration = Duration::from_secs(60);

/// A job that nothing ends is served again by the next daemon; one whose owner died meanwhile is removed.
#[tokio::test]
async fn jobs_outlive_the_daemon_unless_their_owner_does_not() {
    let mut daemon = Daemon::start().await;
    let mut owner = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let owned = Job::with_box(&daemon, &["--owner-pid", &owner.id().to_string()]).await;
    let kept = Job::with_box(&daemon, &["--name", "kept", "--memory", "300m"]).await;
    owned.fill().await;
    kept.fill().await;
    daemon.kill();
    owner.kill().unwrap();
    owner.wait().unwrap();
    daemon.restart().await;

    until_only(&daemon, &["kept"]).await;
    remains::gone_of(&daemon, owned.id()).await;
    let state = kept.client.inspect("stopped").await["State"]["Status"].clone();
    assert_eq!(state, "created", "its socket answers again, and its containers are its");
    let deadline = Instant::now() + LIMIT;
    while kept.client.inspect("web").await["State"]["Running"] != true {
        assert!(Instant::now() < deadline, "what restarts with the daemon does so in a job too: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kept.remove(&daemon);
    remains::gone_of(&daemon, kept.id()).await;
}

/// Killed at moments that are spread over the removal, the next daemon goes on with it.
#[tokio::test]
async fn a_removal_that_a_death_interrupts_is_finished_by_the_next_daemon() {
    let rounds: u64 = std::env::var("RINGER_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let mut daemon = Daemon::start().await;
    for round in 0..rounds {
        let job = Job::with_box(&daemon, &[]).await;
        job.fill().await;
        let mut removal =
            daemon.ringer(&["job", "rm", job.id()]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(20 + round * 400 / rounds)).await;
        daemon.kill();
        removal.wait().unwrap();
        daemon.restart().await;
        // It may have come after the client's word, or before it.
        let _removed_already = daemon.ringer(&["job", "rm", job.id()]).output().unwrap();
        until_only(&daemon, &[]).await;
        remains::gone_of(&daemon, job.id()).await;
    }
    crate::deaths::remains_gone(&daemon).await;
}

/// Killed while jobs are made: nothing is there that no record knows.
#[tokio::test]
async fn jobs_that_were_being_made_leave_nothing() {
    let mut daemon = Daemon::start().await;
    for delay in [5, 30] {
        let makers: Vec<_> = (0..4)
            .map(|_| daemon.ringer(&["job", "run", "--quiet", "--", "true"]).stderr(Stdio::null()).spawn().unwrap())
            .collect();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        daemon.kill();
        for mut maker in makers {
            maker.wait().unwrap();
        }
        daemon.restart().await;
        until_only(&daemon, &[]).await;
        remains::gone_of(&daemon, "job-").await;
    }
}
