//! GitHub's Actions service, as far as it has scale sets (`client.go` of actions/scaleset): each organisation and repository has one at an
//! address of its own, which it tells to who shows a registration token, with a token that is good for a while.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    super::{
        super::http::{Answer, Api},
        hub::{Failure, Hub},
        limits,
    },
    answers::{AdminConnection, RegistrationToken},
};
use crate::{
    model::{Error, Result, time::Timestamp},
    supervisor::secret::Secret,
};

/// Where scale sets are.
pub const SETS: &str = "_apis/runtime/runnerscalesets";

/// Where runners are.
pub const AGENTS: &str = "_apis/distributedtask/pools/0/agents";

/// What every call asks for.
const VERSION: &str = "api-version=6.0-preview";

/// A token is renewed so many seconds before its end.
const EARLY: i64 = 60;

/// How long one is taken to be good that does not say it.
const UNKNOWN: i64 = 300;

/// Whether a runner's registration is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It had no job, and is given none any more.
    Now,
    /// It was gone.
    Before,
    /// It has a job, and stays.
    IsBusy,
}

/// The service of one organisation or repository.
pub struct Service {
    /// `orgs/NAME` or `repos/OWNER/NAME`.
    place: String,
    /// Where people see that.
    url: String,
    /// The lock is held while a new one is made, so that it is made once.
    held: Mutex<Option<Connection>>,
}

#[derive(Clone)]
struct Connection {
    api: Arc<Api>,
    token: Secret,
    /// Unix seconds.
    ends: i64,
}

impl Service {
    /// That of a place of the server at `instance`.
    pub fn new(instance: &str, place: &str) -> Self {
        let name = place.split_once('/').map_or(place, |(_, name)| name);
        Self { place: place.to_owned(), url: format!("{instance}/{name}"), held: Mutex::default() }
    }

    /// Sees to it that we are known there.
    pub async fn connect(&self, hub: &Hub) -> Result<(), Failure> {
        self.connection(hub).await.map(drop)
    }

    /// A call whose answer is `T`; one without a body is a null.
    pub async fn call<T: DeserializeOwned>(
        &self,
        hub: &Hub,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Failure> {
        let (api, bytes) = self.send(hub, &method, path, body, None).await?;
        let bytes = if bytes.is_empty() { b"null" } else { without_mark(&bytes) };
        Ok(api.read(&method, path, bytes)?)
    }

    /// A `POST` in the name of a session.
    pub async fn post_as<T: DeserializeOwned>(
        &self,
        hub: &Hub,
        token: &Secret,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        let (api, bytes) = self.send(hub, &Method::POST, path, Some(body), Some(token)).await?;
        Ok(api.read(&Method::POST, path, without_mark(&bytes))?)
    }

    /// A call that removes something; it being gone is no error.
    pub async fn delete(&self, hub: &Hub, path: &str) -> Result<(), Failure> {
        match self.send(hub, &Method::DELETE, path, None, None).await {
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Takes a runner's registration back, unless it has a job.
    pub async fn delete_agent(&self, hub: &Hub, agent: i64) -> Result<Deleted, Failure> {
        let path = format!("{AGENTS}/{agent}");
        let (api, answer) = self.exchange(hub, &Method::DELETE, &path, None, None).await?;
        let is_busy = String::from_utf8_lossy(&answer.body).contains("JobStillRunningException");
        match answer.status {
            StatusCode::NOT_FOUND => Ok(Deleted::Before),
            status if status.is_success() => Ok(Deleted::Now),
            _ if is_busy => Ok(Deleted::IsBusy),
            _ => Err(api.refusal(&Method::DELETE, &path, &answer).into()),
        }
    }

    async fn send(
        &self,
        hub: &Hub,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&Secret>,
    ) -> Result<(Arc<Api>, Bytes), Failure> {
        let (api, answer) = self.exchange(hub, method, path, body, token).await?;
        if answer.status.is_success() {
            return Ok((api, answer.body));
        }
        Err(api.refusal(method, path, &answer).into())
    }

    /// A token of ours that is not taken any more is renewed once.
    async fn exchange(
        &self,
        hub: &Hub,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&Secret>,
    ) -> Result<(Arc<Api>, Answer), Failure> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let whole = format!("{path}{separator}{VERSION}");
        let mut may_renew = token.is_none();
        loop {
            let Connection { api, token: own, .. } = self.connection(hub).await?;
            let authorization = format!("Bearer {}", token.unwrap_or(&own).reveal());
            let answer = api.exchange(method, &whole, body, &[("authorization", &authorization)]).await?;
            if answer.status != StatusCode::UNAUTHORIZED || !may_renew {
                return Ok((api, answer));
            }
            self.held.lock().await.take_if(|held| held.token == own);
            may_renew = false;
        }
    }

    async fn connection(&self, hub: &Hub) -> Result<Connection, Failure> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.ends - EARLY > Timestamp::now().unix()) {
            return Ok(held.clone());
        }
        let made = self.make(hub).await?;
        *held = Some(made.clone());
        Ok(made)
    }

    async fn make(&self, hub: &Hub) -> Result<Connection, Failure> {
        let path = format!("{}/actions/runners/registration-token", self.place);
        let registration: RegistrationToken = hub.post_empty(limits::REGISTRATION, &path).await?;
        let authorization = format!("RemoteAuth {}", registration.token);
        let body = json!({"url": self.url, "runner_event": "register"});
        let headers = [("authorization", authorization.as_str())];
        let api = hub.api();
        let made: AdminConnection = api.post_with("actions/runner-registration", &body, &headers).await?;
        let api = Arc::new(api.elsewhere(self.checked(&made.url)?));
        Ok(Connection { api, ends: end_of(&made.token), token: Secret::new(made.token) })
    }

    /// What is told us by TLS is told on by nothing less.
    fn checked(&self, url: &str) -> Result<String> {
        let is_safe = url.starts_with("https://") || (url.starts_with("http://") && self.url.starts_with("http://"));
        if !is_safe {
            return Err(Error::unavailable(format!("the Actions service of {} is said to be at {url:?}", self.url)));
        }
        Ok(url.trim_end_matches('/').to_owned())
    }
}

/// When a JWT that was just made ends, in Unix seconds. One that has ended already is of another clock than ours.
fn end_of(jwt: &str) -> i64 {
    let claims = jwt.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let claims = claims.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let (told, now) = (claims.and_then(|claims| claims["exp"].as_i64()), Timestamp::now().unix());
    told.filter(|end| end - EARLY > now).unwrap_or(now + UNKNOWN)
}

/// The service begins some answers with a byte order mark (`byte_order_mark_test.go`).
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_read() {
        let jwt = |claims: &str| format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(end_of(&jwt("{\"exp\":7795802460}")), 7_795_802_460);
        for other in ["no-jwt", "a.b.c", &jwt("{}"), &jwt("{\"exp\":1}")] {
            assert!(end_of(other) > Timestamp::now().unix(), "{other}");
        }
    }

    #[test]
    fn a_token_is_shown_to_nobody_in_the_clear_who_was_reached_otherwise() {
        let of = |instance: &str| Service::new(instance, "orgs/acme");
        assert_eq!(of("https://github.com").url, "https://github.com/acme");
        assert!(of("https://github.com").checked("http://pipelines.example.org/a").is_err());
        assert_eq!(of("https://github.com").checked("https://p.example.org/a/").unwrap(), "https://p.example.org/a");
        assert!(of("http://ghes:8080").checked("http://ghes:8080/_services").is_ok());
        assert!(of("http://ghes:8080").checked("").is_err());
    }
}
