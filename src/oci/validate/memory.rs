//! Memory, swap and the OOM killer.

use super::invalid;
use crate::{
    model::{Result, container::HostConfig},
    oci::host::CgroupFeatures,
};

/// Less than this lets no runtime start.
const MINIMUM: i64 = 6 << 20;

pub(super) fn check(host_config: &mut HostConfig, features: CgroupFeatures, warnings: &mut Vec<String>) -> Result<()> {
    check_given(host_config, features, warnings)?;
    if host_config.memory == 0 && host_config.memory_swap > 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if host_config.memory > 0 && host_config.memory_swap == 0 {
        host_config.memory_swap = host_config.memory.saturating_mul(2);
    }
    Ok(())
}

/// What holds for an update too, which may give one limit alone.
pub(super) fn check_given(
    host_config: &mut HostConfig,
    features: CgroupFeatures,
    warnings: &mut Vec<String>,
) -> Result<()> {
    check_limit(host_config, features, warnings)?;
    check_swappiness(host_config, features, warnings)?;
    check_reservation(host_config, features, warnings)?;
    check_oom_killer(host_config, features, warnings);
    check_kernel_memory(host_config, features, warnings);
    Ok(())
}

fn check_limit(host_config: &mut HostConfig, features: CgroupFeatures, warnings: &mut Vec<String>) -> Result<()> {
    if host_config.memory != 0 && host_config.memory < MINIMUM {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host_config.memory > 0 && !features.memory {
        warnings.push("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.".to_owned());
        host_config.memory = 0;
        host_config.memory_swap = -1;
    }
    if host_config.memory > 0 && host_config.memory_swap != -1 && !features.swap {
        warnings.push("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.".to_owned());
        host_config.memory_swap = -1;
    }
    if host_config.memory > 0 && host_config.memory_swap > 0 && host_config.memory_swap < host_config.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    Ok(())
}

fn check_swappiness(host_config: &mut HostConfig, features: CgroupFeatures, warnings: &mut Vec<String>) -> Result<()> {
    let Some(swappiness) = host_config.memory_swappiness else { return Ok(()) };
    if !features.swappiness {
        if swappiness != -1 {
            warnings.push("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.".to_owned());
        }
        host_config.memory_swappiness = None;
    } else if !(-1..=100).contains(&swappiness) {
        return invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    } else if swappiness == -1 {
        // The word of old clients for none.
        host_config.memory_swappiness = None;
    }
    Ok(())
}

fn check_reservation(host_config: &mut HostConfig, features: CgroupFeatures, warnings: &mut Vec<String>) -> Result<()> {
    if host_config.memory_reservation > 0 && !features.memory_reservation {
        warnings.push("Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.".to_owned());
        host_config.memory_reservation = 0;
    }
    if host_config.memory_reservation > 0 && host_config.memory_reservation < MINIMUM {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if host_config.memory > 0 && host_config.memory_reservation > host_config.memory {
        return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    Ok(())
}

fn check_oom_killer(host_config: &mut HostConfig, features: CgroupFeatures, warnings: &mut Vec<String>) {
    if host_config.oom_kill_disable.is_some() && !features.oom_kill_disable {
        if host_config.oom_kill_disable == Some(true) {
            warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned());
        }
        host_config.oom_kill_disable = None;
    }
    if host_config.oom_kill_disable == Some(true) && host_config.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
}

/// The kernel has given these limits up. dockerd drops the first one without a word.
fn check_kernel_memory(host_config: &mut HostConfig, features: CgroupFeatures, warnings: &mut Vec<String>) {
    if host_config.kernel_memory != 0 {
        warnings.push("Kernel memory limits are not carried out any more. KernelMemory discarded.".to_owned());
        host_config.kernel_memory = 0;
    }
    if host_config.kernel_memory_tcp != 0 && !features.kernel_memory_tcp {
        warnings.push("Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded.".to_owned());
        host_config.kernel_memory_tcp = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 28 shows it.
    #[test]
    fn swappiness_of_minus_one_is_none() {
        let features = CgroupFeatures { swappiness: true, ..CgroupFeatures::default() };
        for (given, kept) in [(Some(-1), None), (None, None), (Some(0), Some(0)), (Some(60), Some(60))] {
            let mut host_config = HostConfig { memory_swappiness: given, ..HostConfig::default() };
            check_swappiness(&mut host_config, features, &mut Vec::new()).unwrap();
            assert_eq!(host_config.memory_swappiness, kept, "{given:?}");
        }
    }
}
