//! A profile that a client sends: Docker's format with conditions, or the OCI spec's own.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::architectures;
use crate::{
    model::{Error, Result, network::null_is_default},
    oci::{caps::CapabilitySet, host::HostFacts},
};

/// The document. Where both formats have a field, `archMap` and `architectures` exclude each other.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_default")]
    architectures: Vec<Arch>,
    #[serde(default, deserialize_with = "null_is_default")]
    arch_map: Vec<ArchEntry>,
    flags: Option<Value>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchEntry {
    architecture: Arch,
    #[serde(default, deserialize_with = "null_is_default")]
    sub_architectures: Vec<Arch>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default, deserialize_with = "null_is_default")]
    name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_default")]
    args: Vec<LinuxSeccompArg>,
    #[serde(default, deserialize_with = "null_is_default")]
    includes: Filter,
    #[serde(default, deserialize_with = "null_is_default")]
    excludes: Filter,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    #[serde(deserialize_with = "null_is_default")]
    caps: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    arches: Vec<String>,
    #[serde(deserialize_with = "kernel_version")]
    min_kernel: Option<(u32, u32)>,
}

/// `4.8`.
fn kernel_version<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<(u32, u32)>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let numbers = text.split_once('.').map(|(major, minor)| (major.parse(), minor.parse()));
    match numbers {
        Some((Ok(major), Ok(minor))) if (major, minor) != (0, 0) => Ok(Some((major, minor))),
        _ => Err(serde::de::Error::custom(format!("invalid kernel version: {text:?}"))),
    }
}

impl Filter {
    /// For `includes`: everything that is given holds.
    fn all_hold(&self, caps: CapabilitySet, host: &HostFacts) -> bool {
        let has = |cap: &String| caps.contains(cap.trim_start_matches("CAP_"));
        (self.arches.is_empty() || self.arches.contains(&host.arch))
            && self.caps.iter().all(has)
            && self.min_kernel.is_none_or(|version| host.kernel >= version)
    }

    /// For `excludes`: something that is given holds.
    fn any_holds(&self, caps: CapabilitySet, host: &HostFacts) -> bool {
        let has = |cap: &String| caps.contains(cap.trim_start_matches("CAP_"));
        self.arches.contains(&host.arch)
            || self.caps.iter().any(has)
            || self.min_kernel.is_some_and(|version| host.kernel >= version)
    }
}

impl Entry {
    fn applies(&self, caps: CapabilitySet, host: &HostFacts) -> bool {
        self.includes.all_hold(caps, host) && !self.excludes.any_holds(caps, host)
    }

    fn into_oci(self) -> Result<LinuxSyscall> {
        let names = match (self.name.is_empty(), self.names.is_empty()) {
            (false, false) => return Err(unreadable("use either 'name' or 'names'")),
            (false, true) => vec![self.name],
            (true, _) => self.names,
        };
        let mut syscall =
            LinuxSyscallBuilder::default().names(names).action(self.action).build().expect("both are given");
        syscall.set_errno_ret(self.errno_ret).set_args((!self.args.is_empty()).then_some(self.args));
        Ok(syscall)
    }
}

fn unreadable(cause: impl std::fmt::Display) -> Error {
    Error::invalid(format!("Decoding seccomp profile failed: {cause}"))
}

/// The profile with its conditions resolved for this container and host.
pub(super) fn expand(json: &str, caps: CapabilitySet, host: &HostFacts) -> Result<LinuxSeccomp> {
    let profile: Profile = serde_json::from_str(json).map_err(unreadable)?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(unreadable(
            "both 'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'",
        ));
    }
    let mut builder = LinuxSeccompBuilder::default().default_action(profile.default_action);
    if let Some(errno) = profile.default_errno_ret {
        builder = builder.default_errno_ret(errno);
    }
    if let Some(path) = &profile.listener_path {
        builder = builder.listener_path(path);
    }
    if let Some(metadata) = &profile.listener_metadata {
        builder = builder.listener_metadata(metadata);
    }
    if let Some(flags) = &profile.flags {
        builder = builder.flags(serde_json::from_value::<Vec<_>>(flags.clone()).map_err(unreadable)?);
    }
    let arches = client_architectures(&profile, host);
    if !arches.is_empty() {
        builder = builder.architectures(arches);
    }
    let entries = profile.syscalls.into_iter().filter(|entry| entry.applies(caps, host));
    let syscalls = entries.map(Entry::into_oci).collect::<Result<Vec<_>>>()?;
    Ok(builder.syscalls(syscalls).build().expect("every field has a default"))
}

/// Docker's map gives this machine's line; OCI's list is taken as it is.
fn client_architectures(profile: &Profile, host: &HostFacts) -> Vec<Arch> {
    let own = architectures(&host.arch)[0];
    let line = profile.arch_map.iter().find(|entry| entry.architecture == own);
    let mapped =
        line.into_iter().flat_map(|entry| std::iter::once(entry.architecture).chain(entry.sub_architectures.clone()));
    let mut seen = BTreeSet::new();
    profile.architectures.iter().copied().chain(mapped).filter(|arch| seen.insert(*arch as u32)).collect()
}
