//! The audit log: a line for each call that changes something, and no secret in any.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ringer::model::limits::{AUDIT_FILE, AUDIT_FILES};
use serde_json::{Value, json};

use crate::{
    callers::client::Caller,
    jobs::Job,
    support::daemon::{Daemon, http::Client},
};

/// For a thread of the daemon to write what was done.
const LIMIT: Duration = Duration::from_secs(60);

/// What stands in whatever a client sends and is nobody's business.
const SECRET: &str = "hunter2-planted";

fn lines(daemon: &Daemon) -> Vec<Value> {
    let text = fs::read_to_string(daemon.folder().join("data/audit.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// The first line of an operation that `fits`.
pub async fn line(daemon: &Daemon, operation: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let lines = lines(daemon);
        if let Some(line) = lines.iter().find(|line| line["operation"] == operation && fits(line)) {
            return line.clone();
        }
        assert!(Instant::now() < deadline, "no line of {operation} in {lines:#?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Plants secrets wherever a client sends some.
async fn plant(client: &Client) {
    use base64::{Engine, engine::general_purpose::URL_SAFE};
    let auth = URL_SAFE.encode(format!(r#"{{"username":"me","password":"{SECRET}","serveraddress":"127.0.0.1:1"}}"#));
    let args = format!("&buildargs=%7B%22TOKEN%22%3A%22{SECRET}%22%7D");
    let paths = [
        "/images/create?fromImage=127.0.0.1%3A1%2Fme%2Fbox&tag=some".to_owned(),
        format!("/images/create?fromImage=me%3A{SECRET}%40127.0.0.1%3A1%2Fbox"),
        "/images/127.0.0.1:1/box/push".to_owned(),
        format!("/build?remote=http%3A%2F%2Fme%3A{SECRET}%40127.0.0.1%3A1%2Fx{args}"),
        format!("/build?remote=http%3A%2F%2Fme%3A{SECRET}%40127.0.0.1%3A1%2Fx.git{args}"),
    ];
    for path in paths {
        let request = Request::post(&path).header("X-Registry-Auth", &auth).header("X-Registry-Config", &auth);
        client.whole(request.body(Full::new(Bytes::new())).unwrap()).await;
    }
    client.post("/auth", json!({"username": "me", "password": SECRET, "serveraddress": "127.0.0.1:1"})).await;
    client.post("/containers/web/exec", json!({"Cmd": ["echo", SECRET], "Env": [format!("TOKEN={SECRET}")]})).await;
}

#[tokio::test]
async fn changes_are_written_down_without_secrets() {
    let daemon = Daemon::start().await;
    let job = Job::with_box(&daemon, &["--name", "build-17"]).await;
    let environment = json!({"Env": [format!("TOKEN={SECRET}")], "Labels": {"token": SECRET}});
    let id = job.client.create("web", "sleep 1000", environment).await;
    job.client.launch(&id).await;
    let refused = json!({"Image": "box", "Cmd": ["true"], "HostConfig": {"Privileged": true}, "Env": [SECRET]});
    assert_eq!(job.client.post("/containers/create", refused).await.status, 403);
    plant(&job.client).await;
    assert_eq!(job.client.get("/containers/json").await.status, 200);
    job.client.remove("web").await;
    job.remove(&daemon);

    daemon.import_box().await;
    let caller = Caller::start(&daemon, "caller", &[], json!({})).await;
    assert_eq!(caller.ask("POST", "/volumes/create", json!({"Name": "from-inside"})).await.status, 201);
    let made = line(&daemon, "VolumeCreate", |line| line["object"] == "from-inside").await;
    assert_eq!(made["peer"]["container"], caller.id, "who asks from a container is known by it");

    let of_job = |line: &Value| line["job"] == job.id();
    let made = line(&daemon, "JobCreate", |_| true).await;
    assert_eq!((&made["job"], &made["object"], &made["status"]), (&Value::Null, &json!(job.id()), &json!(201)));
    let made = line(&daemon, "ContainerCreate", |line| of_job(line) && line["verdict"] == "allowed").await;
    assert_eq!((&made["object"], &made["status"], &made["rule"]), (&json!("web"), &json!(201), &Value::Null));
    assert_eq!((&made["peer"]["pid"], &made["peer"]["uid"]), (&json!(std::process::id()), &json!(0)));
    assert!(made["ms"].is_u64() && made["time"].is_string() && made["peer"]["container"].is_null(), "{made}");
    let refused = line(&daemon, "ContainerCreate", |line| line["verdict"] == "refused").await;
    assert_eq!((&refused["status"], &refused["rule"]), (&json!(403), &json!("privileged")));
    line(&daemon, "ContainerStart", |line| line["object"] == *id && line["status"] == 204).await;
    line(&daemon, "ContainerDelete", of_job).await;
    line(&daemon, "JobDelete", |line| line["object"] == job.id()).await;
    let all = lines(&daemon);
    assert!(all.iter().all(|line| line["operation"] != "ContainerList"), "reading changes nothing");
    let text = fs::read_to_string(daemon.folder().join("data/audit.log")).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    assert!(!daemon.log().contains(SECRET), "{}", daemon.log());
    assert!(text.contains("127.0.0.1:1/me/box") && all.iter().any(|line| line["operation"] == "ImageBuild"), "{text}");
}

#[tokio::test]
async fn a_log_that_is_full_is_rotated_and_the_oldest_goes() {
    let folder = Daemon::folder_of_its_own();
    let path = folder.path().join("data/audit.log");
    let older = |number: u64| PathBuf::from(format!("{}.{number}", path.display()));
    fs::create_dir(folder.path().join("data")).unwrap();
    let earlier = "{\"operation\":\"Earlier\"}\n";
    let full = usize::try_from(AUDIT_FILE).unwrap();
    fs::write(&path, [&" ".repeat(full - earlier.len()), earlier].concat()).unwrap();
    for number in 1..AUDIT_FILES {
        fs::write(older(number), number.to_string()).unwrap();
    }
    let daemon = Daemon::start_in(folder, &[]).await;
    assert_eq!(daemon.client().post("/volumes/create", json!({"Name": "told"})).await.status, 201);
    line(&daemon, "VolumeCreate", |line| line["object"] == "told").await;
    assert_eq!(lines(&daemon).len(), 1);
    assert_eq!(fs::metadata(older(1)).unwrap().len(), AUDIT_FILE);
    for number in 2..AUDIT_FILES {
        assert_eq!(fs::read_to_string(older(number)).unwrap(), (number - 1).to_string());
    }
    assert!(!older(AUDIT_FILES).exists());
}
