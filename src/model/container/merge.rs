//! How an image's configuration lies below what a client asks for at create.

use indexmap::IndexMap;
use serde_json::Value;

use super::{Config, HealthConfig};
use crate::model::{Error, Result, image::ImageConfig, path::clean_absolute};

impl Config {
    /// Lays `image` below this config and checks that there is something to run (400 "no command specified").
    pub fn lay_over(self, image: &ImageConfig) -> Result<Self> {
        let mut merged = self.over(image);
        if merged.working_dir.starts_with('/') {
            merged.working_dir = clean_absolute(&merged.working_dir);
        }
        if is_empty(merged.entrypoint.as_ref()) && is_empty(merged.cmd.as_ref()) {
            return Err(Error::no_command_specified());
        }
        Ok(merged)
    }

    /// Lays `image` below this config.
    ///
    /// Rules of dockerd, which clients rely on: an entrypoint of the client hides the image's command as well; `[""]`
    /// takes the image's entrypoint away; variables are joined by name, the client's first; `OnBuild` and `Shell` of the
    /// image stay with the image.
    #[must_use]
    pub fn over(mut self, image: &ImageConfig) -> Self {
        fill(&mut self.user, &image.user);
        fill(&mut self.working_dir, &image.working_dir);
        fill_set(&mut self.exposed_ports, image.exposed_ports.as_ref());
        fill_set(&mut self.volumes, image.volumes.as_ref());
        self.env = merge_env(self.env, &image.env);
        self.labels = Some(merge_labels(self.labels, image.labels.as_ref()));
        self.healthcheck = merge_health(self.healthcheck, image.healthcheck.as_ref());
        if self.stop_signal.as_deref().is_none_or(str::is_empty) {
            self.stop_signal = image.stop_signal.clone().filter(|signal| !signal.is_empty());
        }
        self.merge_command(image);
        self
    }

    /// The program and its arguments: entrypoint first, then the command.
    pub fn command(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).flatten().cloned().collect()
    }

    fn merge_command(&mut self, image: &ImageConfig) {
        if is_empty(self.entrypoint.as_ref()) {
            if is_empty(self.cmd.as_ref()) {
                self.cmd.clone_from(&image.cmd);
                self.args_escaped = image.args_escaped.unwrap_or_default();
            }
            if self.entrypoint.is_none() {
                self.entrypoint.clone_from(&image.entrypoint);
            }
        }
        if self.entrypoint.as_deref().is_some_and(|words| words == [""]) {
            self.entrypoint = None;
        }
    }
}

fn is_empty(words: Option<&Vec<String>>) -> bool {
    words.is_none_or(Vec::is_empty)
}

fn fill(own: &mut String, below: &str) {
    if own.is_empty() {
        below.clone_into(own);
    }
}

fn fill_set(own: &mut Option<IndexMap<String, Value>>, below: Option<&IndexMap<String, Value>>) {
    let mut merged = own.take().unwrap_or_default();
    for (key, value) in below.into_iter().flatten() {
        merged.entry(key.clone()).or_insert_with(|| value.clone());
    }
    // dockerd writes the keys of objects in order, and nothing for an empty set.
    merged.sort_keys();
    *own = (!merged.is_empty()).then_some(merged);
}

fn merge_env(own: Option<Vec<String>>, image: &[String]) -> Option<Vec<String>> {
    let key = |entry: &str| entry.split_once('=').map_or(entry, |(key, _)| key).to_owned();
    let mut merged = own.unwrap_or_default();
    let keys: std::collections::HashSet<String> = merged.iter().map(|entry| key(entry)).collect();
    merged.extend(image.iter().filter(|entry| !keys.contains(&key(entry))).cloned());
    (!merged.is_empty()).then_some(merged)
}

