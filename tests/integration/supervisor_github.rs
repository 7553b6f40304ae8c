//! `ringer run` on a fake of GitHub, with a stand-in for its runner: from queued jobs to green, and what happens when somebody cancels,
//! dies, is wrong or asks too often.

mod artifacts;
mod containers;
mod images;
mod rights;
mod scale_sets;

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    daemon::Daemon,
    forge::Images,
    github::{Fault, GitHub, NewJob, ORG, Reply, TOKEN, now},
    launches,
};

/// A step that does not end by itself.
const LONG: &str = "echo begun; sleep 1000";

/// The fake, what runners are made of, and the daemon that launches them.
struct Lab {
    daemon: Daemon,
    images: Images,
    github: GitHub,
}

impl Lab {
    /// `None` where a part is absent, which CI does not let pass. `more` is added to the forge's section.
    async fn start(more: &str) -> Option<Self> {
        Self::with(more, |_| {}).await
    }

    /// The same; the fake is prepared before the daemon comes.
    async fn with(more: &str, prepare: impl FnOnce(&GitHub)) -> Option<Self> {
        let github = GitHub::start();
        let images = Images::with_actions_runner(github.place()).await?;
        prepare(&github);
        let more = format!("token = '{TOKEN}'\n{more}");
        let daemon = Daemon::launching(github.place(), &config(&github, &images, &more)).await;
        Some(Self { daemon, images, github })
    }

    /// Queues a job that does not end, and waits until it runs.
    async fn run_long_job(&self) -> i64 {
        self.github.run_long_job(&self.daemon, LONG).await
    }

    /// Nothing of any job is left, here or at the forge.
    fn is_clean(&self) {
        assert_eq!(self.github.model().runner_names(), Vec::<&str>::new());
        launches::none_is_left(&self.daemon);
    }

