//! `ringer run` with a registration token, or with a server that has no list of jobs: so many runners wait for one job each. The real Gitea,
//! whose registrations are ephemeral, and a stand-in for a Forgejo whose are not; a stand-in for both runners.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    daemon::Daemon,
    forge::{Gitea, Images, WORKFLOW},
    forgejo::{Forgejo, REGISTRATION_TOKEN, TOKEN},
    launches::{self, is_ended, until_logged},
};

const QUICK: &str = "on: push\ndefaults: {run: {shell: sh}}\njobs:\n\
    \x20 one-of:\n    runs-on: lab\n    strategy: {matrix: {number: [1, 2, 3]}}\n    steps: [{run: 'test -S /var/run/docker.sock'}]\n";

/// For servers without ephemeral runners.
const REUSE: &str = "reuse_registrations = true";

/// A job that does not end by itself.
const LONG: &str = "echo begun; sleep 1000";

fn section(kind: &str, url: &str, token: &str, runner: &str, job: &str, more: &str) -> String {
    format!(
        "[{kind}]\ninstance_url = '{url}'\ntoken = '{token}'\nlabels = ['lab']\nrunner_image = '{runner}'\njob_image = '{job}'\n{more}\n"
    )
}

/// Waits until so many runners wait and no launch is on its way to or from there, and at least so many have ended: a job's success is known
/// before its launch is told of the job.
async fn until_waiting(daemon: &Daemon, count: usize, ended: usize) -> Vec<Value> {
    launches::until(daemon, "waiting", |launches| {
        let mut live = launches.iter().filter(|launch| !is_ended(launch));
        let live_count = live.clone().count();
        live_count == count && launches.len() - live_count >= ended && live.all(|launch| launch["state"] == "waiting")
    })
    .await
}

fn names(runners: &[Value]) -> BTreeSet<String> {
    runners.iter().filter_map(|runner| runner["name"].as_str()).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn two_runners_wait_at_a_gitea_that_lets_nobody_ask_and_three_jobs_turn_green() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    let token = gitea.registration_token("admin").await;
    let text = section("gitea", &gitea.url(), &token, &images.runner(), &images.job(), "concurrency = 2");
    let mut daemon = Daemon::launching(gitea.place(), &text).await;
    until_waiting(&daemon, 2, 0).await;
    let log = daemon.log();
    assert!(log.contains("token is a registration token") && log.contains("so 2 runners wait"), "{log}");
    assert!(!log.contains(&token), "the token is in the log");
    let first = names(&gitea.runners().await);
    assert_eq!(first.len(), 2, "{first:?}");
    let (code, said) = gitea.place().config_check_beside(&daemon);
    assert!(code == Some(0) && said.contains("which a check does not do"), "{said}");
    assert_eq!(names(&gitea.runners().await), first, "a check registers nothing");

    let commit = gitea.repository("three", &[(WORKFLOW, QUICK)]).await;
    let jobs = gitea.until_jobs("three", &commit, 3, "success").await;
    let had: BTreeSet<&str> = jobs.iter().filter_map(|job| job["runner_name"].as_str()).collect();
    assert_eq!(had.len(), 3, "a fresh one each: {had:?}");
    let launches = until_waiting(&daemon, 2, 3).await;
    let ended: Vec<&Value> = launches.iter().filter(|launch| is_ended(launch)).collect();
    assert_eq!(ended.len(), 3, "{launches:#?}");
    assert!(ended.iter().all(|launch| launch["repository"] == "ci/three"), "{launches:#?}");
    let waiting = names(&gitea.runners().await);
    assert_eq!(waiting.len(), 2, "those that had a job are gone: {waiting:?}");

    daemon.kill();
    daemon.restart().await;
    until_waiting(&daemon, 2, 3).await;
    assert_eq!(names(&gitea.runners().await), waiting, "the next life's runners are the same to the forge");

    assert!(daemon.ringer(&["drain"]).output().expect("ringer runs").status.success());
    until_waiting(&daemon, 0, 3).await;
    launches::none_is_left(&daemon);
    let purged = daemon.ringer(&["purge"]).output().expect("ringer runs");
    let said = String::from_utf8_lossy(&purged.stderr).into_owned();
    assert!(waiting.iter().all(|name| said.contains(name)) && said.contains("by hand"), "{said}");
}

