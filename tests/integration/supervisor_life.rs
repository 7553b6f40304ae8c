//! What people do with `ringer run` day by day: cordon it, change its configuration while jobs run, take everything away again.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    daemon::Daemon,
    forge::Images,
    github::{GitHub, NewJob, ORG, TOKEN},
    hooks, launches, place,
};

/// A step that does not end by itself.
const LONG: &str = "sleep 1000";

struct Lab {
    daemon: Daemon,
    images: Images,
    github: GitHub,
}

impl Lab {
    async fn start() -> Option<Self> {
        let github = GitHub::start();
        let images = Images::with_actions_runner(github.place()).await?;
        let daemon = Daemon::launching(github.place(), &config(&github, &images, "")).await;
        Some(Self { daemon, images, github })
    }

    fn ringer(&self, arguments: &[&str]) -> String {
        let output = self.daemon.ringer(arguments).output().expect("ringer runs");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    }

    /// Changes the file and says so.
    fn reload(&self, text: &str) {
        fs::write(self.daemon.folder().join("config.toml"), text).expect("a file in our folder");
        self.daemon.hang_up();
    }

    async fn until_logged(&self, words: &str) {
        launches::until_logged(&self.daemon, words).await;
    }

    async fn run_long_job(&self) -> i64 {
        self.github.run_long_job(&self.daemon, LONG).await
    }

    /// Queues a job that the daemon sees, and for which it launches nothing.
    async fn queue_in_vain(&self) -> Vec<i64> {
        let jobs = self.github.push("one", vec![NewJob::of("quick", &["true"])]);
        // Two looks that see it.
        let before = self.github.model().times("/jobs");
        self.github.until("looked at twice", |model| model.times("/jobs") >= before + 2).await;
        assert_eq!(self.github.job(jobs[0])["status"], "queued");
        jobs
    }
}

fn config(github: &GitHub, images: &Images, more: &str) -> String {
    let (url, image) = (github.url(), images.actions_runner());
    format!(
        "[github]\ninstance_url = '{url}'\norg = '{ORG}'\ntoken = '{TOKEN}'\npoll_interval = '1s'\njob_image = '{image}'\n{more}\n"
    )
}

