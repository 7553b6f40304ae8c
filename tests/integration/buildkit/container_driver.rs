//! Builders that buildx makes itself (driver `docker-container`), as docker/setup-buildx-action and docker/build-push-action ask for them:
//! in a job they are its own BuildKit, and nothing in them has privileges.

use std::{fs, process::Stdio};

use ringer::{
    backend::images::samples::{self, Packing},
    model::image::ImageConfig,
};
use serde_json::Value;

use super::{
    Builder,
    deaths::{buildkitd, kill_client},
    jobs::OfJob,
    until,
    walls::{registry_beside, registry_of},
};
use crate::support::{part, registry::Registry};

/// As the action has them if it is not told otherwise.
const FLAGS: &str = "--allow-insecure-entitlement security.insecure --allow-insecure-entitlement network.host";

/// Offers what `moby/buildkit` is as far as buildx uses it: the real `buildctl` and a shell. Its name.
pub fn offer_image(registry: &Registry) -> String {
    let client = part("RINGER_TEST_BUILDKITD").expect("Builder has looked").join("buildctl");
    let client = fs::read(&client).unwrap_or_else(|error| panic!("{}: {error}", client.display()));
    let tar = samples::tar(&[("bin/buildctl", &client)]);
    let config = ImageConfig {
        entrypoint: Some(vec!["buildkitd".to_owned()]),
        env: vec!["PATH=/bin".to_owned()],
        ..ImageConfig::default()
    };
    let layers = [(samples::busybox_tar().unwrap(), Packing::Plain), (tar, Packing::Plain)];
    let image = samples::image("linux/amd64", config, &layers);
    for (blob, bytes) in &image.blobs {
        registry.put_blob("moby/buildkit", blob.digest.as_str(), bytes);
    }
    let target = &image.target;
    let (name, tag) = ("moby/buildkit", "buildx-stable-1");
    registry.put_manifest(name, tag, &target.media_type, target.digest.as_str(), image.bytes(&target.digest));
    format!("{}/{name}:{tag}", registry.host())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_of_buildx_is_the_jobs_buildkit_without_privileges() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let registry = registry_of(&job);
    let base = offer_image(&registry);
    let image = format!("image={base}");
    // As setup-buildx-action does.
    let create = ["buildx", "create", "--name", "b", "--driver", "docker-container", "--driver-opt", &image];
    job.must(&[&create[..], &["--driver-opt", "network=host", "--buildkitd-flags", FLAGS, "--use"]].concat());
    job.must(&["buildx", "inspect", "--bootstrap", "--builder", "b"]);
    let told = job.must(&["buildx", "inspect", "b"]);
    assert!(told.contains("running") && told.contains("v0.34.2") && told.contains("linux/amd64"), "{told}");
    let inspected: Value = serde_json::from_str(&job.must(&["inspect", "buildx_buildkit_b0"])).unwrap();
    assert_eq!(inspected[0]["HostConfig"]["Privileged"], false);
    assert_eq!(inspected[0]["State"]["Status"], "running");
    let log = job.must(&["logs", "buildx_buildkit_b0"]);
    let entitlement = "Not carried out: --allow-insecure-entitlement security.insecure";
    assert!(log.contains("without privileges") && log.contains(entitlement), "{log}");
    // As build-push-action does, with what is pushed to a registry at the job's loopback.
    let out = |name: &str| builder.cli.context("out", &[]).with_file_name(name).to_str().unwrap().to_owned();
    let (id, metadata) = (out("id"), out("metadata"));
    let flags = ["--iidfile", &id, "--attest", "type=provenance,mode=max", "--metadata-file", &metadata, "--load"];
    let build = |flags: &[&str], steps: &str| {
        // Not of an image that is here alone: this driver asks a registry first.
        let context = builder.context(&format!("FROM {base}\n{steps}"), &[]);
        job.docker(&[&["buildx", "build"], flags, &[context.to_str().unwrap()]].concat())
    };
    let built = build(&[&flags[..], &["-t", "loaded"]].concat(), "RUN echo built > /made\n");
    assert!(built.succeeded, "{}\n{}", built.text, builder.daemon.log());
    assert!(built.text.contains("docker-container driver"), "{}", built.text);
    assert_eq!(job.must(&["run", "--rm", "--network=none", "--entrypoint=cat", "loaded", "/made"]), "built\n");
    assert!(fs::read_to_string(&id).unwrap().starts_with("sha256:"));
    assert_eq!(buildkitd(&builder).len(), 1, "the job's, and none in the container");
    assert!(job.must(&["buildx", "du"]).contains("Total:"));
    assert!(job.must(&["buildx", "history", "ls"]).contains("Completed"));
    assert!(job.must(&["buildx", "prune", "-a", "-f"]).contains("Total:"));
    // What builds may ask for is what the policy says, whatever the builder was told.
    let asked = build(&["--allow", "security.insecure"], "");
    assert!(!asked.succeeded && asked.text.contains("rule privileged: true"), "{}", asked.text);
    job.must(&["buildx", "stop"]);
    assert!(job.must(&["buildx", "ls"]).contains("stopped"));
    let state = job.must(&["inspect", "--format={{.State.ExitCode}}", "buildx_buildkit_b0"]);
    assert_eq!(state.trim(), "0", "it ends when it is asked to");
    let again = build(&["--output", "type=cacheonly"], "RUN echo started-again\n");
    assert!(again.succeeded, "{}", again.text);
    job.must(&["buildx", "rm", "b"]);
    assert_eq!(job.must(&["ps", "-aq"]) + &job.must(&["volume", "ls", "-q"]), "");
}

