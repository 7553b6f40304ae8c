//! Entries of a rule's list: what each kind looks like, and what it allows.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Value;
use crate::model::{
    mirror,
    path::clean_absolute,
    policy::{Entry, Key},
};

/// Whether any of the entries allows a value, and none takes it away again.
pub(super) fn allow(key: Key, entries: &[String], value: &Value) -> bool {
    taking_away(key, entries, value).next().is_none() && is_listed(key, entries, value)
}

/// Whether any of the entries allows a value, whatever takes it away again.
pub(super) fn is_listed(key: Key, entries: &[String], value: &Value) -> bool {
    entries.iter().filter(|entry| !entry.starts_with('!')).any(|entry| matches(key, entry, value))
}

/// The entries that take a value away, whatever the others say.
pub(super) fn taking_away<'e>(key: Key, entries: &'e [String], value: &'e Value) -> impl Iterator<Item = &'e str> {
    let takes = move |entry: &&str| entry.strip_prefix('!').is_some_and(|entry| matches(key, entry, value));
    entries.iter().map(String::as_str).filter(takes)
}

/// Why an entry cannot be one of a rule.
pub(super) fn check(key: Key, entry: &str) -> Result<(), &'static str> {
    let entry = if key == Key::Mirrors { entry } else { entry.strip_prefix('!').unwrap_or(entry) };
    let (is_one, expected) = match key.entry() {
        Entry::None => (false, "this rule is true or false"),
        Entry::Pattern => (!entry.is_empty(), "expected a word, in which * stands for anything"),
        Entry::Path => (entry.starts_with('/'), "expected a path from the root, perhaps with :ro"),
        Entry::Ports => (ports(entry).is_some(), "expected ADDRESS:PORT, either perhaps *, or PORT-PORT"),
        Entry::Limit => (limit(entry).is_some(), "expected NAME or NAME=HIGHEST"),
        Entry::Lowest => (entry.parse::<i64>().is_ok(), "expected a number"),
        Entry::Mirror => {
            (mirror::check(entry).is_ok(), "expected https://HOST or http://HOST; all that there are stand in the list")
        }
    };
    if is_one { Ok(()) } else { Err(expected) }
}

fn matches(key: Key, entry: &str, value: &Value) -> bool {
    match value {
        // A flag has no entries.
        Value::Flag => false,
        Value::Word(word) if key == Key::Capabilities => fits(&capability(entry), word),
        Value::Word(word) => fits(entry, word),
        Value::Path { path, read_only } => is_below(entry, path, *read_only),
        Value::Ports { address, ports: wanted } => ports(entry).is_some_and(|allowed| allowed.allow(*address, *wanted)),
        Value::Limit { name, highest } => limit(entry).is_some_and(|(allowed, cap)| {
            allowed == name && cap.is_none_or(|cap| highest.is_some_and(|highest| highest <= cap))
        }),
        Value::Number(number) => entry.parse::<i64>().is_ok_and(|lowest| *number >= lowest),
    }
}

/// A capability as it is compared: `SYS_ADMIN`.
pub(super) fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
}

/// Whether a word is what a pattern describes; `*` stands for anything, also for nothing.
fn fits(pattern: &str, word: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == word };
    let Some(mut word) = word.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = word.find(piece) else { return false };
        word = &word[at + piece.len()..];
    }
    word.ends_with(end)
}

fn is_below(entry: &str, path: &str, read_only: bool) -> bool {
    let (folder, only_read) = match entry.strip_suffix(":ro") {
        Some(folder) => (folder, true),
        None => (entry, false),
    };
    let folder = clean_absolute(folder);
    let rest = path.strip_prefix(folder.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) && (read_only || !only_read)
}

struct Ports {
    /// `None` is any, and all.
    net: Option<IpNet>,
    /// `None` is any, and one that is free.
    ports: Option<(u16, u16)>,
}

