//! The `filters` query: a JSON map of lists, in both encodings clients use.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{Error, Result, json, limits, time::Timestamp};

/// Parsed filters: a name and the values asked for. Values of one name are alternatives (for `label`: all must hold).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `{"label":{"a=b":true}}` (Go clients) or `{"label":["a=b"]}` (older clients, bollard); empty text is no filter.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let invalid = || Error::invalid("invalid filter");
        json::check(text.as_bytes(), limits::QUERY_VALUES).map_err(|error| error.context("invalid filter"))?;
        let Ok(Value::Object(map)) = serde_json::from_str(text) else { return Err(invalid()) };
        let mut filters = BTreeMap::new();
        for (name, values) in map {
            let values = match values {
                // Only the keys count, also of one that is `false`.
                Value::Object(set) => set.into_iter().map(|(value, _)| value).collect(),
                Value::Array(list) => list
                    .into_iter()
                    .map(|value| match value {
                        Value::String(value) => Ok(value),
                        _ => Err(invalid()),
                    })
                    .collect::<Result<Vec<_>>>()?,
                Value::Null => continue,
                _ => return Err(invalid()),
            };
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// Refuses names that the call does not know, in dockerd's words.
    pub fn allow_only(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// Adds a value, for query parameters of old clients that say the same.
    pub fn add(&mut self, name: &str, value: String) {
        self.0.entry(name.to_owned()).or_default().push(value);
    }

    /// Whether the filter is given at all.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of a filter; empty if it is not given.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether no filter is given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `value` is one of the filter's values, or the filter is not given.
    pub fn matches_exact(&self, name: &str, value: &str) -> bool {
        !self.contains(name) || self.get(name).iter().any(|wanted| wanted == value)
    }

    /// As [`Filters::matches_exact`], with the values as prefixes (ids).
    pub fn matches_prefix(&self, name: &str, value: &str) -> bool {
        !self.contains(name) || self.get(name).iter().any(|wanted| value.starts_with(wanted.as_str()))
    }

    /// As [`Filters::matches_exact`], with the values as regular expressions (names), whose syntax is Go's. One that
    /// cannot be read matches nothing, as with dockerd.
    pub fn matches_pattern(&self, name: &str, value: &str) -> bool {
        !self.contains(name)
            || self.get(name).iter().any(|pattern| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(value)))
    }

    /// `label`: every `key` or `key=value` must be among the object's labels; `label!`: not all may be, as with dockerd.
    pub fn matches_labels<'a, L>(&self, labels: L) -> bool
    where
        L: Fn(&str) -> Option<&'a str>,
    {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels(key) == Some(value),
            None => labels(wanted).is_some(),
        };
        let forbidden = self.get("label!");
        self.get("label").iter().all(has) && (forbidden.is_empty() || !forbidden.iter().all(has))
    }

    /// A boolean filter such as `dangling`; `None` if it is not given.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            [] => Ok(None),
            values => {
                let truth = |value: &String| match value.as_str() {
                    "1" | "true" => Some(true),
                    "0" | "false" => Some(false),
                    _ => None,
                };
                let mut truths = values.iter().map(truth);
                match (truths.next().flatten(), truths.next()) {
                    (Some(truth), None) => Ok(Some(truth)),
                    _ => Err(Error::invalid(format!("invalid filter '{name}=[{}]'", values.join(" ")))),
                }
            }
        }
    }
}

/// What prunes ask for.
impl Filters {
    /// `until`: a point in time or a duration back from now.
    pub fn until(&self) -> Result<Option<Timestamp>> {
        match self.get("until") {
            [] => Ok(None),
            [until] => Timestamp::parse_query(until).map(Some),
            _ => Err(Error::invalid("more than one until filter specified")),
        }
    }

    /// A boolean that may be given once, in the words of dockerd's prunes.
    pub fn one_boolean(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            [] => Ok(None),
            [value] => match value.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
                _ => Err(Error::invalid(format!(
                    "invalid filter '{name}': strconv.ParseBool: parsing {value:?}: invalid syntax"
                ))),
            },
            values => {
                let values = values.join(" ");
                Err(Error::invalid(format!("invalid filter '{name}=[{values}]': only one value is expected")))
            }
        }
    }
}

/// From the text of the query, so that a handler's query struct can have a field of this type.
impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_are_read() {
        let map = Filters::parse(r#"{"label":{"a=b":true}}"#).unwrap();
        assert_eq!(map, Filters::parse(r#"{"label":["a=b"]}"#).unwrap());
        assert!(Filters::parse("{").is_err());
        assert!(Filters::parse(r#"{"label":3}"#).is_err());
    }

    #[test]
    fn names_are_matched_as_regular_expressions() {
        let matches = |pattern: &str, name: &str| {
            let mut filters = Filters::default();
            filters.add("name", pattern.to_owned());
            filters.matches_pattern("name", name)
        };
        assert!(matches("eb", "web") && matches("^web", "web-1") && matches("^/(web|db)$", "/db"));
        assert!(!matches("^web$", "web-1") && !matches("(", "("));
    }

    #[test]
    fn a_boolean_of_a_prune_is_given_once() {
        let all = |text: &str| Filters::parse(text).unwrap().one_boolean("all");
        assert_eq!(all("{}").unwrap(), None);
        assert_eq!(all(r#"{"all":["1"]}"#).unwrap(), Some(true));
        let texts = [
            (r#"{"all":["x"]}"#, "invalid filter 'all': strconv.ParseBool: parsing \"x\": invalid syntax"),
            (r#"{"all":["true","0"]}"#, "invalid filter 'all=[true 0]': only one value is expected"),
        ];
        for (filter, text) in texts {
            assert_eq!(all(filter).unwrap_err().message(), text);
        }
    }

    #[test]
    fn every_label_must_match() {
        let filters = Filters::parse(r#"{"label":["a=b","c"]}"#).unwrap();
        let labels = |key: &str| match key {
            "a" => Some("b"),
            "c" => Some(""),
            _ => None,
        };
        assert!(filters.matches_labels(labels));
        assert!(!filters.matches_labels(|key| (key == "a").then_some("b")));
        let filters = Filters::parse(r#"{"label!":["a","c"]}"#).unwrap();
        assert!(!filters.matches_labels(labels));
        assert!(filters.matches_labels(|key| (key == "a").then_some("b")));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good: [&[u8]; 3] =
            [br#"{"name":["a","b"],"label":["x=y"]}"#, br#"{"until":{"24h":true}}"#, br#"{"dangling":["1"]}"#];
        crate::model::fuzz::each(&good, |input| {
            if let Ok(filters) = Filters::parse(&String::from_utf8_lossy(input)) {
                let _told = (filters.boolean("dangling"), filters.until(), filters.matches_pattern("name", "abc"));
                filters.matches_labels(|_| Some("y"));
            }
        });
    }
}
