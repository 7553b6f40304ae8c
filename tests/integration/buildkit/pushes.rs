//! What BuildKit pushes and fetches itself: by its job's policy, with its client's credentials, and from registries that refuse.

use std::{fs, path::Path, process::Command};

use ringer::{
    backend::images::samples::{self, Packing},
    model::image::ImageConfig,
};
use serde_json::Value;

use super::{
    Builder,
    jobs::OfJob,
    said_of_builders, until,
    walls::{registry_at, registry_beside_at, registry_of},
};
use crate::audit;
use crate::support::{
    images::{DebianRegistry, publish},
    place::ADDRESS,
    registry::{Guard, Registry},
};

/// Where the registry of a job is that its policy names.
const PLACE: &str = "127.0.0.1:5000";

/// An address of which nothing is said.
const OTHER: &str = "10.99.0.2";

/// What the stand-in says to who asks too often.
const TOO_MANY: (u16, &str) = (429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"too many requests"}]}"#);

/// Another result each time.
const DOCKERFILE: &str = "FROM box\nRUN cat /proc/sys/kernel/random/uuid > /made\n";

/// Requests that changed something.
fn written(registry: &Registry) -> usize {
    registry.count("POST ") + registry.count("PUT ")
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_judged_by_the_jobs_policy_before_anything_is_built() {
    let policies = tempfile::tempdir().unwrap();
    fs::write(policies.path().join("own.toml"), format!("base = \"ci\"\npush = [\"{PLACE}/allowed/*\"]\n")).unwrap();
    fs::write(policies.path().join("narrow.toml"), format!("base = \"ci\"\nregistries = [\"{PLACE}\"]\n")).unwrap();
    let flags = ["--policy-dir", policies.path().to_str().unwrap()];
    let Some(builder) = Builder::start_with(&flags).await else { return };
    let job = OfJob::new(&builder, &["--policy", "own"]).await;
    let registry = registry_at(&job, PLACE);
    let (good, bad) = (format!("{PLACE}/allowed/x:1"), format!("{PLACE}/other/x:1"));
    let cache = format!("type=registry,ref={bad}-cache");
    // Names are one value with a comma in it.
    let output = format!("type=image,\"name={good},{bad}\",push=true");
    for flags in [
        &["--push", "-t", &bad][..],
        &["--push", "-t", &good, "-t", &bad],
        &["-t", &good, "--cache-to", &cache],
        &["-o", &output],
    ] {
        let refused = job.build(flags, DOCKERFILE);
        let sentence = "refused by the policy own, rule push";
        assert!(!refused.succeeded && refused.text.contains(sentence), "{flags:?}: {}", refused.text);
    }
    assert_eq!(written(&registry), 0);
    job.must_build(&["--push", "-t", &good], DOCKERFILE);
    let refused = audit::line(&builder.daemon, "Solve", |line| line["object"] == bad).await;
    assert_eq!(
        (&refused["verdict"], &refused["rule"], &refused["status"]),
        (&"refused".into(), &"push".into(), &403.into())
    );
    let carried_out =
        audit::line(&builder.daemon, "Solve", |line| line["object"] == good && line["status"] == 200).await;
    assert!(carried_out["verdict"] == "allowed" && carried_out["peer"]["uid"] == 0, "{carried_out}");
    assert!(registry.page("/v2/allowed/x/manifests/1").is_some(), "{:?}", registry.log());
    // BuildKit fetches itself, and asks nobody from where: whose registries are narrow has none.
    let narrow = OfJob::new(&builder, &["--policy", "narrow"]).await;
    let refused = narrow.build(&["-t", &good], DOCKERFILE);
    assert!(!refused.succeeded && refused.text.contains("policy narrow, rule registries"), "{}", refused.text);
    assert_eq!(said_of_builders(&narrow.job.client).await.0, ["1", "1"]);
}

/// Debian's docker-registry looks at what it is given. By both ways it gets the same: what the policy lets through, packed.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_gets_what_the_policy_lets_through() {
    let policies = tempfile::tempdir().unwrap();
    fs::write(policies.path().join("own.toml"), format!("base = \"ci\"\npush = [\"{PLACE}/allowed/*\"]\n")).unwrap();
    let flags = ["--policy-dir", policies.path().to_str().unwrap()];
    let Some(builder) = Builder::start_with(&flags).await else { return };
    let job = OfJob::new(&builder, &["--policy", "own"]).await;
    let folder = builder.daemon.folder().join("registry");
    fs::create_dir(&folder).unwrap();
    let _registry = DebianRegistry::start_in(&folder, job.namespace());
    let stored = folder.join("registry/docker/registry/v2");
    let name = |repository: &str| format!("{PLACE}/{repository}:1");
    let [built, pushed, bad] = ["allowed/built", "allowed/pushed", "other/x"];
    until("BuildKit has pushed", async || job.build(&["--push", "-t", &name(built)], DOCKERFILE).succeeded).await;
    job.must_build(&["-t", &name(pushed), "-t", &name(bad)], DOCKERFILE);
    job.must(&["push", "-q", &name(pushed)]);
    for refused in [job.docker(&["push", &name(bad)]), job.build(&["--push", "-t", &name(bad)], DOCKERFILE)] {
        assert!(!refused.succeeded && refused.text.contains("policy own, rule push"), "{}", refused.text);
    }
    let repositories = fs::read_dir(stored.join("repositories")).unwrap();
    assert_eq!(repositories.map(|folder| folder.unwrap().file_name()).collect::<Vec<_>>(), ["allowed"]);
    let [built, pushed] = [built, pushed].map(|repository| {
        let tag = stored.join("repositories").join(repository).join("_manifests/tags/1/current/link");
        let digest = fs::read_to_string(tag).unwrap();
        // The whole of it, with what BuildKit says of how it was built.
        assert_eq!(job.must(&["image", "inspect", "--format={{.Id}}", &name(repository)]).trim(), digest);
        layers_of(&stored, &digest)
    });
    for (kind, begin) in [built, pushed].map(|layers| layers.last().unwrap().clone()) {
        assert!(kind.ends_with("tar+gzip") && begin == [0x1f, 0x8b], "{kind} {begin:?}");
    }
}

