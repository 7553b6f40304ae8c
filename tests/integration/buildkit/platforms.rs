//! Images for several platforms, of which none is emulated.

use std::{fs, path::Path};

use ringer::{
    backend::images::samples::{self, Packing},
    model::image::ImageConfig,
};
use serde_json::Value;

use super::{
    Builder,
    container_driver::offer_image,
    deaths::buildkitd,
    jobs::OfJob,
    until,
    walls::{registry_beside, registry_of},
};
use crate::support::images::{DebianRegistry, publish};

/// As publishing workflows do: with the job's own builder, and with one that buildx makes itself.
#[tokio::test(flavor = "multi_thread")]
async fn two_platforms_are_pushed_as_one_index() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let images = registry_of(&job);
    let base = offer_image(&images);
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM {base} AS make\nARG TARGETARCH\nRUN echo for $TARGETARCH > /made\n\
         FROM scratch\nCOPY --from=make /made /made\n"
    );
    let image = format!("image={base}");
    let create = ["buildx", "create", "--name", "b", "--driver", "docker-container", "--driver-opt", &image];
    job.must(&[&create[..], &["--driver-opt", "network=host", "--bootstrap"]].concat());
    job.must(&["buildx", "ls"]);
    let folder = builder.daemon.folder().join("registry");
    fs::create_dir(&folder).unwrap();
    job.must_build(&["-q"], &dockerfile);
    let _registry = DebianRegistry::start(&folder, u32::try_from(buildkitd(&builder)[0]).unwrap());
    for (driver, name) in [("default", "127.0.0.1:5000/built/own:1"), ("b", "127.0.0.1:5000/built/container:1")] {
        let platforms = "--platform=linux/amd64,linux/arm64";
        let flags = ["--builder", driver, platforms, "--provenance=false", "--push", "-t", name];
        let context = builder.context(&dockerfile, &[]);
        let arguments = [&["buildx", "build"], &flags[..], &[context.to_str().unwrap()]].concat();
        let mut said = String::new();
        until(&format!("{driver} has pushed"), async || {
            let build = job.docker(&arguments);
            said.push_str(&build.text);
            build.succeeded
        })
        .await;
        let told: Value = job.job.client.get(&format!("/distribution/{name}/json")).await.json();
        let mut found: Vec<_> = told["Platforms"].as_array().unwrap_or_else(|| panic!("{told}\n{said}")).clone();
        found.sort_by_key(|platform| platform["architecture"].to_string());
        let found: Vec<_> = found.iter().map(|platform| platform["architecture"].as_str().unwrap()).collect();
        assert_eq!(found, ["amd64", "arm64"], "{told}");
        job.docker(&["rmi", name]);
        job.must(&["pull", "-q", name]);
        let own = job.must(&["image", "inspect", "--format={{.Architecture}}", name]);
        assert_eq!(own.trim(), "amd64", "the machine's");
    }
}

/// With what BuildKit says of each of them, it is one image by one digest, wherever it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_two_platforms_is_kept_whole() {
    let Some(builder) = Builder::start().await else { return };
    let registry = registry_beside(&builder);
    let name = format!("{}/two:1", registry.host());
    let dockerfile = "FROM --platform=$BUILDPLATFORM box AS make\nARG TARGETARCH\nRUN echo for $TARGETARCH > /made\n\
                      FROM scratch\nCOPY --from=make / /\nCMD [\"cat\", \"/made\"]\n";
    let flags = ["--platform=linux/amd64,linux/arm64", "--provenance=mode=max", "-t", &name];
    let build = builder.build(&flags, dockerfile, &[]);
    assert!(build.succeeded, "{}", build.text);
    let told = async || -> Value { builder.daemon.get(&format!("/images/{name}/json?manifests=1")).await.json() };
    let built = told().await;
    let is_whole = async |whence: &str| {
        let told = told().await;
        assert_eq!(told["Id"], built["Id"], "{whence}: {told}");
        let manifests = told["Manifests"].as_array().unwrap();
        let of = |kind: &str| manifests.iter().filter(|manifest| manifest["Kind"] == kind).cloned().collect::<Vec<_>>();
        let (images, attestations) = (of("image"), of("attestation"));
        let platforms: Vec<_> = images.iter().map(|image| &image["ImageData"]["Platform"]["architecture"]).collect();
        assert_eq!(platforms, ["amd64", "arm64"], "{whence}: {told}");
        let said_of: Vec<_> = attestations.iter().map(|said| &said["AttestationData"]["For"]).collect();
        assert_eq!(said_of, [&images[0]["ID"], &images[1]["ID"]], "{whence}: {told}");
        assert!(manifests.iter().all(|manifest| manifest["Available"] == true), "{whence}: {told}");
        assert_eq!(builder.must(&["run", "--rm", "--network=none", "--pull=never", &name]), "for amd64\n", "{whence}");
        assert_eq!(builder.must(&["images", "-q", "--no-trunc", &name]).trim(), told["Id"], "{whence}");
    };
    is_whole("built").await;
    let archive = builder.cli.context("saved", &[]).with_extension("tar");
    let archive = archive.to_str().unwrap();
    builder.must(&["save", "-o", archive, &name]);
    builder.must(&["rmi", &name]);
    builder.must(&["load", "-i", archive]);
    is_whole("loaded").await;
    assert!(builder.must(&["push", &name]).contains(built["Id"].as_str().unwrap()), "by the same digest");
}

/// What is told is BuildKit's own error, which has the kernel's words.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_for_another_processor_fails_where_nothing_emulates_it() {
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        return eprintln!("absent: a processor that nothing emulates here");
    }
    let Some(builder) = Builder::start().await else { return };
    // The head of a program for arm64: the kernel reads no more of it.
    let mut shell = [0; 64];
    shell[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
    let layer = (samples::tar(&[("bin/sh", &shell)]), Packing::Gzip);
    let registry = registry_beside(&builder);
    publish(&registry, "arm", &samples::image("linux/arm64", ImageConfig::default(), &[layer]));
    let dockerfile = format!("FROM {}/arm\nRUN true\n", registry.host());
    let build = builder.build(&["--platform", "linux/arm64"], &dockerfile, &[]);
    assert!(!build.succeeded && build.text.contains("exec format error"), "{}", build.text);
}
