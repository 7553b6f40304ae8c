//! The reference images of `images/`: that for Windows is refused here.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ringer::{
    backend::images::samples::{Packing, image, tar},
    model::image::ImageConfig,
};
use serde_json::json;

use super::build::{build, context};
use crate::support::{daemon::Daemon, images::docker_archive};

const WINDOWS: &str = include_str!("../../images/windows/Dockerfile");

async fn load(daemon: &Daemon, archive: Vec<u8>) {
    let request = Request::post("/images/load").header("content-type", "application/x-tar");
    let answer = daemon.client().whole(request.body(Full::new(Bytes::from(archive))).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn an_image_of_windows_is_neither_built_upon_nor_run() {
    let daemon = Daemon::start().await;
    let windows = image("windows/amd64", ImageConfig::default(), &[(tar(&[("Files/a", b"a")]), Packing::Plain)]);
    load(&daemon, docker_archive(&windows, "servercore:latest")).await;
    let sentence =
        "image operating system \"windows\" cannot be used on this platform: operating system is not supported";
    let files = [("Dockerfile", 0o644, WINDOWS)];
    let context = context(&files);
    let error = build(&daemon, "buildargs=%7B%22BASE%22%3A%22servercore%22%7D", context).await.unwrap_err();
    assert!(error.contains(sentence), "{error}");
    let answer = daemon.client().post("/containers/create", json!({"Image": "servercore", "Cmd": ["cmd"]})).await;
    assert_eq!((answer.status, answer.message().as_str()), (400, sentence));
}
