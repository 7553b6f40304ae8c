//! `ringer run` on a stand-in of Woodpecker's server, with a stand-in of its agent: one agent and token for each workflow.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ringer::{
    backend::images::samples::{self, Packing},
    model::image::{ImageConfig, Platform},
};
use serde_json::Value;

use crate::support::{
    daemon::Daemon,
    forge::Images,
    images::publish,
    launches, place,
    registry::{Guard, Registry},
    woodpecker::{NARROW_TOKEN, REPOSITORY, Step, TOKEN, Woodpecker},
};

/// A step that does not end by itself.
const LONG: &str = "echo begun; sleep 1000";

/// The forge, what its agents are made of, and the daemon that launches them.
struct Lab {
    daemon: Daemon,
    images: Images,
    woodpecker: Woodpecker,
}

impl Lab {
    /// `None` where a part is absent, which CI does not let pass. `more` is added to the forge's section.
    async fn start(more: &str) -> Option<Self> {
        let woodpecker = Woodpecker::start();
        let images = Images::with_woodpecker_agent(woodpecker.place()).await?;
        let daemon = Daemon::launching(woodpecker.place(), &config(&woodpecker, TOKEN, &images, more)).await;
        Some(Self { daemon, images, woodpecker })
    }

    fn step(&self, command: &str) -> Step {
        Step::of("step", &self.images.job(), command)
    }

    fn push(&self, name: &str, command: &str) -> i64 {
        self.woodpecker.push(name, vec![self.step(command)])
    }

    /// Waits until a workflow runs.
    async fn run_long_workflow(&self) -> i64 {
        let workflow = self.push("long", LONG);
        self.woodpecker.until(workflow, "running").await;
        launches::until(&self.daemon, "running", |launches| launches[0]["state"] == "running").await;
        workflow
    }

    fn told(&self) -> String {
        let output = self.daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout;
        String::from_utf8_lossy(&output).into_owned()
    }

    fn is_clean(&self) {
        assert_eq!(self.woodpecker.agents(), Vec::<String>::new());
        launches::none_is_left(&self.daemon);
    }
}

fn config(woodpecker: &Woodpecker, token: &str, images: &Images, more: &str) -> String {
    let (server, url, agent) = (woodpecker.server(), woodpecker.url(), images.woodpecker_agent());
    format!("[woodpecker]\nserver = '{server}'\nurl = '{url}'\ntoken = '{token}'\nrunner_image = '{agent}'\n{more}\n")
}

#[tokio::test]
async fn each_workflow_gets_an_agent_and_no_row_is_left() {
    let Some(lab) = Lab::start("labels = ['gpu=yes']").await else { return };
    let two = |number: usize| {
        let other = Step::of("other", &lab.images.web(), "cat /woodpecker/src/note; test -d /www");
        vec![lab.step(&format!("test -S /var/run/docker.sock; echo this is {number} > note")), other]
    };
    let all: Vec<i64> = (0..6).map(|number| lab.woodpecker.push(&format!("workflow-{number}"), two(number))).collect();
    let foreign = lab.woodpecker.world().push("foreign", &[("platform", "windows/amd64")], vec![lab.step("true")]);
    for (number, workflow) in all.iter().enumerate() {
        lab.woodpecker.until(*workflow, "success").await;
        // Of the second step: two images share a workspace.
        lab.woodpecker.until_logged(*workflow, &format!("this is {number}")).await;
    }
    // Afterwards: one that waits for it may be given any of the others.
    launches::until_all_ended(&lab.daemon, 6).await;
    let gpu = lab.woodpecker.world().push("gpu", &[("gpu", "yes")], vec![lab.step("echo fast")]);
    lab.woodpecker.until(gpu, "success").await;
    lab.woodpecker.until_logged(gpu, "fast").await;
    let ended = launches::until_all_ended(&lab.daemon, 7).await;
    assert_eq!(ended.len(), 7, "{ended:#?}");
    assert!(
        ended.iter().all(|launch| launch["outcome"] == "success" && launch["repository"] == REPOSITORY),
        "{ended:#?}"
    );
    let names: BTreeSet<&str> = ended.iter().filter_map(|launch| launch["job"].as_str()).collect();
    assert_eq!(names.len(), 7, "each launch names its own workflow: {ended:#?}");
    assert_eq!(lab.woodpecker.workflow(foreign).state, "pending");
    assert!(lab.daemon.log().contains("no runner here has the label platform=windows/amd64"), "{}", lab.daemon.log());
    lab.is_clean();
    let log = launches::log_of(&lab.daemon, &ended[0]);
    assert!(log.contains("shutdown of whole agent"), "the agent's log outlives it: {log}");
    assert!(!lab.daemon.log().contains(TOKEN) && !log.contains("TOKEN-OF-AGENT"), "a token is in a log");
}

