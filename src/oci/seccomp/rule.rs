//! One line of the default filter, and when it applies.

use oci_spec::runtime::{
    LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};

use super::profile::MASKED_RESULT;
use crate::oci::{caps::CapabilitySet, host::HostFacts};

/// When a rule applies: all that is given must hold. Lists of "with" need one of theirs, of "without" none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    pub(super) caps: &'static [&'static str],
    pub(super) without_caps: &'static [&'static str],
    pub(super) arches: &'static [&'static str],
    pub(super) without_arches: &'static [&'static str],
    pub(super) min_kernel: Option<(u32, u32)>,
}

impl Condition {
    pub(super) fn holds(&self, caps: CapabilitySet, host: &HostFacts) -> bool {
        let on = |arches: &[&str]| arches.contains(&host.arch.as_str());
        self.caps.iter().all(|cap| caps.contains(cap))
            && !self.without_caps.iter().any(|cap| caps.contains(cap))
            && (self.arches.is_empty() || on(self.arches))
            && !on(self.without_arches)
            && self.min_kernel.is_none_or(|version| host.kernel >= version)
    }
}

/// A condition on one argument of the call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Argument {
    pub(super) index: usize,
    pub(super) value: u64,
    pub(super) operator: LinuxSeccompOperator,
}

/// Calls (names with blanks between) and what happens to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) names: &'static str,
    pub(super) action: LinuxSeccompAction,
    pub(super) errno: Option<u32>,
    pub(super) argument: Option<Argument>,
    pub(super) when: Condition,
}

impl Rule {
    pub(super) fn to_oci(self) -> LinuxSyscall {
        let names: Vec<String> = self.names.split_whitespace().map(str::to_owned).collect();
        let mut syscall =
            LinuxSyscallBuilder::default().names(names).action(self.action).build().expect("both are given");
        syscall.set_errno_ret(self.errno).set_args(self.argument.map(|argument| vec![argument.to_oci()]));
        syscall
    }
}

impl Argument {
    fn to_oci(self) -> LinuxSeccompArg {
        let builder = LinuxSeccompArgBuilder::default().index(self.index).value(self.value).op(self.operator);
        let builder = match self.operator {
            LinuxSeccompOperator::ScmpCmpMaskedEq => builder.value_two(MASKED_RESULT),
            _ => builder,
        };
        builder.build().expect("every field has a default")
    }
}