/// Media types of an image's layers, with their first bytes, as a registry has them in its folder.
fn layers_of(stored: &Path, digest: &str) -> Vec<(String, Vec<u8>)> {
    let blob = |digest: &str| {
        let hex = digest.trim_start_matches("sha256:");
        fs::read(stored.join("blobs/sha256").join(&hex[..2]).join(hex).join("data")).unwrap()
    };
    let document: Value = serde_json::from_slice(&blob(digest)).unwrap();
    // The image's own is the first of an index.
    if let Some(manifest) = document["manifests"][0]["digest"].as_str() {
        return layers_of(stored, manifest);
    }
    let layers = document["layers"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    layers.map(|layer| (text(&layer["mediaType"]), blob(&text(&layer["digest"]))[..2].to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_the_clients_and_refusals_are_told() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let registry = registry_of(&job);
    let name = format!("{}/built/x:1", registry.host());
    // user:geheim
    registry.guard(Guard::Basic("dXNlcjpnZWhlaW0=".to_owned()));
    let stranger = job.build(&["--push", "-t", &name], DOCKERFILE);
    assert!(!stranger.succeeded && stranger.text.contains("401"), "{}", stranger.text);
    let auths = format!(r#"{{"auths": {{"{}": {{"auth": "dXNlcjpnZWhlaW0="}}}}}}"#, registry.host());
    builder.cli.configure(&auths);
    job.must_build(&["--push", "-t", &name], DOCKERFILE);
    job.must_build(&["-t", "on", "--pull"], &format!("FROM {name}\nLABEL a=b\n"));
    builder.cli.configure("{}");
    job.must(&["builder", "prune", "-af"]);
    job.must(&["rmi", "on", &name]);
    let stranger = job.build(&[], &format!("FROM {name}\nRUN true\n"));
    assert!(!stranger.succeeded && stranger.text.contains("401"), "another client's are not kept: {}", stranger.text);
    // Asked too often.
    registry.guard(Guard::Open);
    registry.fail("/v2/built/y/blobs/uploads/", &[TOO_MANY; 100]);
    registry.fail("/v2/built/x/manifests/1", &[TOO_MANY; 100]);
    let pushed = job.build(&["--push", "-t", &name.replace("/x:", "/y:")], DOCKERFILE);
    assert!(!pushed.succeeded && pushed.text.contains("toomanyrequests"), "{}", pushed.text);
    let pulled = job.build(&[], &format!("FROM {name}\nRUN true\n"));
    assert!(!pulled.succeeded && pulled.text.contains(" 429 "), "{}", pulled.text);
    registry.fail("/v2/built/x/manifests/1", &[]);
    job.must_build(&[], &format!("FROM {name}\nRUN true\n"));
    assert_eq!(job.must(&["ps", "-aq"]), "");
    assert!(!builder.daemon.log().contains("geheim") && !builder.daemon.log().contains("dXNlcjpnZWhlaW0="));
}

/// What is not at the loopback speaks TLS, if nobody says that it does not.
#[tokio::test(flavor = "multi_thread")]
async fn mirrors_and_registries_without_tls_count_as_for_pulls() {
    let flags = ["--registry-mirror=http://127.0.0.1:5001", &format!("--insecure-registry={ADDRESS}:5000")];
    let Some(builder) = Builder::start_with(&flags).await else { return };
    let mirror = registry_beside_at(&builder, "127.0.0.1:5001");
    let layer = (samples::busybox_tar().unwrap(), Packing::Gzip);
    publish(&mirror, "library/mirrored", &samples::image("linux/amd64", ImageConfig::default(), &[layer]));
    let by_mirror = builder.build(&["-t", "here"], "FROM mirrored\nRUN true\n", &[]);
    assert!(by_mirror.succeeded && mirror.count("GET /v2/library/mirrored/blobs/") > 0, "{}", by_mirror.text);

    let namespace = format!("/proc/{}/ns/net", builder.daemon.pid());
    for address in [ADDRESS, OTHER] {
        let added = Command::new("nsenter")
            .args([&format!("--net={namespace}"), "ip", "addr", "add", address, "dev", "lo"])
            .status();
        assert!(added.unwrap().success(), "{address}");
    }
    let folder = builder.daemon.folder().join("registry");
    fs::create_dir(&folder).unwrap();
    let _registry = DebianRegistry::start_in(&folder, namespace.into());
    let push = || builder.build(&["--push", "-t", "127.0.0.1:5000/offered"], DOCKERFILE, &[]).succeeded;
    until("the registry has it", async || push()).await;
    let from = |address: &str| builder.build(&[], &format!("FROM {address}:5000/offered\nRUN true\n"), &[]);
    let (named, other) = (from(ADDRESS), from(OTHER));
    assert!(named.succeeded, "{}", named.text);
    assert!(!other.succeeded && other.text.contains("server gave HTTP response to HTTPS client"), "{}", other.text);
}