#[tokio::test]
async fn a_cancel_reaches_the_workflow_and_a_failure_is_its_own() {
    let Some(lab) = Lab::start("").await else { return };
    let workflow = lab.run_long_workflow().await;
    let all = Command::new("ps").args(["-eo", "args"]).output().expect("ps is there").stdout;
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(all.contains("woodpecker-agent") && !all.contains("TOKEN-OF-AGENT"), "a token is an argument");
    lab.woodpecker.world().cancel(workflow);
    let asked = Instant::now();
    lab.woodpecker.until(workflow, "killed").await;
    assert!(asked.elapsed() < Duration::from_secs(30), "the cancel took {:?}", asked.elapsed());
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!(ended[0]["outcome"], "cancelled");
    let failing = lab.push("failing", "echo here; exit 3");
    lab.woodpecker.until(failing, "failure").await;
    lab.woodpecker.until_logged(failing, "here").await;
    let ended = launches::until_all_ended(&lab.daemon, 2).await;
    assert_eq!(ended[1]["outcome"], "failure");
    lab.is_clean();
}

#[tokio::test]
async fn a_workflow_of_a_killed_daemon_runs_again_and_nothing_is_left() {
    let Some(mut lab) = Lab::start("").await else { return };
    let workflow = lab.push("again", "sleep 6; echo whole");
    lab.woodpecker.until(workflow, "running").await;
    launches::until(&lab.daemon, "running", |launches| launches[0]["state"] == "running").await;
    // The daemon's end takes the agent's engine; a row of it is left, and one of nobody's.
    lab.daemon.kill();
    lab.woodpecker.world().lease = Duration::from_secs(2);
    lab.daemon.restart().await;
    let ended = launches::until(&lab.daemon, "ended", |launches| launches.iter().all(launches::is_ended)).await;
    assert!(!ended.is_empty());
    lab.woodpecker.world().lease = Duration::from_secs(60);
    let quick = lab.push("quick", "true");
    lab.woodpecker.until(quick, "success").await;
    launches::until(&lab.daemon, "all ended", |launches| launches.iter().all(launches::is_ended)).await;
    assert!(lab.woodpecker.workflow(workflow).has_ended(), "{:#?}", lab.woodpecker.workflow(workflow));
    lab.is_clean();
}