#[tokio::test]
async fn a_warm_runner_has_the_job_that_comes_and_another_takes_its_place() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    // With room for one alone: of two that wait, and one is launched for the job, Gitea gives it to whoever asks first.
    let more = "warm = 1\nconcurrency = 1";
    let text = section("gitea", &gitea.url(), gitea.token(), &images.runner(), &images.job(), more);
    let daemon = Daemon::launching(gitea.place(), &text).await;
    until_waiting(&daemon, 1, 0).await;
    let warm = names(&gitea.runners().await);
    let commit = gitea.repository("one", &[(WORKFLOW, &QUICK.replace("[1, 2, 3]", "[1]"))]).await;
    let jobs = gitea.until_jobs("one", &commit, 1, "success").await;
    assert!(jobs[0]["runner_name"].as_str().is_some_and(|name| warm.contains(name)), "{jobs:#?}");
    let launches = until_waiting(&daemon, 1, 1).await;
    assert_eq!(launches.iter().filter(|launch| is_ended(launch)).count(), 1, "{launches:#?}");
    assert!(daemon.ringer(&["drain"]).output().expect("ringer runs").status.success());
    until_waiting(&daemon, 0, 1).await;
    assert_eq!(gitea.runners().await, Vec::<Value>::new());
    launches::none_is_left(&daemon);
}

