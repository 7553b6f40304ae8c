//! `ringer run` on a stand-in of Forgejo 15, with a stand-in of its runner: each job gets the runner that was registered for it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    daemon::Daemon,
    forge::{Images, TLS_NAME, Tls},
    forgejo::{Forgejo, NARROW_TOKEN, TOKEN},
    launches, place,
};

/// A job that does not end by itself.
const LONG: &str = "echo begun; sleep 1000";

/// The forge, what its runners are made of, and the daemon that launches them.
struct Lab {
    daemon: Daemon,
    images: Images,
    forgejo: Forgejo,
}

impl Lab {
    /// `None` where a part is absent, which CI does not let pass. `more` is added to the forge's section.
    async fn start(more: &str) -> Option<Self> {
        let forgejo = Forgejo::start();
        let images = Images::with_forgejo_runner(forgejo.place()).await?;
        let daemon = Daemon::launching(forgejo.place(), &config(&forgejo, TOKEN, &images, more)).await;
        Some(Self { daemon, images, forgejo })
    }

    /// Waits until a job runs.
    async fn run_long_job(&self) -> i64 {
        let job = self.forgejo.push("long", "long", &["lab"], LONG);
        self.forgejo.until(job, "running").await;
        launches::until(&self.daemon, "running", |launches| launches[0]["state"] == "running").await;
        job
    }

    fn is_clean(&self) {
        assert_eq!(self.forgejo.runners(), Vec::<String>::new());
        launches::none_is_left(&self.daemon);
    }
}

fn config(forgejo: &Forgejo, token: &str, images: &Images, more: &str) -> String {
    let (url, runner, job) = (forgejo.url(), images.forgejo_runner(), images.job());
    format!(
        "[forgejo]\ninstance_url = '{url}'\ntoken = '{token}'\nlabels = ['lab', 'big']\nrunner_image = '{runner}'\njob_image = '{job}'\n{more}\n"
    )
}

#[tokio::test]
async fn each_job_gets_the_runner_that_was_made_for_it() {
    let Some(lab) = Lab::start("").await else { return };
    let script = |number: usize| format!("test -S /var/run/docker.sock && echo this is {number}");
    let jobs: Vec<i64> =
        (0..6).map(|number| lab.forgejo.push("six", &format!("job-{number}"), &["lab"], &script(number))).collect();
    // Covered only by both labels.
    let both = lab.forgejo.push("other", "both", &["lab", "big"], "echo both");
    for (number, job) in jobs.iter().enumerate() {
        let log = lab.forgejo.until(*job, "success").await;
        assert!(log.contains(&format!("this is {number}")), "{log}");
    }
    assert!(lab.forgejo.until(both, "success").await.contains("both"));
    let runners: BTreeSet<String> = jobs.iter().chain([&both]).map(|job| lab.forgejo.runner_of(*job)).collect();
    assert_eq!(runners.len(), 7, "a fresh one each: {runners:?}");
    let ended = launches::until_all_ended(&lab.daemon, 7).await;
    assert!(ended.iter().all(|launch| launch["outcome"] == "success"), "{ended:#?}");
    let repositories: BTreeSet<&str> = ended.iter().filter_map(|launch| launch["repository"].as_str()).collect();
    assert_eq!(repositories, ["ci/other", "ci/six"].into());
    let page = format!("{}/ci/other/actions/runs/{both}", lab.forgejo.url());
    assert!(ended.iter().any(|launch| launch["url"] == page), "the page that people can open: {ended:#?}");
    lab.is_clean();
    let log = launches::log_of(&lab.daemon, &ended[0]);
    assert!(log.contains("has ended: RESULT_SUCCESS"), "the runner's log outlives it: {log}");
    assert!(!lab.daemon.log().contains(TOKEN) && !log.contains(TOKEN), "the token is in a log");
}

#[tokio::test]
async fn a_cancel_ends_the_job_within_a_minute() {
    let Some(lab) = Lab::start("").await else { return };
    let job = lab.run_long_job().await;
    lab.forgejo.cancel(job);
    let cancelled = Instant::now();
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert!(cancelled.elapsed() < Duration::from_secs(60));
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
    lab.forgejo.until(job, "failure").await;
    let quick = lab.forgejo.push("long", "quick", &["lab"], "true");
    lab.forgejo.until(quick, "success").await;
    launches::until_all_ended(&lab.daemon, 2).await;
    lab.is_clean();
}

