//! What a hostile client of a job's BuildKit tries.

use std::path::Path;

use bytes::Bytes;
use containerd_client::services::v1::InfoRequest;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use ringer::{
    backend::images::samples::{self, Packing},
    model::image::ImageConfig,
};
use serde_json::Value;

use super::{Builder, jobs::OfJob};
use crate::{
    jobs::remains::within,
    support::{images::registry_in, registry::Registry},
};

/// A digest is no secret: logs, manifests and cache keys tell it.
#[tokio::test(flavor = "multi_thread")]
async fn a_digest_opens_nothing_that_another_job_has_brought() {
    let Some(builder) = Builder::start().await else { return };
    let (victim, thief) = (OfJob::new(&builder, &[]).await, OfJob::new(&builder, &[]).await);
    let private = samples::image(
        "linux/amd64",
        ImageConfig::default(),
        &[(samples::busybox_tar().unwrap(), Packing::Gzip), (samples::tar(&[("private", b"geheim")]), Packing::Gzip)],
    );
    // The victim has it: pulled by its BuildKit, unpacked, and an image of its own.
    let good = registry_of(&victim);
    for (blob, bytes) in &private.blobs {
        good.put_blob("x", blob.digest.as_str(), bytes);
    }
    let kind = &private.target.media_type;
    good.put_manifest("x", "1", kind, private.target.digest.as_str(), private.bytes(&private.target.digest));
    victim.must_build(&["-t", "mine"], &format!("FROM {}/x:1\nRUN cat /private > /seen\n", good.host()));
    assert_eq!(victim.run("mine", &["cat", "/seen"]), "geheim");
    // The thief's registry says what it is made of, and has none of its layers.
    let evil = registry_of(&thief);
    evil.put_manifest("x", "1", kind, private.target.digest.as_str(), private.bytes(&private.target.digest));
    let config = private.manifest().config.digest;
    evil.put_blob("x", config.as_str(), private.bytes(&config));
    let names = [format!("{}/x:1", evil.host()), format!("{}/x@{}", evil.host(), private.target.digest)];
    for name in &names {
        for dockerfile in [format!("FROM {name}\nRUN cat /private\n"), format!("FROM {name}\nLABEL a=b\n")] {
            let stolen = thief.build(&["-t", "stolen"], &dockerfile);
            assert!(!stolen.succeeded && !stolen.text.contains("geheim"), "{}", stolen.text);
        }
    }
    assert!(!thief.docker(&["image", "inspect", "stolen"]).succeeded);
    // Nor does buildkitd's content store tell it.
    let mine = victim.must(&["image", "inspect", "--format={{.Id}}", "mine"]);
    let layers: Vec<String> = private.manifest().layers.iter().map(|layer| layer.digest.to_string()).collect();
    for digest in layers.iter().map(String::as_str).chain([mine.trim()]) {
        for method in ["Info", "Read"] {
            assert_eq!(content(&thief, method, digest).await, "5", "{method} {digest}");
        }
        for method in ["Write", "List", "Update", "Delete"] {
            assert_eq!(content(&thief, method, digest).await, "12", "{method}");
        }
    }
    assert_eq!(content(&victim, "Info", &layers[1]).await, "0", "its own are told");
    // With its bytes it is anybody's.
    for layer in &private.manifest().layers {
        evil.put_blob("x", layer.digest.as_str(), private.bytes(&layer.digest));
    }
    thief.must_build(&["-t", "honest"], &format!("FROM {}\nRUN cat /private > /seen\n", names[0]));
    assert_eq!(thief.run("honest", &["cat", "/seen"]), "geheim");
}

/// A configuration names tars that others have unpacked, over layers that hold something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_opens_no_layer_that_others_have_unpacked() {
    let Some(builder) = Builder::start().await else { return };
    let (victim, thief) = (OfJob::new(&builder, &[]).await, OfJob::new(&builder, &[]).await);
    let tars = |second: &'static [u8]| {
        [(samples::busybox_tar().unwrap(), Packing::Gzip), (samples::tar(&[("private", second)]), Packing::Gzip)]
    };
    let private = samples::image("linux/amd64", ImageConfig::default(), &tars(b"geheim"));
    let other = samples::image("linux/amd64", ImageConfig::default(), &tars(b"garbage"));
    let offer = |registry: &Registry, manifest: &ringer::model::image::documents::Manifest| {
        for (blob, bytes) in private.blobs.iter().chain(&other.blobs) {
            registry.put_blob("x", blob.digest.as_str(), bytes);
        }
        let bytes = serde_json::to_vec(manifest).unwrap();
        let digest = ringer::model::reference::Digest::of(&bytes);
        registry.put_manifest("x", "1", &manifest.media_type, digest.as_str(), &bytes);
    };
    let good = registry_of(&victim);
    offer(&good, &private.manifest());
    victim.must_build(&["-t", "mine"], &format!("FROM {}/x:1\n", good.host()));
    assert_eq!(victim.run("mine", &["cat", "/private"]), "geheim");
    let evil = registry_of(&thief);
    offer(&evil, &ringer::model::image::documents::Manifest { config: private.manifest().config, ..other.manifest() });
    let built = thief.build(&["-t", "stolen"], &format!("FROM {}/x:1\nLABEL a=b\n", evil.host()));
    if built.succeeded {
        let run = thief.docker(&["run", "--rm", "--network=none", "stolen", "cat", "/private"]);
        assert!(!run.succeeded && !run.text.contains("geheim"), "{}", run.text);
    }
}

