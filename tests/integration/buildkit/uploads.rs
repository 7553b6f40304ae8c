//! Contexts that lie in no folder of their client: read from its standard input, sent with the request that builds or beside it, or at a URL.

use std::{fs, process::Command, time::Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{Builder, jobs::OfJob, walls::registry_of};
use crate::support::builder::said;

const DOCKERFILE: &str = "FROM box\nCOPY file /file\nRUN echo built >> /file\n";

/// What an answer says last.
const DEADLINE: (u16, &str) = (500, "context deadline exceeded");

/// A tar with a Dockerfile and a file.
fn tar(builder: &Builder, content: &str) -> std::path::PathBuf {
    let folder = builder.context(DOCKERFILE, &[("file", content)]);
    let tar = folder.with_extension("tar");
    let made = Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&tar).arg(".").status();
    assert!(made.expect("tar is there").success());
    tar
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_build_what_they_read_from_their_standard_input() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let dockerfile = builder.cli.context("alone", &[("Dockerfile", "FROM box\nRUN echo alone > /file\n")]);
    let (tar, alone) = (tar(&builder, "in a tar\n"), dockerfile.join("Dockerfile"));
    let (here, job) = (builder.daemon.host(), job.host());
    let old = |host: &str| builder.old_command(host, &["build", "-t", "x", "-"]);
    let new = |host: &str| Some(builder.cli.docker(host, &["build", "-t", "x", "-"]));
    for (host, docker, stdin, made) in [
        (&here, old(&here), &alone, "alone\n"),
        (&here, new(&here), &tar, "in a tar\nbuilt\n"),
        (&job, old(&job), &tar, "in a tar\nbuilt\n"),
        (&job, new(&job), &alone, "alone\n"),
    ] {
        let Some(mut docker) = docker else { return };
        let built = said(docker.stdin(fs::File::open(stdin).unwrap()));
        assert!(built.succeeded, "{}\n{}", built.text, builder.daemon.log());
        let run = ["run", "--rm", "--network=none", "x", "cat", "/file"];
        assert_eq!(said(&mut builder.cli.docker(host, &run)).text, made);
    }
}

/// As docker-py and bollard do with `version=2`, and as the CLI 20.10 does by two requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_context_comes_with_its_build_or_beside_it() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let post = async |query: &str, body: &[u8]| {
        let request = Request::post(format!("/build?version=2&{query}")).header("content-type", "application/x-tar");
        job.job.client.whole(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await
    };
    let context = fs::read(tar(&builder, "sent\n")).unwrap();
    let built = post("t=within", &context).await;
    assert!(built.text().contains("moby.image.id"), "{}", built.text());
    let began = Instant::now();
    let (built, sent, other, lonely) = tokio::join!(
        post("t=beside&buildid=a&remote=upload-request", b""),
        post("buildid=upload-request:a", &context),
        post("buildid=nobodys&remote=upload-request", b""),
        post("buildid=upload-request:unwanted", &context),
    );
    assert!(built.text().contains("moby.image.id"), "{}", built.text());
    assert_eq!((sent.status, sent.text().as_str()), (200, ""));
    for answer in [other, lonely] {
        assert_eq!((answer.status, answer.message().as_str()), DEADLINE);
    }
    assert!(began.elapsed() < super::LIMIT);
    for image in ["within", "beside"] {
        assert_eq!(job.run(image, &["cat", "/file"]), "sent\nbuilt\n");
    }
    let empty = post("t=x", b"").await;
    assert!(empty.text().contains("the Dockerfile cannot be empty"), "{}", empty.text());
}

/// Whichever of the two clients goes, the other one is told.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_context_is_none_and_one_that_nobody_reads_any_more_ends() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    // So much is not written before its build reads it.
    let context = fs::read(tar(&builder, &"x".repeat(8 << 20))).unwrap();
    let half = async |name: &str| {
        let socket = job.host().trim_start_matches("unix://").to_owned();
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let head = format!(
            "POST /build?version=2&buildid=upload-request:{name} HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n",
            context.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&context[..context.len() / 2]).await.unwrap();
        stream
    };
    let build = |name: &str| {
        let path = format!("/build?version=2&t={name}&buildid={name}&remote=upload-request");
        let client = &job.job.client;
        async move { client.post(&path, Value::Null).await }
    };
    let (built, _) = tokio::join!(build("left"), async { drop(half("left").await) });
    assert!(built.text().contains("failed to load cache key: unexpected EOF"), "{}", built.text());
    let (built, told) = tokio::join!(build("cancelled"), async {
        let mut stream = half("cancelled").await;
        job.job.client.post("/build/cancel?id=cancelled", Value::Null).await;
        let mut told = [0; 12];
        stream.read_exact(&mut told).await.map(|_| String::from_utf8_lossy(&told).into_owned())
    });
    assert!(built.text().contains("context canceled"), "{}", built.text());
    assert_eq!(told.unwrap(), "HTTP/1.1 200");
    assert_eq!(job.must(&["images", "-q"]).lines().count(), 1, "only what was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_at_a_url_is_a_context() {
    let Some(builder) = Builder::start().await else { return };
    let job = OfJob::new(&builder, &[]).await;
    let files = registry_of(&job);
    files.put_page("/context.tar", "application/x-tar", &fs::read(tar(&builder, "fetched\n")).unwrap());
    let remote = format!("http://{}/context.tar", files.host());
    let built = job.job.client.post(&format!("/build?version=2&t=x&remote={remote}"), Value::Null).await;
    assert!(built.text().contains("moby.image.id"), "{}", built.text());
    assert_eq!(job.run("x", &["cat", "/file"]), "fetched\nbuilt\n");
    let none = job.job.client.post(&format!("/build?version=2&remote={remote}.nosuch"), Value::Null).await;
    assert!(none.text().contains("load cache key: invalid response status 404"), "{}", none.text());
}
