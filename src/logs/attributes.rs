//! Attributes of a log: labels, environment and tag, as `json-file` is asked for them. Shown with `details`.

use indexmap::IndexMap;
use regex::Regex;

use crate::model::{Error, Result, container::LogConfig};

/// What attributes are made from.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its name, without the slash.
    pub name: &'a str,
    /// The image's id.
    pub image_id: &'a str,
    /// The image as the client named it.
    pub image_name: &'a str,
    /// Labels.
    pub labels: Option<&'a IndexMap<String, String>>,
    /// Environment, `KEY=value`.
    pub env: &'a [String],
}

/// `k=v,k=v`, sorted, percent-encoded as Go's `url.QueryEscape` does.
pub(super) fn details(config: &LogConfig, facts: &Facts<'_>) -> Result<String> {
    if config.kind == "local" {
        return Ok(String::new());
    }
    let mut found = Vec::new();
    for (name, value) in facts.labels.into_iter().flatten() {
        if is_asked_for(config, "labels", name)? {
            found.push((name.clone(), value.clone()));
        }
    }
    for (name, value) in facts.env.iter().filter_map(|entry| entry.split_once('=')) {
        if is_asked_for(config, "env", name)? {
            found.retain(|(known, _)| known != name);
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    if let Some(template) = config.config.get("tag").filter(|template| !template.is_empty()) {
        found.retain(|(known, _)| known != "tag");
        found.push(("tag".to_owned(), tag(template, facts)?));
    }
    found.sort();
    let pairs: Vec<String> = found.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    Ok(pairs.join(","))
}

/// Refuses a tag or pattern that cannot be carried out, at start as dockerd does.
pub(super) fn check_tag(config: &LogConfig) -> Result<()> {
    details(
        config,
        &Facts {
            env: &["A=".to_owned()],
            labels: Some(&IndexMap::from([(String::new(), String::new())])),
            ..Facts::default()
        },
    )
    .map(drop)
}

fn is_asked_for(config: &LogConfig, option: &str, name: &str) -> Result<bool> {
    if config.config.get(option).is_some_and(|names| names.split(',').any(|wanted| wanted == name)) {
        return Ok(true);
    }
    let Some(pattern) = config.config.get(&format!("{option}-regex")).filter(|pattern| !pattern.is_empty()) else {
        return Ok(false);
    };
    let pattern = Regex::new(pattern).map_err(|error| Error::system(format!("error parsing regexp: {error}")))?;
    Ok(pattern.is_match(name))
}

/// Carries out the fields of Go's template language that a tag consists of in practice.
fn tag(template: &str, facts: &Facts<'_>) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, action)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((action, after)) = action.split_once("}}") else {
            return Err(Error::system("template: log-tag:1: unclosed action"));
        };
        text.push_str(field(action.trim(), facts)?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn field<'a>(action: &str, facts: &Facts<'a>) -> Result<&'a str> {
    let short = |id: &'a str| {
        let id = id.strip_prefix("sha256:").unwrap_or(id);
        &id[..id.len().min(12)]
    };
    match action {
        ".ID" => Ok(short(facts.id)),
        ".FullID" => Ok(facts.id),
        ".Name" => Ok(facts.name),
        ".ImageID" => Ok(short(facts.image_id)),
        ".ImageFullID" => Ok(facts.image_id),
        ".ImageName" => Ok(facts.image_name),
        ".DaemonName" => Ok("docker"),
        other => Err(Error::system(format!(
            "template: log-tag:1:2: executing \"log-tag\" at <{other}>: can't evaluate field {} in type *logger.Info",
            other.trim_start_matches('.')
        ))),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[(&str, &str)]) -> LogConfig {
        let config = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LogConfig { kind: "json-file".to_owned(), config }
    }

    #[test]
    fn attributes_are_sorted_and_escaped_as_dockerd_does() {
        let labels = IndexMap::from([("b".to_owned(), "x y=z,w".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let env = ["X=é".to_owned(), "Y=".to_owned(), "Z=no".to_owned()];
        let facts = Facts {
            id: "3e20db30ad2c3560d5e8",
            name: "d1",
            image_name: "bb",
            labels: Some(&labels),
            env: &env,
            ..Facts::default()
        };
        let config = config(&[("labels", "a,b"), ("env-regex", "^[XY]"), ("tag", "{{.Name}}/{{.ID}}/{{.ImageName}}")]);
        // As dockerd 20.10 answered.
        let expected = "X=%C3%A9,Y=,a=1,b=x+y%3Dz%2Cw,tag=d1%2F3e20db30ad2c%2Fbb";
        assert_eq!(details(&config, &facts).unwrap(), expected);
    }

    #[test]
    fn unknown_tag_field_is_refused() {
        let error = check_tag(&config(&[("tag", "{{.Foo}}")])).unwrap_err();
        assert!(error.message().contains("can't evaluate field Foo"));
        assert!(check_tag(&config(&[("env-regex", "(")])).is_err());
    }
}
