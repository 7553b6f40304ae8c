//! BuildKit for jobs: each has one of its own, in its network and under its limits, which goes with it.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::PathBuf};

use super::{
    Builder,
    deaths::{begun_at, buildkitd, kill_client, runs},
    until,
};
use crate::{
    jobs::{Job, remains},
    support::{
        builder::{Said, processes_with, said},
        images::DebianRegistry,
    },
};

/// A job with the image `box`, and the CLI at its socket.
pub struct OfJob<'b> {
    pub builder: &'b Builder,
    pub job: Job,
}

impl<'b> OfJob<'b> {
    pub async fn new(builder: &'b Builder, flags: &[&str]) -> Self {
        Self { builder, job: Job::with_box(&builder.daemon, flags).await }
    }

    pub fn host(&self) -> String {
        self.job.host()
    }

    pub fn docker(&self, arguments: &[&str]) -> Said {
        said(&mut self.builder.cli.docker(&self.host(), arguments))
    }

    /// Must succeed; what it said.
    pub fn must(&self, arguments: &[&str]) -> String {
        let said = self.docker(arguments);
        assert!(said.succeeded, "docker {arguments:?}: {}\n{}", said.text, self.builder.daemon.log());
        said.text
    }

    pub fn build(&self, flags: &[&str], dockerfile: &str) -> Said {
        let context = self.builder.context(dockerfile, &[]);
        self.docker(&[&["build"], flags, &[context.to_str().expect("a path")]].concat())
    }

    pub fn must_build(&self, flags: &[&str], dockerfile: &str) -> String {
        let said = self.build(flags, dockerfile);
        assert!(said.succeeded, "{}\n{}", said.text, self.builder.daemon.log());
        said.text
    }

    /// What a command prints in a container of an image.
    pub fn run(&self, image: &str, command: &[&str]) -> String {
        self.must(&[&["run", "--rm", "--network=none", image], command].concat())
    }

