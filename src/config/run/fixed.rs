//! What of the file is taken up at the start alone, so that a HUP can name what has changed of it.

use std::collections::{BTreeMap, BTreeSet};

use ringer::model::{Error, Result};

/// What is written, by what people call it. It is compared, and never shown: the keys may hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fixed(BTreeMap<String, String>);

impl Fixed {
    /// Of a file's text, and the authorities of registries that it names.
    pub fn of(text: &str, authorities: BTreeMap<String, String>) -> Result<Self> {
        let file: toml::Table = toml::from_str(text).map_err(|error| Error::invalid(error.message().to_owned()))?;
        let daemon = file.get("daemon").and_then(toml::Value::as_table).into_iter().flatten();
        let daemon = daemon.map(|(key, value)| (format!("[daemon] {key}"), value.to_string()));
        let authorities = authorities.into_iter().map(|(host, pem)| (format!("ca_file of the registry {host}"), pem));
        Ok(Self(daemon.chain(authorities).collect()))
    }

    /// The words for what is another there.
    pub fn changed(&self, now: &Self) -> Vec<String> {
        let all: BTreeSet<&String> = self.0.keys().chain(now.0.keys()).collect();
        all.into_iter().filter(|key| self.0.get(*key) != now.0.get(*key)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_named() {
        let of = |text: &str, pem: &str| Fixed::of(text, [("docker.io".to_owned(), pem.to_owned())].into()).unwrap();
        let before = of("[daemon]\nmtu = 1400\ngroup = 'a'\n[gitea]\ntoken = 't'\n", "one");
        assert!(before.changed(&of("[gitea]\ntoken = 'u'\n[daemon]\ngroup = 'a'\nmtu = 1400\n", "one")).is_empty());
        let now = of("[daemon]\nmtu = 1500\nlog-level = 'debug'\n", "two");
        assert_eq!(
            before.changed(&now),
            ["[daemon] group", "[daemon] log-level", "[daemon] mtu", "ca_file of the registry docker.io"]
        );
    }
}
