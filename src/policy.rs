//! Level 1: policies. What a request wants of the machine is put into [`Demand`]s, one per danger (`demands`); a policy's rules
//! allow them or not (`entries`). Policies are TOML (`file`); three are built in. Nothing is read or asked here but what is given.

mod demands;
mod entries;
mod file;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, LazyLock},
};

use indexmap::IndexMap;

pub use self::file::{built_in_text, parse, to_toml};
use crate::model::{
    Error, Result,
    container::{Effective, HostConfig},
    network::{EndpointSettings, NetworkCreateRequest},
    path::clean_absolute,
    policy::{BuiltIn, Entry, Key, Policy, Rule},
    reference::Reference,
};

/// What is asked of the daemon, as it will be carried out.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// Any call, by its operationId.
    Call(&'a str),
    /// To make a container.
    Create(&'a Effective),
    /// To change limits of a container.
    Update {
        /// What they are.
        before: &'a HostConfig,
        /// What they will be.
        after: &'a HostConfig,
    },
    /// To run something in a container.
    Exec {
        /// With all privileges.
        privileged: bool,
    },
    /// To build, with steps in containers like this.
    Build(&'a HostConfig),
    /// To make a network.
    NetworkCreate(&'a NetworkCreateRequest),
    /// To connect a container to one.
    NetworkConnect(&'a EndpointSettings),
    /// To make a volume with these options of its driver.
    VolumeCreate(&'a IndexMap<String, String>),
    /// To pull an image.
    Pull(&'a Reference),
    /// To push an image.
    Push(&'a Reference),
    /// To ask a registry for anything else.
    Registry(&'a str),
    /// To take images or files of one from an archive.
    Load,
}

/// What a request wants of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// By which rule it is judged.
    pub key: Key,
    /// What it is.
    pub value: Value,
}

/// What is demanded; it is shown as the entry that allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The thing itself.
    Flag,
    /// A word.
    Word(String),
    /// A path.
    Path {
        /// Cleaned.
        path: String,
        /// Nothing can be written there.
        read_only: bool,
    },
    /// Ports of an address.
    Ports {
        /// `None` is all addresses.
        address: Option<IpAddr>,
        /// First and last; `None` is one that is free.
        ports: Option<(u16, u16)>,
    },
    /// A limit of processes.
    Limit {
        /// `nofile` …
        name: String,
        /// `None` is no limit.
        highest: Option<u64>,
    },
    /// A number of which low ones are dangerous.
    Number(i64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("true"),
            Self::Word(word) => f.write_str(word),
            Self::Path { path, read_only } => write!(f, "{path}{}", if *read_only { ":ro" } else { "" }),
            Self::Ports { address, ports } => {
                match address {
                    None => f.write_str("*:")?,
                    Some(address) => write!(f, "{address}:")?,
                }
                match ports {
                    None => f.write_str("*"),
                    Some((first, last)) if first == last => write!(f, "{first}"),
                    Some((first, last)) => write!(f, "{first}-{last}"),
                }
            }
            Self::Limit { name, highest: Some(highest) } => write!(f, "{name}={highest}"),
            Self::Limit { name, highest: None } => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// The policy of whoever may do what dockerd lets everybody do.
pub fn trusted() -> Arc<Policy> {
    static TRUSTED: LazyLock<Arc<Policy>> = LazyLock::new(|| Arc::new(built_in(BuiltIn::Trusted)));
    TRUSTED.clone()
}

/// A policy that is built in.
pub fn built_in(which: BuiltIn) -> Policy {
    let rules = file::parse_built_in(which);
    Policy { name: which.as_str().to_owned(), base: which, rules }
}

/// A stored policy with the rules that came after it was stored, as its base has them.
#[must_use]
pub fn completed(mut policy: Policy) -> Policy {
    for (key, rule) in built_in(policy.base).rules {
        policy.rules.entry(key).or_insert(rule);
    }
    policy
}

/// A policy that allows some paths of the machine more to be bound, as entries of its rule say them.
#[must_use]
pub fn with_binds(mut policy: Policy, binds: Vec<String>) -> Policy {
    let rule = policy.rules.entry(Key::Binds).or_insert(Rule::All(false));
    match rule {
        Rule::All(true) => {}
        Rule::All(false) => *rule = Rule::Only(binds),
        Rule::Only(entries) => entries.extend(binds),
    }
    policy
}

/// Whether a path of the machine may be bound to be written.
pub fn allows_writing(policy: &Policy, path: &str) -> bool {
    allows(policy, &Demand { key: Key::Binds, value: Value::Path { path: clean_absolute(path), read_only: false } })
}

/// At which address of the machine a port answers too that a job publishes at `host_ip`, there `None` being all addresses, and at one of `ports`: at all of
/// them where the rule allows that and all were asked for, else at loopback. An address of the job's own network is none of the machine's.
pub fn machine_address(policy: &Policy, host_ip: Option<IpAddr>, ports: Option<(u16, u16)>) -> Option<IpAddr> {
    let may = |address: &IpAddr| {
        let address = Some(*address).filter(|address| !address.is_unspecified());
        allows(policy, &Demand { key: Key::MachinePorts, value: Value::Ports { address, ports } })
    };
    let asked = host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let loopback = if asked.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    match asked {
        asked if asked.is_loopback() => Some(asked).filter(may),
        asked if asked.is_unspecified() => [asked, loopback].into_iter().find(may),
        _ => None,
    }
}

/// 403 if a policy does not allow what is asked: for the first reason there is.
pub fn check(policy: &Policy, asked: Asked<'_>) -> Result<()> {
    refusals(policy, asked).into_iter().next().map_or(Ok(()), Err)
}

/// All reasons why a policy does not allow what is asked.
pub fn refusals(policy: &Policy, asked: Asked<'_>) -> Vec<Error> {
    let denied = |demand: &Demand| !allows(policy, demand);
    demands::of(asked).iter().filter(|demand| denied(demand)).map(|demand| refusal(policy, demand)).collect()
}

fn refusal(policy: &Policy, demand: &Demand) -> Error {
    let (key, value) = (demand.key, demand.value.to_string());
    let entries = match policy.rules.get(&key) {
        Some(Rule::Only(entries)) => entries.as_slice(),
        _ => &[],
    };
    let with = (!entries::is_listed(key, entries, &demand.value)).then(|| format!("with the entry {value:?}"));
    let without = entries::taking_away(key, entries, &demand.value).map(|entry| format!("without the entry {entry:?}"));
    let allowed_by = match key.entry() {
        Entry::None => format!("{key} = true"),
        _ => format!("{key} {}", with.into_iter().chain(without).collect::<Vec<_>>().join(" and ")),
    };
    Error::refused_by_policy(&policy.name, key, &value, &allowed_by)
}

/// Whether a rule allows everything.
pub fn allows_all(policy: &Policy, key: Key) -> bool {
    policy.rules.get(&key) == Some(&Rule::All(true))
}

/// Whether a policy allows it. What it has no rule for, it does not.
fn allows(policy: &Policy, demand: &Demand) -> bool {
    match policy.rules.get(&demand.key) {
        None => false,
        Some(Rule::All(all)) => *all,
        Some(Rule::Only(entries)) => entries::allow(demand.key, entries, &demand.value),
    }
}