#[tokio::test]
async fn a_daemon_that_is_stopped_lets_its_agent_end_the_workflow() {
    let Some(mut lab) = Lab::start("").await else { return };
    let workflow = lab.run_long_workflow().await;
    assert!(lab.daemon.end().success());
    lab.woodpecker.until(workflow, "killed").await;
    assert_eq!(lab.woodpecker.agents(), Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_that_waits_is_drained_at_the_server_and_one_with_work_goes_on() {
    let Some(lab) = Lab::start("").await else { return };
    let taken = lab.push("taken", "echo begun; sleep 6");
    lab.woodpecker.until(taken, "running").await;
    launches::until(&lab.daemon, "running", |launches| launches[0]["state"] == "running").await;
    lab.woodpecker.world().is_slow = true;
    let late = lab.push("late", "true");
    launches::until(&lab.daemon, "one waits", |launches| launches.iter().any(|launch| launch["state"] == "waiting"))
        .await;
    assert!(lab.daemon.ringer(&["drain"]).status().expect("ringer runs").success());
    let is_drained = |launch: &Value| launch["outcome"].as_str().is_some_and(|words| words.contains("draining"));
    launches::until(&lab.daemon, "drained", |launches| launches.iter().any(is_drained)).await;
    assert!(lab.woodpecker.count_of("PATCH /api/agents/") > 0);
    lab.woodpecker.until(taken, "success").await;
    launches::until_all_ended(&lab.daemon, 2).await;
    assert!(lab.daemon.ringer(&["uncordon"]).status().expect("ringer runs").success());
    lab.woodpecker.world().is_slow = false;
    lab.woodpecker.until(late, "success").await;
    launches::until_all_ended(&lab.daemon, 3).await;
    lab.is_clean();
}

#[tokio::test]
async fn another_version_of_the_protocol_is_one_sentence_and_no_loop() {
    let Some(lab) = Lab::start("").await else { return };
    lab.woodpecker.world().version = 17;
    lab.push("never", "true");
    let words = "speaks another version of the protocol";
    launches::until(&lab.daemon, "told", |launches| {
        launches.iter().any(|launch| launch["outcome"].as_str().is_some_and(|outcome| outcome.contains(words)))
    })
    .await;
    launches::until_all_ended(&lab.daemon, 1).await;
    // Long enough for the next tries of a launch that fails otherwise.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(launches::all(&lab.daemon).len(), 1, "{}", lab.daemon.log());
    lab.is_clean();
}

#[tokio::test]
async fn a_forge_that_is_away_or_talks_nonsense_is_picked_up_again() {
    let Some(mut lab) = Lab::start("").await else { return };
    launches::until_logged(&lab.daemon, "is Woodpecker 3.17.0").await;
    let daemon = &lab.daemon;
    lab.woodpecker.be_away(launches::until_logged(daemon, "woodpecker: GET http")).await;
    launches::until_logged(&lab.daemon, "woodpecker answers again").await;
    // Refusals of every kind, at what a look and a launch ask: none is the end.
    for (part, status) in [
        ("/queue/info", 500),
        ("/queue/info", 404),
        ("/queue/info", 200),
        ("/agents", 429),
        ("/agents", 404),
        ("/pipelines/", 503),
    ] {
        lab.woodpecker.fail(part, status, 1);
    }
    let workflow = lab.push("after", "true");
    lab.woodpecker.until(workflow, "success").await;
    launches::until(&lab.daemon, "all ended", |launches| {
        launches.iter().all(launches::is_ended) && launches.iter().any(|launch| launch["job"] == "after")
    })
    .await;
    assert!(lab.daemon.log().contains("the answer is not what was expected"), "{}", lab.daemon.log());
    lab.is_clean();
}

#[tokio::test]
async fn a_token_that_may_not_is_told_so() {
    let woodpecker = Woodpecker::start();
    let Some(images) = Images::with_woodpecker_agent(woodpecker.place()).await else { return };
    let section = |name: &str, token: &str| {
        let text = config(&woodpecker, token, &images, "");
        text.replacen("[woodpecker]\n", &format!("[[woodpecker]]\nname = '{name}'\n"), 1)
    };
    let text = [section("narrow", NARROW_TOKEN), section("wrong", "no-such-token"), section("good", TOKEN)].concat();
    let daemon = Daemon::launching(woodpecker.place(), &text).await;
    let lab = Lab { daemon, images, woodpecker };
    let workflow = lab.push("quick", "true");
    lab.woodpecker.until(workflow, "success").await;
    launches::until_all_ended(&lab.daemon, 1).await;
    let told = lab.told();
    assert!(told.contains("narrow: ") && told.contains("is no administrator"), "{told}");
    assert!(told.contains("wrong: ") && told.contains("does not take the token"), "{told}");
}

/// It takes the half minute that the supervisor gives a call.
#[tokio::test]
async fn forges_that_never_answer_are_told_and_hold_up_no_other() {
    let woodpecker = Woodpecker::start();
    let Some(images) = Images::with_woodpecker_agent(woodpecker.place()).await else { return };
    let address = format!("{}:3999", place::ADDRESS);
    // Connections come about: the kernel does that.
    let _silent = place::listen(&woodpecker.place().path(), address.parse().expect("an address")).expect("it is free");
    let silent = format!(
        "[[woodpecker]]\nname = 'first'\nserver = '{address}'\nurl = 'http://{address}'\ntoken = 'x'\n\
         [[gitlab]]\nname = 'second'\nurl = 'http://{address}'\ntoken = 'glrt-x'\napi_token = 'x'\n"
    );
    let good = config(&woodpecker, TOKEN, &images, "").replacen("[woodpecker]\n", "[[woodpecker]]\nname = 'good'\n", 1);
    let daemon = Daemon::launching(woodpecker.place(), &(silent + &good)).await;
    let lab = Lab { daemon, images, woodpecker };
    let workflow = lab.push("quick", "true");
    lab.woodpecker.until(workflow, "success").await;
    assert!(!lab.daemon.log().contains("no answer within"), "the good one has waited: {}", lab.daemon.log());
    for name in ["first", "second"] {
        launches::until_logged(&lab.daemon, &format!("{name}: ")).await;
    }
    launches::until_all_ended(&lab.daemon, 1).await;
    let told = lab.told();
    assert_eq!(told.matches("no answer within 30 s").count(), 2, "{told}");
    lab.is_clean();
}

#[tokio::test]
async fn a_plugin_with_privileges_is_refused_with_what_to_write() {
    let Some(lab) = Lab::start("").await else { return };
    let plugin = Step { privileged: true, ..lab.step("true") };
    let workflow = lab.woodpecker.push("buildx", vec![plugin]);
    let errors = lab.woodpecker.until(workflow, "failure").await.errors.join("\n");
    let is_told = errors.contains("rule privileged") && errors.contains("/var/run/docker.sock is the job's own");
    assert!(is_told, "{errors}");
    launches::until_all_ended(&lab.daemon, 1).await;
    lab.is_clean();
}

#[tokio::test]
async fn a_steps_image_is_pulled_with_the_workflows_credentials_and_once() {
    let host = "127.0.0.1:5001".to_owned();
    let Some(lab) = Lab::start(&format!("[daemon]\ninsecure-registry = ['{host}']")).await else {
        return;
    };
    let registry = Registry::serve_at(lab.woodpecker.place().listener(&host));
    let files = (samples::busybox_tar().expect("busybox"), Packing::Gzip);
    publish(&registry, "acme/step", &samples::image(&Platform::host().to_string(), ImageConfig::default(), &[files]));
    registry.guard(Guard::Basic(BASE64_STANDARD.encode("robot:of-the-repository")));
    let step = |login| {
        let image = format!("{host}/acme/step:latest");
        Step { login, ..Step::of("step", &image, "echo in its image") }
    };
    let run = async |step| {
        let workflow = lab.woodpecker.push("own", vec![step]);
        lab.woodpecker.until(workflow, "success").await.log.concat()
    };
    assert!(run(step(Some(("robot", "of-the-repository")))).await.contains("in its image"));
    let fetched = registry.count("GET /v2/acme/step/blobs/");
    assert_eq!(fetched, 2, "a configuration and a layer");
    assert!(run(step(Some(("robot", "of-the-repository")))).await.contains("in its image"));
    assert_eq!(registry.count("GET /v2/acme/step/blobs/"), fetched, "nothing of it is fetched again");

    // What one workflow has pulled is not there for who may not have it.
    for login in [None, Some(("robot", "guessed"))] {
        let workflow = lab.woodpecker.push("others", vec![step(login)]);
        let told = lab.woodpecker.until(workflow, "failure").await;
        let words = format!("{:?}{:?}", told.errors, told.log);
        let refused = ["unauthorized: authentication required", "no basic auth credentials"];
        assert!(refused.iter().any(|refusal| words.contains(refusal)), "{words}");
    }
    let ended = launches::until_all_ended(&lab.daemon, 4).await;
    assert!(!ended.iter().any(|launch| launches::log_of(&lab.daemon, launch).contains("of-the-repository")));
    assert!(!lab.daemon.log().contains("of-the-repository"), "a password is in the log");
    lab.is_clean();
}

#[tokio::test]
async fn a_warm_runner_has_the_job_that_comes_and_another_takes_its_place() {
    let Some(lab) = Lab::start("warm = 1\nconcurrency = 1").await else { return };
    launches::warm_one_is_replaced(&lab.daemon, async || {
        let workflow = lab.push("quick", "true");
        lab.woodpecker.until(workflow, "success").await;
    })
    .await;
    lab.is_clean();
}
