//! `ringer run` on a stand-in of GitLab, with a stand-in of gitlab-runner: slots that take one job each.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    daemon::Daemon,
    forge::Images,
    gitlab::{API_TOKEN, GitLab, Job, NARROW_TOKEN, PROJECT, RUNNER_TOKEN},
    launches,
};

/// A job that does not end by itself.
const LONG: &str = "echo begun; sleep 1000";

/// The forge, what its runners are made of, and the daemon that launches them.
struct Lab {
    daemon: Daemon,
    images: Images,
    gitlab: GitLab,
}

impl Lab {
    /// `None` where a part is absent, which CI does not let pass. `more` is added to the forge's section.
    async fn start(more: &str) -> Option<Self> {
        Self::start_on(GitLab::start(), more).await
    }

    async fn start_on(gitlab: GitLab, more: &str) -> Option<Self> {
        let images = Images::with_gitlab_runner(gitlab.place()).await?;
        let daemon = Daemon::launching(gitlab.place(), &config(&gitlab, RUNNER_TOKEN, API_TOKEN, &images, more)).await;
        Some(Self { daemon, images, gitlab })
    }

    /// Waits until a job runs.
    async fn run_long_job(&self) -> i64 {
        let job = self.gitlab.push("long", LONG);
        self.gitlab.until(job, "running").await;
        launches::until(&self.daemon, "running", |launches| launches[0]["state"] == "running").await;
        job
    }

    fn told(&self) -> String {
        let output = self.daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout;
        String::from_utf8_lossy(&output).into_owned()
    }
}

fn config(gitlab: &GitLab, token: &str, api_token: &str, images: &Images, more: &str) -> String {
    let (url, runner, job) = (gitlab.url(), images.gitlab_runner(), images.job());
    format!(
        "[gitlab]\nurl = '{url}'\ntoken = '{token}'\napi_token = '{api_token}'\nrunner_image = '{runner}'\njob_image = '{job}'\npoll_interval = '1s'\n{more}\n"
    )
}

