//! Capabilities: Docker's default set, `CapAdd`, `CapDrop`, and what this machine can give at all.

use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use crate::model::{Error, Result, container::HostConfig};

/// All capabilities, at the index of their number in the kernel.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has if nothing else is asked for.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, one bit for each of the kernel's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// All that exist.
    pub fn all() -> Self {
        Self((1 << ALL.len()) - 1)
    }

    /// From a mask as `/proc/self/status` shows it (`CapBnd`).
    pub fn from_mask(mask: u64) -> Self {
        Self(mask & Self::all().0)
    }

    /// What a container has that asked for nothing.
    pub fn docker_default() -> Self {
        DEFAULT.iter().filter_map(|name| number_of(name)).fold(Self(0), Self::with)
    }

    /// Whether `name` (without `CAP_`) is in it.
    pub fn contains(self, name: &str) -> bool {
        number_of(name).is_some_and(|number| self.0 & (1 << number) != 0)
    }

    /// What both sets have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// As the OCI spec has it: effective, permitted and bounding alike; inheritable and ambient stay empty as in dockerd since
    /// CVE-2022-24769.
    pub fn to_oci(self) -> LinuxCapabilities {
        let names = ALL.iter().filter(|name| self.contains(name));
        let set: Capabilities = names
            .map(|name| Capability::from_str(name).expect("oci-spec knows every capability of the table"))
            .collect();
        let mut capabilities = LinuxCapabilitiesBuilder::default().build().expect("every field has a default");
        let set = (!set.is_empty()).then_some(set);
        capabilities.set_bounding(set.clone()).set_effective(set.clone()).set_permitted(set);
        capabilities.set_inheritable(None).set_ambient(None);
        capabilities
    }

    fn with(self, number: usize) -> Self {
        Self(self.0 | 1 << number)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a container gets, cut down to `bounding`: the bounding set of our own process, beyond which nobody can give.
///
/// Errors are 400: `invalid CapAdd: unknown capability: "CAP_X"`.
pub fn effective(host_config: &HostConfig, bounding: CapabilitySet) -> Result<CapabilitySet> {
    let dropped = read("CapDrop", host_config.cap_drop.as_deref(), bounding)?;
    let added = read("CapAdd", host_config.cap_add.as_deref(), bounding)?;
    let set = if host_config.privileged {
        bounding
    } else if added.all {
        bounding.without(dropped.named)
    } else if dropped.all {
        added.named
    } else {
        CapabilitySet::docker_default().without(dropped.named).union(added.named)
    };
    Ok(set.intersection(bounding))
}

/// `CAP_…` as inspect and the OCI spec write it.
fn canonical(word: &str) -> String {
    let word = word.to_ascii_uppercase();
    if word.starts_with("CAP_") { word } else { format!("CAP_{word}") }
}

#[derive(Default)]
struct Words {
    all: bool,
    named: CapabilitySet,
}

fn read(field: &str, words: Option<&[String]>, bounding: CapabilitySet) -> Result<Words> {
    let mut read = Words::default();
    for word in words.unwrap_or_default() {
        if word.eq_ignore_ascii_case("ALL") {
            read.all = true;
            continue;
        }
        let name = canonical(word);
        let Some(number) = name.strip_prefix("CAP_").and_then(number_of) else {
            return Err(Error::invalid(format!("invalid {field}: unknown capability: {name:?}")));
        };
        if !bounding.contains(ALL[number]) {
            return Err(Error::invalid(format!(
                "invalid {field}: capability not supported by your kernel or not available in the current environment: {name:?}"
            )));
        }
        read.named = read.named.with(number);
    }
    Ok(read)
}

fn number_of(name: &str) -> Option<usize> {
    ALL.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Result<CapabilitySet> {
        let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
        let host_config = HostConfig { cap_add: words(add), cap_drop: words(drop), ..HostConfig::default() };
        effective(&host_config, all_but("SYS_RESOURCE"))
    }

    fn all_but(name: &str) -> CapabilitySet {
        CapabilitySet::all().without(CapabilitySet(0).with(number_of(name).unwrap()))
    }

    #[test]
    fn default_has_fourteen() {
        assert_eq!(CapabilitySet::docker_default().0.count_ones(), 14);
        assert_eq!(set(&[], &[]).unwrap(), CapabilitySet::docker_default());
    }

    #[test]
    fn all_adds_what_the_machine_has() {
        assert_eq!(set(&["all"], &[]).unwrap(), all_but("SYS_RESOURCE"));
        assert_eq!(set(&["ALL"], &["ALL"]).unwrap(), all_but("SYS_RESOURCE"));
        assert!(!set(&["ALL"], &["cap_net_raw"]).unwrap().contains("NET_RAW"));
        assert_eq!(set(&["CHOWN"], &["ALL"]).unwrap(), CapabilitySet(1));
    }

    #[test]
    fn unknown_and_unavailable_ones_are_refused() {
        assert_eq!(set(&["nope"], &[]).unwrap_err().message(), "invalid CapAdd: unknown capability: \"CAP_NOPE\"");
        assert_eq!(set(&[], &["x"]).unwrap_err().message(), "invalid CapDrop: unknown capability: \"CAP_X\"");
        assert_eq!(
            set(&["SYS_RESOURCE"], &[]).unwrap_err().message(),
            "invalid CapAdd: capability not supported by your kernel or not available in the current environment: \
             \"CAP_SYS_RESOURCE\""
        );
    }
}
