//! The variables of a job, as gitlab-runner hands them to its driver: final, and prefixed.

use std::{collections::BTreeMap, env};

/// What the names of a job's variables begin with in our environment, so that they are none of ours.
const PREFIX: &str = "CUSTOM_ENV_";

/// For drivers alone: the services as JSON.
const SERVICES: &str = "CI_JOB_SERVICES";

/// By their names.
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Of our environment. What is no text is left out: no program of a job could have set it.
    pub fn of_environment() -> Self {
        let own = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let name = name.to_str()?.strip_prefix(PREFIX)?.to_owned();
            (name != SERVICES).then_some((name, value.into_string().ok()?))
        };
        Self(env::vars_os().filter_map(own).collect())
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `NAME=value` of all, for a container.
    pub fn all(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Replaces `$NAME` and `${NAME}`, once, as gitlab-runner does in names of images; what is unknown is nothing, and `$$` is a dollar.
    pub fn expand(&self, text: &str) -> String {
        let (mut expanded, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let (name, left) = name_at(after);
            match name {
                "$" => expanded.push('$'),
                name => expanded.push_str(self.get(name).unwrap_or_default()),
            }
            rest = left;
        }
        expanded.push_str(rest);
        expanded
    }
}

/// The name after a dollar, and what follows it.
fn name_at(text: &str) -> (&str, &str) {
    if let Some((name, rest)) = text.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
        return (name, rest);
    }
    if text.starts_with('$') {
        return text.split_at(1);
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_once() {
        let all = [("CI_REGISTRY", "registry.example.org"), ("A_1", "$A_2"), ("A_2", "x")];
        let variables = Variables(all.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        for (text, expanded) in [
            ("$CI_REGISTRY/app:${A_2}", "registry.example.org/app:x"),
            ("$A_1", "$A_2"),
            ("a$UNKNOWN-b${UNKNOWN}", "a-b"),
            ("$$A_2", "$A_2"),
            ("ends with $", "ends with "),
            ("${A_2", "{A_2"),
        ] {
            assert_eq!(variables.expand(text), expanded, "{text}");
        }
    }
}
