//! Limits: only those that were asked for.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemory, LinuxMemoryBuilder,
    LinuxPids, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

use super::devices::numbers_of;
use crate::model::{
    Result,
    container::{HostConfig, ThrottleDevice, WeightDevice},
};

/// Microseconds over which `NanoCpus` is measured.
const PERIOD: i64 = 100_000;

/// Limits that a running container gets in place of those it has. What is not given stays.
pub fn updated_resources(host_config: &HostConfig) -> Result<LinuxResources> {
    let mut changed = resources(host_config, Vec::new())?;
    // The rules that are in force stay.
    changed.set_devices(None);
    if host_config.pids_limit.is_some_and(|limit| limit <= 0) {
        let unlimited = LinuxPidsBuilder::default().limit(-1i64).build().expect("every field has a default");
        changed.set_pids(Some(unlimited));
    }
    if host_config.memory_swap == -1 {
        let mut memory = changed.memory().unwrap_or_default();
        memory.set_swap(Some(-1));
        changed.set_memory(Some(memory));
    }
    Ok(changed)
}

/// The resources part of a spec.
pub(super) fn resources(host_config: &HostConfig, rules: Vec<LinuxDeviceCgroup>) -> Result<LinuxResources> {
    let mut resources = LinuxResourcesBuilder::default().devices(rules).build().expect("every field has a default");
    resources.set_memory(memory(host_config)).set_cpu(cpu(host_config)).set_pids(pids(host_config));
    resources.set_block_io(block_io(host_config)?);
    Ok(resources)
}

fn positive(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}

fn memory(host_config: &HostConfig) -> Option<LinuxMemory> {
    let mut memory = LinuxMemoryBuilder::default().build().expect("every field has a default");
    memory.set_limit(positive(host_config.memory)).set_reservation(positive(host_config.memory_reservation));
    memory.set_swap(positive(host_config.memory_swap)).set_kernel_tcp(positive(host_config.kernel_memory_tcp));
    memory.set_swappiness(host_config.memory_swappiness.and_then(|number| u64::try_from(number).ok()));
    memory.set_disable_oom_killer(host_config.oom_kill_disable);
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu(host_config: &HostConfig) -> Option<LinuxCpu> {
    let unsigned = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut cpu = LinuxCpuBuilder::default().build().expect("every field has a default");
    cpu.set_shares(unsigned(host_config.cpu_shares));
    cpu.set_cpus(text(&host_config.cpuset_cpus)).set_mems(text(&host_config.cpuset_mems));
    cpu.set_realtime_period(unsigned(host_config.cpu_realtime_period));
    cpu.set_realtime_runtime(positive(host_config.cpu_realtime_runtime));
    if host_config.nano_cpus > 0 {
        let quota = i128::from(host_config.nano_cpus) * i128::from(PERIOD) / 1_000_000_000;
        cpu.set_quota(i64::try_from(quota).ok()).set_period(unsigned(PERIOD));
    } else {
        let quota = (host_config.cpu_quota != 0).then_some(host_config.cpu_quota);
        cpu.set_quota(quota).set_period(unsigned(host_config.cpu_period));
    }
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn pids(host_config: &HostConfig) -> Option<LinuxPids> {
    let limit = host_config.pids_limit.and_then(positive)?;
    Some(LinuxPidsBuilder::default().limit(limit).build().expect("every field has a default"))
}

fn block_io(host_config: &HostConfig) -> Result<Option<LinuxBlockIo>> {
    let mut io = LinuxBlockIoBuilder::default().build().expect("every field has a default");
    io.set_weight((host_config.blkio_weight > 0).then_some(host_config.blkio_weight));
    io.set_weight_device(each(host_config.blkio_weight_device.as_deref(), weight)?);
    io.set_throttle_read_bps_device(each(host_config.blkio_device_read_bps.as_deref(), throttle)?);
    io.set_throttle_write_bps_device(each(host_config.blkio_device_write_bps.as_deref(), throttle)?);
    io.set_throttle_read_iops_device(each(host_config.blkio_device_read_iops.as_deref(), throttle)?);
    io.set_throttle_write_iops_device(each(host_config.blkio_device_write_iops.as_deref(), throttle)?);
    Ok((io != LinuxBlockIo::default()).then_some(io))
}

fn each<T, U>(entries: Option<&[T]>, convert: fn(&T) -> Result<U>) -> Result<Option<Vec<U>>> {
    let converted = entries.unwrap_or_default().iter().map(convert).collect::<Result<Vec<_>>>()?;
    Ok((!converted.is_empty()).then_some(converted))
}

fn weight(device: &WeightDevice) -> Result<LinuxWeightDevice> {
    let (major, minor) = numbers_of(&device.path)?;
    let builder = LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(device.weight);
    Ok(builder.build().expect("every field has a default"))
}

fn throttle(device: &ThrottleDevice) -> Result<LinuxThrottleDevice> {
    let (major, minor) = numbers_of(&device.path)?;
    let builder = LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(device.rate);
    Ok(builder.build().expect("every field has a default"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_nothing_limited() {
        let resources = resources(&HostConfig::default(), Vec::new()).unwrap();
        assert_eq!((resources.memory(), resources.cpu(), resources.pids()), (&None, &None, &None));
        assert_eq!(resources.block_io(), &None);
    }

    #[test]
    fn cpus_become_a_quota() {
        let host_config = HostConfig { nano_cpus: 1_500_000_000, ..HostConfig::default() };
        let cpu = cpu(&host_config).unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
    }

    #[test]
    fn an_update_takes_limits_away_and_leaves_device_rules() {
        let wanted = HostConfig { pids_limit: Some(0), memory_swap: -1, ..HostConfig::default() };
        let resources = updated_resources(&wanted).unwrap();
        assert_eq!(resources.pids().unwrap().limit(), -1);
        assert_eq!(resources.memory().unwrap().swap(), Some(-1));
        assert_eq!(resources.devices(), &None);
    }

    #[test]
    fn minus_one_is_no_limit() {
        let host_config =
            HostConfig { pids_limit: Some(-1), memory_swap: -1, memory_swappiness: Some(-1), ..HostConfig::default() };
        assert_eq!((pids(&host_config), memory(&host_config)), (None, None));
    }
}
