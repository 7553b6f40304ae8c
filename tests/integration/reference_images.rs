//! The reference images of `images/`: that for Linux built and used, that for Windows refused.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ringer::{
    backend::images::samples::{Packing, image, tar},
    model::image::ImageConfig,
};
use serde_json::json;

use super::build::{build, built};
use crate::support::{daemon::Daemon, images::docker_archive, part};

const RESTORE: &str = include_str!("../../images/restore");
const WINDOWS: &str = include_str!("../../images/windows/Dockerfile");

async fn load(daemon: &Daemon, archive: Vec<u8>) {
    let request = Request::post("/images/load").header("content-type", "application/x-tar");
    let answer = daemon.client().whole(request.body(Full::new(Bytes::from(archive))).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn the_linux_image_restores_what_it_holds_and_never_fails_a_job() {
    if part("RINGER_TEST_ACTIONS_RUNNER").is_none() {
        return;
    }
    let daemon = Daemon::start().await;
    let images = PathBuf::from(std::env::var_os("RINGER_TEST_IMAGES").expect("make test sets it"));
    load(&daemon, fs::read(images.join("actions-runner.tar")).unwrap()).await;
    let arguments = "t=ci&buildargs=%7B%22BASE%22%3A%22ringer%2Factions-runner%22%2C%22PACKAGES%22%3A%22%22%7D";
    let files = [
        ("Dockerfile", 0o644, include_str!("../../images/linux/Dockerfile")),
        ("restore", 0o644, RESTORE),
        ("toolchain/bin/tool", 0o755, "#!/bin/sh\ncat vendor/lib\n"),
        ("workspace/vendor/lib", 0o600, "vendored\n"),
        ("workspace/kept", 0o644, "the image's\n"),
    ];
    built(&daemon, arguments, &files).await;
    let run = async |name: &str, script: &str, host: serde_json::Value| {
        let extra = json!({"Image": "ci", "HostConfig": host});
        let (code, output) = daemon.run(name, &format!("set -e\n{script}"), extra).await;
        assert_eq!(code, 0, "{output}");
        output
    };
    let twice = "id -un; mkdir /tmp/w; cd /tmp/w; echo mine > kept; /opt/ci/restore; echo changed >> vendor/lib\n\
                 /opt/ci/restore; cat kept; tool; ls";
    assert_eq!(run("twice", twice, json!({})).await, "runner\nmine\nvendored\nchanged\nkept\nvendor\n");
    let named = "mkdir -p /tmp/a /tmp/b; GITHUB_WORKSPACE=/tmp/a /opt/ci/restore; /opt/ci/restore /tmp/b; cat /tmp/a/kept /tmp/b/kept";
    assert_eq!(run("named", named, json!({})).await, "the image's\nthe image's\n");
    let missing = "cp /opt/ci/restore /tmp; /tmp/restore /tmp 2>&1; /opt/ci/restore /none 2>&1";
    let said = run("missing", missing, json!({})).await;
    assert_eq!(said, "restore: there is no /tmp/workspace\nrestore: /none cannot be written\n");
    let read_only = run("read-only", "/opt/ci/restore /w 2>&1; ls /w", json!({"Binds": ["ws:/w:ro"]})).await;
    assert_eq!(read_only, "restore: /w cannot be written\n");
}

#[tokio::test]
async fn an_image_of_windows_is_neither_built_upon_nor_run() {
    let daemon = Daemon::start().await;
    let windows = image("windows/amd64", ImageConfig::default(), &[(tar(&[("Files/a", b"a")]), Packing::Plain)]);
    load(&daemon, docker_archive(&windows, "servercore:latest")).await;
    let sentence =
        "image operating system \"windows\" cannot be used on this platform: operating system is not supported";
    let files = [("Dockerfile", 0o644, WINDOWS)];
    let context = super::build::context(&files);
    let error = build(&daemon, "buildargs=%7B%22BASE%22%3A%22servercore%22%7D", context).await.unwrap_err();
    assert!(error.contains(sentence), "{error}");
    let answer = daemon.client().post("/containers/create", json!({"Image": "servercore", "Cmd": ["cmd"]})).await;
    assert_eq!((answer.status, answer.message().as_str()), (400, sentence));
}
