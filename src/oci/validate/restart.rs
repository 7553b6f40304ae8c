//! The restart policy.

use super::invalid;
use crate::model::{
    Result,
    container::{HostConfig, RestartPolicy},
};

pub(super) fn check(host_config: &HostConfig) -> Result<()> {
    let policy = &host_config.restart_policy;
    check_policy(policy)?;
    if host_config.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    Ok(())
}

/// The policy alone.
pub(super) fn check_policy(policy: &RestartPolicy) -> Result<()> {
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            return invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'");
        }
        "" | "no" | "always" | "unless-stopped" => {}
        "on-failure" if policy.maximum_retry_count < 0 => {
            return invalid("invalid restart policy: maximum retry count cannot be negative");
        }
        "on-failure" => {}
        name => {
            return invalid(format!(
                "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    Ok(())
}