impl Ports {
    fn allow(&self, address: Option<IpAddr>, wanted: Option<(u16, u16)>) -> bool {
        let fits = self.net.is_none_or(|net| address.is_some_and(|address| net.contains(&address)));
        fits && self.ports.is_none_or(|(first, last)| wanted.is_some_and(|(from, to)| first <= from && to <= last))
    }
}

fn ports(entry: &str) -> Option<Ports> {
    let (address, ports) = entry.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let net = match address {
        "*" => None,
        net if net.contains('/') => Some(net.parse().ok()?),
        address => Some(IpNet::from(address.parse::<IpAddr>().ok()?)),
    };
    let ports = match (ports, ports.split_once('-')) {
        ("*", _) => None,
        (_, Some((first, last))) => Some((first.parse().ok()?, last.parse().ok()?)),
        (port, None) => Some(port.parse().map(|port| (port, port)).ok()?),
    };
    Some(Ports { net, ports })
}

fn limit(entry: &str) -> Option<(&str, Option<u64>)> {
    match entry.split_once('=') {
        None => (!entry.is_empty()).then_some((entry, None)),
        Some((name, cap)) => Some((name, Some(cap.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_whole_words_with_stars() {
        for (pattern, word) in
            [("*", ""), ("a*", "a"), ("a*c", "abc"), ("*/x:*", "h/x:1"), ("a*b*c", "a.b.b.c"), ("a", "a")]
        {
            assert!(fits(pattern, word), "{pattern} {word}");
        }
        for (pattern, word) in [("a", "ab"), ("a*c", "a"), ("*b", "abc"), ("ab*b", "ab"), ("", "a")] {
            assert!(!fits(pattern, word), "{pattern} {word}");
        }
    }

    #[test]
    fn paths_are_folders_not_beginnings() {
        for (entry, path, read_only) in
            [("/srv", "/srv", false), ("/srv/", "/srv/a", true), ("/srv:ro", "/srv/a", true), ("/", "/etc", false)]
        {
            assert!(is_below(entry, path, read_only), "{entry} {path}");
        }
        for (entry, path, read_only) in
            [("/srv", "/srvx", false), ("/srv/a", "/srv", false), ("/srv:ro", "/srv", false)]
        {
            assert!(!is_below(entry, path, read_only), "{entry} {path}");
        }
    }

    #[test]
    fn ports_are_within_what_is_allowed() {
        let allow =
            |entry: &str, address: &str, ports: Option<(u16, u16)>| ports_of(entry).allow(address.parse().ok(), ports);
        fn ports_of(entry: &str) -> Ports {
            ports(entry).unwrap()
        }
        assert!(allow("*:*", "", None) && allow("127.0.0.0/8:80-90", "127.0.0.2", Some((81, 90))));
        assert!(allow("[::1]:*", "::1", None) && allow("*:8080", "", Some((8080, 8080))));
        assert!(!allow("127.0.0.1:*", "", None), "all addresses are more than one");
        assert!(!allow("*:80", "", None), "any port is more than one");
        assert!(!allow("*:80-90", "", Some((80, 91))));
        assert!(ports("80").is_none() && ports("a:80").is_none());
    }

    #[test]
    fn limits_are_caps() {
        let limits = ["nofile=1024".to_owned(), "core".to_owned()];
        let allowed =
            |name: &str, highest| allow(Key::Ulimits, &limits, &Value::Limit { name: name.to_owned(), highest });
        assert!(allowed("nofile", Some(1024)) && allowed("core", None));
        assert!(!allowed("nofile", Some(1025)) && !allowed("nofile", None) && !allowed("nproc", Some(1)));
    }

    #[test]
    fn what_is_taken_away_is_not_allowed() {
        let entries = ["*".to_owned(), "!evil.test".to_owned()];
        let allowed = |word: &str| allow(Key::Registries, &entries, &Value::Word(word.to_owned()));
        assert!(allowed("docker.io") && !allowed("evil.test"));
        assert!(allow(Key::Capabilities, &["cap_sys_ptrace".to_owned()], &Value::Word("SYS_PTRACE".to_owned())));
    }
}
