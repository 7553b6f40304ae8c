//! The filter of system calls: Docker's default, a client's own profile, or none.

mod client;
mod profile;
mod rule;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder};

use super::{caps::CapabilitySet, host::HostFacts};
use crate::model::Result;

/// EPERM.
const NOT_PERMITTED: u32 = 1;

/// The filter for `seccomp=…` (absent, empty or `builtin` for Docker's default); `None` for `unconfined`.
///
/// 400 for a profile that cannot be read.
pub(super) fn filter(option: Option<&str>, caps: CapabilitySet, host: &HostFacts) -> Result<Option<LinuxSeccomp>> {
    match option {
        Some("unconfined") => Ok(None),
        None | Some("" | "builtin") => Ok(Some(docker_default(caps, host))),
        Some(json) => client::expand(json, caps, host).map(Some),
    }
}

/// Whether a client's profile can be read, for create.
pub(super) fn check(option: Option<&str>, caps: CapabilitySet, host: &HostFacts) -> Result<()> {
    filter(option, caps, host).map(|_| ())
}

fn docker_default(caps: CapabilitySet, host: &HostFacts) -> LinuxSeccomp {
    let rules = profile::RULES.iter().filter(|rule| rule.when.holds(caps, host));
    let builder = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(NOT_PERMITTED)
        .syscalls(rules.map(|rule| rule.to_oci()).collect::<Vec<_>>())
        .architectures(architectures(&host.arch));
    builder.build().expect("every field has a default")
}

/// The machine's own calling convention and those that it runs beside it.
fn architectures(arch: &str) -> Vec<Arch> {
    match arch {
        "amd64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "arm64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "s390x" => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        "ppc64le" => vec![Arch::ScmpArchPpc64le],
        "386" => vec![Arch::ScmpArchX86],
        "arm" => vec![Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}