    fn told(&self) -> String {
        let output = self.daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout;
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Waits until `ringer jobs` says something of the forge.
    async fn until_told(&self, words: &str) -> String {
        let deadline = Instant::now() + launches::LIMIT;
        loop {
            let told = self.told();
            if told.contains(words) {
                return told;
            }
            assert!(Instant::now() < deadline, "nothing is said of {words:?}: {told}\n{}", self.daemon.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// `more` says who we are, and whatever else.
fn config(github: &GitHub, images: &Images, more: &str) -> String {
    let (url, image) = (github.url(), images.actions_runner());
    format!("[github]\ninstance_url = '{url}'\norg = '{ORG}'\npoll_interval = '1s'\njob_image = '{image}'\n{more}\n")
}

#[tokio::test]
async fn ten_jobs_succeed_in_ten_runners_and_nothing_is_left() {
    let Some(lab) = Lab::start("memory = '1g'").await else { return };
    // All of them make the same thing, and would get in each other's way on one socket.
    let steps = ["test \"$(id -u)\" = 1001; pwd", "docker network create same; env"];
    let queued = (1..=10).map(|number| NewJob::of(&format!("job {number}"), &steps)).collect();
    let ids = lab.github.push("ten", queued);
    let jobs = lab.github.until_jobs(&ids, "success").await;
    let runners: BTreeSet<&str> = jobs.iter().filter_map(|job| job["runner_name"].as_str()).collect();
    assert_eq!(runners.len(), 10, "a fresh one each: {runners:?}");
    let ended = launches::until_all_ended(&lab.daemon, 10).await;
    assert!(ended.iter().all(|launch| launch["outcome"] == "success"), "{ended:#?}");
    assert!(ended.iter().all(|launch| launch["repository"] == "acme/ten"), "{ended:#?}");
    assert_eq!(lab.github.model().ever.len(), 10, "no runner too many");
    lab.is_clean();

    let log = launches::log_of(&lab.daemon, &ended[0]);
    assert!(log.contains("Listening for Jobs") && log.contains("completed with result: succeeded"), "{log}");
    assert!(!log.contains("JITCONFIG"), "a step's environment does not have the configuration: {log}");
    assert!(!lab.daemon.log().contains(TOKEN) && !log.contains(TOKEN), "the token is in a log");
    assert!(lab.github.model().unchanged > 0, "what has not changed is asked for with its tag");
}

#[tokio::test]
async fn a_jobs_container_sees_the_runners_own_files() {
    let Some(lab) = Lab::start("").await else { return };
    let steps = [
        "test \"$PWD\" = /__w/own/own; echo written > file; cat /__e/stand-in",
        "cat /__w/own/own/file; test -S /var/run/docker.sock; test ! -e /home/runner",
    ];
    let jobs = lab.github.push("own", vec![NewJob::of("inside", &steps).container(&lab.images.job())]);
    lab.github.until_jobs(&jobs, "completed").await;
    let log = lab.github.model().jobs[&jobs[0]].log.clone();
    lab.github.until_jobs(&jobs, "success").await;
    assert!(log.contains("node would be here") && log.contains("\nwritten\n"), "{log}");
    launches::until_all_ended(&lab.daemon, 1).await;
    lab.is_clean();
}

#[tokio::test]
async fn jobs_of_a_public_repository_are_left_alone_where_the_configuration_says_so() {
    let Some(lab) = Lab::with("public_repositories = false", |github| {
        github.model().public.insert(format!("{ORG}/open"));
    })
    .await
    else {
        return;
    };
    let left = lab.github.push("open", vec![NewJob::of("everybodys", &["true"])]);
    let own = lab.github.push("own", vec![NewJob::of("own", &["true"])]);
    lab.github.until_jobs(&own, "success").await;
    let told = lab.until_told("everybodys").await;
    assert!(told.contains("acme/open is public"), "{told}");
    assert_eq!(lab.github.job(left[0])["status"], "queued");
    launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!(lab.github.model().ever.len(), 1, "nothing is launched for it");
    lab.is_clean();
}

#[tokio::test]
async fn the_configuration_is_in_no_argument_list() {
    let Some(lab) = Lab::start("").await else { return };
    lab.run_long_job().await;
    let name = lab.github.model().runner_names()[0].to_owned();
    let secret = format!("secret-of-{name}");
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let arguments = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let all: Vec<String> = arguments.map(|text| String::from_utf8_lossy(&text).replace('\0', " ")).collect();
    assert!(all.iter().any(|text| text.contains("Runner.Listener")), "it runs");
    assert!(!all.iter().any(|text| text.contains(&secret) || text.contains("eyIu")), "a configuration is an argument");
    assert!(!lab.daemon.log().contains("eyIu"), "a configuration is in the log");
}

#[tokio::test]
async fn a_cancel_ends_the_job_within_a_minute() {
    let Some(lab) = Lab::start("").await else { return };
    let job = lab.run_long_job().await;
    let used = |launch: &Value, what: &str| launch[what].as_u64().is_some_and(|used| used > 0);
    let running = launches::all(&lab.daemon);
    assert!(used(&running[0], "cpu_ms") && used(&running[0], "memory"), "{running:#?}");
    lab.github.model().cancel(job);
    let cancelled = Instant::now();
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert!(cancelled.elapsed() < Duration::from_secs(60));
    assert_eq!(ended[0]["outcome"], "cancelled");
    assert!(used(&ended[0], "cpu_ms") && ended[0]["memory"].is_null(), "what it took in all is remembered: {ended:#?}");
    lab.is_clean();
}

/// GitHub gives such a job up, and the registration goes: that is how it shows.
#[tokio::test]
async fn a_runner_that_does_not_hear_a_cancel_is_ended() {
    let prepare = |github: &GitHub| {
        let mut model = github.model();
        model.misbehave.push_back("ignore-cancel");
        model.cancelled_after = Duration::from_secs(3);
    };
    let Some(lab) = Lab::with("", prepare).await else { return };
    let job = lab.run_long_job().await;
    lab.github.model().cancel(job);
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!(ended[0]["outcome"], "cancelled");
    lab.is_clean();
}

#[tokio::test]
async fn a_killed_daemon_leaves_nothing_behind_when_it_is_back() {
    let Some(mut lab) = Lab::start("").await else { return };
    let job = lab.run_long_job().await;
    lab.daemon.kill();
    lab.daemon.restart().await;
    launches::until_all_ended(&lab.daemon, 1).await;
    lab.github.until_jobs(&[job], "failure").await;
    lab.is_clean();

    let jobs = lab.github.push("long", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    launches::until_all_ended(&lab.daemon, 2).await;
    lab.is_clean();
}

/// Nobody knows then whether the runner was registered.
#[tokio::test]
async fn a_registration_whose_answer_was_lost_is_taken_back() {
    let held = |github: &GitHub| {
        github.model().fail_next("generate-jitconfig", Fault::Held(Duration::from_secs(600)));
    };
    let Some(mut lab) = Lab::with("", held).await else { return };
    let jobs = lab.github.push("lost", vec![NewJob::of("quick", &["true"])]);
    lab.github.until("registered", |model| !model.runners.is_empty()).await;
    let lost = lab.github.model().runner_names()[0].to_owned();
    lab.daemon.kill();
    lab.daemon.restart().await;
    lab.github.until("taken back", |model| !model.runner_names().contains(&lost.as_str())).await;
    lab.github.until_jobs(&jobs, "success").await;
    launches::until_all_ended(&lab.daemon, 2).await;
    lab.is_clean();
}

#[tokio::test]
async fn only_registrations_of_this_daemon_are_swept() {
    let others = "ringer-00000000-github-12345678";
    let prepare = |github: &GitHub| {
        github.model().register("orgs/acme", others, 1, vec!["self-hosted".to_owned()]);
    };
    let Some(mut lab) = Lab::with("", prepare).await else { return };
    let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    let ours = lab.github.model().ever.last().expect("one of ours").rsplit_once('-').expect("a name").0.to_owned();
    assert!(ours.starts_with("ringer-"), "{ours}");
    lab.daemon.end();
    lab.github.model().register("orgs/acme", &format!("{ours}-deadbeef"), 1, vec!["self-hosted".to_owned()]);
    lab.daemon.restart().await;
    lab.github.until("swept", |model| model.runner_names() == [others]).await;
}

#[tokio::test]
async fn a_daemon_that_is_stopped_lets_its_runners_say_that_their_jobs_are_cancelled() {
    let Some(mut lab) = Lab::start("").await else { return };
    let job = lab.run_long_job().await;
    assert!(lab.daemon.end().success());
    assert_eq!(lab.github.job(job)["conclusion"], "cancelled");
    assert_eq!(lab.github.model().runner_names(), Vec::<&str>::new());
}

#[tokio::test]
async fn what_depends_on_the_repository_is_registered_there() {
    let Some(lab) = Lab::start("repos = ['own']").await else { return };
    let jobs = lab.github.push("own", vec![NewJob::of("own", &["true"])]);
    let others = lab.github.push("other", vec![NewJob::of("other", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!(lab.github.job(others[0])["status"], "queued", "it is nobody's");
    assert!(lab.github.model().times("POST /api/v3/repos/acme/own/actions/runners/generate-jitconfig") == 1);
    assert!(lab.github.model().times("POST /api/v3/orgs/") == 0);
    lab.is_clean();
}

#[tokio::test]
async fn a_runner_takes_whatever_job_its_labels_cover() {
    let Some(lab) = Lab::start("labels = ['self-hosted', 'Linux', 'big']").await else { return };
    let windows = lab.github.push("other", vec![NewJob::of("other", &["true"]).labels(&["self-hosted", "windows"])]);
    let macos = lab.github.push("other", vec![NewJob::of("vm", &["true"]).labels(&["self-hosted", "macos"])]);
    let hosted = lab.github.push("other", vec![NewJob::of("hosted", &["true"]).labels(&["ubuntu-latest"])]);
    let jobs = vec![
        NewJob::of("big", &["true"]).labels(&["self-hosted", "BIG"]),
        NewJob::of("any", &["true"]).labels(&["linux"]),
    ];
    let jobs = lab.github.push("mixed", jobs);
    lab.github.until_jobs(&jobs, "success").await;
    launches::until_all_ended(&lab.daemon, 2).await;
    let log = lab.daemon.log();
    assert!(log.contains("no runner here has the label windows"), "{log}");
    let told = lab.told();
    assert!(told.contains("no runner here has the label windows") && told.contains("label macos"), "{told}");
    assert!(!log.contains("ubuntu-latest"), "what is meant for GitHub's own machines is not our concern");
    for id in windows.into_iter().chain(macos).chain(hosted) {
        assert_eq!(lab.github.job(id)["status"], "queued");
    }
}

/// Its time as a runner is over when GitHub says so, and a job that still waits gets the next one.
#[tokio::test]
async fn a_runner_that_dies_or_is_taken_back_is_followed_by_another() {
    let prepare = |github: &GitHub| github.model().misbehave.extend(["die-at-start"]);
    let Some(lab) = Lab::with("", prepare).await else { return };
    let jobs = lab.github.push("two", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 2).await;
    let outcomes: Vec<&str> = ended.iter().filter_map(|launch| launch["outcome"].as_str()).collect();
    assert!(outcomes.iter().any(|outcome| outcome.contains("has had no job")), "{outcomes:?}");
    lab.is_clean();
}

#[tokio::test]
async fn an_app_gets_tokens_of_its_installation_and_renews_them() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    let pem = rsa_key();
    github.model().apps.insert("7".to_owned(), public_key_of(&pem));
    // Less than what is left for a renewal: each use asks for a new one.
    github.model().token_lasts = 600;
    let app = format!("app_id = 7\nprivate_key = '''\n{pem}'''");
    let daemon = Daemon::launching(github.place(), &config(&github, &images, &app)).await;
    let lab = Lab { daemon, images, github };
    let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    assert!(lab.github.model().installed.len() > 1, "renewed early");
    lab.github.model().token_lasts = 3600;
    let deadline = Instant::now() + launches::LIMIT;
    let held = loop {
        let before = lab.github.model().installed.len();
        tokio::time::sleep(Duration::from_secs(3)).await;
        if lab.github.model().installed.len() == before {
            break before;
        }
        assert!(Instant::now() < deadline, "each call makes a token");
    };
    // Revoked in the middle: the next call gets another.
    lab.github.model().installed.clear();
    let jobs = lab.github.push("one", vec![NewJob::of("again", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    assert_eq!(lab.github.model().installed.len(), 1, "made once, after {held}");
    assert!(!lab.daemon.log().contains("ghs_7_"), "a token is in the log");
}

#[tokio::test]
async fn a_wrong_app_key_is_said_in_words() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    github.model().apps.insert("7".to_owned(), public_key_of(&rsa_key()));
    let app = format!("app_id = 7\nprivate_key = '''\n{}'''", rsa_key());
    let daemon = Daemon::launching(github.place(), &config(&github, &images, &app)).await;
    let lab = Lab { daemon, images, github };
    lab.until_told("does not take app_id 7").await;
}

#[tokio::test]
async fn a_wrong_token_and_a_missing_scope_are_said_in_words_and_once() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    github.model().tokens.insert("ghp_narrow".to_owned(), ["repo"].into());
    let narrow = config(&github, &images, "token = 'ghp_narrow'\nname = 'narrow'").replace("[github]", "[[github]]");
    let wrong = config(&github, &images, "token = 'ghp_wrong'\nname = 'wrong'").replace("[github]", "[[github]]");
    let good = config(&github, &images, &format!("token = '{TOKEN}'\nname = 'good'")).replace("[github]", "[[github]]");
    let daemon = Daemon::launching(github.place(), &format!("{narrow}{wrong}{good}")).await;
    let lab = Lab { daemon, images, github };
    lab.until_told("wrong: ").await;
    let told = lab.until_told("narrow: ").await;
    assert!(told.contains("does not take the token") && told.contains("admin:org"), "{told}");
    let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    assert_eq!(lab.daemon.log().matches("does not take the token").count(), 1, "said once");
}

#[tokio::test]
async fn limits_are_waited_for_and_said() {
    let Some(lab) = Lab::start("").await else { return };
    lab.github.until("looked", |model| model.times("GET") > 3).await;
    let busy = Reply::error(429, "You have exceeded a secondary rate limit.").with("retry-after", "5");
    lab.github.model().fail_next("GET /api/v3/orgs/acme/repos", Fault::Answer(busy));
    lab.until_told("asks us to come back later").await;
    let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    let (refused, log) = {
        let model = lab.github.model();
        (model.faulted[0], model.log.clone())
    };
    let next = log.iter().find(|(at, request)| *at > refused && request.contains("/api/v3/")).expect("it goes on");
    assert!(next.0 - refused >= Duration::from_secs(4), "asked all the same: {next:?}");

    // An hour's calls are used up: nothing is asked before there are new ones.
    let reset = {
        let mut model = lab.github.model();
        let core = model.buckets.get_mut("core").expect("a bucket");
        core.used = core.limit;
        core.reset = now() + 6;
        core.reset
    };
    let told = lab.until_told("as often as it does in an hour").await;
    assert!(told.contains("core"), "{told}");
    let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    assert!(now() >= reset);
    assert!(lab.github.model().limited < 5, "no tight loop");
}

#[tokio::test]
async fn a_forge_that_was_away_is_picked_up_again_and_what_ran_goes_on() {
    let Some(mut lab) = Lab::start("").await else { return };
    // Longer than anybody is away here.
    lab.github.model().lost_after = Duration::from_secs(300);
    let job = lab.run_long_job().await;
    lab.github.go_away();
    lab.until_told("github: ").await;
    lab.github.come_back();
    let more = lab.github.push("long", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&more, "success").await;
    assert_eq!(lab.github.job(job)["status"], "in_progress", "it goes on");
    assert!(lab.daemon.log().contains("github answers again"));
    lab.github.model().cancel(job);
    launches::until_all_ended(&lab.daemon, 2).await;
    lab.is_clean();
}

#[tokio::test]
async fn garbage_and_errors_are_one_sentence_each_and_no_loop() {
    let garbage = Reply { status: 200, headers: Vec::new(), body: "<html>".to_owned() };
    let prepare = move |github: &GitHub| {
        let mut model = github.model();
        model.fail_next("GET /api/v3/orgs/acme/repos", Fault::Answer(garbage));
        model.fail_next("generate-jitconfig", Fault::Answer(Reply::error(422, "Invalid request.")));
        model.fail_next("generate-jitconfig", Fault::Answer(Reply::error(502, "Server Error")));
    };
    let Some(lab) = Lab::with("", prepare).await else { return };
    let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 3).await;
    let outcomes = json!(ended.iter().map(|launch| &launch["outcome"]).collect::<Vec<&Value>>()).to_string();
    assert!(outcomes.contains("422") && outcomes.contains("502"), "{outcomes}");
    assert!(lab.daemon.log().contains("not what was expected"));
    lab.is_clean();
}

#[tokio::test]
async fn a_runner_group_that_is_not_there_is_named() {
    let Some(lab) = Lab::start("runner_group = 'nobodys'").await else { return };
    let told = lab.until_told("there is no runner group nobodys").await;
    assert!(told.contains("big machines"), "{told}");
}

fn rsa_key() -> String {
    let made = Command::new("openssl").args(["genrsa", "-traditional", "2048"]).output().expect("openssl is there");
    String::from_utf8(made.stdout).expect("PEM")
}

fn public_key_of(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{PrivatePkcs1KeyDer, pem::PemObject};
    let der = PrivatePkcs1KeyDer::from_pem_slice(pem.as_bytes()).expect("a key of openssl");
    let pair = ring::signature::RsaKeyPair::from_der(der.secret_pkcs1_der()).expect("a key of openssl");
    pair.public().as_ref().to_vec()
}

/// Its shared folders cannot be written to, and its own files are the job's.
#[tokio::test]
async fn an_image_without_a_runner_is_given_one() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    let more = format!("token = '{TOKEN}'\nmode = 'single'\nrunner_image = '{}'", images.actions_runner());
    let text = config(&github, &images, &more);
    let stock = format!("job_image = '{}'", images.job());
    let text = text.replace(&format!("job_image = '{}'", images.actions_runner()), &stock);
    let daemon = Daemon::launching(github.place(), &text).await;
    let lab = Lab { daemon, images, github };
    let steps = [
        "test ! -e /home/runner; test ! -e /var/run/docker.sock; cat /actions-runner/externals/stand-in",
        "if touch /actions-runner/bin/more; then exit 1; fi; touch /actions-runner/more",
    ];
    for name in ["first", "second"] {
        let jobs = lab.github.push("stock", vec![NewJob::of(name, &steps)]);
        lab.github.until_jobs(&jobs, "success").await;
    }
    let ended = launches::until_all_ended(&lab.daemon, 2).await;
    assert_eq!(ended[0]["image"], lab.images.job());
    assert!(lab.daemon.log().contains("holds no runner: it is given that of"));
    lab.is_clean();
}

#[tokio::test]
async fn an_image_that_holds_no_runner_anywhere_is_named() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    let text = config(&github, &images, &format!("token = '{TOKEN}'\nrunner_image = '{}'", images.job()));
    let text = text.replace(&images.actions_runner(), &images.job());
    let daemon = Daemon::launching(github.place(), &text).await;
    let lab = Lab { daemon, images, github };
    lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    let is_failed = |launches: &[Value]| launches.iter().any(launches::is_ended);
    let ended = launches::until(&lab.daemon, "failed", is_failed).await;
    assert!(
        ended.iter().any(|launch| launch["outcome"].as_str().is_some_and(|words| words.contains("holds no runner"))),
        "{ended:#?}"
    );
    assert_eq!(lab.github.model().ever, Vec::<String>::new(), "nothing is registered in vain");
}

#[tokio::test]
async fn a_warm_runner_has_the_job_that_comes_and_another_takes_its_place() {
    let Some(lab) = Lab::start("warm = 1\nconcurrency = 1").await else { return };
    launches::warm_one_is_replaced(&lab.daemon, async || {
        let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
        lab.github.until_jobs(&jobs, "success").await;
    })
    .await;
    lab.is_clean();
}
