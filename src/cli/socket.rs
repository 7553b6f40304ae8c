//! A client of an HTTP API on a unix socket: the daemon's own, and Docker's on the socket of a job.

use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    upgrade::{self, Upgraded},
};
use hyper_util::client::legacy::Client;
use hyperlocal::{UnixClientExt, UnixConnector};
use ringer::model::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The longest answer that is read whole.
const LIMIT: usize = 64 << 20;

/// Calls to one socket; it connects with the first.
pub struct SocketClient {
    client: Client<UnixConnector, Full<Bytes>>,
    socket: PathBuf,
}

impl SocketClient {
    /// Of the API behind a socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { client: Client::unix(), socket: socket.into() }
    }

    /// Reads the answer as JSON.
    pub async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&self.read(answer).await?).map_err(|error| self.failed(&error))
    }

    /// Hands the body of an answer to `piece`, as it comes.
    pub async fn follow(&self, answer: Response<Incoming>, mut piece: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.failed(&error))?;
            if let Some(bytes) = frame.data_ref() {
                piece(bytes)?;
            }
        }
        Ok(())
    }

    /// The head of an answer that is no error, with its body to come.
    pub async fn send<B: Serialize>(&self, method: Method, path: &str, body: Option<&B>) -> Result<Response<Incoming>> {
        self.send_with(HeaderMap::new(), method, path, body).await
    }

    /// The same with further headers.
    pub async fn send_with<B: Serialize>(
        &self,
        headers: HeaderMap,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Response<Incoming>> {
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| self.failed(&error))?;
        let uri: http::Uri = hyperlocal::Uri::new(&self.socket, path).into();
        let mut request = Request::builder().method(method).uri(uri).header(header::HOST, "ringer");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::from(body.unwrap_or_default());
        let mut request = request.body(body).map_err(|error| self.failed(&error))?;
        request.headers_mut().extend(headers);
        let answer = self.client.request(request).await.map_err(|error| self.failed(&chain(&error)))?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        match serde_json::from_slice::<Refusal>(&self.read(answer).await?) {
            Ok(refusal) if status == StatusCode::FORBIDDEN => Err(Error::forbidden(refusal.message)),
            Ok(refusal) if status == StatusCode::NOT_FOUND => Err(Error::not_found(refusal.message)),
            Ok(refusal) => Err(Error::system(refusal.message)),
            Err(_) => Err(self.failed(&status)),
        }
    }

    /// Takes a connection over, as Docker's attach does.
    pub async fn take_over(&self, path: &str) -> Result<Upgraded> {
        let wanted = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp")];
        let headers = wanted.map(|(name, value)| (name, http::HeaderValue::from_static(value)));
        let answer = self.send_with(HeaderMap::from_iter(headers), Method::POST, path, None::<&()>).await?;
        upgrade::on(answer).await.map_err(|error| self.failed(&error))
    }

    /// A whole body.
    pub async fn read(&self, answer: Response<Incoming>) -> Result<Bytes> {
        let read = Limited::new(answer.into_body(), LIMIT).collect().await;
        Ok(read.map_err(|error| self.failed(&error))?.to_bytes())
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Error {
        Error::unavailable(format!("asking the daemon at unix://{}: {error}", self.socket.display()))
    }
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// Text within a path or a query.
pub fn escaped(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// hyper says little itself: "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
