//! What a job knows of itself at registries: the variable `DOCKER_AUTH_CONFIG`, then GitLab's own credentials, as the docker executor has it.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE};
use ringer::model::{json, limits, registry_auth::RegistryAuth};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{response::Credentials, variables::Variables};

/// Docker Hub by all its names.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// By the host of their registry.
pub struct Logins(BTreeMap<String, RegistryAuth>);

/// Docker's `config.json`.
#[derive(Default, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, RegistryAuth>,
    #[serde(rename = "credHelpers", default)]
    helpers: BTreeMap<String, Value>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

impl Logins {
    /// Of a job.
    pub fn new(credentials: &[Credentials], variables: &Variables) -> Self {
        let mut logins: BTreeMap<_, _> =
            credentials.iter().filter_map(|one| Some((host(&one.url), one.login()?))).collect();
        let config = variables.get("DOCKER_AUTH_CONFIG").map(read).unwrap_or_default();
        if config.store.is_some() || !config.helpers.is_empty() {
            println!(
                "ringer: credHelpers and credsStore of DOCKER_AUTH_CONFIG are programs of another machine, and not asked"
            );
        }
        logins.extend(config.auths.into_iter().map(|(registry, login)| (host(&registry), login.with_auth_decoded())));
        Self(logins)
    }

    /// `X-Registry-Auth` for a registry.
    pub fn header(&self, registry: &str) -> Option<String> {
        let login = self.0.get(&host(registry))?;
        let login = json!({
            "username": login.username,
            "password": login.password,
            "identitytoken": login.identitytoken,
            "serveraddress": registry,
        });
        Some(BASE64_URL_SAFE.encode(login.to_string()))
    }
}

fn read(text: &str) -> DockerConfig {
    let is_small = json::check(text.as_bytes(), limits::QUERY_VALUES).is_ok();
    let config = is_small.then(|| serde_json::from_str(text).ok()).flatten();
    config.unwrap_or_else(|| {
        println!("ringer: DOCKER_AUTH_CONFIG cannot be read, and is left out");
        DockerConfig::default()
    })
}

/// `https://index.docker.io/v1/` is `docker.io`.
fn host(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    if HUB.contains(&host) { HUB[0].to_owned() } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_hosts() {
        for (name, known) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("registry.example.org:5000", "registry.example.org:5000"),
            ("http://registry.example.org/v2", "registry.example.org"),
        ] {
            assert_eq!(host(name), known);
        }
    }

    #[test]
    fn of_a_config_the_pair_is_read() {
        let config = read(r#"{"auths":{"a.example.org":{"auth":"dTpw"}}}"#);
        let login = config.auths["a.example.org"].clone().with_auth_decoded();
        assert_eq!((login.username.as_str(), login.password.as_str()), ("u", "p"));
        assert!(read("[[").auths.is_empty());
    }
}
