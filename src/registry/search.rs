//! `docker search`: the index's old call, which Docker Hub and few others have.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Error, Result, reference::DEFAULT_REGISTRY, registry_auth::RegistryAuth},
    registry::{
        Registry,
        endpoint::{Endpoint, login_endpoints},
        failure::Failure,
        insecure::Standing,
        session::read_limited,
    },
};

/// Answers larger than this are refused.
const LIMIT: usize = 8 << 20;

/// One repository that was found, with dockerd's names and order of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// How many like it.
    pub star_count: u64,
    /// Whether Docker keeps it.
    pub is_official: bool,
    /// Its name.
    pub name: String,
    /// Whether it is built by the index.
    pub is_automated: bool,
    /// What it is.
    pub description: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<SearchResult>,
}

impl Registry {
    /// Asks the index that a term names, `host/term`, or Docker Hub's.
    pub async fn search(&self, term: &str, limit: u32, auth: &RegistryAuth) -> Result<Vec<SearchResult>> {
        if term.contains("://") {
            return Err(Error::invalid(format!(
                "invalid repository name: repository name ({term}) should not have a scheme"
            )));
        }
        let (host, term) = registry_and_term(term);
        let endpoints = match host {
            DEFAULT_REGISTRY => vec![Endpoint {
                base: "https://index.docker.io".to_owned(),
                host: "index.docker.io".to_owned(),
                registry: DEFAULT_REGISTRY.to_owned(),
                standing: Standing::Unknown,
                is_mirror: false,
            }],
            host => login_endpoints(host, &self.config).await,
        };
        let mut last = Failure::Other(format!("no endpoint for {host}"));
        for endpoint in endpoints {
            match self.search_at(&endpoint, term, limit, auth).await {
                Err(failure @ Failure::Transport(..)) => last = failure,
                Err(failure) => return Err(Error::system(failure.text()).as_news()),
                Ok(results) => return Ok(results),
            }
        }
        Err(Error::system(last.text()).as_news())
    }

    async fn search_at(
        &self,
        endpoint: &Endpoint,
        term: &str,
        limit: u32,
        auth: &RegistryAuth,
    ) -> Result<Vec<SearchResult>, Failure> {
        let client = self.client(endpoint).map_err(|error| Failure::Other(error.chain()))?;
        let query = serde_urlencoded::to_string([("q", term), ("n", &limit.to_string())]).unwrap_or_default();
        let text = format!("{}/v1/search?{query}", endpoint.base);
        let url =
            reqwest::Url::parse(&text).map_err(|error| Failure::Other(format!("invalid URL {text:?}: {error}")))?;
        let mut request = client.request(Method::GET, url.clone());
        if !auth.username.is_empty() {
            request = request.basic_auth(&auth.username, Some(&auth.password));
        }
        let answer = client.send(request, &Method::GET, &url).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Failure::Other(format!("Unexpected status code {}", status.as_u16())));
        }
        let body = read_limited(answer, &Method::GET, &url, LIMIT).await?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| Failure::Other(format!("error decoding registry search results: {error}")))?;
        Ok(answer.results)
    }
}

/// The registry that a term names, and the rest. A host has a dot or a port, or is `localhost`.
pub fn registry_and_term(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "index.docker.io" | "docker.io" => (DEFAULT_REGISTRY, rest.strip_prefix("library/").unwrap_or(rest)),
            host => (host, rest),
        },
        _ => (DEFAULT_REGISTRY, term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_may_name_an_index() {
        assert_eq!(registry_and_term("alpine"), ("docker.io", "alpine"));
        assert_eq!(registry_and_term("me/x"), ("docker.io", "me/x"));
        assert_eq!(registry_and_term("docker.io/library/x"), ("docker.io", "x"));
        assert_eq!(registry_and_term("127.0.0.1:5000/x"), ("127.0.0.1:5000", "x"));
    }
}
