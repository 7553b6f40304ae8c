//! `ARG`: which arguments a stage has, and their values.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Result, limits};

/// Arguments that need no `ARG`, and are not told in the history.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Names with values; `None` where a name came without one.
pub type Arguments = BTreeMap<String, Option<String>>;

/// The arguments of a build; each stage works on a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildArguments {
    /// From the request.
    given: Arguments,
    /// Declared before the first `FROM`.
    global: Arguments,
    /// Declared in this stage.
    declared: Arguments,
    /// Named anywhere.
    used: BTreeSet<String>,
}

impl BuildArguments {
    /// With what the request gives.
    pub fn new(given: Arguments) -> Self {
        Self { given, ..Self::default() }
    }

    /// For a new stage: nothing is declared.
    pub fn for_stage(&self) -> Self {
        Self { declared: Arguments::new(), ..self.clone() }
    }

    /// A stage has ended that began with a copy of this one.
    pub fn merge_used(&mut self, stage: &Self) {
        self.used.extend(stage.used.iter().cloned());
    }

    /// `ARG` in a stage.
    pub fn declare(&mut self, name: &str, default: Option<String>) -> Result<()> {
        self.declared.insert(name.to_owned(), default);
        self.used.insert(name.to_owned());
        let sizes = self.declared.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len));
        limits::configuration(sizes)
    }

    /// `ARG` before the first `FROM`.
    pub fn declare_global(&mut self, name: &str, default: Option<String>) -> Result<()> {
        self.declare(name, default.clone())?;
        self.global.insert(name.to_owned(), default);
        Ok(())
    }

    /// `KEY=value` for `FROM`.
    pub fn of_globals(&self) -> Vec<String> {
        self.values(&self.global).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// `KEY=value` of what the stage has declared, but not what `env` sets.
    pub fn beside(&self, env: &[String]) -> Vec<String> {
        let is_set = |name: &str| env.iter().any(|line| line.split('=').next() == Some(name));
        let values = self.values(&self.declared).into_iter().filter(|(name, _)| !is_set(name));
        values.map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Whether the history tells of an argument: all but the predefined ones that no `ARG` names.
    pub fn is_told(&self, name: &str) -> bool {
        self.declared.contains_key(name) || !PREDEFINED.contains(&name)
    }

    /// What was given and never named, sorted.
    pub fn unused(&self) -> Vec<&str> {
        let names = self.given.keys().map(String::as_str);
        names.filter(|name| !self.used.contains(*name) && !PREDEFINED.contains(name)).collect()
    }

    fn values(&self, declared: &Arguments) -> BTreeMap<String, String> {
        let names = declared.keys().map(String::as_str).chain(PREDEFINED);
        names.filter_map(|name| Some((name.to_owned(), self.value(name, declared)?))).collect()
    }

    fn value(&self, name: &str, declared: &Arguments) -> Option<String> {
        let of = |arguments: &Arguments| arguments.get(name).cloned().flatten();
        of(&self.given).or_else(|| of(declared)).or_else(|| of(&self.global))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_is_the_stage() {
        let given = Arguments::from([
            ("A".to_owned(), Some("given".to_owned())),
            ("http_proxy".to_owned(), Some("p".to_owned())),
            ("U".to_owned(), None),
        ]);
        let mut all = BuildArguments::new(given);
        all.declare_global("G", Some("1".to_owned())).unwrap();
        assert_eq!(all.of_globals(), ["G=1", "http_proxy=p"]);
        let mut stage = all.for_stage();
        assert_eq!(stage.beside(&[]), ["http_proxy=p"]);
        stage.declare("G", None).unwrap();
        stage.declare("A", Some("default".to_owned())).unwrap();
        stage.declare("X", None).unwrap();
        assert_eq!(stage.beside(&["http_proxy=".to_owned()]), ["A=given", "G=1"]);
        assert!(!stage.is_told("http_proxy") && stage.is_told("A"));
        all.merge_used(&stage);
        assert_eq!(all.unused(), ["U"]);
    }
}
