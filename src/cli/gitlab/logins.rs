//! What a job knows of itself at registries: the variable `DOCKER_AUTH_CONFIG`, then GitLab's own credentials, as the docker executor has it.

use std::collections::BTreeMap;

use ringer::{
    model::{json, limits, registry_auth::RegistryAuth},
    registry::registry_of,
};
use serde::Deserialize;
use serde_json::Value;

use super::{response::Credentials, variables::Variables};

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
            credentials.iter().filter_map(|one| Some((registry_of(&one.url), one.login()?))).collect();
        let config = variables.get("DOCKER_AUTH_CONFIG").map(read).unwrap_or_default();
        if config.store.is_some() || !config.helpers.is_empty() {
            println!(
                "ringer: credHelpers and credsStore of DOCKER_AUTH_CONFIG are programs of another machine, and not asked"
            );
        }
        logins.extend(
            config.auths.into_iter().map(|(registry, login)| (registry_of(&registry), login.with_auth_decoded())),
        );
        Self(logins)
    }

    /// `X-Registry-Auth` for a registry.
    pub fn header(&self, registry: &str) -> Option<String> {
        let login = self.0.get(&registry_of(registry))?;
        Some(RegistryAuth { serveraddress: registry.to_owned(), ..login.clone() }.to_header())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_config_the_pair_is_read() {
        let config = read(r#"{"auths":{"a.example.org":{"auth":"dTpw"}}}"#);
        let login = config.auths["a.example.org"].clone().with_auth_decoded();
        assert_eq!((login.username.as_str(), login.password.as_str()), ("u", "p"));
        assert!(read("[[").auths.is_empty());
    }
}
