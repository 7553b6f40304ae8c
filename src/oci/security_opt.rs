//! `HostConfig.SecurityOpt`: seccomp, AppArmor, labels, `no-new-privileges`.

use crate::model::{Error, Result};

/// What the options say; absent ones are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// `unconfined`, `builtin` or a profile as JSON.
    pub seccomp: Option<String>,
    /// `unconfined` or a profile's name.
    pub apparmor: Option<String>,
    /// Words of SELinux.
    pub labels: Vec<String>,
    /// No process may gain privileges by executing a file.
    pub no_new_privileges: bool,
    /// Whether `/sys/fs/cgroup` is writable; by default only with privileges.
    pub writable_cgroups: Option<bool>,
}

impl SecurityOptions {
    /// Reads the options; in dockerd's words, and with its status 500, for others.
    pub fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        match option {
            "no-new-privileges" => {
                self.no_new_privileges = true;
                return Ok(());
            }
            "disable" => {
                self.labels.push(option.to_owned());
                return Ok(());
            }
            _ => {}
        }
        let invalid = |number: u8| Error::system(format!("invalid --security-opt {number}: {option:?}"));
        // Old clients write a colon.
        let separator = if option.contains('=') { '=' } else { ':' };
        let (key, value) = option.split_once(separator).ok_or_else(|| invalid(1))?;
        match key {
            "label" => self.labels.push(value.to_owned()),
            "apparmor" => self.apparmor = Some(value.to_owned()),
            "seccomp" => self.seccomp = Some(value.to_owned()),
            "no-new-privileges" => self.no_new_privileges = parse_bool(value).ok_or_else(|| invalid(2))?,
            "writable-cgroups" => self.writable_cgroups = Some(parse_bool(value).ok_or_else(|| invalid(2))?),
            _ => return Err(invalid(2)),
        }
        Ok(())
    }
}

/// The words that Go takes for booleans.
fn parse_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(option: &str) -> Result<SecurityOptions> {
        SecurityOptions::parse(&[option.to_owned()])
    }

    #[test]
    fn options_are_read_with_both_separators() {
        assert_eq!(parse("seccomp:unconfined").unwrap().seccomp.as_deref(), Some("unconfined"));
        assert_eq!(parse("seccomp={\"a\":1}").unwrap().seccomp.as_deref(), Some("{\"a\":1}"));
        assert!(parse("no-new-privileges").unwrap().no_new_privileges);
        assert!(parse("no-new-privileges:true").unwrap().no_new_privileges);
        assert_eq!(parse("label=level:s0:c1").unwrap().labels, ["level:s0:c1"]);
        assert_eq!(parse("writable-cgroups=true").unwrap().writable_cgroups, Some(true));
    }

    #[test]
    fn others_are_refused_in_dockers_words() {
        assert_eq!(parse("blue").unwrap_err().message(), "invalid --security-opt 1: \"blue\"");
        assert_eq!(parse("colour=blue").unwrap_err().message(), "invalid --security-opt 2: \"colour=blue\"");
        assert_eq!(
            parse("no-new-privileges=perhaps").unwrap_err().message(),
            "invalid --security-opt 2: \"no-new-privileges=perhaps\""
        );
    }
}
