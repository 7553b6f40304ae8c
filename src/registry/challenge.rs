//! `WWW-Authenticate`: how a registry wants to be spoken to.

use std::collections::HashMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// One way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// `basic` or `bearer`, lower case.
    pub scheme: String,
    /// `realm`, `service`, `scope`, `error` …
    pub parameters: HashMap<String, String>,
}

impl Challenge {
    /// A parameter, empty if it is not there.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }
}

/// All challenges of an answer.
pub fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).flat_map(parse).collect()
}

/// Reads `Bearer realm="…",service="…", Basic realm="…"`.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let word_end = rest.find(|c: char| c.is_whitespace() || matches!(c, '=' | ',')).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        if let Some(value) = after.strip_prefix('=') {
            let (value, after) = parameter_value(value);
            if let Some(challenge) = found.last_mut() {
                challenge.parameters.insert(word.to_lowercase(), value);
            }
            rest = after;
        } else {
            if !word.is_empty() {
                found.push(Challenge { scheme: word.to_lowercase(), parameters: HashMap::new() });
            }
            rest = after;
        }
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    }
    found
}

/// A quoted or bare value and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_with_commas_in_scope_is_read() {
        let found = parse(r#"Bearer realm="https://a.test/token",service="r",scope="repository:a/b:pull,push""#);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].parameter("scope"), "repository:a/b:pull,push");
        assert_eq!(found[0].parameter("realm"), "https://a.test/token");
    }

    #[test]
    fn several_challenges_are_told_apart() {
        let found = parse(r#"Basic realm="x", Bearer realm="y", error=invalid_token"#);
        assert_eq!(found.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(), ["basic", "bearer"]);
        assert_eq!(found[1].parameter("error"), "invalid_token");
    }

    #[test]
    fn nonsense_is_survived() {
        assert!(parse("").is_empty());
        assert_eq!(parse("=,=\"").len(), 0);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good: [&[u8]; 2] = [
            br#"Bearer realm="https://a/t",service="s",scope="repository:x:pull", Basic realm="y\"z""#,
            b"Negotiate, Basic",
        ];
        crate::model::fuzz::each(&good, |input| drop(parse(&String::from_utf8_lossy(input))));
    }
}
