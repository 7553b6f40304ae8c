//! Volumes: what is stored of one, and what a client asks for.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Error, Result, id::ContainerId, record::Record, time::Timestamp};

/// The label of volumes that were made without a name; pruning takes these only.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name, unique within the tenant.
    pub name: String,
    /// Labels as the client gave them; `None` is shown as null.
    pub labels: Option<IndexMap<String, String>>,
    /// Options of the driver `local`: `type`, `o`, `device`.
    pub options: Option<IndexMap<String, String>>,
    /// When it was made.
    pub created: Timestamp,
}

impl Record for Volume {
    const KIND: &'static str = "volume";
}

impl Volume {
    /// Whether its content lies where volumes are: with options something else is mounted there.
    pub fn is_plain(&self) -> bool {
        self.options.as_ref().is_none_or(IndexMap::is_empty)
    }

    /// The label's value, for filters.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// The body of `POST /volumes/create`, and what a container's mounts ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeRequest {
    /// Empty for one that we make up.
    pub name: String,
    /// Empty is `local`.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: Option<IndexMap<String, String>>,
    /// Labels.
    pub labels: Option<IndexMap<String, String>>,
}

/// Checks a name that a client chose, in dockerd's words.
pub fn check_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid("volume name is too short, names should be at least two alphanumeric characters"));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    )))
}

/// A name for a volume that was given none: 64 hex digits.
pub fn random_name() -> String {
    ContainerId::random().as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for name in ["ab", "A0_.-", &random_name()] {
            check_name(name).unwrap();
        }
        for name in ["a", "-x", "a/b", "..", "a b", ""] {
            check_name(name).unwrap_err();
        }
    }
}