/// What a policy does not allow is not had by a name, and what the job's BuildKit does not do is not left out in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_would_be_another_one_is_refused() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let registry = registry_of(&job);
    let image = format!("image={}", offer_image(&registry));
    let config = builder.cli.context("config", &[("buildkitd.toml", "debug = true\n")]).join("buildkitd.toml");
    job.must(&["network", "create", "own"]);
    for (n, (flags, told)) in [
        (["--driver-opt", "memory=1g"], "limits"),
        (["--driver-opt", "network=own"], "network=own"),
        (["--driver-opt", "env.HTTP_PROXY=http://geheim"], "env.HTTP_PROXY"),
        (["--buildkitd-flags", "--oci-worker-net=host"], "--oci-worker-net"),
        (["--config", config.to_str().unwrap()], "--config"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("b{n}");
        let create = ["buildx", "create", "--name", &name, "--driver", "docker-container", "--driver-opt", &image];
        job.must(&[&create[..], &flags].concat());
        let refused = job.docker(&["buildx", "inspect", "--bootstrap", &name]);
        let sentence = "without privileges a builder of buildx (driver: docker-container) is the daemon's own BuildKit";
        assert!(refused.text.contains(sentence) && refused.text.contains(told), "{told}: {}", refused.text);
        assert!(!refused.text.contains("geheim"), "{}", refused.text);
    }
    assert_eq!(job.must(&["ps", "-aq"]), "");
}

/// A policy that allows privileges gives what was asked for, as dockerd does.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_client_has_the_builder_that_it_asked_for() {
    let Some(builder) = Builder::start().await else { return };
    let registry = registry_beside(&builder);
    let image = format!("image={}", offer_image(&registry));
    for (name, flags) in [("plain", &[][..]), ("insecure", &["--buildkitd-flags", FLAGS])] {
        let create = ["buildx", "create", "--name", name, "--driver", "docker-container", "--driver-opt", &image];
        builder.must(&[&create[..], flags].concat());
        let boot = ["buildx", "inspect", "--bootstrap", name];
        let booting = builder.command(&boot).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let container = format!("buildx_buildkit_{name}0");
        until("it is made", async || builder.docker(&["inspect", &container]).succeeded).await;
        // Nothing is in the image for it to start.
        kill_client(booting);
        let shown = "--format={{.HostConfig.Privileged}} {{.Config.Entrypoint}} {{len .Mounts}}";
        assert_eq!(builder.must(&["inspect", shown, &container]).trim(), "true [buildkitd] 1", "{name}");
    }
}
