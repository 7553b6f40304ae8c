//! The restart policy.

use super::invalid;
use crate::model::{
    Result,
    container::{HostConfig, RestartMode, RestartPolicy},
};

pub(super) fn check(host_config: &HostConfig) -> Result<()> {
    let policy = &host_config.restart_policy;
    check_policy(policy)?;
    if host_config.auto_remove && policy.name.restarts() {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    Ok(())
}

/// The policy alone.
pub(super) fn check_policy(policy: &RestartPolicy) -> Result<()> {
    match &policy.name {
        RestartMode::Unset | RestartMode::No | RestartMode::Always | RestartMode::UnlessStopped
            if policy.maximum_retry_count != 0 =>
        {
            invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'")
        }
        RestartMode::OnFailure if policy.maximum_retry_count < 0 => {
            invalid("invalid restart policy: maximum retry count cannot be negative")
        }
        RestartMode::Unset
        | RestartMode::No
        | RestartMode::Always
        | RestartMode::UnlessStopped
        | RestartMode::OnFailure => Ok(()),
        RestartMode::Unknown(name) => invalid(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}
