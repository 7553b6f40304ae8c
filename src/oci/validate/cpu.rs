//! CPU time and placement.

use std::collections::BTreeSet;

use super::invalid;
use crate::{
    model::{Result, container::HostConfig},
    oci::HostFacts,
};

pub(super) fn check(host_config: &mut HostConfig, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    check_nano_cpus(host_config, host)?;
    check_shares(host_config, host, warnings)?;
    check_cfs(host_config, host, warnings)?;
    check_realtime(host_config, host)?;
    if host_config.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
        host_config.cpu_percent = 0;
    }
    if host_config.cpu_count > 0 {
        warnings.push("linux does not support CPU count. Count discarded.".to_owned());
        host_config.cpu_count = 0;
    }
    check_cpuset(host_config, host, warnings)
}

fn check_nano_cpus(host_config: &HostConfig, host: &HostFacts) -> Result<()> {
    let nano_cpus = host_config.nano_cpus;
    if nano_cpus > 0 && host_config.cpu_period > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if nano_cpus > 0 && host_config.cpu_quota > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if nano_cpus > 0 && !host.features.cpu_cfs {
        return invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        );
    }
    if nano_cpus < 0 || nano_cpus > i64::from(host.cpus) * 1_000_000_000 {
        let cpus = host.cpus;
        return invalid(format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"));
    }
    Ok(())
}

fn check_shares(host_config: &mut HostConfig, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    if host_config.cpu_shares < 0 {
        return invalid(format!("invalid CPU shares ({}): value must be a positive integer", host_config.cpu_shares));
    }
    if host_config.cpu_shares > 0 && !host.features.cpu_shares {
        warnings
            .push("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.".to_owned());
        host_config.cpu_shares = 0;
    }
    Ok(())
}

fn check_cfs(host_config: &mut HostConfig, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    if (host_config.cpu_period != 0 || host_config.cpu_quota != 0) && !host.features.cpu_cfs {
        warnings.push("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.".to_owned());
        host_config.cpu_period = 0;
        host_config.cpu_quota = 0;
    }
    if host_config.cpu_period != 0 && !(1000..=1_000_000).contains(&host_config.cpu_period) {
        return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host_config.cpu_quota > 0 && host_config.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    Ok(())
}

fn check_realtime(host_config: &HostConfig, host: &HostFacts) -> Result<()> {
    let (period, runtime) = (host_config.cpu_realtime_period, host_config.cpu_realtime_runtime);
    if (period != 0 || runtime != 0) && !host.features.cpu_realtime {
        return invalid("kernel does not support CPU real-time scheduler");
    }
    if period != 0 && runtime > period {
        return invalid("cpu real-time runtime cannot be higher than cpu real-time period");
    }
    Ok(())
}

fn check_cpuset(host_config: &mut HostConfig, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    let asked = !host_config.cpuset_cpus.is_empty() || !host_config.cpuset_mems.is_empty();
    if asked && !host.features.cpuset {
        warnings.push("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.".to_owned());
        host_config.cpuset_cpus.clear();
        host_config.cpuset_mems.clear();
    }
    check_list(&host_config.cpuset_cpus, &host.cpuset.0, "cpus", "CPUs")?;
    check_list(&host_config.cpuset_mems, &host.cpuset.1, "mems", "memory nodes")
}

fn check_list(requested: &str, available: &str, field: &str, things: &str) -> Result<()> {
    let Some(wanted) = parse_list(requested) else {
        return invalid(format!("Invalid value {requested} for cpuset {field}: invalid format: {requested}"));
    };
    let there = parse_list(available).unwrap_or_default();
    if wanted.is_subset(&there) {
        return Ok(());
    }
    invalid(format!("Requested {things} are not available - requested {requested}, available: {available}"))
}

/// `0-2,7`. Numbers above 8191 are no CPUs.
fn parse_list(list: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= 8191);
    let mut set = BTreeSet::new();
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if last < first {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(parse_list("0-2,7"), Some(BTreeSet::from([0, 1, 2, 7])));
        assert_eq!(parse_list(""), Some(BTreeSet::new()));
        for list in ["blue", "2-1", "1,", "-1", "9000"] {
            assert_eq!(parse_list(list), None, "{list}");
        }
    }
}
