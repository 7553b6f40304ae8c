//! Options of a tmpfs: which there are, and which of two that contradict each other wins.

use std::collections::HashSet;

use crate::model::{Error, Result};

const PROPAGATION: [&str; 8] =
    ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];

/// Pairs that say opposite things.
const FLAGS: [(&str, &str); 14] = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("sync", "async"),
    ("dirsync", ""),
    ("remount", ""),
    ("mand", "nomand"),
    ("noatime", "atime"),
    ("nodiratime", "diratime"),
    ("bind", ""),
    ("rbind", ""),
    ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
];

const VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// Docker's defaults with `options` (`size=64k,exec`) laid over; the last of two contradicting ones stays where it stands.
///
/// 400 `invalid tmpfs option "x"` for what Linux does not know.
pub(super) fn merge(options: &str) -> Result<Vec<String>> {
    let own = options.split(',').filter(|_| !options.is_empty());
    let words: Vec<&str> = ["noexec", "nosuid", "nodev", "rprivate"].into_iter().chain(own).collect();
    let mut seen = HashSet::new();
    let mut merged = Vec::new();
    for word in words.into_iter().rev().filter(|word| *word != "defaults") {
        if seen.insert(subject_of(word)?) {
            merged.push(word.to_owned());
        }
    }
    merged.reverse();
    Ok(merged)
}

/// What an option speaks about: equal for two that exclude each other.
fn subject_of(word: &str) -> Result<&str> {
    if PROPAGATION.contains(&word) {
        return Ok("propagation");
    }
    if let Some((flag, _)) = FLAGS.iter().find(|(set, cleared)| word == *set || (word == *cleared && !word.is_empty()))
    {
        return Ok(flag);
    }
    let key = word.split_once('=').map(|(key, _)| key);
    match key {
        Some(key) if VALUES.contains(&key) => Ok(key),
        _ => Err(Error::invalid(format!("invalid tmpfs option {:?}", key.unwrap_or(word)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_options_win() {
        let table = [
            ("", "noexec,nosuid,nodev,rprivate"),
            ("size=64k,mode=1770,exec", "nosuid,nodev,rprivate,size=64k,mode=1770,exec"),
            ("rw,noatime,uid=5", "noexec,nosuid,nodev,rprivate,rw,noatime,uid=5"),
            ("ro,rw,ro", "noexec,nosuid,nodev,rprivate,ro"),
            ("size=1m,size=2m,rshared,defaults", "noexec,nosuid,nodev,size=2m,rshared"),
        ];
        for (options, merged) in table {
            assert_eq!(merge(options).unwrap().join(","), merged, "{options}");
        }
    }

    #[test]
    fn unknown_options_are_refused() {
        assert_eq!(merge("colour=blue").unwrap_err().message(), "invalid tmpfs option \"colour\"");
        assert_eq!(merge("blue").unwrap_err().message(), "invalid tmpfs option \"blue\"");
    }
}
