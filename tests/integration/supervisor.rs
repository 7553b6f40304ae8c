//! `ringer run` on the real Gitea, with a stand-in for its runner: from a push to green, and what happens when somebody cancels, dies or is
//! wrong.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    builder::{self, Buildx, processes_with, said},
    daemon::Daemon,
    forge::{Gitea, Images, LONG, TLS_NAME, TLS_PORT, USER, WORKFLOW},
    launches::{self, is_ended},
    place,
};

/// Ten jobs that all make the same things, and would get in each other's way on one socket.
const TEN: &str = r#"
on: push
defaults: {run: {shell: sh}}
jobs:
  one-of:
    runs-on: lab
    strategy: {matrix: {number: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}
    steps:
      - run: test -S /var/run/docker.sock
      - run: wget -qO- "$GITHUB_SERVER_URL/api/v1/version"
"#;

/// Says in which image it is, and whether there is Docker.
const LOOK: &str = r#"
on: push
defaults: {run: {shell: sh}}
jobs:
  look:
    runs-on: lab
    steps:
      - run: test -x /opt/ringer-program && echo "beside the runner"; if test -S /var/run/docker.sock; then echo docker; else echo "no docker"; fi
"#;

/// Two jobs, of which the second finds what the first has left in the repository's volume.
fn caching(image: &str) -> String {
    let container = format!("container: {{image: '{image}', volumes: ['cargo:/c']}}");
    format!(
        "on: push\ndefaults: {{run: {{shell: sh}}}}\njobs:\n\
         \x20 first:\n    runs-on: lab\n    {container}\n    steps: [{{run: 'test ! -e /c/left && echo first >/c/left'}}]\n\
         \x20 second:\n    needs: first\n    runs-on: lab\n    {container}\n    steps: [{{run: 'grep first /c/left'}}]\n"
    )
}

/// The forge, what its runners are made of, and the daemon that launches them.
struct Lab {
    daemon: Daemon,
    images: Images,
    gitea: Gitea,
}

impl Lab {
    /// `None` where a part is absent, which CI does not let pass. `more` is added to the forge's section.
    async fn start(more: &str) -> Option<Self> {
        let gitea = Gitea::start().await?;
        let images = Images::start(gitea.place()).await?;
        let daemon = Daemon::launching(gitea.place(), &config(&gitea, gitea.token(), &images, more)).await;
        Some(Self { daemon, images, gitea })
    }

    /// Pushes a job that does not end, and waits until it runs; the commit and the forge's job.
    async fn run_long_job(&self) -> (String, Value) {
        let commit = self.gitea.repository("long", &[(WORKFLOW, LONG)]).await;
        let mut jobs = self.gitea.until_jobs("long", &commit, 1, "in_progress").await;
        self.until("running", |launches| launches[0]["state"] == "running").await;
        (commit, jobs.remove(0))
    }

    /// Pushes a job that ends when the forge has the repository `go`, and waits until it runs; the commit.
    async fn run_job_until_told(&self) -> String {
        let told = "until wget -q -O /dev/null $GITHUB_SERVER_URL/ci/go; do sleep 0.2; done";
        let commit = self.gitea.repository("long", &[(WORKFLOW, &LONG.replace("sleep 1000", told))]).await;
        self.gitea.until_jobs("long", &commit, 1, "in_progress").await;
        self.until("running", |launches| launches[0]["state"] == "running").await;
        commit
    }

    async fn until(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        launches::until(&self.daemon, what, is_so).await
    }

    async fn until_all_ended(&self, count: usize) -> Vec<Value> {
        launches::until_all_ended(&self.daemon, count).await
    }

    /// Nothing of any job is left, here or at the forge.
    async fn is_clean(&self) {
        assert_eq!(self.gitea.runners().await, Vec::<Value>::new());
        launches::none_is_left(&self.daemon);
    }
}

fn config(gitea: &Gitea, token: &str, images: &Images, more: &str) -> String {
    let (url, runner, job) = (gitea.url(), images.runner(), images.job());
    format!(
        "[gitea]\ninstance_url = '{url}'\ntoken = '{token}'\nlabels = ['lab']\nrunner_image = '{runner}'\njob_image = '{job}'\n{more}\n"
    )
}

#[tokio::test]
async fn ten_jobs_turn_green_in_ten_runners_and_nothing_is_left() {
    let Some(lab) = Lab::start("memory = '1g'").await else { return };
    let commit = lab.gitea.repository("ten", &[(WORKFLOW, TEN)]).await;
    let jobs = lab.gitea.until_jobs("ten", &commit, 10, "success").await;
    let runners: BTreeSet<&str> = jobs.iter().filter_map(|job| job["runner_name"].as_str()).collect();
    assert_eq!(runners.len(), 10, "a fresh one each: {runners:?}");
    let launches = lab.until_all_ended(10).await;
    assert!(launches.iter().all(|launch| launch["outcome"] == "success"), "{launches:#?}");
    assert!(launches.iter().all(|launch| launch["repository"] == "ci/ten"), "{launches:#?}");
    lab.is_clean().await;

    let log = launches::log_of(&lab.daemon, &launches[0]);
    assert!(log.contains("has ended: RESULT_SUCCESS"), "the runner's log outlives it: {log}");
    assert!(!lab.daemon.log().contains(lab.gitea.token()) && !log.contains(lab.gitea.token()), "the token is in a log");
}

#[tokio::test]
async fn a_cancel_ends_the_job_within_a_minute() {
    let Some(lab) = Lab::start("").await else { return };
    let (_, job) = lab.run_long_job().await;
    lab.gitea.cancel("long", &job).await;
    let cancelled = Instant::now();
    let launches = lab.until_all_ended(1).await;
    assert!(cancelled.elapsed() < Duration::from_secs(60));
    assert_eq!(launches[0]["outcome"], "cancelled");
    lab.is_clean().await;
}

#[tokio::test]
async fn a_killed_daemon_leaves_nothing_behind_when_it_is_back() {
    let Some(mut lab) = Lab::start("").await else { return };
    let (commit, _) = lab.run_long_job().await;
    lab.daemon.kill();
    lab.daemon.restart().await;
    lab.until_all_ended(1).await;
    lab.gitea.until_jobs("long", &commit, 1, "failure").await;
    lab.is_clean().await;

    let quick = LONG.replace("sleep 1000", "true");
    let commit = lab.gitea.commit("long", &[(WORKFLOW, &quick)]).await;
    lab.gitea.until_jobs("long", &commit, 1, "success").await;
    lab.until_all_ended(2).await;
    lab.is_clean().await;
}

#[tokio::test]
async fn a_daemon_that_is_stopped_fails_its_jobs_and_says_why() {
    let Some(mut lab) = Lab::start("").await else { return };
    let (commit, _) = lab.run_long_job().await;
    assert!(lab.daemon.end().success());
    let jobs = lab.gitea.until_jobs("long", &commit, 1, "failure").await;
    let log = lab.gitea.job_log("long", &jobs[0]).await;
    assert!(log.contains("ringer: the daemon is shutting down"), "people are told why: {log}");
    assert_eq!(lab.gitea.runners().await, Vec::<Value>::new());
}

/// What one does at the forge, the other's registrations stay: at its start, when it is killed, when it takes everything of its own away.
#[tokio::test]
async fn two_daemons_live_side_by_side_on_one_forge() {
    let Some(lab) = Lab::start("").await else { return };
    let (commit, _) = lab.run_long_job().await;
    let runners = lab.gitea.runners().await;
    let other = config(&lab.gitea, lab.gitea.token(), &lab.images, "").replace("'lab'", "'other'");
    let mut other = Daemon::launching(lab.gitea.place(), &other).await;
    let workflow = LONG.replace("runs-on: lab", "runs-on: other");
    let others = lab.gitea.repository("others", &[(WORKFLOW, &workflow)]).await;
    lab.gitea.until_jobs("others", &others, 1, "in_progress").await;
    launches::until(&other, "running", |launches| launches[0]["state"] == "running").await;
    assert_eq!(lab.gitea.runners().await.len(), 2);
    other.kill();
    other.restart().await;
    lab.gitea.until_jobs("others", &others, 1, "failure").await;
    launches::until_all_ended(&other, 1).await;
    let purged = other.ringer(&["purge"]).output().expect("ringer runs");
    assert!(purged.status.success(), "{}", String::from_utf8_lossy(&purged.stderr));
    let names = |runners: &[Value]| runners.iter().map(|runner| runner["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&lab.gitea.runners().await), names(&runners), "the first one's stays");
    lab.gitea.until_jobs("long", &commit, 1, "in_progress").await;
}

/// What runs goes on, and what the forge is told meanwhile reaches it afterwards.
#[tokio::test]
async fn a_job_outlives_a_restart_of_the_forge() {
    let Some(mut lab) = Lab::start("").await else { return };
    let commit = lab.run_job_until_told().await;
    let daemon = &lab.daemon;
    lab.gitea.restart(launches::until_logged(daemon, "gitea: GET http")).await;
    launches::until_logged(&lab.daemon, "gitea answers again").await;
    let running = launches::all(&lab.daemon);
    assert_eq!((running.len(), &running[0]["state"]), (1, &json!("running")), "{running:#?}");
    lab.gitea.empty_repository("go").await;
    lab.gitea.until_jobs("long", &commit, 1, "success").await;
    let ended = lab.until_all_ended(1).await;
    assert_eq!(ended[0]["outcome"], "success");
    lab.is_clean().await;
}

/// Its runner has a credential of its own. What is left of it is taken back with the next token.
#[tokio::test]
async fn a_token_that_is_revoked_in_mid_job_is_told_and_the_job_ends_well() {
    const SCOPES: &str = "write:admin,write:repository,read:user";
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    let first = config(&gitea, &gitea.new_token(SCOPES), &images, "");
    let daemon = Daemon::launching(gitea.place(), &first).await;
    let lab = Lab { daemon, images, gitea };
    let commit = lab.run_job_until_told().await;
    lab.gitea.revoke_token(SCOPES).await;
    launches::until_logged(&lab.daemon, "does not take the token").await;
    lab.gitea.empty_repository("go").await;
    lab.gitea.until_jobs("long", &commit, 1, "success").await;
    let ending = lab.until("ending", |launches| launches[0]["state"] == "ending").await;
    assert_eq!(ending.len(), 1, "nothing else is launched");
    let told = lab.daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout;
    assert!(String::from_utf8_lossy(&told).contains("does not take the token"), "{told:?}");
    assert_eq!(lab.daemon.log().matches("does not take the token").count(), 1, "said once: {}", lab.daemon.log());

    let second = config(&lab.gitea, lab.gitea.token(), &lab.images, "");
    std::fs::write(lab.daemon.folder().join("config.toml"), second).expect("a file in our folder");
    lab.daemon.hang_up();
    let ended = lab.until_all_ended(1).await;
    assert_eq!(ended[0]["outcome"], "success", "{ended:#?}");
    lab.is_clean().await;
}

/// The same job image with a Docker socket for the steps, where the configuration says so.
#[tokio::test]
async fn steps_run_beside_the_runner_in_an_image_that_has_none() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    let section = |name: &str, more: &str| {
        let text = config(&gitea, gitea.token(), &images, &format!("mode = 'single'\n{more}"));
        let named = text.replacen("[gitea]\n", &format!("[[gitea]]\nname = '{name}'\n"), 1);
        named.replace("'lab'", &format!("'{name}'"))
    };
    let text = section("lab", "") + &section("docker", "docker = true");
    let daemon = Daemon::launching(gitea.place(), &text).await;
    let lab = Lab { daemon, images, gitea };
    for (label, said) in [("lab", "Z no docker"), ("docker", "Z docker")] {
        let workflow = LOOK.replace("runs-on: lab", &format!("runs-on: {label}"));
        let commit = lab.gitea.repository(label, &[(WORKFLOW, &workflow)]).await;
        let jobs = lab.gitea.until_jobs(label, &commit, 1, "success").await;
        let log = lab.gitea.job_log(label, &jobs[0]).await;
        assert!(log.contains("Z beside the runner") && log.contains(said), "{log}");
    }
    lab.until_all_ended(2).await;
    lab.is_clean().await;
}

#[tokio::test]
async fn a_repositorys_image_and_cache_are_its_own_and_its_runner_takes_no_other_job() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    let own = format!("[runner.repo_images]\nown = '{}'\n", images.runner());
    let text = format!("{}{own}", config(&gitea, gitea.token(), &images, "cache_volumes = ['cargo']"));
    let daemon = Daemon::launching(gitea.place(), &text).await;
    let lab = Lab { daemon, images, gitea };
    let workflow = caching(&lab.images.job());
    for (repository, image) in [("own", lab.images.runner()), ("other", lab.images.job())] {
        let commit = lab.gitea.repository(repository, &[(WORKFLOW, &workflow)]).await;
        lab.gitea.until_jobs(repository, &commit, 2, "success").await;
        let launches = lab.until_all_ended(2).await;
        let launch = launches.last().expect("it was launched");
        assert_eq!((&launch["image"], &launch["repository"]), (&json!(image), &json!(format!("{USER}/{repository}"))));
    }
    lab.is_clean().await;
}

#[tokio::test]
async fn a_runner_that_dies_at_its_start_is_not_launched_again_and_again() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    let text = config(&gitea, gitea.token(), &images, "").replace(&images.runner(), &images.dead_runner());
    let daemon = Daemon::launching(gitea.place(), &text).await;
    let lab = Lab { daemon, images, gitea };
    lab.gitea.repository("long", &[(WORKFLOW, LONG)]).await;
    let launches =
        lab.until("three times", |launches| launches.iter().filter(|launch| is_ended(launch)).count() >= 3).await;
    let words = launches[0]["outcome"].as_str().unwrap_or_default();
    assert!(words.contains("has had no job"), "{words}");
    let begun = |launch: &Value| launch["begun"].as_str().expect("a time").to_owned();
    let pause = |pair: &[Value]| seconds_between(&begun(&pair[0]), &begun(&pair[1]));
    let pauses: Vec<i64> = launches[..3].windows(2).map(pause).collect();
    assert!(pauses[0] >= 5 && pauses[1] >= 10, "longer and longer: {pauses:?}");
    assert!(lab.daemon.log().contains("launches in a row have failed"));
}