#[tokio::test]
async fn a_daemon_that_is_stopped_fails_its_jobs_and_says_why() {
    let Some(mut lab) = Lab::start("").await else { return };
    let job = lab.run_long_job().await;
    assert!(lab.daemon.end().success());
    let log = lab.forgejo.until(job, "failure").await;
    assert!(log.contains("ringer: the daemon is shutting down"), "people are told why: {log}");
    assert_eq!(lab.forgejo.runners(), Vec::<String>::new());
}

#[tokio::test]
async fn a_forge_that_is_away_is_picked_up_again() {
    let Some(mut lab) = Lab::start("").await else { return };
    let first = lab.forgejo.push("away", "first", &["lab"], "true");
    lab.forgejo.until(first, "success").await;
    launches::until_all_ended(&lab.daemon, 1).await;
    let daemon = &lab.daemon;
    lab.forgejo
        .be_away(async {
            let is_told = || {
                daemon
                    .ringer(&["jobs"])
                    .output()
                    .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("forgejo: "))
            };
            let deadline = Instant::now() + launches::LIMIT;
            while !is_told() {
                assert!(Instant::now() < deadline, "nobody is told: {}", daemon.log());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
    // Refusals of every kind, at what a launch asks: none is the end.
    for (part, status) in
        [("/actions/runners/jobs", 502), ("/actions/runners", 500), ("/repositories/", 503), ("/actions/runners", 429)]
    {
        lab.forgejo.fail(part, status, 1);
    }
    let second = lab.forgejo.push("away", "second", &["lab"], "true");
    lab.forgejo.until(second, "success").await;
    launches::until(&lab.daemon, "a success", |launches| {
        launches.last().is_some_and(|launch| launch["outcome"] == "success")
    })
    .await;
    lab.is_clean();
}

#[tokio::test]
async fn a_job_that_takes_longer_than_it_may_fails() {
    let Some(lab) = Lab::start("timeout = '3s'").await else { return };
    let begun = Instant::now();
    let job = lab.forgejo.push("long", "long", &["lab"], LONG);
    lab.forgejo.until(job, "failure").await;
    assert!(begun.elapsed() >= Duration::from_secs(3));
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert_eq!(ended[0]["outcome"], "failure");
    lab.is_clean();
}

/// The one of a runner costs a registration nothing; the one of jobs is told in the job's own log. Neither hurts another job.
#[tokio::test]
async fn images_that_are_not_there_are_named() {
    let forgejo = Forgejo::start();
    let Some(images) = Images::with_forgejo_runner(forgejo.place()).await else { return };
    let section = |name: &str, there: &str| {
        let text = config(&forgejo, TOKEN, &images, "").replace("['lab', 'big']", &format!("['{name}']"));
        let text = text.replacen("[forgejo]\n", &format!("[[forgejo]]\nname = '{name}'\n"), 1);
        text.replace(&format!("'{there}'"), &format!("'{}/acme/none'", images.address()))
    };
    let text =
        [section("runner", &images.forgejo_runner()), section("job", &images.job()), section("good", "")].concat();
    let daemon = Daemon::launching(forgejo.place(), &text).await;
    let lab = Lab { daemon, images, forgejo };
    let [unlaunched, failed, good] =
        ["runner", "job", "good"].map(|label| lab.forgejo.push("images", label, &[label], "true"));
    lab.forgejo.until(good, "success").await;
    let log = lab.forgejo.until(failed, "failure").await;
    assert!(log.contains("acme/none"), "{log}");
    let is_failed = |launch: &Value| launch["forge"] == "runner" && launches::is_ended(launch);
    let all = launches::until(&lab.daemon, "not launched", |all| all.iter().any(is_failed)).await;
    let failed = all.iter().find(|launch| is_failed(launch)).expect("it is there");
    let words = failed["outcome"].as_str().unwrap_or_default();
    assert!(words.contains("pulling") && words.contains("acme/none"), "{words}");
    lab.forgejo.until(unlaunched, "waiting").await;
    let runners = lab.forgejo.count_of("POST /api/v1/admin/actions/runners");
    assert_eq!(runners, 2, "none is registered for an image that is not there");
}

#[tokio::test]
async fn a_token_that_may_not_is_told_with_the_scope_it_needs() {
    let forgejo = Forgejo::start();
    let Some(images) = Images::with_forgejo_runner(forgejo.place()).await else { return };
    let section = |name: &str, token: &str| {
        config(&forgejo, token, &images, "").replacen("[forgejo]\n", &format!("[[forgejo]]\nname = '{name}'\n"), 1)
    };
    let text = [section("narrow", NARROW_TOKEN), section("wrong", "no-such-token"), section("good", TOKEN)].concat();
    let daemon = Daemon::launching(forgejo.place(), &text).await;
    let lab = Lab { daemon, images, forgejo };
    let job = lab.forgejo.push("quick", "quick", &["lab"], "true");
    lab.forgejo.until(job, "success").await;
    launches::until_all_ended(&lab.daemon, 1).await;
    let told =
        String::from_utf8_lossy(&lab.daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout).into_owned();
    assert!(told.contains("narrow: ") && told.contains("it needs the scope write:admin"), "{told}");
    assert!(told.contains("wrong: ") && told.contains("does not take the token"), "{told}");
    let asked = lab.forgejo.count_of("GET /api/v1/user");
    assert!(asked < 30, "refusals make no tight loop: {asked}");
}

#[tokio::test]
async fn images_of_runners_and_jobs_come_with_the_credentials_and_by_the_authority_of_the_configuration() {
    let forgejo = Forgejo::start();
    let Some(images) = Images::with_forgejo_runner_and_password(forgejo.place()).await else { return };
    let registry = images.job().split('/').next().expect("a host").to_owned();
    let server = Tls::before(forgejo.place(), registry.parse().expect("an address"));
    let private = server.url().replace("https://", "");
    let (forge, authority) = (config(&forgejo, TOKEN, &images, "").replace(&registry, &private), server.authority());
    let login = format!(
        "[[registry]]\nhost = '{private}'\nusername = 'ringer'\npassword = 'secret'\nca_file = '{}'\n",
        authority.display()
    );
    let hosts = format!("127.0.0.1 localhost\n{} {}\n", place::ADDRESS, TLS_NAME);
    let daemon = Daemon::launching_with_hosts(forgejo.place(), &hosts, &[forge, login].concat()).await;
    let lab = Lab { daemon, images, forgejo };
    let job = lab.forgejo.push("private", "private", &["lab"], "echo in a private image");
    lab.forgejo.until(job, "success").await;
    launches::until_all_ended(&lab.daemon, 1).await;
    lab.is_clean();
    let stored = std::fs::read_to_string(lab.daemon.folder().join("data/audit.log")).expect("there were changes");
    assert!(!stored.contains("secret") && !lab.daemon.log().contains("secret"), "the password is in a log");
}

#[tokio::test]
async fn jobs_of_a_forge_have_its_policy() {
    let forgejo = Forgejo::start();
    let Some(images) = Images::with_forgejo_runner(forgejo.place()).await else { return };
    let policies = tempfile::tempdir().expect("a folder");
    std::fs::write(policies.path().join("still.toml"), "pull = ['docker.io/library/*']").expect("a file in our folder");
    let section = |name: &str, more: &str| {
        let text = config(&forgejo, TOKEN, &images, more);
        text.replacen("[forgejo]\n", &format!("[[forgejo]]\nname = '{name}'\n"), 1)
    };
    let still = section("still", "policy = 'still'").replace("['lab', 'big']", "['still']");
    let daemon = format!("[daemon]\npolicy-dir = '{}'\n", policies.path().display());
    let daemon = Daemon::launching(forgejo.place(), &[daemon, still, section("other", "")].concat()).await;
    let lab = Lab { daemon, images, forgejo };
    let refused = lab.forgejo.push("policies", "refused", &["still"], "true");
    let allowed = lab.forgejo.push("policies", "allowed", &["lab"], "true");
    lab.forgejo.until(allowed, "success").await;
    let log = lab.forgejo.until(refused, "failure").await;
    assert!(log.contains("refused by the policy still, rule pull"), "the job's own log says why: {log}");
    launches::until_all_ended(&lab.daemon, 2).await;
    lab.is_clean();
}

#[tokio::test]
async fn jobs_of_forks_and_of_public_repositories_are_left_alone_where_the_configuration_says_so() {
    let Some(lab) = Lab::start("forks = false\npublic_repositories = false").await else { return };
    lab.forgejo.publish("open");
    let left = [
        lab.forgejo.push("open", "of-all", &["lab"], "true"),
        lab.forgejo.push_as(("own", "of-a-fork"), &["lab"], "true", |job| job.is_of_fork = true),
    ];
    let own = lab.forgejo.push("own", "own", &["lab"], "true");
    lab.forgejo.until(own, "success").await;
    launches::until_all_ended(&lab.daemon, 1).await;
    for job in left {
        lab.forgejo.until(job, "waiting").await;
    }
    let told =
        String::from_utf8_lossy(&lab.daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout).into_owned();
    assert!(told.contains("ci/open is public") && told.contains("of a fork's pull request"), "{told}");
    assert_eq!(lab.daemon.log().matches("is left alone").count(), 2, "each is said once: {}", lab.daemon.log());
    lab.is_clean();
}

#[tokio::test]
async fn a_branch_finds_what_its_last_job_has_left_and_nothing_of_another() {
    let Some(lab) = Lab::start("cache_volumes = ['cargo']\nbranch_caches = true").await else { return };
    let container = json!({"image": lab.images.job(), "volumes": ["cargo:/c"]});
    let push = |name: &str, git_ref: &str, script: &str| {
        lab.forgejo.push_as(("own", name), &["lab"], script, |job| {
            (job.git_ref, job.container) = (git_ref.to_owned(), container.clone());
        })
    };
    let first = push("first", "refs/heads/main", "test ! -e /c/left && echo first >/c/left");
    lab.forgejo.until(first, "success").await;
    let later = [
        push("second", "refs/heads/main", "grep first /c/left"),
        push("branch", "refs/heads/work", "test ! -e /c/left"),
        push("tag", "refs/tags/main", "test ! -e /c/left"),
        push("request", "refs/pull/7/head", "test ! -e /c/left"),
    ];
    for job in later {
        lab.forgejo.until(job, "success").await;
    }
    launches::until_all_ended(&lab.daemon, 5).await;
    lab.is_clean();
}

#[tokio::test]
async fn a_repositorys_image_is_its_own() {
    let forgejo = Forgejo::start();
    let Some(images) = Images::with_forgejo_runner(forgejo.place()).await else { return };
    let own = format!("[runner.repo_images]\nown = '{}'\n", images.forgejo_runner());
    let daemon = Daemon::launching(forgejo.place(), &format!("{}{own}", config(&forgejo, TOKEN, &images, ""))).await;
    let lab = Lab { daemon, images, forgejo };
    for (repository, image) in [("own", lab.images.forgejo_runner()), ("other", lab.images.job())] {
        let job = lab.forgejo.push(repository, "look", &["lab"], "true");
        lab.forgejo.until(job, "success").await;
        let ended = launches::until_all_ended(&lab.daemon, 1).await;
        let launch = ended.iter().find(|launch| launch["repository"] == json!(format!("ci/{repository}")));
        assert_eq!(launch.map(|launch: &Value| &launch["image"]), Some(&json!(image)), "{ended:#?}");
    }
    lab.is_clean();
}

#[tokio::test]
async fn the_built_in_image_of_jobs_is_fetched_by_a_mirror_and_once() {
    let forgejo = Forgejo::start();
    let Some(images) = Images::with_forgejo_runner(forgejo.place()).await else { return };
    let mirror = images.also_named(forgejo.place(), &[("busybox", "gitea/runner-images", "ubuntu-24.04")]);
    let address = mirror.address();
    let daemon = format!("[daemon]\nregistry-mirror = ['http://{address}']\ninsecure-registry = ['{address}']");
    let text = config(&forgejo, TOKEN, &images, &daemon);
    let text = text.replace(&format!("job_image = '{}'\n", images.job()), "");
    let daemon = Daemon::launching(forgejo.place(), &text).await;
    let lab = Lab { daemon, images, forgejo };
    for name in ["first", "second"] {
        let job = lab.forgejo.push("own", name, &["lab"], "echo in the built-in image");
        assert!(lab.forgejo.until(job, "success").await.contains("in the built-in image"));
    }
    let ended = launches::until_all_ended(&lab.daemon, 2).await;
    assert_eq!(ended[0]["image"], "docker.io/gitea/runner-images:ubuntu-24.04", "{ended:#?}");
    let fetched = mirror.asked("GET /v2/gitea/runner-images/blobs/");
    let once: BTreeSet<&String> = fetched.iter().collect();
    assert!(once.len() >= 2 && once.len() == fetched.len(), "{fetched:#?}");
    lab.is_clean();
}
