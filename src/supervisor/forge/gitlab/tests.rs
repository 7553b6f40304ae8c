//! What one look makes of GitLab's answers.

use std::sync::Arc;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::supervisor::{forge::tests::settings, settings::Kind};

type Answers = Arc<Mutex<Vec<(&'static str, u16, Value)>>>;

/// A server with these answers, by how a path begins; what it does not know is 404.
struct Server {
    forge: GitLab,
    answers: Answers,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Answers::default();
        tokio::spawn(serve(listener, answers.clone()));
        let gitlab = Gitlab { runner: Secret::new("glrt-x".to_owned()) };
        let settings = settings(Kind::Gitlab(gitlab.clone()), url);
        let server = Self { forge: GitLab::new(&settings, &gitlab, None).unwrap(), answers };
        server.answer("/api/v4/runners/verify", 200, json!({"id": 7}));
        server.answer("/api/v4/version", 200, json!({"version": "17.5.1-ee"}));
        server.runner(false);
        server
    }

    fn answer(&self, path: &'static str, status: u16, body: Value) {
        self.answers.lock().unwrap().insert(0, (path, status, body));
    }

    /// What is remembered of an earlier look is forgotten.
    fn runner(&self, is_paused: bool) {
        let project = |id: i64| json!({"id": id, "path_with_namespace": format!("acme/{id}")});
        let runner =
            json!({"id": 7, "paused": is_paused, "runner_type": "project_type", "projects": [project(1), project(2)]});
        self.answer("/api/v4/runners/7", 200, runner);
        *self.forge.known.lock().unwrap() = None;
    }
}

async fn serve(listener: TcpListener, answers: Answers) {
    while let Ok((mut client, _)) = listener.accept().await {
        let answers = answers.clone();
        tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                assert!(client.read_buf(&mut asked).await.unwrap() > 0);
            }
            let asked = String::from_utf8(asked).unwrap();
            let path = asked.split(' ').nth(1).unwrap_or_default();
            let known = answers.lock().unwrap().iter().find(|(begin, ..)| path.starts_with(begin)).cloned();
            let (_, status, body) = known.unwrap_or(("", 404, json!({"message": "404 Not Found"})));
            let body = body.to_string();
            let head =
                format!("HTTP/1.1 {status} As-Told\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            client.write_all((head + &body).as_bytes()).await.unwrap();
        });
    }
}

fn job(id: i64, status: &str, slot: Option<&str>) -> Value {
    let (runner, manager) = (slot.map(|_| json!({"id": 7})), slot.map(|slot| json!({"system_id": slot})));
    json!({"id": id, "status": status, "runner": runner, "runner_manager": manager})
}

#[tokio::test]
async fn a_runner_that_is_paused_is_an_error_and_what_runs_is_followed() {
    let server = Server::start().await;
    let jobs = json!([job(2, "pending", None), job(1, "running", Some("r_1"))]);
    server.answer("/api/v4/projects/1/jobs", 200, jobs);
    let slot = Registration { id: 0, name: "one".to_owned(), scope: "r_1".to_owned() };
    let seen = server.forge.look(std::slice::from_ref(&slot)).await.unwrap();
    assert_eq!((seen.queued.len(), seen.running.len()), (1, 1));
    server.runner(true);
    let seen = server.forge.look(&[slot]).await.unwrap();
    assert_eq!((seen.queued.len(), seen.running.len()), (0, 1), "none is given to it");
    assert!(server.forge.look(&[]).await.unwrap_err().chain().contains("is paused"));
    assert!(server.forge.greet().await.unwrap_err().chain().contains("is paused"));
}

#[tokio::test]
async fn one_project_may_be_unseen_and_not_all() {
    let server = Server::start().await;
    let error = server.forge.look(&[]).await.unwrap_err().chain();
    assert!(error.contains("needs the scope api"), "{error}");
    server.answer("/api/v4/projects/2/jobs", 200, json!([job(3, "pending", None)]));
    assert_eq!(server.forge.look(&[]).await.unwrap().queued.len(), 1);
    assert!(server.forge.greet().await.unwrap().contains("the jobs of 2 projects"));
}

#[tokio::test]
async fn a_last_job_that_is_too_long_to_be_read_does_not_block_its_slot() {
    let server = Server::start().await;
    server.answer("/api/v4/runners/7/jobs", 200, json!([{"id": 5, "commit": {"message": "x".repeat(LONGEST)}}]));
    let class = Class::default();
    let order = Order { name: "ringer-0a1b2c3d-gitlab-00000000", class: &class, steps: Steps::Here };
    let minted = server.forge.mint(&order).await.unwrap();
    assert_eq!(minted.registration.id, 0);
    assert!(server.forge.work_of(&minted.registration, None).await.unwrap().is_none());
}

#[tokio::test]
async fn another_configuration_of_a_forge_gives_no_slot_out_twice() {
    let server = Server::start().await;
    server.answer("/api/v4/runners/7/jobs", 200, json!([]));
    let class = Class::default();
    let order = Order { name: "ringer-0a1b2c3d-gitlab-00000000", class: &class, steps: Steps::Here };
    assert_eq!(server.forge.mint(&order).await.unwrap().registration.scope, "r_0a1b2c3d0000");
    let gitlab = Gitlab { runner: Secret::new("glrt-x".to_owned()) };
    let next = |earlier| GitLab::new(&server.forge.settings, &gitlab, earlier).unwrap();
    let minted = next(Some(&server.forge)).mint(&order).await.unwrap();
    assert_eq!(minted.registration.scope, "r_0a1b2c3d0001");
    let minted = next(None).mint(&order).await.unwrap();
    assert_eq!(minted.registration.scope, "r_0a1b2c3d0000", "another forge's are its own");
}
