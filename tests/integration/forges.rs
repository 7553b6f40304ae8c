//! The lab itself, without our supervisor: a real Gitea, the stand-in of its runner as a plain process, and ringer as its Docker. What the
//! supervisor relies on is asked of the real server here.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    jobs::Job,
    support::{
        daemon::Daemon,
        forge::{Gitea, LONG, Runner, WORKFLOW},
    },
};

const LABELS: &str = "lab:docker://box:latest";

/// Two jobs, of which the second needs what the first gave, and a secret in the log.
const GREEN: &str = r#"
on: push
defaults: {run: {shell: sh}}
jobs:
  first:
    runs-on: lab
    outputs: {word: "${{ steps.say.outputs.word }}"}
    steps:
      - run: test -S /var/run/docker.sock
      - id: say
        run: echo "word=good" >>"$GITHUB_OUTPUT"; echo "::add-mask::hidden-word"; echo "a hidden-word, $GITHUB_REPOSITORY"
      - run: wget -qO- "$GITHUB_SERVER_URL/api/v1/version"
  second:
    needs: first
    runs-on: lab
    steps:
      - run: test "${{ needs.first.outputs.word }} ${{ needs.first.result }}" = "good success"
"#;

const CHECKOUT: &str = r#"
on: push
jobs:
  job:
    runs-on: lab
    steps:
      - uses: actions/checkout@v4
      - run: test "$(cat folder/file)" = "of the commit" && test "$(git rev-parse HEAD)" = "$GITHUB_SHA"
"#;

/// A daemon beside the forge, whose jobs may reach it.
async fn daemon_beside(gitea: &Gitea) -> Daemon {
    Daemon::start_at(gitea.place(), &[&gitea.job_allow()]).await
}

