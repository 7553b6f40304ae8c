//! The listener of `ringer run` that only tells, and deliveries of webhooks for it.

use std::net::SocketAddr;

use http::{Method, Request};
use ring::hmac;
use serde_json::{Value, json};

use super::{
    daemon::http::{Answer, Client},
    place::{self, Place},
};

/// Its port, at [`place::ADDRESS`].
pub const PORT: u16 = 8099;

/// What the configuration needs for it.
pub fn section() -> String {
    section_with("http://ci.example.org")
}

/// The same with an address at which a forge in its place finds it, for webhooks that it makes itself.
pub fn reachable_section() -> String {
    section_with(&format!("http://{}:{PORT}", place::ADDRESS))
}

fn section_with(public_url: &str) -> String {
    format!("[http]\nlisten = '{}:{PORT}'\npublic_url = '{public_url}'\n", place::ADDRESS)
}

/// A client of it.
pub fn client(place: &Place) -> Client {
    Client::over_tcp(place.path(), address())
}

/// Where it is.
pub fn address() -> SocketAddr {
    format!("{}:{PORT}", place::ADDRESS).parse().expect("a constant")
}

/// A request of a forge.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub forge: String,
    pub event: String,
    pub number: String,
    pub signature: Option<String>,
    pub body: String,
}

impl Delivery {
    /// `webhook-workflow-job-queued` of GitHub's OpenAPI description, signed as it should be.
    pub fn of_job(job: &Value, repository: &str, secret: &str) -> Self {
        let body = json!({
            "action": job["status"],
            "workflow_job": job,
            "repository": {"id": 1, "full_name": repository, "private": true},
            "organization": {"login": "acme"},
            "sender": {"login": "somebody"},
        });
        let number = format!("of-{}-{}", job["id"], job["status"].as_str().unwrap_or_default());
        let unsigned = Self {
            forge: "github".to_owned(),
            event: "workflow_job".to_owned(),
            number,
            signature: None,
            body: body.to_string(),
        };
        unsigned.signed(secret)
    }

    /// The same with a signature of its body.
    pub fn signed(self, secret: &str) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), self.body.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { signature: Some(format!("sha256={hex}")), ..self }
    }

    /// Sends it.
    pub async fn send(&self, client: &Client) -> Answer {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/webhook/{}", self.forge))
            .header("content-type", "application/json")
            .header("user-agent", "GitHub-Hookshot/044aadd")
            .header("x-github-event", &self.event)
            .header("x-github-delivery", &self.number);
        if let Some(signature) = &self.signature {
            request = request.header("x-hub-signature-256", signature);
        }
        client.whole(request.body(self.body.clone().into()).expect("a test's request")).await
    }
}

/// The number of a line of `/metrics`, 0 if there is none: `name{labels}`.
pub async fn number(client: &Client, line: &str) -> f64 {
    let text = client.get("/metrics").await.text();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or(0.0)
}
