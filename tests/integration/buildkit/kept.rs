//! Caches of builds that outlive their jobs.

use std::path::PathBuf;

use ringer::{
    backend::images::samples::{self, Packing},
    model::image::ImageConfig,
};

use super::{
    Builder,
    deaths::{buildkitd, kill},
    until,
};
use crate::{
    jobs::Job,
    support::{
        builder::{Said, said},
        images::{publish, registry_in},
        registry::Guard,
    },
};

/// What a step makes is another each time that it runs.
const DOCKERFILE: &str = "FROM box\n\
                          RUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null 2>&1; cat /proc/sys/kernel/random/uuid > /made\n\
                          CMD cat /made\n";

/// Makes jobs that have one image by one digest, and builds in them.
struct Jobs {
    builder: Builder,
    archive: PathBuf,
}

impl Jobs {
    async fn start(flags: &[&str]) -> Option<Self> {
        let builder = Builder::start_with(flags).await?;
        let archive = builder.cli.context("saved", &[]).with_extension("tar");
        builder.must(&["save", "-o", archive.to_str().unwrap(), "box"]);
        Some(Self { builder, archive })
    }

    fn docker(&self, job: &Job, arguments: &[&str]) -> Said {
        said(&mut self.builder.cli.docker(&job.host(), arguments))
    }

    fn must(&self, job: &Job, arguments: &[&str]) -> String {
        let said = self.docker(job, arguments);
        assert!(said.succeeded, "docker {arguments:?}: {}\n{}", said.text, self.builder.daemon.log());
        said.text
    }

    fn job(&self, flags: &[&str]) -> Job {
        let job = Job::create(&self.builder.daemon, flags);
        self.must(&job, &["load", "-i", self.archive.to_str().unwrap()]);
        job
    }

    /// What the step has made.
    fn made(&self, job: &Job, flags: &[&str]) -> String {
        self.built(job, DOCKERFILE, flags)
    }

    /// What an image says that is built and run.
    fn built(&self, job: &Job, dockerfile: &str, flags: &[&str]) -> String {
        let context = self.builder.context(dockerfile, &[]);
        self.must(job, &[&["build", "-t", "mine"], flags, &[context.to_str().unwrap()]].concat());
        self.must(job, &["run", "--rm", "--network=none", "mine"])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_job_of_a_key_finds_the_steps_of_the_last_and_nobody_else_does() {
    let Some(mut jobs) = Jobs::start(&[]).await else { return };
    let flags = ["--cache-key", "org/a"];
    let first = jobs.job(&flags);
    let secret = jobs.builder.cli.context("secret", &[("s", "geheim")]).join("s");
    let made = jobs.made(&first, &["--secret", &format!("id=s,src={}", secret.display())]);
    // Who comes while it is lent has one of its own.
    let beside = jobs.job(&flags);
    assert_ne!(jobs.made(&beside, &[]), made);
    beside.remove(&jobs.builder.daemon);
    first.remove(&jobs.builder.daemon);
    assert!(buildkitd(&jobs.builder).is_empty());

    let second = jobs.job(&flags);
    assert!(!jobs.docker(&second, &["image", "inspect", "mine"]).succeeded);
    assert_eq!(jobs.must(&second, &["buildx", "history", "ls", "--format={{.Ref}}"]).trim(), "");
    assert_eq!(jobs.made(&second, &[]), made);
    let needs = jobs.builder.context("FROM box\nRUN --mount=type=secret,id=s,required=true cat /run/secrets/s\n", &[]);
    assert!(!jobs.docker(&second, &["build", needs.to_str().unwrap()]).succeeded, "a secret is its client's");
    for flags in [&["--cache-key", "org/b"][..], &[]] {
        let other = jobs.job(flags);
        assert_ne!(jobs.made(&other, &[]), made, "{flags:?}");
        other.remove(&jobs.builder.daemon);
    }

    // Whoever is killed between two builds, it is there.
    jobs.builder.daemon.kill();
    until("buildkitd is gone", async || buildkitd(&jobs.builder).is_empty()).await;
    jobs.builder.daemon.restart().await;
    assert_eq!(jobs.made(&second, &[]), made);
    kill(buildkitd(&jobs.builder)[0]);
    second.remove(&jobs.builder.daemon);
    let third = jobs.job(&flags);
    assert_eq!(jobs.made(&third, &[]), made);
    third.remove(&jobs.builder.daemon);
}

/// What the first one's client said to a registry is forgotten with it, whatever of the cache stays.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_job_do_not_serve_the_next_one_of_its_key() {
    let Some(jobs) = Jobs::start(&[]).await else { return };
    let daemon = &jobs.builder.daemon;
    let layer = (samples::busybox_tar().unwrap(), Packing::Gzip);
    let base = samples::image("linux/amd64", ImageConfig::default(), &[layer]);
    let guarded = |job: &Job| {
        let registry = registry_in(&job.namespace(daemon), "127.0.0.1:5055");
        publish(&registry, "base", &base);
        // user:geheim
        registry.guard(Guard::Basic("dXNlcjpnZWhlaW0=".to_owned()));
        registry
    };
    let dockerfile = "FROM 127.0.0.1:5055/base\nRUN true\nCMD echo built\n";
    let first = jobs.job(&["--cache-key", "org/a"]);
    let registry = guarded(&first);
    jobs.builder.cli.configure(r#"{"auths": {"127.0.0.1:5055": {"auth": "dXNlcjpnZWhlaW0="}}}"#);
    assert_eq!(jobs.built(&first, dockerfile, &[]), "built\n");
    drop(registry);
    first.remove(daemon);
    jobs.builder.cli.configure("{}");
    let second = jobs.job(&["--cache-key", "org/a"]);
    let _registry = guarded(&second);
    let context = jobs.builder.context(dockerfile, &[]);
    let stranger = jobs.docker(&second, &["build", context.to_str().unwrap()]);
    assert!(!stranger.succeeded && stranger.text.contains("401"), "{}", stranger.text);
}

/// What a step finds in a cache mount, which takes 12 MB.
const MOUNTED: &str = "FROM box\n\
                       ARG WHO\n\
                       RUN --mount=type=cache,target=/c echo $WHO >> /c/log; cp /c/log /log; head -c 12000000 /dev/urandom > /c/much\n\
                       CMD cat /log\n";

/// There is room for one cache.
#[tokio::test(flavor = "multi_thread")]
async fn cache_mounts_are_their_keys_and_what_is_too_much_goes() {
    let Some(jobs) = Jobs::start(&["--cache-max-bytes=20m"]).await else { return };
    let log = |key: &str, who: &str| {
        let job = jobs.job(&["--cache-key", key]);
        let log = jobs.built(&job, MOUNTED, &[&format!("--build-arg=WHO={who}")]);
        job.remove(&jobs.builder.daemon);
        log
    };
    assert_eq!(log("org/a", "first"), "first\n");
    assert_eq!(log("org/a", "second"), "first\nsecond\n");
    assert_eq!(log("org/b", "third"), "third\n", "another key's");
    let caches = || std::fs::read_dir(jobs.builder.daemon.folder().join("data/buildkit")).unwrap().flatten();
    until("the one that is longest unused goes", async || {
        caches().filter(|cache| cache.file_name() != "default").count() == 1
    })
    .await;
    assert_eq!(log("org/b", "fourth"), "third\nfourth\n", "the last used stays");
    assert_eq!(log("org/a", "fifth"), "fifth\n");
}
