//! Flags of dockerd that change nothing here: people's unit files and images carry them. A value that would ask
//! for something else than what we do anyway is refused, not ignored.

use clap::Args;
use ringer::model::{Error, Result};

/// Each is accepted with a warning.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Flags of dockerd that change nothing here")]
pub struct AcceptedOptions {
    /// overlay2 or overlayfs
    #[arg(short, long, value_name = "NAME", hide = true)]
    storage_driver: Option<String>,
    /// native.cgroupdriver=cgroupfs
    #[arg(long, value_name = "OPTION", hide = true)]
    exec_opt: Vec<String>,
    /// json-file
    #[arg(long, value_name = "NAME", hide = true)]
    log_driver: Option<String>,
    /// false
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    live_restore: Option<bool>,
    /// true
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    iptables: Option<bool>,
    /// true
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    ip_forward: Option<bool>,
    /// true
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    ip_masq: Option<bool>,
    /// Any
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    raw_logs: Option<bool>,
    /// Any
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    experimental: Option<bool>,
    /// Any
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    userland_proxy: Option<bool>,
    /// Any
    #[arg(long, value_name = "COUNT", hide = true)]
    max_concurrent_downloads: Option<u32>,
    /// Any
    #[arg(long, value_name = "COUNT", hide = true)]
    max_concurrent_uploads: Option<u32>,
    /// Any
    #[arg(long, value_name = "COUNT", hide = true)]
    max_download_attempts: Option<u32>,
}

impl AcceptedOptions {
    /// The warnings, or a refusal.
    pub fn check(&self) -> Result<Vec<String>> {
        let mut given = Vec::new();
        let driver = self.storage_driver.as_deref();
        one_of("storage-driver", driver, &["overlay2", "overlayfs"], &mut given)?;
        for option in &self.exec_opt {
            one_of("exec-opt", Some(option), &["native.cgroupdriver=cgroupfs"], &mut given)?;
        }
        one_of("log-driver", self.log_driver.as_deref(), &["json-file"], &mut given)?;
        only("live-restore", self.live_restore, false, &mut given)?;
        only("iptables", self.iptables, true, &mut given)?;
        only("ip-forward", self.ip_forward, true, &mut given)?;
        only("ip-masq", self.ip_masq, true, &mut given)?;
        let any = [
            ("raw-logs", self.raw_logs.is_some()),
            ("experimental", self.experimental.is_some()),
            ("userland-proxy", self.userland_proxy.is_some()),
            ("max-concurrent-downloads", self.max_concurrent_downloads.is_some()),
            ("max-concurrent-uploads", self.max_concurrent_uploads.is_some()),
            ("max-download-attempts", self.max_download_attempts.is_some()),
        ];
        given.extend(any.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag));
        Ok(given.into_iter().map(|flag| format!("--{flag} changes nothing in ringer")).collect())
    }
}

fn one_of(flag: &'static str, value: Option<&str>, fitting: &[&str], given: &mut Vec<&'static str>) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    if !fitting.contains(&value) {
        return Err(Error::invalid(format!("--{flag} {value} is not implemented by ringer")));
    }
    given.push(flag);
    Ok(())
}

fn only(flag: &'static str, value: Option<bool>, fitting: bool, given: &mut Vec<&'static str>) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    if value != fitting {
        return Err(Error::invalid(format!("--{flag}={value} is not implemented by ringer")));
    }
    given.push(flag);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_nothing_is_accepted() {
        let fits =
            AcceptedOptions { storage_driver: Some("overlay2".into()), iptables: Some(true), ..Default::default() };
        assert_eq!(fits.check().unwrap().len(), 2);
        let differs = AcceptedOptions { storage_driver: Some("btrfs".into()), ..Default::default() };
        assert!(differs.check().is_err());
        assert!(AcceptedOptions { iptables: Some(false), ..Default::default() }.check().is_err());
    }
}
