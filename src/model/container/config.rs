//! `Config`: what a container is, whichever host runs it.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::model::{json, network::null_is_default};

/// A list of words that may come as one string (moby's `strslice`).
#[derive(Deserialize)]
#[serde(untagged)]
enum StringOrList {
    One(String),
    Many(Vec<String>),
}

/// Reads `null`, `"word"` and `["word", …]`.
pub struct StrSlice;

impl StrSlice {
    /// For `deserialize_with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
        Ok(Option::<StringOrList>::deserialize(deserializer)?.map(|words| match words {
            StringOrList::One(word) => vec![word],
            StringOrList::Many(words) => words,
        }))
    }
}

/// `Config` of create and inspect. Fields stand in the order in which dockerd writes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Host name; the short id if empty.
    #[serde(deserialize_with = "null_is_default")]
    pub hostname: String,
    /// NIS domain.
    #[serde(deserialize_with = "null_is_default")]
    pub domainname: String,
    /// User, user:group, uid or uid:gid.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// Whether `docker start -a` attaches to standard input.
    #[serde(deserialize_with = "null_is_default")]
    pub attach_stdin: bool,
    /// The same for standard output.
    #[serde(deserialize_with = "null_is_default")]
    pub attach_stdout: bool,
    /// The same for standard error.
    #[serde(deserialize_with = "null_is_default")]
    pub attach_stderr: bool,
    /// `{"80/tcp":{}}`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "json::names")]
    pub exposed_ports: Option<IndexMap<String, Value>>,
    /// With a terminal.
    #[serde(deserialize_with = "null_is_default")]
    pub tty: bool,
    /// Standard input can be written to.
    #[serde(deserialize_with = "null_is_default")]
    pub open_stdin: bool,
    /// Standard input ends when the first attached client leaves.
    #[serde(deserialize_with = "null_is_default")]
    pub stdin_once: bool,
    /// `KEY=value`; a `KEY` alone takes the image's away.
    pub env: Option<Vec<String>>,
    /// Arguments, or the program if there is no entrypoint.
    #[serde(deserialize_with = "StrSlice::deserialize")]
    pub cmd: Option<Vec<String>>,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Of Windows images.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_is_default")]
    pub args_escaped: bool,
    /// The image as the client named it.
    #[serde(deserialize_with = "null_is_default")]
    pub image: String,
    /// Places of anonymous volumes.
    #[serde(deserialize_with = "json::names")]
    pub volumes: Option<IndexMap<String, Value>>,
    /// Where the program starts.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// The program; `[""]` clears the image's.
    #[serde(deserialize_with = "StrSlice::deserialize")]
    pub entrypoint: Option<Vec<String>>,
    /// No network at all.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_is_default")]
    pub network_disabled: bool,
    /// Hardware address; before API 1.44.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub mac_address: String,
    /// Instructions for images built upon this one.
    pub on_build: Option<Vec<String>>,
    /// Labels.
    pub labels: Option<IndexMap<String, String>>,
    /// Signal that stops it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds until `stop` kills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of the build's shell forms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// A health check. Durations are nanoseconds; 0 inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// Empty inherits; `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "StrSlice::deserialize")]
    pub test: Option<Vec<String>>,
    /// Between checks.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub interval: i64,
    /// For one check.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub timeout: i64,
    /// During which failures do not count.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub start_period: i64,
    /// Between checks during the start period.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub start_interval: i64,
    /// Failures in a row until unhealthy.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub retries: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_a_list_of_one() {
        let config: Config = serde_json::from_str(r#"{"Cmd":"true","Entrypoint":null,"Env":null}"#).unwrap();
        assert_eq!(config.cmd, Some(vec!["true".to_owned()]));
        assert_eq!(config.entrypoint, None);
    }
}
