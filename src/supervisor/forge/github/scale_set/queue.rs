//! The queue of a session: one call waits until there is a message (`session_client.go` of actions/scaleset).

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};

use super::{
    super::super::http::{Api, Refusal},
    answers::{Message, Session},
    service::without_mark,
};
use crate::{
    model::{Error, Result},
    supervisor::secret::Secret,
};

/// How long a call may be held back: the service does so for about 50 s.
const HELD: Duration = Duration::from_secs(90);

const ACCEPT: &str = "application/json; api-version=6.0-preview";

/// One that we may listen to.
#[derive(Clone)]
pub struct Queue {
    /// The session.
    pub session: String,
    /// By which it knows us.
    pub token: Secret,
    api: Arc<Api>,
    /// Its path, with its query.
    path: String,
    /// The message that was read last.
    pub last: Option<i64>,
    /// The one that was read and is there still.
    pub unacknowledged: Option<i64>,
}

impl Queue {
    /// That of a session, reached as `api` is.
    pub fn of(session: Session, api: &Api) -> Result<Self> {
        let (origin, path) = split(&session.message_queue_url).ok_or_else(|| {
            Error::unavailable("GitHub has made a session of the scale set and does not say where its messages are")
        })?;
        if api.url().starts_with("https://") && !origin.starts_with("https://") {
            return Err(Error::unavailable(format!("the messages of the scale set are said to be at {origin}")));
        }
        Ok(Self {
            session: session.session_id,
            token: Secret::new(session.message_queue_access_token),
            api: Arc::new(api.elsewhere(origin.to_owned()).within(HELD)),
            path: path.to_owned(),
            last: None,
            unacknowledged: None,
        })
    }

    /// The same session after it was refreshed.
    pub fn refreshed(self, session: Session, api: &Api) -> Result<Self> {
        Ok(Self { last: self.last, unacknowledged: self.unacknowledged, ..Self::of(session, api)? })
    }

    /// Waits for the next message; `None` if there was none for a while. `capacity` is how many jobs there may be at once.
    pub async fn next(&self, capacity: usize) -> Result<Option<Message>, Refusal> {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        let path = match self.last {
            Some(last) => format!("{}{separator}lastMessageId={last}", self.path),
            None => self.path.clone(),
        };
        let (authorization, capacity) = (self.authorization(), capacity.to_string());
        let headers =
            [("authorization", authorization.as_str()), ("accept", ACCEPT), ("x-scalesetmaxcapacity", &capacity)];
        let answer = self.api.exchange(&Method::GET, &path, None::<&()>, &headers).await?;
        match answer.status {
            StatusCode::ACCEPTED => Ok(None),
            StatusCode::OK => self.api.read(&Method::GET, &path, without_mark(&answer.body)).map(Some),
            _ => Err(self.api.refusal(&Method::GET, &path, &answer)),
        }
    }

    /// Takes a message out of the queue; one that is gone is no error.
    pub async fn acknowledge(&self, message: i64) -> Result<(), Refusal> {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let path = format!("{path}/{message}?{query}");
        let authorization = self.authorization();
        let headers = [("authorization", authorization.as_str())];
        let answer = self.api.exchange(&Method::DELETE, &path, None::<&()>, &headers).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            _ => Err(self.api.refusal(&Method::DELETE, &path, &answer)),
        }
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token.reveal())
    }
}

/// An address as its server and what is there.
fn split(url: &str) -> Option<(&str, &str)> {
    let host = url.find("://")? + "://".len();
    let path = host + url[host..].find('/')?;
    let is_http = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
    (is_http && path > host).then(|| (&url[..path], &url[path + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_server_and_a_path() {
        let url = "https://broker.example.org:8443/scalesets/message?sessionId=7&status=x";
        assert_eq!(split(url), Some(("https://broker.example.org:8443", "scalesets/message?sessionId=7&status=x")));
        for other in ["", "https://host", "https:///path", "ftp://host/path", "httpx://host/path", "host/path"] {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