/// What a policy is about is refused with its sentence, before anything is built.
#[tokio::test(flavor = "multi_thread")]
async fn entitlements_are_judged_by_the_jobs_policy() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    for (flags, rule) in [
        (&["--allow", "network.host", "--network=host"][..], "rule build-host-network: true"),
        (&["--allow", "security.insecure"], "rule privileged: true"),
        (&["--allow", "device"], "rule device-requests: cdi"),
    ] {
        let refused = job.build(flags, "FROM box\nRUN true\n");
        let sentence = format!("refused by the policy ci, {rule}");
        assert!(!refused.succeeded && refused.text.contains(&sentence), "{}", refused.text);
    }
    // A step that asks in its own way.
    for flag in ["--network=host", "--security=insecure"] {
        let refused = job.build(
            &[],
            &format!("# syntax=docker/dockerfile:1-labs\nFROM box\nRUN {flag} true\n")
                .replace("# syntax=docker/dockerfile:1-labs\n", ""),
        );
        assert!(!refused.succeeded, "{}", refused.text);
    }
    // A builder that buildx would make itself.
    let builder_of_buildx = job.docker(&["create", "--privileged", "--name=buildx_buildkit_b0", "box", "sh"]);
    let sentence = "refused by the policy ci, rule privileged: true; privileged = true would allow it; the default builder (driver: docker)";
    assert!(builder_of_buildx.text.contains(sentence), "{}", builder_of_buildx.text);
    let trusted = OfJob::new(&builder, &["--policy", "trusted"]).await;
    trusted.must_build(&["--allow", "network.host", "-t", "x"], "FROM box\nRUN --network=host ip -o addr > /host\n");
    let host = trusted.run("x", &["cat", "/host"]);
    assert!(host.contains("172.17.0.1/"), "its job's host, not the machine: {host}");
}

/// An address of the machine that is not loopback, and that where clouds tell a machine its secrets.
const OUTSIDE: [&str; 2] = ["10.98.7.1", "169.254.169.254"];

/// What BuildKit fetches in a job's name goes by the job's host; with the default socket all of it is there.
#[tokio::test(flavor = "multi_thread")]
async fn what_buildkit_fetches_for_a_job_meets_its_walls() {
    let Some(builder) = Builder::start().await else { return };
    for address in OUTSIDE {
        within(&builder.daemon, &["ip", "address", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    let server = registry_beside_at(&builder, "0.0.0.0:8000");
    server.put_page("/file", "text/plain", b"secret");
    let job = OfJob::new(&builder, &[]).await;
    let is_walled = |text: &str| {
        let words = ["refused", "unreachable", "timeout", "timed out", "no route to host", "couldn't connect"];
        words.iter().any(|words| text.to_lowercase().contains(words))
    };
    for address in OUTSIDE {
        let at = format!("{address}:8000");
        for (way, is_all) in [
            (format!("FROM scratch\nADD http://{at}/file /file\n"), true),
            (format!("FROM scratch\nADD http://{at}/x.git /x\n"), false),
            (format!("FROM {at}/x\n"), false),
        ] {
            // The server has no repository and no image, which it says.
            let reached = builder.build(&["--no-cache"], &way, &[]);
            assert!(reached.succeeded == is_all && !is_walled(&reached.text), "{way}: {}", reached.text);
            let walled = job.build(&["--no-cache"], &way);
            assert!(!walled.succeeded && is_walled(&walled.text), "{way}: {}", walled.text);
        }
    }
}

/// A registry on the loopback of a job's host.
pub fn registry_of(job: &OfJob<'_>) -> Registry {
    registry_at(job, "127.0.0.1:0")
}

/// The same at a place that is said.
pub fn registry_at(job: &OfJob<'_>, address: &str) -> Registry {
    registry_in(&job.namespace(), address)
}

/// The same on the loopback of the daemon itself.
pub fn registry_beside(builder: &Builder) -> Registry {
    registry_beside_at(builder, "127.0.0.1:0")
}

/// The same at a place that is said.
pub fn registry_beside_at(builder: &Builder, address: &str) -> Registry {
    registry_in(Path::new(&format!("/proc/{}/ns/net", builder.daemon.pid())), address)
}

/// The status of a call about a blob.
async fn content(of: &OfJob<'_>, method: &str, digest: &str) -> String {
    let (_, stream) = of.job.client.upgrade("/grpc", "h2c", Value::Null).await;
    let (mut calls, connection) = http2::handshake(TokioExecutor::new(), stream.into_inner()).await.unwrap();
    tokio::spawn(connection);
    let message = InfoRequest { digest: digest.to_owned() }.encode_to_vec();
    let frame = [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
    let request = Request::post(format!("http://localhost/containerd.services.content.v1.Content/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))
        .unwrap();
    let answer = calls.send_request(request).await.unwrap();
    let status =
        |headers: &http::HeaderMap| headers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
    let early = status(answer.headers());
    let body = answer.into_body().collect().await.unwrap();
    early.or_else(|| status(body.trailers()?)).unwrap_or_default()
}
