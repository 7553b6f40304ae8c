//! From a registry's name to the URLs to try, in order.

use crate::{
    model::reference::DEFAULT_REGISTRY,
    registry::{
        RegistryConfig,
        insecure::{self, Standing},
    },
};

/// Docker Hub's API does not live under the name that references carry.
const DOCKER_HUB_API: &str = "https://registry-1.docker.io";

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host[:port]`, without a slash at the end.
    pub base: String,
    /// `host[:port]`, the name of its folder in `certs.d`.
    pub host: String,
    /// The registry that is there, as references name it: `docker.io`, or its host.
    pub registry: String,
    /// What is known of it.
    pub standing: Standing,
    /// Whether it is a mirror.
    pub is_mirror: bool,
}

impl Endpoint {
    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.base.starts_with("https://")
    }

    /// Whether its certificate is taken as it is.
    pub fn unverified(&self) -> bool {
        self.standing != Standing::Unknown
    }

    /// Whether the operator has named it: it is asked from the machine, whoever it is for.
    pub fn is_configured(&self) -> bool {
        self.is_mirror || self.standing == Standing::Named
    }
}

/// Where to pull from: for Docker Hub its mirrors first; for an insecure host TLS without proof, then plain HTTP.
pub async fn endpoints(registry: &str, config: &RegistryConfig) -> Vec<Endpoint> {
    if registry != DEFAULT_REGISTRY {
        return of_host(registry, config).await;
    }
    let mut endpoints = Vec::new();
    for mirror in &config.mirrors {
        let base = mirror.trim_end_matches('/').to_owned();
        let host = base.split_once("://").map_or("", |(_, host)| host).to_owned();
        let standing = insecure::standing(&host, &config.insecure).await;
        endpoints.push(Endpoint { base, registry: host.clone(), host, standing, is_mirror: true });
    }
    endpoints.push(docker_hub());
    endpoints
}

/// Where to log in: mirrors are no place for that.
pub async fn login_endpoints(registry: &str, config: &RegistryConfig) -> Vec<Endpoint> {
    if registry == DEFAULT_REGISTRY { vec![docker_hub()] } else { of_host(registry, config).await }
}

fn docker_hub() -> Endpoint {
    let host = DOCKER_HUB_API.trim_start_matches("https://").to_owned();
    let (base, registry) = (DOCKER_HUB_API.to_owned(), DEFAULT_REGISTRY.to_owned());
    Endpoint { base, host, registry, standing: Standing::Unknown, is_mirror: false }
}

async fn of_host(host: &str, config: &RegistryConfig) -> Vec<Endpoint> {
    let standing = insecure::standing(host, &config.insecure).await;
    let base = |scheme: &str| format!("{scheme}://{host}");
    let endpoint = |scheme| Endpoint {
        base: base(scheme),
        host: host.to_owned(),
        registry: host.to_owned(),
        standing,
        is_mirror: false,
    };
    if endpoint("https").unverified() { vec![endpoint("https"), endpoint("http")] } else { vec![endpoint("https")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bases(registry: &str, config: &RegistryConfig) -> Vec<String> {
        endpoints(registry, config).await.into_iter().map(|endpoint| endpoint.base).collect()
    }

    #[tokio::test]
    async fn docker_hub_is_asked_after_its_mirrors() {
        let config = RegistryConfig { mirrors: vec!["http://127.0.0.1:5/".into()], ..RegistryConfig::default() };
        assert_eq!(bases("docker.io", &config).await, ["http://127.0.0.1:5", "https://registry-1.docker.io"]);
        assert_eq!(bases("10.0.0.1:5", &config).await, ["https://10.0.0.1:5"]);
    }

    #[tokio::test]
    async fn docker_hub_is_one_registry_at_each_of_its_hosts_and_a_mirror_another() {
        let config = RegistryConfig { mirrors: vec!["http://127.0.0.1:5/".into()], ..RegistryConfig::default() };
        let of = |endpoints: Vec<Endpoint>| endpoints.into_iter().map(|at| at.registry).collect::<Vec<_>>();
        assert_eq!(of(endpoints("docker.io", &config).await), ["127.0.0.1:5", "docker.io"]);
        assert_eq!(of(login_endpoints("docker.io", &config).await), ["docker.io"]);
        assert_eq!(of(endpoints("reg.test:5000", &config).await), ["reg.test:5000"]);
    }

    #[tokio::test]
    async fn insecure_hosts_get_tls_first() {
        let config = RegistryConfig::default();
        assert_eq!(bases("127.0.0.1:5", &config).await, ["https://127.0.0.1:5", "http://127.0.0.1:5"]);
    }
}