fn seconds_between(first: &str, second: &str) -> i64 {
    let read = |text: &str| chrono::DateTime::parse_from_rfc3339(text).expect("a time");
    (read(second) - read(first)).num_seconds()
}

#[tokio::test]
async fn what_is_wrong_is_said_in_words_and_hurts_no_other_job() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    let section = |name: &str, text: String| text.replacen("[gitea]\n", &format!("[[gitea]]\nname = '{name}'\n"), 1);
    let bad = section("bad", config(&gitea, "0123456789012345678901234567890123456789", &images, ""));
    let empty = config(&gitea, gitea.token(), &images, "").replace(&images.runner(), &images.job());
    let empty = section("empty", empty.replace("'lab'", "'empty'"));
    let good = section("good", config(&gitea, gitea.token(), &images, ""));
    let closed = config(&gitea, gitea.token(), &images, "public_repositories = false").replace("'lab'", "'closed'");
    let closed = section("closed", closed);
    let daemon = Daemon::launching(gitea.place(), &format!("{bad}{empty}{good}{closed}")).await;
    let lab = Lab { daemon, images, gitea };

    let nobodys = LONG.replace("runs-on: lab", "runs-on: nobody");
    lab.gitea.repository("nobodys", &[(WORKFLOW, &nobodys)]).await;
    let empty = LONG.replace("runs-on: lab", "runs-on: empty");
    lab.gitea.repository("empty", &[(WORKFLOW, &empty)]).await;
    let quick = LONG.replace("sleep 1000", "true");
    let closed = quick.replace("runs-on: lab", "runs-on: closed");
    lab.gitea.repository("everybodys", &[(WORKFLOW, &closed)]).await;
    let own = lab.gitea.private_repository("own", &[(WORKFLOW, &closed)]).await;
    let commit = lab.gitea.repository("quick", &[(WORKFLOW, &quick)]).await;
    lab.gitea.until_jobs("quick", &commit, 1, "success").await;
    lab.gitea.until_jobs("own", &own, 1, "success").await;

    let is_failed = |launch: &Value| launch["forge"] == "empty" && is_ended(launch);
    let launches = lab.until("failed", |launches| launches.iter().any(is_failed)).await;
    let failed = launches.iter().find(|launch| is_failed(launch)).expect("it is there");
    let words = failed["outcome"].as_str().unwrap_or_default();
    assert!(words.contains("holds no runner"), "{words}");
    let output = lab.daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout;
    let told = String::from_utf8_lossy(&output).into_owned();
    assert!(told.contains("bad: ") && told.contains("does not take the token"), "{told}");
    let log = lab.daemon.log();
    assert_eq!(log.matches("does not take the token").count(), 1, "said once");
    assert!(log.contains("no runner here has the label nobody"), "{log}");
    assert!(log.contains(&format!("is left alone: {USER}/everybodys is public")), "{log}");

    let (code, text) = lab.gitea.place().config_check_beside(&lab.daemon);
    assert_eq!(code, Some(1), "one of four fails: {text}");
    assert!(text.contains("bad: FAILS: ") && text.contains("good: http://10.99.0.1:3000 is Gitea 1.26"), "{text}");
    assert!(text.contains(&format!("jobs that name no image: {} (job_image)", lab.images.job())), "{text}");
    assert!(text.contains("ROOT_URL: as instance_url") && text.contains("policy of jobs: ci"), "{text}");
    assert!(text.contains("from inside a job: http://10.99.0.1:3000 answers"), "{text}");
    assert!(!text.contains(lab.gitea.token()), "{text}");
}

