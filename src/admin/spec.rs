//! `api-spec/admin.json` says what is served, and nothing else.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::{
    ContainerAnswer, EventAnswer, ExtendBody, ForgeAnswer, JobAnswer, JobBody, LaunchAnswer, PurgeAnswer, ReachAnswer,
    routes,
};
use crate::model::{
    job::{EndReason, JobLimits, JobReport},
    time::Timestamp,
};

fn document() -> Value {
    serde_json::from_str(include_str!("../../api-spec/admin.json")).expect("the document is JSON")
}

#[test]
fn every_call_stands_in_the_document_and_no_other() {
    let document = document();
    let mut told = BTreeSet::new();
    for (path, calls) in document["paths"].as_object().unwrap() {
        for (method, call) in calls.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            told.insert((method.to_uppercase(), path.clone(), call["operationId"].as_str().unwrap().to_owned()));
        }
    }
    let served: BTreeSet<_> = routes()
        .iter()
        .map(|route| (route.method.to_string(), route.path.to_owned(), route.operation.to_owned()))
        .collect();
    assert_eq!(told, served);
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

#[test]
fn every_field_stands_in_the_document_and_no_other() {
    let document = document();
    let body = JobBody {
        name: Some("a".to_owned()),
        uid: Some(1),
        owner_pid: Some(1),
        ttl: Some(1),
        memory: Some(1),
        nano_cpus: Some(1),
        pids: Some(1),
        disk: Some(1),
        policy: Some("ci".to_owned()),
        policy_toml: Some(String::new()),
        binds: vec!["/a".to_owned()],
        cache_key: Some("a".to_owned()),
        cache_volumes: vec!["aa".parse().unwrap()],
        network_from: Some("a".to_owned()),
    };
    let answer = JobAnswer {
        id: "job-1".to_owned(),
        name: "a".to_owned(),
        docker_host: "unix:///a".to_owned(),
        socket: "/a".to_owned(),
        created: Timestamp::zero(),
        expires: None,
        owner_pid: None,
        uid: 0,
        limits: JobLimits::default(),
        disk_quota: Vec::new(),
        policy: None,
        cache_key: None,
        cache_volumes: Vec::new(),
        network_from: None,
        ending: None,
        trouble: None,
    };
    let launch = LaunchAnswer {
        name: "gitea-1".to_owned(),
        forge: "gitea".to_owned(),
        labels: Vec::new(),
        repository: None,
        job: None,
        url: None,
        image: None,
        pulled: 0,
        shared: 0,
        cpu_ms: 0,
        memory: None,
        state: "ended".to_owned(),
        outcome: None,
        begun: Timestamp::zero(),
        started: None,
        assigned: None,
        ended: None,
    };
    let forge = ForgeAnswer {
        name: "gitea".to_owned(),
        url: "http://a".to_owned(),
        trouble: None,
        looked: None,
        concurrency: 4,
        live: 0,
        waiting: 0,
        left_alone: Vec::new(),
        runner_images: Vec::new(),
    };
    let container = ContainerAnswer {
        job: None,
        is_runner: false,
        id: String::new(),
        name: String::new(),
        image: String::new(),
        state: "running".to_owned(),
        exit_code: None,
        created: Timestamp::zero(),
    };
    let event = EventAnswer {
        time: Timestamp::zero(),
        job: None,
        is_runner: false,
        kind: "volume".to_owned(),
        action: String::new(),
        actor: String::new(),
        attributes: IndexMap::new(),
    };
    let shapes = [
        ("Container", serde_json::to_value(container).unwrap()),
        ("Event", serde_json::to_value(event).unwrap()),
        ("Launch", serde_json::to_value(launch).unwrap()),
        ("Purged", serde_json::to_value(PurgeAnswer { launches: 0, registrations: 0, webhooks: 0 }).unwrap()),
        ("Reached", serde_json::to_value(ReachAnswer { url: String::new(), trouble: None }).unwrap()),
        ("Forge", serde_json::to_value(forge).unwrap()),
        ("JobCreate", serde_json::to_value(body).unwrap()),
        ("JobExtend", serde_json::to_value(ExtendBody { ttl: 1, disown: false }).unwrap()),
        ("Job", serde_json::to_value(answer).unwrap()),
        ("JobReport", serde_json::to_value(JobReport::default()).unwrap()),
    ];
    for (name, shape) in shapes {
        assert_eq!(keys(&document["components"]["schemas"][name]["properties"]), keys(&shape), "{name}");
    }
    let reasons = [
        EndReason::Removed,
        EndReason::OwnerEnded,
        EndReason::Expired,
        EndReason::OverDisk,
        EndReason::NotMade,
        EndReason::Lost,
    ];
    assert_eq!(document["components"]["schemas"]["Job"]["properties"]["ending"]["enum"], json!(reasons));
}