#[tokio::test]
async fn a_drained_daemon_launches_again_when_it_is_told() {
    let Some(lab) = Lab::start().await else { return };
    lab.ringer(&["drain"]);
    let jobs = lab.queue_in_vain().await;
    lab.ringer(&["uncordon"]);
    lab.github.until_jobs(&jobs, "success").await;
    launches::until_all_ended(&lab.daemon, 1).await;
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn a_purge_takes_everything_of_ours_away_and_nothing_of_others() {
    let Some(lab) = Lab::start().await else { return };
    let others = "ringer-00000000-github-12345678";
    lab.github.model().register("orgs/acme", others, 1, vec!["self-hosted".to_owned()]);
    lab.run_long_job().await;
    let ours = lab.github.model().ever.last().expect("one of ours").rsplit_once('-').expect("a name").0.to_owned();
    // One that no record is left of, and one of a forge of ours with a longer name.
    for left in [format!("{ours}-deadbeef"), format!("{ours}-two-deadbeef")] {
        lab.github.model().register("orgs/acme", &left, 1, vec!["nobodys".to_owned()]);
    }
    let told = lab.ringer(&["purge", "--forge", "github"]);
    assert!(told.contains("removed: launches with their logs: 1, further registrations: 1, webhooks: 0"), "{told}");
    let mut names: Vec<String> = lab.github.model().runner_names().iter().map(|&name| name.to_owned()).collect();
    names.sort_unstable();
    let mut kept = [others.to_owned(), format!("{ours}-two-deadbeef")];
    kept.sort_unstable();
    assert_eq!(names, kept);
    launches::none_is_left(&lab.daemon);
    assert_eq!(launches::all(&lab.daemon), Vec::<Value>::new());
    let logs = fs::read_dir(lab.daemon.folder().join("data/runner-logs")).expect("a folder").count();
    assert_eq!(logs, 0);

    let unknown = lab.daemon.ringer(&["purge", "--forge", "gitlab"]).output().expect("ringer runs");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no such forge: gitlab"));

    // What takes the forge's place launches nothing either.
    lab.reload(&config(&lab.github, &lab.images, "timeout = '50m'"));
    lab.until_logged("[github] is new or has changed").await;
    let jobs = lab.queue_in_vain().await;
    lab.ringer(&["uncordon"]);
    lab.github.until_jobs(&jobs, "success").await;
}

#[tokio::test]
async fn a_changed_configuration_is_taken_up_and_running_jobs_go_on() {
    let Some(lab) = Lab::start().await else { return };
    let long = lab.run_long_job().await;
    lab.until_logged("has job long").await;

    lab.reload("[github]\ntokn = 's3cr3t'\n");
    lab.until_logged("the configuration stays as it is").await;
    let log = lab.daemon.log();
    assert!(log.contains("line 2: ") && log.contains("tokn"), "it says what is wrong: {log}");
    assert!(!log.contains("s3cr3t"), "{log}");
    lab.reload(&config(&lab.github, &lab.images, "").replace(ORG, "another"));
    lab.until_logged("another server, owner or kind while runners of it are there").await;

    let changed = config(&lab.github, &lab.images, "labels = ['self-hosted', 'linux', 'new']");
    lab.reload(&format!("[daemon]\nmtu = 1400\n{}{changed}", hooks::section()));
    lab.until_logged("[github] is new or has changed").await;
    lab.until_logged("changed, and taken up at the next start alone: [daemon] mtu").await;
    let pages = hooks::client(lab.github.place());
    assert_eq!(pages.get("/healthz").await.status, 200, "it listens where it is told to now");
    let everywhere = hooks::section().replace(place::ADDRESS, "0.0.0.0");
    lab.reload(&format!("[daemon]\nmtu = 1400\n{everywhere}{changed}"));
    lab.until_logged(&format!("the page are at tcp://0.0.0.0:{}", hooks::PORT)).await;
    assert_eq!(pages.get("/healthz").await.status, 200, "at the same port");
    let jobs = lab.github.push("one", vec![NewJob::of("new", &["true"]).labels(&["new"])]);
    lab.github.until_jobs(&jobs, "success").await;
    assert_eq!(lab.github.job(long)["status"], "in_progress", "it goes on");
    // What takes the old one's place follows its runners: a cancel is seen.
    lab.github.model().cancel(long);
    let ended = launches::until_all_ended(&lab.daemon, 2).await;
    assert_eq!(ended[0]["outcome"], "cancelled");
    launches::none_is_left(&lab.daemon);

    // One that is not configured any more ends its jobs, and has no more.
    let long = lab.github.push("long", vec![NewJob::of("long", &[LONG])])[0];
    lab.github.until_jobs(&[long], "in_progress").await;
    let another = config(&lab.github, &lab.images, "name = 'another'\nlabels = ['another']");
    lab.reload(&another);
    lab.until_logged("[another] is new or has changed").await;
    let deadline = Instant::now() + launches::LIMIT;
    while pages.try_get("/healthz").await.is_some() {
        assert!(Instant::now() < deadline, "it listens where nobody tells it to any more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let jobs = lab.github.push("one", vec![NewJob::of("new", &["true"]).labels(&["new"])]);
    lab.github.model().cancel(long);
    launches::until_all_ended(&lab.daemon, 3).await;
    assert_eq!(lab.github.job(jobs[0])["status"], "queued");
    launches::none_is_left(&lab.daemon);
}

#[tokio::test]
async fn secrets_come_from_systemds_credentials() {
    let github = GitHub::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = format!("[github]\ninstance_url = '{}'\norg = '{ORG}'\n", github.url());
    fs::write(folder.path().join("config.toml"), text).expect("a file in our folder");
    let credentials = folder.path().to_str().expect("a path of ours");
    let check =
        || github.place().config_check(&folder.path().join("config.toml"), &[("CREDENTIALS_DIRECTORY", credentials)]);
    let (without, said) = check();
    assert_eq!(without, Some(2), "{said}");
    fs::write(folder.path().join("github.token"), format!("{TOKEN}\n")).expect("a file in our folder");
    let (with, said) = check();
    assert_eq!(with, Some(0), "{said}");
}

#[tokio::test]
async fn the_doctor_says_what_is_well_and_what_to_do() {
    let Some(lab) = Lab::start().await else { return };
    let jobs = lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    lab.github.until_jobs(&jobs, "success").await;
    let doctor = |config: &Path| {
        let mut doctor = lab.github.place().command(env!("CARGO_BIN_EXE_ringer"));
        doctor.args(["doctor", "--config"]).arg(config);
        doctor.env("RINGER_ADMIN_HOST", lab.daemon.admin_host()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = doctor.output().expect("nsenter is there");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output)
    };
    let config = lab.daemon.folder().join("config.toml");
    let (told, output) = doctor(&config);
    for well in ["kernel", "cgroups", "containerd", "runtime", "forge: github: http"] {
        assert!(told.contains(&format!("ok   {well}")), "{well}: {told}");
    }
    assert!(told.contains("disk: "), "how full it is, is the machine's: {told}");
    assert!(told.contains("FIX  buildkitd: it is not in PATH"), "{told}");
    assert!(told.contains("FIX  MTU: there is no default route"), "this place has none: {told}");
    assert!(told.contains("runner image: ") && told.contains(&lab.images.actions_runner()), "{told}");
    assert_eq!(output.status.code(), Some(1), "something is to be done: {told}");
    assert!(!told.contains(TOKEN), "{told}");
    let (program, with) = (lab.daemon.folder().join("buildkitd"), lab.daemon.folder().join("with.toml"));
    let named = format!("[daemon]\nbuildkitd = '{}'\n{}", program.display(), fs::read_to_string(&config).unwrap());
    fs::write(&with, named).unwrap();
    let told = doctor(&with).0;
    assert!(told.contains("FIX  buildkitd: --buildkitd names no file"), "{told}");
    fs::write(&program, "").unwrap();
    let told = doctor(&with).0;
    assert!(told.contains(&format!("ok   buildkitd: {}", program.display())), "{told}");
}