    /// Where its network is.
    pub fn namespace(&self) -> PathBuf {
        self.job.namespace(&self.builder.daemon)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_build_on_images_of_one_name_and_share_nothing() {
    let Some(builder) = Builder::start().await else { return };
    let (one, two) = (OfJob::new(&builder, &[]).await, OfJob::new(&builder, &[]).await);
    one.must_build(&["-t", "base"], "FROM box\nRUN echo one > /which\n");
    two.must_build(&["-t", "base"], "FROM box\nRUN echo two > /which\n");
    for (job, name) in [(&one, "one\n"), (&two, "two\n")] {
        job.must_build(&["-t", "top"], "FROM base\nCOPY --from=base /which /copied\n");
        assert_eq!(job.run("top", &["cat", "/which", "/copied"]), name.repeat(2));
    }
    assert!(!builder.docker(&["image", "inspect", "top"]).succeeded);
    // What one job's secret did is not in the other's cache, which the step alone would find.
    let secret = builder.cli.context("secret", &[("s", "geheim")]).join("s");
    let secret = format!("id=s,src={}", secret.display());
    let stealing = "FROM box\nRUN --mount=type=secret,id=s cat /run/secrets/s > /got || echo nothing > /got\n";
    one.must_build(&["-t", "got", "--secret", &secret], stealing);
    assert_eq!(one.run("got", &["cat", "/got"]), "geheim");
    two.must_build(&["-t", "got"], stealing);
    assert_eq!(two.run("got", &["cat", "/got"]), "nothing\n");
    // Nor the history of its builds, and what they said.
    let builds = |job: &OfJob<'_>| -> BTreeSet<String> {
        let told = job.must(&["buildx", "history", "ls", "--format={{.Ref}}"]);
        told.lines().filter_map(|line| line.rsplit('/').next()).map(str::to_owned).collect()
    };
    let (of_one, of_two) = (builds(&one), builds(&two));
    assert!(of_one.len() == 3 && of_two.len() == 3 && of_one.is_disjoint(&of_two), "{of_one:?} {of_two:?}");
    let logs = |job: &OfJob<'_>| job.docker(&["buildx", "history", "logs", of_one.first().unwrap()]);
    assert!(logs(&one).succeeded && !logs(&two).succeeded, "{}", logs(&two).text);
    // A cache mount neither.
    let mounting =
        |name: &str| format!("FROM box\nRUN --mount=type=cache,target=/c echo {name} >> /c/x; cat /c/x > /got\n");
    one.must_build(&["-t", "c"], &mounting("eins"));
    two.must_build(&["-t", "c"], &mounting("zwei"));
    assert_eq!(two.run("c", &["cat", "/got"]), "zwei\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn builders_and_steps_are_in_their_jobs_network_and_cgroup() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &["--memory", "512m"]).await;
    let build = begun_at(&builder, &job.host(), "06").await;
    let found = buildkitd(&builder);
    assert_eq!(found.len(), 1, "{found:?}");
    let number = |path: PathBuf| fs::metadata(path).expect("a namespace").ino();
    assert_eq!(number(format!("/proc/{}/ns/net", found[0]).into()), number(job.namespace()));
    for pid in [found[0], processes_with("sleep 424206")[0]] {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let is_limited = |line: &&str| ["memory", "pids", "0::"].iter().any(|name| line.contains(name));
        let of_job = cgroups.lines().filter(is_limited).filter(|line| line.contains(job.job.id())).count();
        assert!(of_job > 0, "{pid}: {cgroups}");
    }
    let names = fs::read_to_string(format!("/proc/{}/environ", found[0])).unwrap().replace('\0', "\n");
    let is_known = |line: &str| {
        ["PATH=", "TMPDIR=", "HOME=", "no_proxy=", "NO_PROXY=", "http"]
            .iter()
            .any(|name| line.to_lowercase().starts_with(&name.to_lowercase()))
    };
    assert!(names.lines().all(|line| is_known(line) || line.starts_with("SSL_")), "{names}");
    kill_client(build);
    until("the step is gone", async || !runs("06")).await;
    // What it fetches itself comes by the job's network: what is published there answers, and what is the machine's does not.
    job.must(&[
        "run",
        "-d",
        "-p",
        "8080:80",
        "box",
        "sh",
        "-c",
        "while true; do printf 'HTTP/1.0 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nyes' | nc -l -p 80; done",
    ]);
    let dockerfile = "FROM scratch\nADD http://127.0.0.1:8080/file /file\n";
    until("it is published", async || job.build(&["-t", "added"], dockerfile).succeeded).await;
    assert!(!builder.build(&[], dockerfile, &[]).succeeded, "the machine's loopback has no such port");
    // A step's own network is the job's too.
    job.must_build(&["-t", "net"], "FROM box\nRUN ip -o addr > /own\n");
    let own = job.run("net", &["cat", "/own"]);
    assert!(own.contains("eth0"), "{own}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_buildkit_needs_is_limited_with_its_job() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &["--memory", "256m"]).await;
    let bomb = job.build(&[], "FROM box\nRUN dd if=/dev/zero of=/dev/null bs=400M count=1\n");
    assert!(!bomb.succeeded && bomb.text.contains("exit code: 137"), "{}", bomb.text);
    job.must_build(&["-t", "x"], "FROM box\nRUN echo again > /made\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_leaves_nothing_of_its_builder() {
    let Some(builder) = Builder::start().await else { return };
    let before = layers(&builder);
    let job = OfJob::new(&builder, &[]).await;
    job.must_build(&["-t", "x"], "FROM box\nRUN echo built > /built\n");
    job.run("x", &["cat", "/built"]);
    let mut build = begun_at(&builder, &job.host(), "07").await;
    assert_eq!(buildkitd(&builder).len(), 1);
    assert!(!remains::of(&builder.daemon, job.job.id()).is_empty());
    job.job.remove(&builder.daemon);
    assert!(!build.wait().unwrap().success());
    assert!(buildkitd(&builder).is_empty() && !runs("07"));
    remains::gone_of(&builder.daemon, job.job.id()).await;
    until("its layers are gone", async || layers(&builder) <= before).await;
}

/// Layers that are unpacked.
fn layers(builder: &Builder) -> usize {
    let data = builder.daemon.folder().join("data/containerd");
    let snapshotters = fs::read_dir(data).into_iter().flatten().flatten();
    let snapshots = snapshotters.flat_map(|folder| fs::read_dir(folder.path().join("snapshots")).into_iter().flatten());
    snapshots.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemons_next_life_takes_the_builder_of_an_ended_job_away() {
    let Some(mut builder) = Builder::start().await else { return };
    let mut owner = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let (owned, kept, host) = {
        let owned = OfJob::new(&builder, &["--owner-pid", &owner.id().to_string()]).await;
        let kept = OfJob::new(&builder, &[]).await;
        for job in [&owned, &kept] {
            job.must_build(&["-t", "x"], "FROM box\nRUN echo built > /built\n");
        }
        let mut build = begun_at(&builder, &owned.host(), "08").await;
        let ids = (owned.job.id().to_owned(), kept.job.id().to_owned(), kept.host());
        // It fails by itself when its daemon is gone.
        assert!(build.try_wait().unwrap().is_none());
        ids
    };
    builder.daemon.kill();
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("buildkitd is gone", async || buildkitd(&builder).is_empty()).await;
    builder.daemon.restart().await;
    remains::gone_of(&builder.daemon, &owned).await;
    until("the step is gone", async || !runs("08")).await;
    // The other one is as it was: its cache is there.
    let context = builder.context("FROM box\nRUN echo built > /built\n", &[]);
    let again = said(&mut builder.cli.docker(&host, &["build", "-t", "y", context.to_str().unwrap()]));
    assert!(again.succeeded && again.text.contains("CACHED"), "{}", again.text);
    let removed = builder.daemon.ringer(&["job", "rm", &kept]).output().unwrap();
    assert!(removed.status.success());
    remains::gone_of(&builder.daemon, &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_of_a_job_go_on_side_by_side() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let builds: Vec<_> = (0..5)
        .map(|n| {
            let dockerfile = format!("FROM box\nRUN echo {n} > /made\n");
            let context = builder.cli.context(&format!("beside-{n}"), &[("Dockerfile", &dockerfile)]);
            let tag = format!("beside{n}");
            let mut docker = builder.cli.docker(&job.host(), &["build", "-t", &tag, context.to_str().unwrap()]);
            docker.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for (n, mut build) in builds.into_iter().enumerate() {
        assert!(build.wait().unwrap().success(), "{n}: {}", builder.daemon.log());
        assert_eq!(job.run(&format!("beside{n}"), &["cat", "/made"]), format!("{n}\n"));
    }
}

/// As a workflow's step builds: a CLI in one of the job's containers, at the socket that it was given.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_the_jobs_socket_builds() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let context = builder.cli.context("with-cli", &[("Dockerfile", "FROM box\nCOPY root /\n")]);
    let plugin = "root/usr/libexec/docker/cli-plugins/docker-buildx";
    for (program, place) in [(builder.cli.program(), "root/bin/docker"), (&builder.cli.plugin(), plugin)] {
        copy_with_libraries(program, &context, place);
    }
    job.must(&["build", "-t", "cli", context.to_str().unwrap()]);
    let script = "mkdir /tmp/c && cd /tmp/c && echo from-within > file && \
                  printf 'FROM box\\nCOPY file /file\\nRUN cat /file > /made\\n' > Dockerfile && \
                  docker build -t within . && docker run --rm --network=none within cat /made";
    let socket = "/var/run/docker.sock:/var/run/docker.sock";
    let said = job.must(&["run", "--rm", "-v", socket, "cli", "sh", "-c", script]);
    assert!(said.starts_with("from-within\n"), "{said}");
    assert_eq!(job.run("within", &["cat", "/made"]), "from-within\n");
}

/// Puts a program at a place in a folder, and what it is linked to where it is.
fn copy_with_libraries(program: &std::path::Path, folder: &std::path::Path, place: &str) {
    let copy = |from: &std::path::Path, to: PathBuf| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    copy(program, folder.join(place));
    let linked = std::process::Command::new("ldd").arg(program).output().expect("ldd is there");
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(library.as_ref(), folder.join("root").join(library.trim_start_matches('/')));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_job_are_pushed_and_old_clients_build_too() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let name = "127.0.0.1:5000/built/x:1";
    job.must_build(&["-t", name], "FROM box\nRUN echo pushed > /made\n");
    let [here, there] = ["on-the-machine", "in-the-job"].map(|name| builder.daemon.folder().join(name));
    fs::create_dir(&here).and_then(|()| fs::create_dir(&there)).unwrap();
    let _on_the_machine = DebianRegistry::start(&here, builder.daemon.pid());
    let _in_the_job = DebianRegistry::start(&there, u32::try_from(buildkitd(&builder)[0]).unwrap());
    // By `docker push`, which is ringer's.
    until("it is pushed", async || job.docker(&["push", name]).succeeded).await;
    job.must(&["rmi", name]);
    job.must(&["pull", "-q", name]);
    assert_eq!(job.run(name, &["cat", "/made"]), "pushed\n");
    // By BuildKit itself, which is in the job's network.
    let name = "127.0.0.1:5000/built/y:1";
    let cache = format!("type=registry,ref={name}-cache");
    let flags = ["--push", "--cache-to", &cache, "-t", name];
    // Each time it runs it makes something else.
    let dockerfile = "FROM box\nRUN cat /proc/sys/kernel/random/uuid > /made\n";
    until("it is pushed", async || job.build(&flags, dockerfile).succeeded).await;
    let made = job.run(name, &["cat", "/made"]);
    job.must(&["rmi", name]);
    job.must(&["builder", "prune", "-a", "-f"]);
    // BuildKit does not always say CACHED of a step whose layer it fetches.
    job.must_build(&["--cache-from", &cache, "-t", "again"], dockerfile);
    assert_eq!(job.run("again", &["cat", "/made"]), made);
    job.must_build(&["-t", "on"], &format!("FROM {name}\nLABEL a=b\n"));
    assert_eq!(job.run("on", &["cat", "/made"]), made);
    // CLI 20.10, by `/build` and `/session`.
    let context = builder.context("FROM on\nRUN echo old >> /made\n", &[]);
    let Some(old) = builder.old_docker_at(&job.host(), &["build", "-t", "old", context.to_str().unwrap()]) else {
        return;
    };
    assert!(old.succeeded && old.text.contains("naming to docker.io/library/old:latest"), "{}", old.text);
    assert_eq!(job.run("old", &["cat", "/made"]), format!("{made}old\n"));
}