#[tokio::test]
async fn a_token_that_no_server_takes_is_one_sentence_and_makes_nothing() {
    let forgejo = Forgejo::start_old();
    let of = |token: &str, more: &str| section("forgejo", &forgejo.url(), token, "none/runner", "none/job", more);
    let wrong = format!("{REGISTRATION_TOKEN}x");
    let daemon = Daemon::launching(forgejo.place(), &of(&wrong, REUSE)).await;
    until_logged(&daemon, "nor a registration token").await;
    let deadline = Instant::now() + launches::LIMIT;
    while forgejo.count_of("Register") < 3 {
        assert!(Instant::now() < deadline, "it is not tried again: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = daemon.log();
    assert_eq!(log.matches("does not take the token").count(), 1, "said once: {log}");
    assert!(launches::all(&daemon).is_empty() && !log.contains(&wrong), "{log}");
    let told = daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout;
    assert!(String::from_utf8_lossy(&told).contains("nor a registration token"));
    drop(daemon);

    let picky = of(REGISTRATION_TOKEN, &format!("{REUSE}\nrepositories = ['ci/one']"));
    let daemon = Daemon::launching(forgejo.place(), &picky).await;
    until_logged(&daemon, "need an access token and Forgejo 15.0 or later").await;
    let (code, said) = forgejo.place().config_check_beside(&daemon);
    assert!(code == Some(1) && said.contains("cannot be kept"), "{said}");
    assert_eq!(forgejo.runners(), Vec::<String>::new());
}

#[tokio::test]
async fn no_registration_is_used_again_unless_the_configuration_says_so() {
    let forgejo = Forgejo::start_old();
    for token in [REGISTRATION_TOKEN, TOKEN] {
        let text = section("forgejo", &forgejo.url(), token, "none/runner", "none/job", "");
        let daemon = Daemon::launching(forgejo.place(), &text).await;
        until_logged(&daemon, REUSE).await;
        let (code, said) = forgejo.place().config_check_beside(&daemon);
        assert!(code == Some(1) && said.contains(REUSE), "{said}");
        assert!(launches::all(&daemon).is_empty(), "{}", daemon.log());
    }
    assert_eq!((forgejo.runners().len(), forgejo.count_of("Register")), (0, 0));
}

/// A Forgejo without ephemeral runners, and a daemon with one that waits.
struct Old {
    daemon: Daemon,
    forgejo: Forgejo,
    _images: Images,
}

impl Old {
    async fn start(token: &str) -> Option<Self> {
        let forgejo = Forgejo::start_old();
        let images = Images::with_forgejo_runner(forgejo.place()).await?;
        let (runner, job) = (images.forgejo_runner(), images.job());
        let text = section("forgejo", &forgejo.url(), token, &runner, &job, &format!("concurrency = 1\n{REUSE}"));
        let daemon = Daemon::launching(forgejo.place(), &text).await;
        until_waiting(&daemon, 1, 0).await;
        Some(Self { daemon, forgejo, _images: images })
    }

    async fn run_long_job(&self) -> i64 {
        let job = self.forgejo.push("long", "long", &["lab"], LONG);
        self.forgejo.until(job, "running").await;
        launches::until(&self.daemon, "running", |launches| {
            launches.last().is_some_and(|launch| launch["state"] == "running")
        })
        .await;
        job
    }
}

#[tokio::test]
async fn a_registration_that_outlives_its_job_is_the_next_runners() {
    let Some(mut old) = Old::start(REGISTRATION_TOKEN).await else { return };
    let names = old.forgejo.runners();
    for (before, name) in ["first", "second"].into_iter().enumerate() {
        let job = old.forgejo.push("quick", name, &["lab"], "test -S /var/run/docker.sock");
        old.forgejo.until(job, "success").await;
        until_waiting(&old.daemon, 1, before + 1).await;
    }
    let job = old.run_long_job().await;
    old.forgejo.cancel(job);
    let launches = until_waiting(&old.daemon, 1, 3).await;
    let outcomes: Vec<&str> = launches.iter().filter_map(|launch| launch["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["success", "success", "cancelled"]);
    assert_eq!((old.forgejo.runners(), names.len()), (names.clone(), 1), "the same to the forge");

    let daemon = &old.daemon;
    old.forgejo.be_away(until_logged(daemon, "Connection refused")).await;
    let job = old.forgejo.push("quick", "third", &["lab"], "true");
    old.forgejo.until(job, "success").await;
    until_waiting(&old.daemon, 1, 4).await;
    assert_eq!(old.forgejo.runners(), names);
}

#[tokio::test]
async fn a_job_ends_when_its_daemon_drains_and_fails_when_that_is_killed() {
    // An access token does as well: it is asked for a registration token.
    let Some(mut old) = Old::start(TOKEN).await else { return };
    assert!(old.daemon.log().contains("it has no list of jobs to ask"), "{}", old.daemon.log());
    let job = old.run_long_job().await;
    assert!(old.daemon.ringer(&["drain"]).output().expect("ringer runs").status.success());
    let launches = launches::all(&old.daemon);
    assert_eq!(launches.last().map(|launch| &launch["state"]), Some(&"running".into()), "{launches:#?}");
    old.daemon.kill();
    old.daemon.restart().await;
    old.forgejo.until(job, "failure").await;
    let launches = until_waiting(&old.daemon, 1, 1).await;
    assert_eq!(launches[0]["outcome"], "failure", "{launches:#?}");

    let job = old.run_long_job().await;
    assert!(old.daemon.end().success());
    let log = old.forgejo.until(job, "failure").await;
    assert!(log.contains("ringer: the daemon is shutting down"), "{log}");
    assert_eq!(old.forgejo.runners().len(), 1);
}

#[tokio::test]
async fn registrations_of_an_earlier_token_are_named() {
    let Some(mut old) = Old::start(TOKEN).await else { return };
    let file = old.daemon.folder().join("config.toml");
    let text = std::fs::read_to_string(&file).expect("our file").replace(TOKEN, REGISTRATION_TOKEN);
    std::fs::write(&file, text).expect("our file");
    let outdated =
        format!("made with another token or address, and no runner's any more: {};", old.forgejo.runners()[0]);
    assert!(old.daemon.end().success());
    old.daemon.restart().await;
    until_logged(&old.daemon, &outdated).await;
    until_waiting(&old.daemon, 1, 1).await;
    // A purge names it beside the one that is made in its place.
    let purged = old.daemon.ringer(&["purge"]).output().expect("ringer runs");
    let said = String::from_utf8_lossy(&purged.stderr).into_owned();
    assert_eq!(old.forgejo.runners().len(), 2);
    assert!(said.contains("by hand") && old.forgejo.runners().iter().all(|name| said.contains(name)), "{said}");
}
