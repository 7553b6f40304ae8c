//! A client of the daemon's admin API, over its unix socket.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyperlocal::{UnixClientExt, UnixConnector};
use ringer::{
    admin::{ExtendBody, JobAnswer, JobBody},
    model::{Error, Result, job::JobReport},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The longest answer that is read.
const LIMIT: usize = 64 << 20;

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
    pub async fn extend(&self, job: &str, ttl: u64) -> Result<JobAnswer> {
        self.call(Method::POST, &path(job, "/extend"), Some(&ExtendBody { ttl })).await
    }

    /// Removes it.
    pub async fn delete(&self, job: &str) -> Result<JobReport> {
        self.call(Method::DELETE, &path(job, ""), None::<&()>).await
    }

    async fn call<B: Serialize, T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&B>) -> Result<T> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::unavailable(format!("asking the daemon at unix://{}: {error}", self.socket.display()))
        };
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| failed(&error))?.unwrap_or_default();
        let uri: http::Uri = hyperlocal::Uri::new(&self.socket, path).into();
        let request = Request::builder().method(method).uri(uri).header(http::header::HOST, "ringer");
        let request = request.body(Full::from(body)).map_err(|error| failed(&error))?;
        let answer = self.client.request(request).await.map_err(|error| failed(&chain(&error)))?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), LIMIT).collect().await.map_err(|error| failed(&error))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| failed(&error));
        }
        match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => Err(Error::system(refusal.message)),
            Err(_) => Err(failed(&status)),
        }
    }
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// A name may hold nothing that would need to be escaped; what does is no name of a job.
fn path(job: &str, rest: &str) -> String {
    let escaped: String = job
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("/jobs/{escaped}{rest}")
}

/// hyper says little itself: "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