fn merge_labels(
    own: Option<IndexMap<String, String>>,
    image: Option<&IndexMap<String, String>>,
) -> IndexMap<String, String> {
    let mut labels = own.unwrap_or_default();
    for (key, value) in image.into_iter().flatten() {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    labels.sort_keys();
    labels
}

/// A health check on another's periods, where it says none of its own.
pub fn merge_health(own: Option<HealthConfig>, image: Option<&HealthConfig>) -> Option<HealthConfig> {
    let (Some(mut own), Some(image)) = (own.clone(), image) else { return own.or_else(|| image.cloned()) };
    if is_empty(own.test.as_ref()) {
        own.test.clone_from(&image.test);
    }
    let inherit = |own: &mut i64, below: i64| {
        if *own == 0 {
            *own = below;
        }
    };
    inherit(&mut own.interval, image.interval);
    inherit(&mut own.timeout, image.timeout);
    inherit(&mut own.start_period, image.start_period);
    inherit(&mut own.start_interval, image.start_interval);
    inherit(&mut own.retries, image.retries);
    Some(own)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(own: Value, image: Value) -> Value {
        let own: Config = serde_json::from_value(own).unwrap();
        let image: ImageConfig = serde_json::from_value(image).unwrap();
        serde_json::to_value(own.lay_over(&image).unwrap()).unwrap()
    }

    #[test]
    fn entrypoint_and_command_follow_dockers_rules() {
        let table = [
            (json!({}), json!({"Cmd": ["a"]}), (json!(null), json!(["a"]))),
            (json!({}), json!({"Entrypoint": ["e"], "Cmd": ["a"]}), (json!(["e"]), json!(["a"]))),
            (json!({"Cmd": ["b"]}), json!({"Entrypoint": ["e"], "Cmd": ["a"]}), (json!(["e"]), json!(["b"]))),
            (json!({"Entrypoint": ["f"]}), json!({"Entrypoint": ["e"], "Cmd": ["a"]}), (json!(["f"]), json!(null))),
            (json!({"Entrypoint": [""]}), json!({"Cmd": ["a"]}), (json!(null), json!(null))),
            (json!({"Entrypoint": []}), json!({"Entrypoint": ["e"], "Cmd": ["a"]}), (json!([]), json!(["a"]))),
            (json!({"Cmd": []}), json!({"Cmd": ["a"]}), (json!(null), json!(["a"]))),
        ];
        for (own, image, (entrypoint, cmd)) in table {
            let own: Config = serde_json::from_value(own).unwrap();
            let image: ImageConfig = serde_json::from_value(image).unwrap();
            let label = format!("{own:?} over {image:?}");
            match own.lay_over(&image) {
                Ok(config) => {
                    assert_eq!(json!(config.entrypoint), entrypoint, "{label}");
                    assert_eq!(json!(config.cmd), cmd, "{label}");
                }
                Err(error) => {
                    assert_eq!(error.message(), "no command specified", "{label}");
                    assert_eq!((entrypoint, cmd), (Value::Null, Value::Null), "{label}");
                }
            }
        }
    }

    #[test]
    fn variables_are_joined_by_name_with_the_clients_first() {
        let config =
            merged(json!({"Cmd": "x", "Env": ["B=2", "GONE"]}), json!({"Env": ["PATH=/bin", "B=1", "GONE=1"]}));
        assert_eq!(config["Env"], json!(["B=2", "GONE", "PATH=/bin"]));
    }

    #[test]
    fn sets_are_joined() {
        let config = merged(
            json!({"Cmd": "x", "Labels": {"a": "1"}, "Volumes": {"/a": {}}, "ExposedPorts": {"1/tcp": {}}}),
            json!({"Labels": {"a": "0", "b": "2"}, "Volumes": {"/b": {}}, "ExposedPorts": {"2/tcp": {}}}),
        );
        assert_eq!(config["Labels"], json!({"a": "1", "b": "2"}));
        assert_eq!(config["Volumes"], json!({"/a": {}, "/b": {}}));
        assert_eq!(config["ExposedPorts"], json!({"1/tcp": {}, "2/tcp": {}}));
    }

    #[test]
    fn words_fall_through_to_the_image() {
        let image = json!({"User": "u", "WorkingDir": "/w", "StopSignal": "SIGINT"});
        let config = merged(json!({"Cmd": "x"}), image.clone());
        assert_eq!([&config["User"], &config["WorkingDir"], &config["StopSignal"]], ["u", "/w", "SIGINT"]);
        let config = merged(json!({"Cmd": "x", "User": "v", "WorkingDir": "/v", "StopSignal": "9"}), image);
        assert_eq!([&config["User"], &config["WorkingDir"], &config["StopSignal"]], ["v", "/v", "9"]);
    }

    #[test]
    fn health_check_inherits_field_by_field() {
        let config = merged(
            json!({"Cmd": "x", "Healthcheck": {"Interval": 5, "Retries": 2}}),
            json!({"Healthcheck": {"Test": ["CMD", "a"], "Interval": 1, "Timeout": 3, "StartPeriod": 4}}),
        );
        assert_eq!(
            config["Healthcheck"],
            json!({"Test": ["CMD", "a"], "Interval": 5, "Timeout": 3, "StartPeriod": 4, "Retries": 2})
        );
        let config = merged(
            json!({"Cmd": "x", "Healthcheck": {"Test": ["NONE"]}}),
            json!({"Healthcheck": {"Test": ["CMD", "a"]}}),
        );
        assert_eq!(config["Healthcheck"], json!({"Test": ["NONE"]}));
    }

    #[test]
    fn absent_and_empty_are_null_as_in_dockerd() {
        let config =
            merged(json!({"Cmd": "x", "Env": [], "Volumes": {}, "ExposedPorts": {}, "StopSignal": ""}), json!({}));
        assert_eq!((&config["Env"], &config["Volumes"]), (&Value::Null, &Value::Null));
        assert!(config.get("ExposedPorts").is_none() && config.get("StopSignal").is_none());
    }

    #[test]
    fn folder_is_cleaned() {
        assert_eq!(merged(json!({"Cmd": "x", "WorkingDir": "/a/../b//"}), json!({}))["WorkingDir"], "/b");
        assert_eq!(merged(json!({"Cmd": "x", "WorkingDir": "b/"}), json!({}))["WorkingDir"], "b/");
    }

    #[test]
    fn labels_are_an_object_even_when_empty() {
        assert_eq!(merged(json!({"Cmd": "x"}), json!({}))["Labels"], json!({}));
    }
}