/// Builds in the job that runs, whose builder and steps know what its containers know, and lets it go on.
async fn built_within(lab: &Lab, cli: &Buildx, knows_all: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (job, host, container) = loop {
        assert!(Instant::now() < deadline, "no step runs:\n{}", lab.daemon.log());
        let listed = lab.daemon.ringer(&["job", "ls", "--json"]).output().expect("ringer runs").stdout;
        let listed: Value = serde_json::from_slice(&listed).expect("jobs as JSON");
        if let Some(host) = listed[0]["docker_host"].as_str() {
            // The job is listed a moment before its socket answers: what the CLI says then is no container.
            let running = said(&mut cli.docker(host, &["ps", "-q", "--no-trunc"]));
            if let Some(container) = running.text.lines().next().filter(|_| running.succeeded) {
                break (listed[0].clone(), host.to_owned(), container.to_owned());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(job["cache_key"], format!("https://{TLS_NAME}:{TLS_PORT}/{USER}/trusted"), "{job}");
    let steps = format!("FROM {}\nRUN {knows_all}\n", lab.images.job());
    let context = cli.context("within", &[("Dockerfile", &steps)]);
    let built = said(&mut cli.docker(&host, &["build", "-t", "built", context.to_str().unwrap()]));
    assert!(built.succeeded, "{}\n{}", built.text, lab.daemon.log());
    let env = said(&mut cli.docker(&host, &["image", "inspect", "--format={{.Config.Env}}", "built"])).text;
    assert!(!env.contains("proxy") && !env.contains("SSL_CERT"), "{env}");
    // What it fetches itself: of the forge, by the name and the authority that are the job's, over http and by git.
    let forge = format!("https://{TLS_NAME}:{TLS_PORT}");
    let fetching = format!("FROM scratch\nADD {forge}/api/v1/version /\nADD {forge}/{USER}/trusted.git /git\n");
    let context = cli.context("forge", &[("Dockerfile", &fetching)]);
    let fetched = said(&mut cli.docker(&host, &["build", "-t", "fetched", context.to_str().unwrap()]));
    assert!(fetched.succeeded, "{}\n{}", fetched.text, lab.daemon.log());
    // What goes elsewhere goes by the proxy, at which nobody listens.
    let context = cli.context("fetching", &[("Dockerfile", "FROM scratch\nADD http://files.test/x /\n")]);
    let fetched = said(&mut cli.docker(&host, &["build", context.to_str().unwrap()]));
    assert!(fetched.text.contains("proxyconnect") && fetched.text.contains(":3128"), "{}", fetched.text);
    let own = processes_with(&format!("--config {}", lab.daemon.folder().join("run/buildkit").display()));
    let env = std::fs::read_to_string(format!("/proc/{}/environ", own[0])).unwrap();
    assert!(
        env.split('\0').any(|variable| variable.starts_with("SSL_CERT_FILE=") && variable.ends_with(".pem")),
        "{env}"
    );
    let told = said(&mut cli.docker(&host, &["exec", &container, "touch", "/tmp/built"]));
    assert!(told.succeeded, "{}", told.text);
}

/// What people have first: a name that only their own network knows, and a certificate that they have signed themselves. The forge, the
/// runner and steps know both, and the proxies.
#[tokio::test]
async fn a_forge_of_ones_own_name_and_authority_is_trusted_by_all() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    let tls = gitea.behind_tls();
    let address = place::ADDRESS;
    let trusted = format!(
        "build_cache = true\nhosts = {{'{TLS_NAME}' = '{address}'}}\nca_file = '{}'\nhttp_proxy = 'http://{address}:3128'\nno_proxy = 'localhost,{TLS_NAME},{address}'",
        tls.authority().display()
    );
    let own = config(&gitea, gitea.token(), &images, &trusted).replace(&gitea.url(), &tls.url());
    let stranger = own.replace("ca_file", "# ca_file").replace("'lab'", "'nobody'");
    let section = |name: &str, text: String| text.replacen("[gitea]\n", &format!("[[gitea]]\nname = '{name}'\n"), 1);
    let Some((cli, buildkitd)) = Buildx::new().zip(builder::flag()) else { return };
    let buildkitd = buildkitd.trim_start_matches("--buildkitd=");
    let text = format!("[daemon]\nbuildkitd = '{buildkitd}'\n{}{}", section("own", own), section("stranger", stranger));
    let daemon = Daemon::launching(gitea.place(), &text).await;
    let lab = Lab { daemon, images, gitea };
    let knows_all = format!(
        "grep -q {address} /etc/hosts && cmp \"$SSL_CERT_FILE\" \"$NODE_EXTRA_CA_CERTS\" && grep -c BEGIN \"$SSL_CERT_FILE\" && test \"$http_proxy $NO_PROXY\" = \"http://{address}:3128 localhost,{TLS_NAME},{address}\""
    );
    let until_built = "while ! test -e /tmp/built; do sleep 0.1; done";
    let steps = LONG.replace("echo begun; sleep 1000", &format!("{knows_all} && {until_built}"));
    let commit = lab.gitea.repository("trusted", &[(WORKFLOW, &steps)]).await;
    built_within(&lab, &cli, &knows_all).await;
    let jobs = lab.gitea.until_jobs("trusted", &commit, 1, "completed").await;
    assert_eq!(jobs[0]["conclusion"], "success", "{}", lab.gitea.job_log("trusted", &jobs[0]).await);
    lab.until_all_ended(1).await;
    lab.is_clean().await;
    let (code, found) = lab.gitea.place().config_check_beside(&lab.daemon);
    let (own, stranger) = found.split_once("stranger: ").expect("both are told of");
    let from_job = |told: &str, url: &str| {
        let line = told.lines().find_map(|line| line.trim().strip_prefix(&format!("from inside a job: {url} ")));
        line.unwrap_or_else(|| panic!("nothing of {url}: {found}")).to_owned()
    };
    assert_eq!(code, Some(1), "{found}");
    assert_eq!(from_job(own, &tls.url()), "answers", "by its name and authority: {found}");
    let untrusted = from_job(stranger, &tls.url());
    assert!(untrusted.starts_with("FAILS: ") && untrusted.contains("certificate"), "{found}");
    let walled = from_job(own, &lab.gitea.url());
    assert!(walled.starts_with("FAILS: ") && !walled.contains("proxy"), "ROOT_URL is not opened: {found}");
    launches::none_is_left(&lab.daemon);
    let told = lab.daemon.ringer(&["jobs"]).output().expect("ringer runs").stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(
        told.contains("stranger: ") && told.contains("certificate"),
        "who is not told of the authority says so: {told}"
    );
}
