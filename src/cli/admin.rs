//! A client of the daemon's admin API, over its unix socket.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper_util::client::legacy::Client;
use hyperlocal::{UnixClientExt, UnixConnector};
use ringer::{
    admin::{ContainerAnswer, ExtendBody, ForgeAnswer, JobAnswer, JobBody, LaunchAnswer, PurgeAnswer},
    model::{Error, Result, job::JobReport},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The longest answer that is read.
const LIMIT: usize = 64 << 20;

/// An answer as it comes.
type AnswerBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Where the daemon is.
#[derive(Args, Clone, Debug)]
pub struct AdminHost {
    /// Admin socket of the daemon: unix:///PATH
    #[arg(
        long,
        value_name = "HOST",
        env = "RINGER_ADMIN_HOST",
        default_value = "unix:///run/ringer/admin.sock",
        global = true
    )]
    admin_host: String,
}

impl AdminHost {
    /// A client; connects with its first call.
    pub fn client(&self) -> Result<AdminClient> {
        let path = self.admin_host.strip_prefix("unix://").unwrap_or(&self.admin_host);
        if !path.starts_with('/') {
            return Err(Error::invalid(format!("invalid admin host {:?}: expected unix:///PATH", self.admin_host)));
        }
        Ok(AdminClient { client: Client::unix(), socket: path.into() })
    }
}

/// Calls of the admin API.
pub struct AdminClient {
    client: Client<UnixConnector, Full<Bytes>>,
    socket: PathBuf,
}

impl AdminClient {
    /// Makes a job.
    pub async fn create(&self, body: &JobBody) -> Result<JobAnswer> {
        self.call(Method::POST, "/jobs", Some(body)).await
    }

    /// All jobs.
    pub async fn list(&self) -> Result<Vec<JobAnswer>> {
        self.call(Method::GET, "/jobs", None::<&()>).await
    }

    /// One of them.
    pub async fn inspect(&self, job: &str) -> Result<JobAnswer> {
        self.call(Method::GET, &path(job, ""), None::<&()>).await
    }

    /// Gives it another time.
    pub async fn extend(&self, job: &str, body: ExtendBody) -> Result<JobAnswer> {
        self.call(Method::POST, &path(job, "/extend"), Some(&body)).await
    }

    /// Removes it.
    pub async fn delete(&self, job: &str) -> Result<JobReport> {
        self.call(Method::DELETE, &path(job, ""), None::<&()>).await
    }

    /// The containers of all jobs and of the default socket.
    pub async fn containers(&self) -> Result<Vec<ContainerAnswer>> {
        self.call(Method::GET, "/containers", None::<&()>).await
    }

    /// Hands what happens to `piece`, as it comes: JSON, a line each.
    pub async fn events(&self, piece: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.follow("/events", piece).await
    }

    /// The runners that were launched.
    pub async fn launches(&self) -> Result<Vec<LaunchAnswer>> {
        self.call(Method::GET, "/launches", None::<&()>).await
    }

    /// The forges.
    pub async fn forges(&self) -> Result<Vec<ForgeAnswer>> {
        self.call(Method::GET, "/forges", None::<&()>).await
    }

    /// Launches nothing any more.
    pub async fn drain(&self) -> Result<()> {
        self.ask::<()>(Method::POST, "/drain", None).await.map(drop)
    }

    /// Launches again.
    pub async fn uncordon(&self) -> Result<()> {
        self.ask::<()>(Method::POST, "/uncordon", None).await.map(drop)
    }

    /// Removes everything of a forge, or of all.
    pub async fn purge(&self, forge: Option<&str>) -> Result<PurgeAnswer> {
        let query = forge.map(|forge| format!("?forge={}", escaped(forge))).unwrap_or_default();
        self.call(Method::POST, &format!("/purge{query}"), None::<&()>).await
    }

    /// Hands the log of a runner to `piece`, as it comes.
    pub async fn log(&self, launch: &str, follow: bool, piece: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.follow(&format!("/launches/{}/log?follow={follow}", escaped(launch)), piece).await
    }

    async fn follow(&self, path: &str, mut piece: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut body = self.send::<()>(Method::GET, path, None).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.failed(&error))?;
            if let Some(bytes) = frame.data_ref() {
                piece(bytes)?;
            }
        }
        Ok(())
    }

    async fn call<B: Serialize, T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&B>) -> Result<T> {
        serde_json::from_slice(&self.ask(method, path, body).await?).map_err(|error| self.failed(&error))
    }

    async fn ask<B: Serialize>(&self, method: Method, path: &str, body: Option<&B>) -> Result<Bytes> {
        self.read(self.send(method, path, body).await?).await
    }

    /// An answer that is no error.
    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<http::Response<AnswerBody>> {
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| self.failed(&error))?.unwrap_or_default();
        let uri: http::Uri = hyperlocal::Uri::new(&self.socket, path).into();
        let request = Request::builder().method(method).uri(uri).header(http::header::HOST, "ringer");
        let request = request.body(Full::from(body)).map_err(|error| self.failed(&error))?;
        let answer = self.client.request(request).await.map_err(|error| self.failed(&chain(&error)))?;
        let (status, answer) = (answer.status(), answer.map(|body| body.map_err(Into::into).boxed_unsync()));
        if status.is_success() {
            return Ok(answer);
        }
        match serde_json::from_slice::<Refusal>(&self.read(answer).await?) {
            Ok(refusal) => Err(Error::system(refusal.message)),
            Err(_) => Err(self.failed(&status)),
        }
    }

    async fn read(&self, answer: http::Response<AnswerBody>) -> Result<Bytes> {
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

/// A name may hold nothing that would need to be escaped; what does is no name of a job.
fn path(job: &str, rest: &str) -> String {
    format!("/jobs/{}{rest}", escaped(job))
}

fn escaped(name: &str) -> String {
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
