//! JSON in bodies, queries and headers that takes a hundred times its length.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::{
    bombs::{fort::Fort, naive},
    support::daemon::http::Answer,
};

/// Clients that send the same at once.
pub const AT_ONCE: usize = 8;

/// Bodies of which a server dies that makes values of what it is sent; others would hurt one that knows Docker's.
const DEADLY: [&str; 5] = ["objects", "fewer objects", "unknown objects", "large", "a variable each"];

/// About so many bytes of a list.
fn list(element: &str, bytes: usize) -> String {
    format!("[{}]", vec![element; bytes / (element.len() + 1)].join(","))
}

/// A mount whose options are a list of objects.
fn options(field: &str) -> String {
    let closed = if field.contains('{') { "}" } else { "" };
    format!(r#"{{"Image":"x","HostConfig":{{"Mounts":[{{"{field}":{}}}{closed}]}}}}"#, list(r#"{"a":0}"#, 1_900_000))
}

/// Said of values that become many times their length.
const MUCH: &str = "there is too much in too few bytes";

async fn send(fort: &Fort, path: &str, body: Bytes) -> Answer {
    let request = Request::post(path).header("content-type", "application/json").body(Full::from(body)).unwrap();
    fort.daemon().client().whole(request).await
}

#[tokio::test]
async fn bodies_end_in_a_sentence() {
    let fort = Fort::build().await;
    let ports: Vec<String> = (0..90_000).map(|n| format!(r#""{n}/tcp":{{"a":{{}},"b":0}}"#)).collect();
    let endpoints: Vec<String> = (0..100_000).map(|n| format!(r#""{n}":{{}}"#)).collect();
    let create = "/containers/create";
    for (name, path, body, sentence) in [
        ("objects", create, list(r#"{"a":0}"#, 7 << 20), "there are more than 500000 values"),
        ("fewer objects", create, list(r#"{"a":0}"#, 1_900_000), "cannot unmarshal array into Go value"),
        ("unknown objects", create, format!(r#"{{"Bogus":{}}}"#, list(r#"{"a":1}"#, 1_900_000)), ""),
        ("large", create, list("\"\"", 15 << 20), "request body too large"),
        (
            "a variable each",
            create,
            format!(r#"{{"Env":{}}}"#, list("\"\"", 3 << 20)),
            "there are more than 500000 values",
        ),
        ("ports", create, format!(r#"{{"Image":"nosuch","ExposedPorts":{{{}}}}}"#, ports.join(",")), ""),
        ("deep", create, "[".repeat(1 << 20), "it is nested more than 64 deep"),
        (
            "deep in a field",
            create,
            format!(r#"{{"Labels":{}"#, r#"{"a":"#.repeat(1 << 20)),
            "it is nested more than 64 deep",
        ),
        ("mounts", create, format!(r#"{{"Image":"x","HostConfig":{{"Mounts":{}}}}}"#, list("{}", 600_000)), MUCH),
        ("a mount's options", create, options("BindOptions"), "cannot unmarshal array"),
        ("a volume's driver", create, options(r#"VolumeOptions":{"DriverConfig"#), "cannot unmarshal array"),
        (
            "devices",
            create,
            format!(r#"{{"Image":"x","HostConfig":{{"DeviceRequests":{}}}}}"#, list("{}", 600_000)),
            MUCH,
        ),
        (
            "endpoints",
            create,
            format!(r#"{{"Image":"x","NetworkingConfig":{{"EndpointsConfig":{{{}}}}}}}"#, endpoints.join(",")),
            MUCH,
        ),
        ("networks", "/networks/create", format!(r#"{{"Name":"n","Labels":{}}}"#, list("{}", 7 << 20)), "values"),
        ("volumes", "/volumes/create", format!(r#"{{"Name":"n","DriverOpts":{}}}"#, list("{}", 7 << 20)), "values"),
    ] {
        let log = fort.log_length();
        if DEADLY.contains(&name) {
            assert!(naive::dies_of("json", body.as_bytes()), "{name} is no bomb");
        }
        let body = Bytes::from(body);
        let all = (0..AT_ONCE).map(|_| send(&fort, path, body.clone()));
        for answer in futures_util::future::join_all(all).await {
            assert!((400..500).contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
            assert!(answer.message().contains(sentence), "{name}: {}", answer.text());
            assert!(answer.body.len() < 64 << 10, "{name}: {}", answer.body.len());
        }
        fort.stands(name, log).await;
    }
    fort.runs_a_container().await;
}

#[tokio::test]
async fn queries_and_headers_have_bounds() {
    let fort = Fort::build().await;
    let client = fort.daemon().client();
    let log = fort.log_length();
    // `{"label":[1,1,…]}`
    let filters = format!("%7B%22label%22%3A%5B{}%5D%7D", vec!["1"; 20_000].join(","));
    let answer = client.get(&format!("/containers/json?filters={filters}")).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    fort.stands("filters", log).await;
    let mut many = Request::get("/_ping");
    for n in 0..1_000 {
        many = many.header(format!("x-{n}"), "v");
    }
    let answer = client.whole(many.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status, 431);
    fort.stands("headers", log).await;
    let long = client.get(&format!("/containers/{}/json", "a".repeat(60_000))).await;
    assert!((400..500).contains(&long.status) && long.body.len() < 32 << 10, "{} {}", long.status, long.body.len());
    let answer = client.post("/containers/create?name=x", json!({"Image": "a".repeat(1 << 20)})).await;
    assert!((400..500).contains(&answer.status) && answer.body.len() < 32 << 10, "{}", answer.body.len());
    fort.stands("names", log).await;
    fort.runs_a_container().await;
}
