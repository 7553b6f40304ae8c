//! One job whose images, commands and users' files are as long as they may be, asked for all at once: the daemon stays within its memory,
//! and another job notices nothing.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use ringer::{
    backend::images::samples::{Packing, image},
    model::{image::ImageConfig, limits},
};
use serde_json::{Value, json};

use super::floods::others_go_on;
use crate::{
    bombs::{fort::Fort, naive},
    jobs::Job,
    support::{boxes, daemon::http::Client, images::docker_archive},
};

/// Images with a long label: all together far beyond what the daemon may have.
const IMAGES: usize = 24;

/// Requests at once; what they would hold together is far beyond that, too.
const AT_ONCE: usize = 64;

/// Of a label: with what else stands there the configuration is as long as one may be.
const LONG: usize = limits::DOCUMENT - (64 << 10);

async fn load(client: &Client, name: &str, label: String) {
    let config = ImageConfig { labels: Some([("long".to_owned(), label)].into()), ..ImageConfig::default() };
    let layers = [(Bytes::from(boxes::rootfs()), Packing::Gzip)];
    let archive = docker_archive(&image("linux/amd64", config, &layers), name);
    let request = Request::post("/images/load").header("content-type", "application/x-tar");
    let answer = client.whole(request.body(Full::from(archive)).unwrap()).await;
    assert!(answer.text().contains("Loaded image"), "{}", answer.text());
}

/// The answer's status; of its body nothing is read.
async fn status(client: &Client, path: &str) -> u16 {
    client.open(Request::get(path).body(Full::default()).unwrap()).await.status().as_u16()
}

/// A tar with one file.
fn file(path: &str, content: &[u8]) -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content).unwrap();
    tar.into_inner().unwrap().into()
}

/// A daemon under its limit with a job that holds what it can, and another one.
struct Field {
    fort: Fort,
    hoard: Job,
    other: Job,
    log: usize,
}

impl Field {
    async fn new() -> Self {
        let fort = Fort::build().await;
        let (hoard, other) = (Job::with_box(fort.daemon(), &[]).await, Job::with_box(fort.daemon(), &[]).await);
        let log = fort.log_length();
        Self { fort, hoard, other, log }
    }

    async fn others_go_on(&self, what: &str) {
        others_go_on(&self.fort, &self.other, what, self.log).await;
    }

    fn end(self) {
        for job in [&self.hoard, &self.other] {
            job.remove(self.fort.daemon());
        }
    }
}

#[tokio::test]
async fn documents_of_images_that_are_asked_for_at_once_have_an_end() {
    let field = Field::new().await;
    let client = &field.hoard.client;
    assert!(naive::dies_of_holding(&vec![b'x'; LONG], IMAGES), "long documents of images are no flood");
    for number in 0..IMAGES {
        load(client, &format!("long{number}:1"), format!("{number}{}", "x".repeat(LONG))).await;
    }
    let paths: Vec<_> = (0..IMAGES).map(|number| format!("/images/long{number}:1/json")).collect();
    let inspected = join_all(paths.iter().map(|path| status(client, path))).await;
    assert!(inspected.contains(&200) && inspected.iter().all(|status| [200, 503].contains(status)), "{inspected:?}");
    field.others_go_on("long documents of images").await;
    let listed = client.get("/images/json").await;
    assert!(listed.message().contains("the labels of the images are larger than 16 MiB"), "{}", listed.text());
    field.others_go_on("a list of them").await;
    field.end();
}

#[tokio::test]
async fn long_commands_and_files_of_users_that_are_asked_for_at_once_have_an_end() {
    let field = Field::new().await;
    let client = &field.hoard.client;

    let mut body = json!({"Image": boxes::IMAGE, "Cmd": ["sh", "-c", "sleep 1000; true"]});
    let long = "x".repeat(120 << 10);
    body["Cmd"].as_array_mut().unwrap().extend((0..8).map(|_| json!(long)));
    let row = long.repeat(3 * 8);
    assert!(naive::dies_of_holding(row.as_bytes(), AT_ONCE), "tables of long commands are no flood");
    let id = client.post("/containers/create", body).await.json()["Id"].as_str().unwrap().to_owned();
    client.launch(&id).await;
    let table = format!("/containers/{id}/top?ps_args=-o+pid,args,args,args+-e");
    let tops: Vec<_> = join_all((0..AT_ONCE).map(|_| status(client, &table))).await;
    assert!(tops.contains(&200) && tops.iter().all(|status| [200, 503].contains(status)), "{tops:?}");
    field.others_go_on("tables of long commands").await;

    let lines = format!("u:x:7:{}\n", "b,".repeat(limits::SMALL_FILE as usize / 2));
    assert!(naive::dies_of_holding(lines.as_bytes(), 2 * AT_ONCE), "long files of users are no flood");
    for name in ["passwd", "group"] {
        let request = Request::put(format!("/containers/{id}/archive?path=/etc"));
        let request =
            request.header("content-type", "application/x-tar").body(Full::from(file(name, lines.as_bytes())));
        assert_eq!(client.whole(request.unwrap()).await.status, 200);
    }
    let users = join_all((0..AT_ONCE).map(async |_| {
        let exec = json!({"Cmd": ["true"], "User": "nobody-there"});
        client.post(&format!("/containers/{id}/exec"), exec).await.message()
    }));
    for message in users.await {
        assert!(message.contains("unable to find user nobody-there"), "{message}");
    }
    field.others_go_on("long files of users").await;
    field.end();
}

#[tokio::test]
async fn names_of_images_have_an_end() {
    let fort = Fort::build().await;
    let job = Job::with_box(fort.daemon(), &[]).await;
    let tag = async |client: &Client, number: usize| {
        client.post(&format!("/images/{}/tag?repo={}{number}", boxes::IMAGE, "n".repeat(100)), Value::Null).await
    };
    let log = fort.log_length();
    let mut refused = None;
    for number in 0..=limits::JOB_IMAGES {
        let answer = tag(&job.client, number).await;
        if answer.status != 201 {
            refused = Some((number, answer.message()));
            break;
        }
    }
    let (number, message) = refused.expect("there is an end");
    assert_eq!(number, limits::JOB_IMAGES - 1, "{message}");
    assert!(message.contains("there is no room for more"), "{message}");
    let lists = join_all((0..AT_ONCE).map(async |_| {
        tokio::time::timeout(Duration::from_secs(60), status(&job.client, "/images/json")).await.expect("a list comes")
    }));
    assert!(lists.await.iter().all(|status| [200, 503].contains(status)));
    fort.stands("lists of names of images", log).await;
    // What goes makes room.
    assert_eq!(job.client.delete(&format!("/images/{}0", "n".repeat(100))).await.status, 200);
    assert_eq!(tag(&job.client, number).await.status, 201);
    job.remove(fort.daemon());
}
