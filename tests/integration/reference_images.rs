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

/// The script for Windows is run by nobody here: what can be read of its contract is held against that of the other.
#[test]
fn the_script_for_windows_keeps_the_contract_of_the_other() {
    const SCRIPT: &str = include_str!("../../images/windows/restore.ps1");
    // Where the workspace is looked for, in the same order.
    let places = |text: &str, mark: &str| -> Vec<String> {
        let names = text
            .split(mark)
            .skip(1)
            .map(|rest| rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect());
        names.filter(|name: &String| name.contains('_')).collect()
    };
    let shell = RESTORE.lines().find(|line| line.starts_with("workspace=")).expect("a line");
    assert_eq!(places(SCRIPT, "$env:"), places(shell, "${"));
    assert_eq!(places(shell, "${").len(), 3);
    // What is said, but for the variables' names.
    let said = |text: &str| -> Vec<String> {
        let after = text.split("\"restore: ").skip(1).filter_map(|rest| rest.split('"').next());
        after.map(|words| words.to_lowercase()).filter(|words| words != "$_").collect()
    };
    assert_eq!(said(SCRIPT), said(RESTORE));
    // It never fails the job: each end is `exit 0`, the last line is one, and what may go wrong in the middle is caught.
    let code: Vec<&str> = SCRIPT.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    assert!(code.iter().all(|line| !line.contains("exit ") || *line == "exit 0") && code.last() == Some(&"exit 0"));
    assert!(code.iter().all(|line| !line.starts_with("throw")), "nothing is thrown");
    let copying = code.iter().position(|line| line.starts_with("Copy-Item")).expect("it copies");
    let before = &code[..copying];
    assert!(before.contains(&"try {") && code[copying..].contains(&"} catch {"));
    // It overwrites nothing: what is there is looked for before, and no copy is forced.
    assert!(before.contains(&"if (-not (Test-Path -LiteralPath $target)) {") && !code[copying].contains("-Force"));
    // Names are taken as they are, and what is opened is closed.
    assert!(
        code.iter()
            .filter(|line| line.contains("-Item ") && !line.contains("New-Item"))
            .all(|line| line.contains("-LiteralPath"))
    );
    for (open, close) in [('{', '}'), ('(', ')')] {
        let depth = code.concat().chars().try_fold(0usize, |depth, c| match c {
            c if c == open => Some(depth + 1),
            c if c == close => depth.checked_sub(1),
            _ => Some(depth),
        });
        assert_eq!(depth, Some(0), "{open}{close}");
    }
    // Script and cache lie beside each other, where the script looks.
    assert!(
        WINDOWS.contains("COPY restore.ps1 C:\\ci\\\n") && WINDOWS.contains("COPY workspace\\ C:\\ci\\workspace\\\n")
    );
    assert!(SCRIPT.contains("Join-Path $PSScriptRoot 'workspace'"));
}
