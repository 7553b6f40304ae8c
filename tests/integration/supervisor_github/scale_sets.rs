//! Jobs by scale sets: a session of ours is told of them, and nothing is asked of repositories. `kept` is what becomes of the sets.

mod kept;

use std::{collections::BTreeSet, fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use super::{Lab, config};
use crate::support::{
    daemon::Daemon,
    forge::Images,
    github::{GitHub, NewJob, TOKEN},
    launches,
};

/// A daemon that listens; `more` is added to the forge's section, and may begin others.
async fn listening(more: &str, prepare: impl FnOnce(&GitHub)) -> Option<Lab> {
    let github = GitHub::start();
    let images = Images::with_actions_runner(github.place()).await?;
    prepare(&github);
    let daemon = Daemon::launching(github.place(), &by_scale_set(&github, &images, more)).await;
    Some(Lab { daemon, images, github })
}

fn by_scale_set(github: &GitHub, images: &Images, more: &str) -> String {
    let more = format!("token = '{TOKEN}'\ndiscovery = 'scale-set'\n{more}");
    config(github, images, &more).replace("poll_interval = '1s'\n", "")
}

impl Lab {
    async fn reload(&self, text: &str) {
        let before = self.daemon.log().matches("is new or has changed").count();
        fs::write(self.daemon.folder().join("config.toml"), text).expect("a file in our folder");
        let pid = i32::try_from(self.daemon.pid()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::HUP).expect("the daemon runs");
        self.github.until("taken up", |_| self.daemon.log().matches("is new or has changed").count() > before).await;
    }

    async fn until_listening(&self) {
        self.github.until("listened to", |model| model.service.sets.values().any(|set| set.session.is_some())).await;
    }

    async fn runs(&self, repository: &str, name: &str) {
        let jobs = self.github.push(repository, vec![NewJob::of(name, &["true"])]);
        self.github.until_jobs(&jobs, "success").await;
    }
}

#[tokio::test]
async fn three_jobs_at_once_succeed_in_three_runners_and_the_session_ends_with_the_drain() {
    let Some(mut lab) = listening("[runner]\nmax_jobs = 3", |_| {}).await else { return };
    lab.until_listening().await;
    let queued = (1..=3).map(|number| NewJob::of(&format!("job {number}"), &["docker network create same"])).collect();
    let ids = lab.github.push("three", queued);
    let jobs = lab.github.until_jobs(&ids, "success").await;
    let runners: BTreeSet<&str> = jobs.iter().filter_map(|job| job["runner_name"].as_str()).collect();
    assert_eq!(runners.len(), 3, "a fresh one each: {runners:?}");
    let ended = launches::until_all_ended(&lab.daemon, 3).await;
    let is_told = |launch: &serde_json::Value| launch["outcome"] == "success" && launch["repository"] == "acme/three";
    assert!(ended.iter().all(is_told), "{ended:#?}");
    lab.is_clean();
    {
        let model = lab.github.model();
        assert_eq!(model.ever.len(), 3, "no runner too many");
        let set = model.only_set();
        assert!(set.name.starts_with("ringer-") && set.name.ends_with("-github"), "{}", set.name);
        assert!(set.labels.contains("self-hosted") && set.labels.contains(&set.name), "{:?}", set.labels);
        assert_eq!((set.capacity, model.service.begun), (3, 1));
        assert_eq!((model.times("/actions/runs"), model.times("/orgs/acme/repos")), (0, 0), "no queue is asked for");
    }
    let log = lab.daemon.log();
    assert!(
        !log.contains("queue-") && !log.contains("REGISTRATION") && !log.contains(".signature"),
        "a token is in the log"
    );

    lab.daemon.ringer(&["drain"]).output().expect("ringer runs");
    lab.github.until("left", |model| model.only_set().session.is_none()).await;
    lab.daemon.ringer(&["uncordon"]).output().expect("ringer runs");
    lab.until_listening().await;
    assert!(lab.daemon.end().success());
    assert!(lab.github.model().only_set().session.is_none(), "the session ends with the daemon, and the set stays");
}

#[tokio::test]
async fn jobs_that_are_offered_are_acquired_as_there_is_room() {
    let offers = |github: &GitHub| github.model().service.offers = true;
    let Some(lab) = listening("concurrency = 1", offers).await else { return };
    let queued = (1..=2).map(|number| NewJob::of(&format!("offered {number}"), &["true"])).collect();
    let jobs = lab.github.push("one", queued);
    lab.github.until_jobs(&jobs, "success").await;
    launches::until_all_ended(&lab.daemon, 2).await;
    {
        let model = lab.github.model();
        assert_eq!((model.times("/acquirejobs"), model.service.most), (2, 1));
    }
    lab.is_clean();
}

#[tokio::test]
async fn a_job_that_is_assigned_again_is_known_and_outlives_a_drain() {
    let reassigns = |github: &GitHub| github.model().service.reassigns = true;
    let Some(lab) = listening("", reassigns).await else { return };
    let long = lab.run_long_job().await;
    lab.github.until("heard of", |_| lab.daemon.log().contains(" has job ")).await;
    lab.daemon.ringer(&["drain"]).output().expect("ringer runs");
    lab.github.until("asked no more", |model| model.only_set().capacity == 0).await;
    assert_eq!(lab.github.job(long)["status"], "in_progress", "it goes on");
    lab.github.model().cancel(long);
    assert_eq!(launches::until_all_ended(&lab.daemon, 1).await[0]["outcome"], "cancelled");
    lab.is_clean();
}

#[tokio::test]
async fn a_drain_ends_a_runner_that_waits_and_none_that_has_just_been_given_a_job() {
    let Some(lab) = listening("concurrency = 2", |github| github.model().service.miscounts = 1).await else { return };
    lab.github.until("registered", |model| model.ever.len() == 1).await;
    lab.github.until("started", |model| model.runners.values().any(|runner| runner.session.is_some())).await;
    lab.daemon.ringer(&["drain"]).output().expect("ringer runs");
    launches::until_all_ended(&lab.daemon, 1).await;
    lab.is_clean();

    {
        let mut model = lab.github.model();
        (model.service.is_silent, model.service.miscounts, model.holds_back) = (true, 0, true);
    }
    lab.daemon.ringer(&["uncordon"]).output().expect("ringer runs");
    let jobs = lab.github.push("one", vec![NewJob::of("given", &["true"])]);
    lab.github.until_jobs(&jobs, "in_progress").await;
    lab.daemon.ringer(&["drain"]).output().expect("ringer runs");
    lab.github.until("refused", |model| model.service.refused > 0).await;
    lab.github.model().holds_back = false;
    lab.github.until_jobs(&jobs, "success").await;
    assert_eq!(launches::until_all_ended(&lab.daemon, 2).await[1]["outcome"], "success");
    lab.is_clean();
}

#[tokio::test]
async fn a_queue_that_takes_no_token_is_said_and_not_asked_in_a_loop() {
    let Some(lab) = listening("", |_| {}).await else { return };
    lab.until_listening().await;
    lab.github.model().service.refuses_queues = true;
    lab.until_told("github: ").await;
    assert!(lab.github.model().service.refreshed <= 2, "no loop");
    lab.github.model().service.refuses_queues = false;
    lab.runs("one", "again").await;
}

#[tokio::test]
async fn a_cancelled_job_ends_and_one_without_room_is_left_at_github() {
    let Some(lab) = listening("concurrency = 1", |_| {}).await else { return };
    let long = lab.run_long_job().await;
    let waits = lab.github.push("two", vec![NewJob::of("waits", &["true"])]);
    lab.github.model().cancel(waits[0]);
    lab.github.model().cancel(long);
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!(ended[0]["outcome"], "cancelled");
    {
        let model = lab.github.model();
        assert_eq!((model.service.most, model.ever.len()), (1, 1));
    }
    lab.is_clean();
}

#[tokio::test]
async fn a_session_that_somebody_else_holds_is_said_once_and_tried_again() {
    let Some(mut lab) = listening("", |_| {}).await else { return };
    lab.until_listening().await;
    lab.daemon.end();
    lab.github.model().hold_session();
    let before = lab.github.model().times("/sessions");
    lab.daemon.restart().await;
    let told = lab.until_told("somebody else listens to the scale set").await;
    assert!(told.contains("already has an active session"), "{told}");
    let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    lab.github.until("tried again", |model| model.times("/sessions") >= before + 2).await;
    assert_eq!(lab.github.job(jobs[0])["status"], "queued");
    lab.github.model().service.sets.values_mut().for_each(|set| set.session = None);
    lab.github.until_jobs(&jobs, "success").await;
    let held = "only one may";
    assert_eq!(lab.daemon.log().lines().filter(|line| line.contains(held) && line.contains("WARN")).count(), 1, "once");
    assert!(lab.github.model().times("/sessions") < before + 10, "no tight loop");
}

#[tokio::test]
async fn tokens_that_end_in_mid_session_are_renewed() {
    let Some(lab) = listening("", |_| {}).await else { return };
    lab.until_listening().await;
    let expire = || {
        let mut model = lab.github.model();
        model
            .service
            .sets
            .values_mut()
            .filter_map(|set| set.session.as_mut())
            .for_each(|session| session.is_expired = true);
        model.service.revoke();
    };
    expire();
    lab.runs("one", "first").await;
    expire();
    lab.runs("one", "second").await;
    let model = lab.github.model();
    assert_eq!((model.service.begun, model.service.refreshed), (1, 2), "the session is the same");
}

#[tokio::test]
async fn a_server_that_was_away_is_listened_to_again_and_a_set_that_is_gone_is_made_anew() {
    let Some(mut lab) = listening("", |_| {}).await else { return };
    lab.github.model().lost_after = Duration::from_secs(300);
    let long = lab.run_long_job().await;
    lab.github.go_away();
    lab.until_told("github: ").await;
    lab.github.come_back();
    lab.runs("long", "quick").await;
    assert_eq!(lab.github.job(long)["status"], "in_progress", "it goes on");
    lab.github.model().cancel(long);
    launches::until_all_ended(&lab.daemon, 2).await;

    // [iss: actions-runner-controller#4370]
    let gone = *lab.github.model().service.sets.keys().next().expect("a set");
    lab.github.model().service.sets.clear();
    lab.github.until("made anew", |model| model.service.sets.keys().any(|id| *id != gone)).await;
    lab.runs("long", "again").await;
    launches::until_all_ended(&lab.daemon, 3).await;
    lab.is_clean();
}

#[tokio::test]
async fn a_killed_daemon_takes_up_its_set_and_ends_its_own_session() {
    let soon = |github: &GitHub| github.model().lost_after = Duration::from_secs(8);
    let Some(mut lab) = listening("", soon).await else { return };
    let long = lab.run_long_job().await;
    let (set, session) = {
        let model = lab.github.model();
        let held = model.only_set().session.as_ref().expect("it listens");
        (model.only_set().name.clone(), held.id.clone())
    };
    lab.daemon.kill();
    let waits = lab.github.push("long", vec![NewJob::of("waits", &["true"])]);
    lab.daemon.restart().await;
    lab.github.until_jobs(&[long], "failure").await;
    lab.github.until_jobs(&waits, "success").await;
    launches::until_all_ended(&lab.daemon, 2).await;
    let model = lab.github.model();
    let now = model.only_set();
    assert_eq!(now.name, set, "the same");
    assert!(now.session.as_ref().is_some_and(|held| held.id != session), "another session");
    drop(model);
    lab.is_clean();
}
