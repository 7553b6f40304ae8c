//! A client's words that become parts of lines: in `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of its own
//! container, and of others that are linked to it. dockerd writes them as they are.

use std::borrow::Cow;

use crate::model::{
    Error, Result,
    container::{Config, HostConfig},
};

/// Refuses words that would end their line.
pub fn check(config: &Config, host_config: &HostConfig) -> Result<()> {
    let one = [("Hostname", &config.hostname), ("Domainname", &config.domainname)];
    let lists = [
        ("ExtraHosts", &host_config.extra_hosts),
        ("DnsSearch", &host_config.dns_search),
        ("DnsOptions", &host_config.dns_options),
        ("Links", &host_config.links),
    ];
    let of_lists = lists.into_iter().flat_map(|(field, list)| list.iter().flatten().map(move |word| (field, word)));
    match one.into_iter().chain(of_lists).find(|(_, word)| word.contains(is_misplaced)) {
        Some((field, word)) => Err(Error::invalid(format!("invalid {field}: {word:?} contains a control character"))),
        None => Ok(()),
    }
}

/// A text with `?` in place of what has no place in a line: also what an older daemon stored never makes another line.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(is_misplaced) { text.replace(is_misplaced, "?").into() } else { text.into() }
}

/// A tab may be there, as in dockerd's files.
fn is_misplaced(character: char) -> bool {
    character.is_control() && character != '\t'
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(config: Value, host_config: Value) -> Result<()> {
        check(&serde_json::from_value(config).unwrap(), &serde_json::from_value(host_config).unwrap())
    }

    #[test]
    fn words_that_end_a_line_are_refused() {
        for breaker in ["\n", "\r", "\0", "\u{85}", "\u{1b}"] {
            let word = format!("a{breaker}6.6.6.6 evil");
            for field in ["Hostname", "Domainname"] {
                let error = checked(json!({field: word}), json!({})).unwrap_err();
                assert_eq!(error.message(), format!("invalid {field}: {word:?} contains a control character"));
            }
            for field in ["ExtraHosts", "DnsSearch", "DnsOptions", "Links"] {
                assert!(checked(json!({}), json!({field: ["fine", word]})).is_err(), "{field} {word:?}");
            }
        }
    }

    /// Odd, but dockerd 28.5 takes them, and they stay where they are.
    #[test]
    fn other_words_pass() {
        for word in ["a b", "a\tb", "a#b", "#", "..", "a/b", "ü", " a ", ""] {
            checked(json!({"Hostname": word, "Domainname": word}), json!({"DnsSearch": [word], "Links": [word]}))
                .unwrap();
            assert_eq!(one_line(word), word);
        }
    }

    #[test]
    fn a_stored_word_stays_in_its_line() {
        assert_eq!(one_line("a\n6.6.6.6 evil\r\0"), "a?6.6.6.6 evil??");
    }
}
