//! `--name=value` of an instruction.

use super::suggest::suggestion;
use crate::model::{Error, Result, limits};

/// What an instruction's flags may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a value.
    Text,
    /// `true` unless it says otherwise.
    Switch,
    /// Has a value, may come again.
    List,
}

/// The flags that were given, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(Vec<(String, String)>);

impl Flags {
    /// Reads `given` by the names and kinds in `known`.
    pub fn parse(given: &[String], known: &[(&str, Kind)]) -> Result<Self> {
        let mut flags = Self::default();
        for flag in given {
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.as_str(), None),
            };
            let bare = &name[2..];
            let Some((_, kind)) = known.iter().find(|(known, _)| *known == bare) else {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let name = limits::shown(name, limits::SHOWN);
                return Err(Error::invalid(format!("unknown flag: {name}{}", suggestion(bare, &names))));
            };
            if *kind != Kind::List && flags.0.iter().any(|(used, _)| used == bare) {
                return Err(Error::invalid(format!("duplicate flag specified: {name}")));
            }
            let missing = || Error::invalid(format!("missing a value on flag: {name}"));
            let value = match (kind, value) {
                (Kind::Switch, None) => "true".to_owned(),
                (Kind::Switch, Some("")) => return Err(missing()),
                (Kind::Switch, Some(value)) => match value.to_lowercase().as_str() {
                    switch @ ("true" | "false") => switch.to_owned(),
                    _ => {
                        let text = format!("expecting boolean value for flag {name}, not: {value}");
                        return Err(Error::invalid(text));
                    }
                },
                (Kind::Text | Kind::List, value) => value.ok_or_else(missing)?.to_owned(),
            };
            flags.0.push((bare.to_owned(), value));
        }
        Ok(flags)
    }

    /// A flag's value, empty if it was not given.
    pub fn text(&self, name: &str) -> String {
        self.0.iter().find(|(used, _)| used == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The first that was given of these.
    pub fn first_of(&self, names: &[&str]) -> Option<String> {
        self.0.iter().map(|(used, _)| used).find(|used| names.contains(&used.as_str())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_checked_in_dockerds_words() {
        let known = [("from", Kind::Text), ("link", Kind::Switch)];
        let parse = |flag: &[&str]| Flags::parse(&flag.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>(), &known);
        assert_eq!(parse(&["--from=a", "--link"]).unwrap().text("from"), "a");
        for (flags, error) in [
            (&["--foo=1"][..], "unknown flag: --foo (did you mean from?)"),
            (&["--from"], "missing a value on flag: --from"),
            (&["--from=a", "--from=b"], "duplicate flag specified: --from"),
            (&["--link=x"], "expecting boolean value for flag --link, not: x"),
        ] {
            assert_eq!(parse(flags).unwrap_err().message(), error);
        }
    }
}