/// Waits until a job's container runs on the daemon; its id.
async fn until_job_container(daemon: &Daemon) -> String {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let listed = daemon.get("/containers/json").await.json();
        let mut containers = listed.as_array().into_iter().flatten();
        let named = |name: &Value| name.as_str().is_some_and(|name| name.starts_with("/GITEA-ACTIONS-TASK-"));
        if let Some(job) = containers.find(|container| named(&container["Names"][0])) {
            return job["Id"].as_str().expect("an id").to_owned();
        }
        assert!(Instant::now() < deadline, "no container of a job: {listed}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A runner each, one after the other, in a job of its own: both jobs turn green, and nothing stays in the forge or on the daemon.
#[tokio::test]
async fn a_pushed_workflow_turns_green_and_its_runners_vanish() {
    let Some(gitea) = Gitea::start().await else { return };
    let daemon = daemon_beside(&gitea).await;
    let commit = gitea.repository("green", &[(WORKFLOW, GREEN)]).await;
    for name in ["runner-1", "runner-2"] {
        let job = Job::with_box(&daemon, &["--name", name]).await;
        let host = job.host();
        let Some(mut runner) = Runner::start(&gitea, name, LABELS, &host, "").await else { return };
        assert!(runner.ended().await.success(), "{}", runner.log());
        assert_eq!(job.client.get("/containers/json?all=1").await.json(), json!([]));
        job.remove(&daemon);
    }
    let jobs = gitea.until_jobs("green", &commit, 2, "success").await;
    let runners: Vec<_> = jobs.iter().map(|job| job["runner_name"].as_str().unwrap_or_default()).collect();
    assert_eq!(runners, ["runner-1", "runner-2"]);
    let log = gitea.job_log("green", &jobs[0]).await;
    assert!(log.contains("a ***, ci/green") && log.contains(r#"{"version":"1.26"#), "{log}");
    assert_eq!(gitea.runners().await, Vec::<Value>::new());
}

/// An action of the forge's own, which needs node, and the repository in the workspace.
#[tokio::test]
async fn a_job_checks_its_repository_out() {
    let Some(gitea) = Gitea::start().await else { return };
    let daemon = daemon_beside(&gitea).await;
    if !daemon.load_image("ci").await {
        return;
    }
    gitea.add_checkout().await;
    let commit = gitea.repository("checkout", &[(WORKFLOW, CHECKOUT), ("folder/file", "of the commit\n")]).await;
    let labels = "lab:docker://ringer/ci:bookworm";
    let Some(mut runner) = Runner::start(&gitea, "runner-1", labels, &daemon.host(), "").await else { return };
    assert!(runner.ended().await.success(), "{}", runner.log());
    let jobs = gitea.jobs("checkout", &commit).await;
    assert_eq!(jobs[0]["conclusion"], "success", "{}", gitea.job_log("checkout", &jobs[0]).await);
}

/// A cancel deletes the one-job runner's registration at once; the runner hears of nothing but errors, and its job goes on.
#[tokio::test]
async fn a_cancelled_job_loses_its_runner_which_goes_on() {
    let Some(gitea) = Gitea::start().await else { return };
    let daemon = daemon_beside(&gitea).await;
    daemon.import_box().await;
    let commit = gitea.repository("long", &[(WORKFLOW, LONG)]).await;
    let Some(mut runner) = Runner::start(&gitea, "runner-1", LABELS, &daemon.host(), "").await else { return };
    let jobs = gitea.until_jobs("long", &commit, 1, "in_progress").await;
    until_job_container(&daemon).await;
    gitea.cancel("long", &jobs[0]).await;
    gitea.until_jobs("long", &commit, 1, "cancelled").await;
    gitea.until_no_runner().await;

    // A report that was under way in that moment may still have been answered.
    let is_told = |runner: &Runner| runner.log().contains("is over: RESULT_CANCELLED");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !runner.log().contains("unregistered runner") && !is_told(&runner) {
        assert!(Instant::now() < deadline, "{}", runner.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if !is_told(&runner) {
        assert!(runner.runs(), "{}", runner.log());
        until_job_container(&daemon).await;
    }
}

/// What the stand-in does when it is asked to misbehave, and what the server makes of it: a registration without a job stays, and a job
/// whose runner is gone counts as running.
#[tokio::test]
async fn a_runner_can_be_told_to_misbehave() {
    let Some(gitea) = Gitea::start().await else { return };
    let daemon = daemon_beside(&gitea).await;
    let commit = gitea.repository("long", &[(WORKFLOW, LONG)]).await;
    gitea.until_jobs("long", &commit, 1, "queued").await;
    let start = async |name, misbehave| Runner::start(&gitea, name, LABELS, &daemon.host(), misbehave).await;

    let Some(mut dead) = start("dead", "die-at-start").await else { return };
    assert_eq!(dead.ended().await.code(), Some(1));
    let Some(mut hung) = start("hung", "hang-at-start").await else { return };
    gitea.until_jobs("long", &commit, 1, "queued").await;
    let Some(mut gone) = start("gone", "die-after-fetch").await else { return };
    assert_eq!(gone.ended().await.code(), None);
    let jobs = gitea.until_jobs("long", &commit, 1, "in_progress").await;
    assert_eq!(jobs[0]["runner_name"], "gone");
    assert!(hung.runs());
    assert_eq!(gitea.runners().await.len(), 3);
}

/// What runs while the server restarts goes on, and turns green afterwards.
#[tokio::test]
async fn a_job_outlives_a_restart_of_the_forge() {
    let Some(mut gitea) = Gitea::start().await else { return };
    let daemon = daemon_beside(&gitea).await;
    daemon.import_box().await;
    let workflow = LONG.replace("sleep 1000", "until test -e /tmp/go; do sleep 0.1; done");
    let commit = gitea.repository("long", &[(WORKFLOW, &workflow)]).await;
    let Some(mut runner) = Runner::start(&gitea, "runner-1", LABELS, &daemon.host(), "").await else { return };
    let id = until_job_container(&daemon).await;
    gitea
        .restart(async {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !runner.log().contains("failed to report") {
                assert!(Instant::now() < deadline, "{}", runner.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    let (code, _) = daemon.exec(&id, &["touch", "/tmp/go"]).await;
    assert_eq!(code, 0);
    gitea.until_jobs("long", &commit, 1, "success").await;
    assert!(runner.ended().await.success(), "{}", runner.log());
    gitea.until_no_runner().await;
}
