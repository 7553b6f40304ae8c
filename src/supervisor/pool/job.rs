//! What all jobs of a forge have: what is around them, and what they reach although it may be at an address of this machine.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::Pool;
use crate::{
    model::{
        Result,
        error::Context,
        job::{JobRequest, Surroundings},
        network::{Opening, Protocol},
        policy::PolicyRef,
    },
    supervisor::settings::Kind,
};

impl Pool {
    /// A job of this forge, as all are.
    pub async fn job_request(&self, name: String, ttl: Duration) -> Result<JobRequest> {
        Ok(JobRequest {
            name: Some(name),
            ttl: Some(ttl.as_secs()),
            openings: self.openings().await?,
            surroundings: Surroundings { network_linger: self.forge.network_linger(), ..self.settings.surroundings() },
            policy: self.settings.policy.clone().map(PolicyRef::Named),
            ..JobRequest::default()
        })
    }

    /// The forge's own addresses, that which its agents connect to if it has such a one, and those of its proxies: a job reaches them although
    /// they may be this machine's.
    async fn openings(&self) -> Result<BTreeSet<Opening>> {
        let proxies = [&self.settings.proxies.http, &self.settings.proxies.https];
        let mut openings = self.addresses_of(&self.settings.url).await?;
        if let Kind::Woodpecker(server) = &self.settings.kind {
            openings.extend(self.addresses_of(&format!("http://{}", server.address)).await?);
        }
        for proxy in proxies.into_iter().flatten() {
            openings.extend(self.addresses_of(proxy.reveal()).await.map_err(|error| error.context("a proxy"))?);
        }
        Ok(openings)
    }

    async fn addresses_of(&self, url: &str) -> Result<BTreeSet<Opening>> {
        let url = reqwest::Url::parse(url).context("reading its address")?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let given = self.settings.hosts.iter().filter(|(name, _)| *name == host);
        let mut addresses: Vec<SocketAddr> = given.map(|(_, address)| SocketAddr::new(*address, port)).collect();
        if addresses.is_empty() {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            addresses.extend(found.context(format!("looking up {host}"))?);
        }
        Ok(addresses.into_iter().map(|address| Opening { protocol: Protocol::Tcp, address }).collect())
    }
}
