//! Debian's registry, with the images that the supervisor's runners and jobs are made of.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use ringer::{
    backend::images::samples::{Packing, Sample, image, tar},
    model::image::{ImageConfig, Platform},
};
use rustix::process::{Pid, Signal, kill_process};

use super::{LIMIT, Place, part};
use crate::support::{images::docker_archive, place};

/// A registry at a place. It ends with its guard.
pub struct Images {
    folder: tempfile::TempDir,
    server: Child,
    address: String,
    /// The image of an upstream runner's program, by the name of that.
    real: BTreeMap<&'static str, String>,
}

/// Where upstream runners have their programs in their images, and as whom these run.
const REAL: [(&str, &str, &str); 4] = [
    ("gitea-runner", "usr/local/bin/gitea-runner", ""),
    ("forgejo-runner", "bin/forgejo-runner", "1000:1000"),
    ("gitlab-runner", "usr/bin/gitlab-runner", ""),
    ("woodpecker-agent", "bin/woodpecker-agent", ""),
];

impl Images {
    /// Starts one with the image of Gitea's runner and a small one for jobs; `None` where the runner is absent, which CI does not let pass.
    pub async fn start(place: &Place) -> Option<Self> {
        part("RINGER_TEST_GITEA_RUNNER")?;
        Some(Self::of(place, &["busybox", "runner", "dead-runner"]).await)
    }

    /// The same with the image of Forgejo's runner.
    pub async fn with_forgejo_runner(place: &Place) -> Option<Self> {
        part("RINGER_TEST_GITEA_RUNNER")?;
        Some(Self::of(place, &["busybox", "forgejo-runner"]).await)
    }

    /// The same with the image of GitHub's runner.
    pub async fn with_actions_runner(place: &Place) -> Option<Self> {
        part("RINGER_TEST_ACTIONS_RUNNER")?;
        Some(Self::of(place, &["busybox", "actions-runner"]).await)
    }

    /// The same with the image of GitLab's runner.
    pub async fn with_gitlab_runner(place: &Place) -> Option<Self> {
        part("RINGER_TEST_GITLAB_RUNNER")?;
        Some(Self::of(place, &["busybox", "web", "gitlab-runner"]).await)
    }

    /// The same with the image of Woodpecker's agent.
    pub async fn with_woodpecker_agent(place: &Place) -> Option<Self> {
        part("RINGER_TEST_WOODPECKER_AGENT")?;
        Some(Self::of(place, &["busybox", "web", "woodpecker-agent"]).await)
    }

    /// The same, whose registry asks for the user `ringer` and the password `secret`.
    pub async fn with_forgejo_runner_and_password(place: &Place) -> Option<Self> {
        part("RINGER_TEST_GITEA_RUNNER")?;
        Some(Self::of(place, &["--auth", "busybox", "forgejo-runner"]).await)
    }

    /// What jobs of GitLab's custom executor are made of, behind the same user and password.
    pub async fn of_custom_executor(place: &Place) -> Self {
        Self::of(place, &["--auth", "busybox", "web", "gitlab-helper"]).await
    }

    async fn of(place: &Place, names: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("registry-").tempdir().expect("a folder");
        let log = fs::File::create(folder.path().join("output")).expect("a log file");
        let server = place
            .command(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/registry"))
            .arg(folder.path())
            .args(names)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file again"))
            .stderr(log)
            .spawn()
            .expect("nsenter is there");
        let mut images = Self { folder, server, address: String::new(), real: BTreeMap::new() };
        let deadline = Instant::now() + LIMIT;
        while images.address.is_empty() {
            let ended = images.server.try_wait().expect("a child can be waited for");
            let output = || fs::read_to_string(images.folder.path().join("output")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "no registry: {}", output());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let address = fs::read_to_string(images.folder.path().join("address")).unwrap_or_default();
            address.trim().clone_into(&mut images.address);
        }
        images.push_real(place);
        images
    }

    /// Upstream's own programs in the place of their stand-ins, of a folder that somebody has them in: each alone in an image, which is all
    /// that it is started from.
    fn push_real(&mut self, place: &Place) {
        let Some(folder) = std::env::var_os("RINGER_TEST_REAL").map(PathBuf::from) else { return };
        for (name, path, user) in REAL {
            let Ok(program) = fs::read(folder.join(name)) else { continue };
            let config = ImageConfig { user: user.to_owned(), ..ImageConfig::default() };
            let layer = (tar(&[(path, &program)]), Packing::Gzip);
            let image = image(&Platform::host().to_string(), config, &[layer]);
            let reference = self.push(place, &format!("real/{name}"), &image);
            self.real.insert(name, reference);
        }
    }

    /// The image of a runner: upstream's, if it is there, or the stand-in's.
    fn runner_of(&self, name: &str) -> String {
        let stand_in = || format!("{}/ringer/{name}", self.address);
        self.real.get(name).cloned().unwrap_or_else(stand_in)
    }

    /// A second registry at port 80 of the place, with some of the images under other names, `(THERE, NAME, TAG)`: as public registries have
    /// them.
    pub fn also_named(&self, place: &Place, names: &[(&str, &str, &str)]) -> Public {
        let repositories = self.folder.path().join("data/docker/registry/v2/repositories");
        for (there, name, tag) in names {
            let copy = repositories.join(name);
            fs::create_dir_all(copy.parent().expect("a folder of ours")).expect("a folder of ours");
            let copied =
                Command::new("cp").arg("-a").arg(repositories.join(there)).arg(&copy).status().expect("cp is there");
            assert!(copied.success());
            let tags = copy.join("_manifests/tags");
            if *tag != "latest" {
                fs::rename(tags.join("latest"), tags.join(tag)).expect("a tag of ours");
            }
        }
        Public::start(place, self.folder.path())
    }

    /// Puts another image there; its reference.
    pub fn push(&self, place: &Place, name: &str, image: &Sample) -> String {
        let (archive, reference) = (self.folder.path().join("image.tar"), format!("{}/{name}", self.address));
        fs::write(&archive, docker_archive(image, &format!("{name}:latest"))).expect("a file in our folder");
        let copied = place
            .command("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://{reference}"))
            .output()
            .expect("skopeo is installed");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        reference
    }