#[tokio::test]
async fn each_job_gets_a_slot_and_gitlab_counts_no_more_managers_than_slots() {
    let Some(lab) = Lab::start("concurrency = 3").await else { return };
    let script = |number: usize| format!("test -S /var/run/docker.sock && echo this is {number}");
    let jobs: Vec<i64> = (0..7).map(|number| lab.gitlab.push(&format!("job-{number}"), &script(number))).collect();
    let tagged = lab.gitlab.push_job(Job { tags: vec!["lab".to_owned()], ..Job::of("tagged", "echo tagged") });
    let foreign = lab.gitlab.push_job(Job { tags: vec!["windows".to_owned()], ..Job::of("foreign", "true") });
    for (number, job) in jobs.iter().enumerate() {
        let log = lab.gitlab.until(*job, "success").await;
        assert!(log.contains(&format!("this is {number}")), "{log}");
    }
    lab.gitlab.until(tagged, "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 8).await;
    assert_eq!(ended.len(), 8, "a fresh runner each: {ended:#?}");
    assert!(ended.iter().all(|launch| launch["outcome"] == "success"), "{ended:#?}");
    let names: BTreeSet<&str> = ended.iter().filter_map(|launch| launch["job"].as_str()).collect();
    assert_eq!(names.len(), 8, "each launch names its own job: {ended:#?}");
    assert!(ended.iter().all(|launch| launch["repository"] == PROJECT), "{ended:#?}");
    assert_eq!(lab.gitlab.job(foreign).status, "pending", "it is another runner's");
    let managers = lab.gitlab.world().managers.clone();
    assert!(managers.len() <= 3, "one per slot: {managers:?}");
    launches::none_is_left(&lab.daemon);
    let log = launches::log_of(&lab.daemon, &ended[0]);
    assert!(log.contains("has ended: success"), "the runner's log outlives it: {log}");
    for secret in [RUNNER_TOKEN, API_TOKEN] {
        assert!(!lab.daemon.log().contains(secret) && !log.contains(secret), "a token is in a log");
    }
}

#[tokio::test]
async fn tokens_are_in_no_argument_list_and_no_job() {
    let Some(lab) = Lab::start("").await else { return };
    let job = lab.gitlab.push("look", "env; ls / /opt || true; sleep 1000");
    lab.gitlab.until(job, "running").await;
    launches::until(&lab.daemon, "running", |launches| launches[0]["state"] == "running").await;
    let all = Command::new("ps").args(["-eo", "args"]).output().expect("ps is there").stdout;
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(all.contains("run-single") && !all.contains(RUNNER_TOKEN) && !all.contains(API_TOKEN), "{all}");
    lab.gitlab.world().cancel(job, false);
    let log = lab.gitlab.until(job, "canceled").await;
    assert!(!log.contains(RUNNER_TOKEN) && !log.contains("ringer-runner"), "a job sees nothing of its runner: {log}");
    launches::until_all_ended(&lab.daemon, 1).await;
}

#[tokio::test]
async fn a_cancel_ends_the_job_and_a_failure_is_the_jobs_own() {
    let Some(lab) = Lab::start("").await else { return };
    let job = lab.run_long_job().await;
    lab.gitlab.world().cancel(job, false);
    let cancelled = Instant::now();
    lab.gitlab.until(job, "canceled").await;
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert!(cancelled.elapsed() < Duration::from_secs(60));
    assert_eq!(ended[0]["outcome"], "cancelled");
    let failing = lab.gitlab.push("failing", "echo here; exit 3");
    assert!(lab.gitlab.until(failing, "failed").await.contains("exit status 3"));
    assert_eq!(lab.gitlab.job(failing).reason, "script_failure");
    let ended = launches::until_all_ended(&lab.daemon, 2).await;
    assert_eq!(ended[1]["outcome"], "failure");
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn a_runner_that_dies_with_its_job_does_not_leave_it_running_for_an_hour() {
    let Some(lab) = Lab::start("").await else { return };
    let dies = vec![("STAND_IN_MISBEHAVE".to_owned(), "die-after-fetch".to_owned())];
    let job = lab.gitlab.push_job(Job { variables: dies, ..Job::of("dies", "true") });
    lab.gitlab.until(job, "canceled").await;
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!((&ended[0]["outcome"], &ended[0]["job"]), (&Value::from("cancelled"), &Value::from("dies")));
    assert!(lab.gitlab.count_of(&format!("/jobs/{job}/cancel")) >= 2, "one that waits for its runner is forced");
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn a_killed_daemon_leaves_no_job_running_at_gitlab() {
    let Some(mut lab) = Lab::start("").await else { return };
    let job = lab.run_long_job().await;
    lab.daemon.kill();
    lab.daemon.restart().await;
    launches::until_all_ended(&lab.daemon, 1).await;
    // Its runner has lost its engine and says so before it is swept, if it has the time.
    assert!(lab.gitlab.job(job).has_ended(), "{:?}", lab.gitlab.job(job).status);
    let quick = lab.gitlab.push("quick", "true");
    lab.gitlab.until(quick, "success").await;
    launches::until_all_ended(&lab.daemon, 2).await;
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn a_daemon_that_is_stopped_lets_its_runner_fail_the_job() {
    let Some(mut lab) = Lab::start("").await else { return };
    let job = lab.run_long_job().await;
    assert!(lab.daemon.end().success());
    let log = lab.gitlab.until(job, "failed").await;
    assert!(log.contains("aborted: terminated"), "{log}");
}

#[tokio::test]
async fn a_runner_that_waits_is_drained_and_one_with_a_job_goes_on() {
    let Some(lab) = Lab::start("").await else { return };
    let taken = lab.gitlab.push("taken", "echo begun; sleep 6");
    lab.gitlab.until(taken, "running").await;
    launches::until(&lab.daemon, "running", |launches| launches[0]["state"] == "running").await;
    lab.gitlab.world().is_slow = true;
    lab.gitlab.push("late", "true");
    launches::until(&lab.daemon, "one waits", |launches| launches.iter().any(|launch| launch["state"] == "waiting"))
        .await;
    assert!(lab.daemon.ringer(&["drain"]).status().expect("ringer runs").success());
    let is_drained = |launch: &Value| launch["outcome"].as_str().is_some_and(|words| words.contains("draining"));
    launches::until(&lab.daemon, "drained", |launches| launches.iter().any(is_drained)).await;
    lab.gitlab.until(taken, "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 2).await;
    assert!(launches::log_of(&lab.daemon, &ended[1]).contains("Requested quit"), "it ended by itself");
    assert!(lab.daemon.ringer(&["uncordon"]).status().expect("ringer runs").success());
    lab.gitlab.world().is_slow = false;
    let late = lab.gitlab.world().jobs[1].id;
    lab.gitlab.until(late, "success").await;
    launches::until_all_ended(&lab.daemon, 3).await;
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn a_forge_that_is_away_or_talks_nonsense_is_picked_up_again() {
    let Some(mut lab) = Lab::start("").await else { return };
    launches::until_logged(&lab.daemon, "has the project runner 7").await;
    let daemon = &lab.daemon;
    lab.gitlab.be_away(launches::until_logged(daemon, "gitlab: GET http")).await;
    launches::until_logged(&lab.daemon, "gitlab answers again").await;
    // Refusals of every kind, at what a look and a launch ask: none is the end.
    for (part, status) in [
        ("/projects/1/jobs", 500),
        ("/projects/1/jobs", 404),
        ("/projects/1/jobs", 200),
        ("/runners/7/jobs", 404),
        ("/runners/7/jobs", 429),
        ("/verify", 503),
        ("/verify", 200),
    ] {
        lab.gitlab.fail(part, status, 1);
    }
    let job = lab.gitlab.push("after", "true");
    lab.gitlab.until(job, "success").await;
    launches::until(&lab.daemon, "a success", |launches| {
        launches.last().is_some_and(|launch| launch["outcome"] == "success")
    })
    .await;
    let log = lab.daemon.log();
    assert!(log.contains("/jobs: the answer is not what was expected ("), "{log}");
    assert!(log.contains("/verify: the answer is not what was expected") && !log.contains(RUNNER_TOKEN), "{log}");
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn a_project_that_cannot_be_asked_or_tells_too_much_keeps_nobody_elses_jobs_waiting() {
    let gitlab = GitLab::start();
    gitlab.world().gone = vec![(2, "acme/gone"), (3, "acme/broken")];
    gitlab.fail("/projects/3/jobs", 500, usize::MAX);
    // Together they are longer than a list may be.
    for number in 0..15 {
        let tags = vec!["windows".to_owned()];
        gitlab.push_job(Job { tags, message: "long ".repeat(80_000), ..Job::of(&format!("long-{number}"), "true") });
    }
    let Some(lab) = Lab::start_on(gitlab, "").await else { return };
    let job = lab.gitlab.push("quick", "true");
    lab.gitlab.until(job, "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!(ended[0]["outcome"], "success");
    for project in ["acme/gone is left out", "acme/broken is left out"] {
        let log = lab.daemon.log();
        assert_eq!(log.matches(project).count(), 1, "{project}: {log}");
    }
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn a_job_of_another_runners_manager_of_the_same_name_is_let_alone() {
    let Some(lab) = Lab::start("").await else { return };
    lab.gitlab.world().is_slow = true;
    let job = lab.gitlab.push("ours", "true");
    launches::until(&lab.daemon, "one waits", |launches| launches.iter().any(|launch| launch["state"] == "waiting"))
        .await;
    let slot = lab.gitlab.world().managers.first().cloned();
    assert!(slot.is_some(), "it was told of with the launch");
    let theirs = Job { status: "running", manager: slot, runner: 8, started: 99, ..Job::of("theirs", LONG) };
    let theirs = lab.gitlab.push_job(theirs);
    let looks = lab.gitlab.count_of("/projects/1/jobs");
    launches::until(&lab.daemon, "two more looks", |_| lab.gitlab.count_of("/projects/1/jobs") >= looks + 2).await;
    lab.gitlab.world().is_slow = false;
    lab.gitlab.until(job, "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!((&ended[0]["job"], &ended[0]["outcome"]), (&Value::from("ours"), &Value::from("success")));
    assert_eq!(lab.gitlab.job(theirs).status, "running");
}

#[tokio::test]
async fn tokens_that_do_not_fit_are_told_apart() {
    let gitlab = GitLab::start();
    let Some(images) = Images::with_gitlab_runner(gitlab.place()).await else { return };
    let section = |name: &str, token: &str, api_token: &str| {
        config(&gitlab, token, api_token, &images, "").replacen(
            "[gitlab]\n",
            &format!("[[gitlab]]\nname = '{name}'\n"),
            1,
        )
    };
    let text = [
        section("no-runner", "glrt-no-such-runner", API_TOKEN),
        section("wrong", RUNNER_TOKEN, "glpat-revoked"),
        section("narrow", RUNNER_TOKEN, NARROW_TOKEN),
        section("good", RUNNER_TOKEN, API_TOKEN),
    ];
    let daemon = Daemon::launching(gitlab.place(), &text.concat()).await;
    let lab = Lab { daemon, images, gitlab };
    let job = lab.gitlab.push("quick", "true");
    lab.gitlab.until(job, "success").await;
    launches::until_all_ended(&lab.daemon, 1).await;
    let told = lab.told();
    for words in [
        "no-runner: ",
        "does not take token",
        "wrong: ",
        "does not take api_token",
        "narrow: ",
        "it needs the scope api",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let file = lab.daemon.folder().join("check.toml");
    fs::write(&file, config(&lab.gitlab, RUNNER_TOKEN, API_TOKEN, &lab.images, "")).expect("a file in our folder");
    let check_fails_with = |words: &str| {
        let (code, told) = lab.gitlab.place().config_check(&file, &[]);
        assert!(code != Some(0) && told.contains(words), "{words}: {told}");
    };
    lab.gitlab.world().paused = true;
    check_fails_with("is paused");
    lab.gitlab.world().version = "17.0.8-ee";
    check_fails_with("is GitLab 17.0.8-ee: it has to be 17.1 or later");
}

#[tokio::test]
async fn a_docker_daemon_of_a_jobs_own_is_refused_with_what_to_write() {
    let Some(lab) = Lab::start("").await else { return };
    let dind = format!("{}/docker:28-dind", lab.images.job().split('/').next().expect("a host"));
    // What is in it is never started: its name is what the runner's configuration goes by.
    let mut copy = lab.gitlab.place().command("skopeo");
    let images = [format!("docker://{}", lab.images.job()), format!("docker://{dind}")];
    let copied =
        copy.args(["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]).args(images).status();
    assert!(copied.expect("skopeo is there").success());
    let service = Job { services: vec![(dind, "docker".to_owned())], ..Job::of("dind", "true") };
    let plain =
        Job { services: vec![(lab.images.web(), "db".to_owned())], ..Job::of("db", "wget -q -O- http://db:8080") };
    let plain = lab.gitlab.push_job(plain);
    assert!(lab.gitlab.until(plain, "success").await.contains("served by"), "a service has its alias");
    let job = lab.gitlab.push_job(service);
    let log = lab.gitlab.until(job, "failed").await;
    assert!(log.contains("rule privileged") && log.contains("leave out docker:dind"), "{log}");
    launches::until_all_ended(&lab.daemon, 2).await;
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn a_warm_runner_has_the_job_that_comes_and_another_takes_its_place() {
    let Some(lab) = Lab::start("warm = 1\nconcurrency = 1").await else { return };
    launches::warm_one_is_replaced(&lab.daemon, async || {
        let job = lab.gitlab.push("quick", "true");
        lab.gitlab.until(job, "success").await;
    })
    .await;
    launches::none_is_left(&lab.daemon);
}
