//! What an operator sees of all jobs, and of one.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use super::Job;
use crate::support::daemon::{Daemon, http::Client};

#[tokio::test]
async fn containers_and_events_of_all_jobs_are_shown_with_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("http.sock");
    let daemon = Daemon::start_with(&["--http-host", &format!("unix://{}", pages.display())]).await;
    daemon.import_box().await;
    let (first, second) =
        (Job::with_box(&daemon, &["--name", "first"]).await, Job::with_box(&daemon, &["--name", "second"]).await);
    let mut listening =
        daemon.ringer(&["events", "--all-jobs", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(listening.stdout.take().unwrap()).lines();
    // Published until the listener is there.
    let mut number = 0;
    let mut heard = move || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let (told, is_heard) = std::sync::mpsc::channel();
    let hearing = std::thread::spawn(move || {
        let first = heard();
        told.send(first).unwrap();
        std::iter::repeat_with(heard).find(|event| event["action"] == "start").unwrap()
    });
    let volume = loop {
        number += 1;
        first.client.post("/volumes/create", json!({"Name": format!("volume{number}")})).await;
        if let Ok(event) = is_heard.recv_timeout(std::time::Duration::from_millis(100)) {
            break event;
        }
        assert!(number < 300, "{}", daemon.log());
    };
    assert_eq!(
        (&volume["job"], &volume["kind"], &volume["action"]),
        (&json!("first"), &json!("volume"), &json!("create"))
    );

    second.client.create("web", "sleep 1000", json!({})).await;
    second.client.launch("web").await;
    let started = hearing.join().unwrap();
    assert_eq!((&started["job"], &started["attributes"]["name"]), (&json!("second"), &json!("web")));
    listening.kill().unwrap();
    listening.wait().unwrap();

    first.client.create("web", "true", json!({})).await;
    daemon.create("web", "true", json!({})).await;
    let shown = |flags: &[&str]| {
        let output = daemon.ringer(&[&["ps", "--json"], flags].concat()).output().unwrap();
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        listed.as_array().unwrap().iter().map(|one| one["job"].as_str().unwrap_or("-").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&["--all-jobs"]), ["second"]);
    assert_eq!(shown(&["--all-jobs", "--all"]), ["second", "first", "-"]);
    assert_eq!(
        (shown(&["--all"]), shown(&["--all", "--job", "first"])),
        (vec!["-".to_owned()], vec!["first".to_owned()])
    );
    let output = daemon.ringer(&["ps", "--all-jobs", "-a"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().nth(1).unwrap().starts_with("second "), "{table}");

    let pages = Client::new(pages);
    assert_eq!(pages.get("/healthz").await.text(), "ok\n");
    for numbers in [pages.clone(), Client::new(daemon.folder().join("run/admin.sock"))] {
        let numbers = numbers.get("/metrics").await.text();
        let says = |line: &str| assert!(numbers.lines().any(|one| one == line), "no {line} in {numbers}");
        says("ringer_calls_total{api=\"job\",operation=\"ContainerCreate\",code=\"201\"} 2");
        for (job, kind, count) in [("first", "container", 1), ("first", "volume", number), ("second", "volume", 0)] {
            says(&format!("ringer_job_objects{{job=\"{job}\",kind=\"{kind}\"}} {count}"));
        }
    }
    assert!(pages.get("/").await.text().contains("<html"));
    assert_eq!((pages.get("/jobs").await.status, pages.post("/webhook/x", json!({})).await.status), (404, 404));
    first.remove(&daemon);
    second.remove(&daemon);
}
