//! Whether jobs of a forge reach it, seen from a job that is made for that: from its network, with the names, proxies and authorities that
//! stand around jobs. It has no container: what a container sends leaves by the same way.

use std::time::Duration;

use http::Method;
use tracing::warn;

use super::{forge::http::Api, pool::Pool, settings::ForgeSettings};
use crate::{
    model::{Error, Result, id::TenantId},
    registry::Outlet,
};

/// How long the job is there if nobody removes it.
const LIFETIME: Duration = Duration::from_secs(120);

/// An address of a forge, as a job finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The address.
    pub url: String,
    /// Why nobody answers there, if so.
    pub trouble: Option<String>,
}

impl Pool {
    /// Asks at the address that is configured, and at the one that the server calls its own, if that is another.
    pub async fn reach_from_a_job(&self) -> Result<Vec<Reached>> {
        let own = self.forge.own_url().await.filter(|own| *own != self.settings.url);
        let request = self.job_request(format!("reach-{}", self.new_name()), LIFETIME).await?;
        let job = self.shared.engine.job_create(request).await?.record.id.clone();
        let reached = self.ask_from(&job, [self.settings.url.clone()].into_iter().chain(own)).await;
        // What was found stands, also when the job takes its time to go.
        if let Err(error) = self.shared.engine.job_delete(job.as_str()).await {
            warn!(forge = self.settings.name, "removing the job that asked: {}", error.chain());
        }
        reached
    }

    async fn ask_from(&self, job: &TenantId, urls: impl Iterator<Item = String>) -> Result<Vec<Reached>> {
        let outlet = self.shared.engine.job_outlet(job).await?;
        let outlet = outlet.ok_or_else(|| Error::unavailable("jobs have no network of their own here"))?;
        let mut all = Vec::new();
        for url in urls {
            let asked = ask(&self.settings, &url, &outlet).await;
            all.push(Reached { url, trouble: asked.err().map(|error| error.chain()) });
        }
        Ok(all)
    }
}

/// Whatever is answered, but for what a proxy says of a server that it does not reach: somebody is there.
async fn ask(settings: &ForgeSettings, url: &str, outlet: &Outlet) -> Result<()> {
    let api = Api::from_job(settings, url.to_owned(), outlet)?;
    let asked = outlet.run(async move { api.exchange(&Method::GET, "", None::<&()>, &[]).await }).await?;
    let status = asked.map_err(Error::from)?.status;
    match status.as_u16() {
        407 | 502..=504 => Err(Error::unavailable(format!("{url} or a proxy before it answers {status}"))),
        _ => Ok(()),
    }
}