    /// `HOST:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The image of GitLab's helper.
    pub fn gitlab_helper(&self) -> String {
        format!("{}/ringer/gitlab-helper", self.address)
    }

    /// The image of GitLab's runner.
    pub fn gitlab_runner(&self) -> String {
        self.runner_of("gitlab-runner")
    }

    /// The image of Woodpecker's agent.
    pub fn woodpecker_agent(&self) -> String {
        self.runner_of("woodpecker-agent")
    }

    /// The image of GitHub's runner.
    pub fn actions_runner(&self) -> String {
        format!("{}/ringer/actions-runner", self.address)
    }

    /// The image of Gitea's runner.
    pub fn runner(&self) -> String {
        self.runner_of("gitea-runner")
    }

    /// The image of Forgejo's runner.
    pub fn forgejo_runner(&self) -> String {
        self.runner_of("forgejo-runner")
    }

    /// One whose program ends as soon as it is started.
    pub fn dead_runner(&self) -> String {
        format!("{}/ringer/dead-runner", self.address)
    }

    /// An image of a service, which serves at port 8080.
    pub fn web(&self) -> String {
        format!("{}/ringer/web", self.address)
    }

    /// An image for jobs.
    pub fn job(&self) -> String {
        format!("{}/busybox", self.address)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let pid = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        // TERM: the script ends the server itself.
        let _ended_already = pid.map(|pid| kill_process(pid, Signal::TERM));
        let _reaped_already = self.server.wait();
    }
}

/// A registry with the name of a public one. It ends with its guard.
pub struct Public {
    log: PathBuf,
    server: Child,
}

impl Public {
    fn start(place: &Place, folder: &Path) -> Self {
        let (config, log, data) = (folder.join("public.yml"), folder.join("public.log"), folder.join("data"));
        let storage = format!("storage: {{filesystem: {{rootdirectory: {}}}}}", data.display());
        fs::write(&config, format!("version: 0.1\n{storage}\nhttp: {{addr: '{}:80'}}\n", place::ADDRESS))
            .expect("a file of ours");
        let output = fs::File::create(&log).expect("a log file");
        let server = place
            .command("docker-registry")
            .arg("serve")
            .arg(config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the log file again"))
            .stderr(output)
            .spawn()
            .expect("docker-registry is installed");
        let deadline = Instant::now() + LIMIT;
        while place::connect(
            &place.path(),
            (place::ADDRESS.parse::<std::net::IpAddr>().expect("an address"), 80).into(),
        )
        .is_err()
        {
            assert!(Instant::now() < deadline, "no registry: {}", fs::read_to_string(&log).unwrap_or_default());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Self { log, server }
    }

    /// Where it is.
    pub fn address(&self) -> &'static str {
        place::ADDRESS
    }

    /// `METHOD /path` of all requests that begin so.
    pub fn asked(&self, start: &str) -> Vec<String> {
        let log = fs::read_to_string(&self.log).expect("its log");
        let requests = log.lines().filter_map(|line| line.split('"').find(|part| part.starts_with(start)));
        requests.map(|request| request.trim_end_matches(" HTTP/1.1").to_owned()).collect()
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        let _ended_already = self.server.kill();
        let _reaped_already = self.server.wait();
    }
}
