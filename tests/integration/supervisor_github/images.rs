//! Images of runners: what a job finds in its own, the built-in one, and one that is not for this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::PathBuf,
    process::Command,
};

use ringer::{
    backend::images::samples::{Packing, image, index, tar},
    model::image::{ImageConfig, Platform},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Lab, config};
use crate::support::{
    daemon::Daemon,
    forge::Images,
    github::{GitHub, NewJob, ORG, TOKEN},
    images::publish,
    launches, part,
    registry::Registry,
};

/// What a step finds: `KIND WHAT` by line.
const LOOK: &str = r#"
find / -xdev \( -type f -o -type l \) | sed 's/^/FILE /'
find / -xdev -type f -not -path '/home/runner/_work/*' -exec sha256sum {} + | sed 's/^/SUM /'
awk '{print "MOUNT " $2}' /proc/self/mounts
env | sed 's/^/ENV /'
"#;

/// Files of the runner's image with the digests of their content, and its variables.
struct Content {
    files: BTreeMap<String, Option<String>>,
    env: BTreeSet<String>,
}

impl Content {
    fn of_runner_image() -> Self {
        let images = PathBuf::from(std::env::var_os("RINGER_TEST_IMAGES").expect("make test sets it"));
        let archive = images.join("actions-runner.tar");
        let read = |name: &str| {
            let mut archive = tar::Archive::new(File::open(&archive).expect("an image that was made"));
            let mut entries = archive.entries().expect("an archive").map(|entry| entry.expect("an entry"));
            let mut found =
                entries.find(|entry| entry.path().is_ok_and(|path| path.ends_with(name))).expect("it is there");
            let mut bytes = Vec::new();
            found.read_to_end(&mut bytes).expect("an archive");
            bytes
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let texts = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).expect("texts") };
        let manifest = json(&read("manifest.json"));
        let document = json(&read(manifest[0]["Config"].as_str().expect("a name")));
        let mut files = BTreeMap::new();
        for layer in texts(&manifest[0]["Layers"]) {
            let bytes = read(&layer);
            for entry in tar::Archive::new(bytes.as_slice()).entries().expect("a layer") {
                let mut entry = entry.expect("an entry");
                let path = entry.path().expect("a path").to_string_lossy().trim_start_matches('.').to_owned();
                let kind = entry.header().entry_type();
                if kind.is_file() {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).expect("a file");
                    files.insert(path, Some(format!("{:x}", Sha256::digest(&content))));
                } else if !kind.is_dir() {
                    files.insert(path, None);
                }
            }
        }
        Self { files, env: texts(&document["config"]["Env"]).into_iter().collect() }
    }
}

