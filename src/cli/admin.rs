//! A client of the daemon's admin API, over its unix socket.

use clap::Args;
use http::Method;
use ringer::{
    admin::{ContainerAnswer, ExtendBody, ForgeAnswer, JobAnswer, JobBody, LaunchAnswer, PurgeAnswer, ReachAnswer},
    model::{Error, Result, job::JobReport},
};

use super::socket::{SocketClient, escaped};

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
        Ok(AdminClient(SocketClient::new(path)))
    }
}

/// Calls of the admin API.
pub struct AdminClient(SocketClient);

impl AdminClient {
    /// Makes a job.
    pub async fn create(&self, body: &JobBody) -> Result<JobAnswer> {
        self.0.call(Method::POST, "/jobs", Some(body)).await
    }

    /// All jobs.
    pub async fn list(&self) -> Result<Vec<JobAnswer>> {
        self.0.call(Method::GET, "/jobs", None::<&()>).await
    }

    /// One of them.
    pub async fn inspect(&self, job: &str) -> Result<JobAnswer> {
        self.0.call(Method::GET, &path(job, ""), None::<&()>).await
    }

    /// Gives it another time.
    pub async fn extend(&self, job: &str, body: ExtendBody) -> Result<JobAnswer> {
        self.0.call(Method::POST, &path(job, "/extend"), Some(&body)).await
    }

    /// Removes it.
    pub async fn delete(&self, job: &str) -> Result<JobReport> {
        self.0.call(Method::DELETE, &path(job, ""), None::<&()>).await
    }

    /// The containers of all jobs and of the default socket.
    pub async fn containers(&self) -> Result<Vec<ContainerAnswer>> {
        self.0.call(Method::GET, "/containers", None::<&()>).await
    }

    /// Hands what happens to `piece`, as it comes: JSON, a line each.
    pub async fn events(&self, piece: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.follow("/events", piece).await
    }

    /// The runners that were launched.
    pub async fn launches(&self) -> Result<Vec<LaunchAnswer>> {
        self.0.call(Method::GET, "/launches", None::<&()>).await
    }

    /// The forges.
    pub async fn forges(&self) -> Result<Vec<ForgeAnswer>> {
        self.0.call(Method::GET, "/forges", None::<&()>).await
    }

    /// Whether jobs of a forge reach it.
    pub async fn reach(&self, forge: &str) -> Result<Vec<ReachAnswer>> {
        self.0.call(Method::POST, &format!("/forges/{}/reach", escaped(forge)), None::<&()>).await
    }

    /// Launches nothing any more.
    pub async fn drain(&self) -> Result<()> {
        self.0.send::<()>(Method::POST, "/drain", None).await.map(drop)
    }

    /// Launches again.
    pub async fn uncordon(&self) -> Result<()> {
        self.0.send::<()>(Method::POST, "/uncordon", None).await.map(drop)
    }

    /// Removes everything of a forge, or of all.
    pub async fn purge(&self, forge: Option<&str>) -> Result<PurgeAnswer> {
        let query = forge.map(|forge| format!("?forge={}", escaped(forge))).unwrap_or_default();
        self.0.call(Method::POST, &format!("/purge{query}"), None::<&()>).await
    }

    /// Hands the log of a runner to `piece`, as it comes.
    pub async fn log(&self, launch: &str, follow: bool, piece: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.follow(&format!("/launches/{}/log?follow={follow}", escaped(launch)), piece).await
    }

    async fn follow(&self, path: &str, piece: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let answer = self.0.send::<()>(Method::GET, path, None).await?;
        self.0.follow(answer, piece).await
    }
}

/// A name may hold nothing that would need to be escaped; what does is no name of a job.
fn path(job: &str, rest: &str) -> String {
    format!("/jobs/{}{rest}", escaped(job))
}