#[tokio::test]
async fn a_job_finds_its_image_and_nothing_of_the_machine() {
    let Some(lab) = Lab::start("").await else { return };
    let jobs = lab.github.push("own", vec![NewJob::of("looks", &[LOOK])]);
    lab.github.until_jobs(&jobs, "success").await;
    let log = lab.github.model().jobs[&jobs[0]].log.clone();
    let of_kind = |kind: &str| -> BTreeSet<&str> {
        log.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).collect()
    };
    let content = Content::of_runner_image();

    let seen = of_kind("FILE");
    let hidden: Vec<&String> = content.files.keys().filter(|path| !seen.contains(path.as_str())).collect();
    assert!(hidden.is_empty() && content.files.len() > 200, "{hidden:?}");
    let sums: BTreeMap<&str, &str> =
        of_kind("SUM").iter().filter_map(|line| line.split_once("  ")).map(|(sum, path)| (path, sum)).collect();
    let changed: Vec<_> = content
        .files
        .iter()
        .filter(|(path, sum)| sum.as_deref() != sums.get(path.as_str()).copied())
        .filter(|(_, sum)| sum.is_some())
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    let is_expected = |path: &str| {
        let of_mounts =
            ["/.dockerenv", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf", "/run/docker.sock"];
        // The runner's own, which it writes beside its programs.
        let of_runner = ["/home/runner/.", "/home/runner/_work/", "/home/runner/run-helper.sh"];
        of_mounts.contains(&path) || of_runner.iter().any(|beginning| path.starts_with(beginning))
    };
    let more: Vec<_> = seen.iter().filter(|path| !content.files.contains_key(**path) && !is_expected(path)).collect();
    assert!(more.is_empty(), "{more:?}");

    let of_kernel = |path: &&&str| ["/proc", "/sys", "/dev"].iter().any(|kernel| path.starts_with(kernel));
    let mounts: Vec<&str> = of_kind("MOUNT").iter().filter(|path| !of_kernel(path)).copied().collect();
    let expected = ["/", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/opt/ringer-hook", "/run/docker.sock"];
    assert_eq!(mounts, expected);

    let env = of_kind("ENV");
    assert!(content.env.iter().all(|variable| env.contains(variable.as_str())), "{env:?}");
    let set_by_somebody = |variable: &str| {
        let beginnings =
            ["ACTIONS_RUNNER_", "CI=", "GITHUB_", "HOME=", "HOSTNAME=", "OLDPWD=", "PWD=", "RUNNER_", "SHLVL=", "_="];
        beginnings.iter().any(|beginning| variable.starts_with(beginning))
    };
    let more: Vec<_> = env.iter().filter(|line| !content.env.contains(**line) && !set_by_somebody(line)).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[tokio::test]
async fn an_image_of_windows_alone_is_refused_before_anything_is_registered() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    let registry = Registry::serve_at(github.place().listener("127.0.0.1:5001"));
    let windows = image("windows/amd64", ImageConfig::default(), &[(tar(&[("Files/a", b"a")]), Packing::Plain)]);
    publish(&registry, "windows/servercore", &index(&[windows]));
    let text = config(&github, &images, &format!("token = '{TOKEN}'"));
    let text = text.replace(&images.actions_runner(), "127.0.0.1:5001/windows/servercore");
    let daemon = Daemon::launching(github.place(), &text).await;
    let lab = Lab { daemon, images, github };
    lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    let words = ended[0]["outcome"].as_str().expect("words");
    assert!(words.contains("windows/servercore") && words.contains("no matching manifest for linux/"), "{words}");
    assert_eq!(lab.github.model().ever, Vec::<String>::new(), "nothing is registered in vain");
    assert_eq!(registry.count("GET /v2/windows/servercore/blobs/"), 0, "nor fetched");
}

/// As an image of Alpine is to the real one, which has no bash.
#[tokio::test]
async fn an_image_in_which_the_runner_would_not_start_is_named_and_nothing_is_registered() {
    let github = GitHub::start();
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    let bare = image(&Platform::host().to_string(), ImageConfig::default(), &[(tar(&[("a", b"a")]), Packing::Gzip)]);
    let bare = images.push(github.place(), "acme/bare", &bare);
    let text = config(&github, &images, &format!("token = '{TOKEN}'\nrunner_image = '{}'", images.actions_runner()));
    let text = text.replace(&format!("job_image = '{}'", images.actions_runner()), &format!("job_image = '{bare}'"));
    let daemon = Daemon::launching(github.place(), &text).await;
    let lab = Lab { daemon, images, github };
    lab.github.push("one", vec![NewJob::of("quick", &["true"])]);
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    let words = ended[0]["outcome"].as_str().expect("words");
    assert!(words.contains("acme/bare holds no runner, and has no /bin/sh") && words.contains("glibc"), "{words}");
    assert_eq!(lab.github.model().ever, Vec::<String>::new(), "nothing is registered in vain");
}

#[tokio::test]
async fn the_built_in_image_is_fetched_once_and_its_digest_and_age_are_told() {
    let github = GitHub::start();
    let place = github.place();
    let Some(images) = Images::with_actions_runner(place).await else { return };
    let ghcr = images.also_named(place, &[("ringer/actions-runner", "actions/actions-runner", "latest")]);
    let url = github.url();
    let text = format!(
        "[github]\ninstance_url = '{url}'\norg = '{ORG}'\npoll_interval = '1s'\ntoken = '{TOKEN}'\n[daemon]\ninsecure-registry = ['ghcr.io']\n"
    );
    let daemon = Daemon::launching_with_hosts(place, &format!("{} ghcr.io\n", ghcr.address()), &text).await;
    let lab = Lab { daemon, images, github };
    for name in ["first", "second"] {
        let jobs = lab.github.push("own", vec![NewJob::of(name, &["id -un"])]);
        lab.github.until_jobs(&jobs, "success").await;
    }
    launches::until_all_ended(&lab.daemon, 2).await;
    let built_in = "ghcr.io/actions/actions-runner:latest";
    assert_eq!(lab.daemon.log().matches(&format!("{built_in} is sha256:")).count(), 1, "{}", lab.daemon.log());
    let fetched = ghcr.asked("GET /v2/actions/actions-runner/blobs/");
    let once: BTreeSet<&String> = fetched.iter().collect();
    assert!(once.len() >= 3 && once.len() == fetched.len(), "{fetched:#?}");
    assert!(!ghcr.asked("HEAD /v2/actions/actions-runner/manifests/latest").is_empty(), "looked at again");
    let doctor = lab.daemon.ringer(&["doctor"]).output().expect("ringer runs");
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned() + &String::from_utf8_lossy(&doctor.stderr);
    assert!(told.contains(&format!("{built_in} of github is ")) && told.contains(" old"), "{told}");
    lab.is_clean();
}

/// The docker command line, as projects make their own images with it, and a folder for its contexts.
pub(super) struct Cli {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Cli {
    /// `None` where it is absent, which CI does not let pass.
    pub fn new() -> Option<Self> {
        let program = part("RINGER_TEST_DOCKER_20")?.join("usr/bin/docker");
        Some(Self { program, folder: Daemon::folder_of_its_own() })
    }

    fn run(&self, command: &mut Command) {
        let output = command.current_dir(self.folder.path()).output().expect("the program is there");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
    }

    /// Runs a script in the folder.
    pub fn sh(&self, script: &str) {
        self.run(Command::new("sh").args(["-c", script]));
    }

    /// Builds an image of the folder by a daemon's own socket, and pushes it.
    pub fn build(&self, daemon: &Daemon, name: &str, dockerfile: &str) {
        std::fs::write(self.folder.path().join("Dockerfile"), dockerfile).expect("a file of ours");
        let socket = format!("unix://{}", daemon.folder().join("docker.sock").display());
        for arguments in [&["build", "-t", name, "."][..], &["push", name]] {
            let mut command = Command::new(&self.program);
            command.args(arguments).env("DOCKER_HOST", &socket).env("DOCKER_CONFIG", self.folder.path());
            self.run(command.env("DOCKER_BUILDKIT", "0"));
        }
    }
}

#[tokio::test]
async fn a_runner_image_with_more_packages_is_built_and_runs_as_its_user() {
    let (Some(cli), github) = (Cli::new(), GitHub::start()) else { return };
    let Some(images) = Images::with_actions_runner(github.place()).await else { return };
    let (base, custom) = (images.actions_runner(), format!("{}/acme/custom", images.address()));
    let text = config(&github, &images, &format!("token = '{TOKEN}'"));
    let daemon = Daemon::launching(github.place(), &text.replace(&base, &custom)).await;
    let lab = Lab { daemon, images, github };
    cli.sh(include_str!("../support/apt.sh"));
    let steps = "USER root\nCOPY apt/ /\nRUN apt-get update && apt-get install -y ringer-tool\nUSER runner\n";
    cli.build(&lab.daemon, &custom, &format!("FROM {base}\n{steps}"));

    let jobs = lab.github.push("own", vec![NewJob::of("uses", &["id -un; ringer-tool"])]);
    lab.github.until_jobs(&jobs, "success").await;
    let log = lab.github.model().jobs[&jobs[0]].log.clone();
    assert!(log.contains("runner\nfrom a package\n"), "{log}");
    launches::until_all_ended(&lab.daemon, 1).await;
    lab.is_clean();
}
