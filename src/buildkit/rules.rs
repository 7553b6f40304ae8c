//! For tests: policies of tenants.

use crate::{
    backend::builds::{BuildRules, Wish},
    model::{Error, Result, container::NetworkMode},
};

/// Everything is allowed.
pub(super) struct Free;

impl BuildRules for Free {
    fn permit(&self, _: Wish<'_>) -> Result<()> {
        Ok(())
    }
}

/// Nothing is, and it is told what was asked.
pub(super) struct Bound;

impl BuildRules for Bound {
    fn permit(&self, wish: Wish<'_>) -> Result<()> {
        let told = match wish {
            Wish::Push(reference) => format!("push {reference}"),
            Wish::Steps(steps) if steps.privileged => "privileged".to_owned(),
            Wish::Steps(steps) if steps.network_mode == NetworkMode::Host => "host network".to_owned(),
            Wish::Steps(steps) => match (&steps.device_requests, &steps.ulimits) {
                (Some(devices), _) => format!("device {}", devices[0].driver),
                (None, Some(limits)) => format!("ulimit {}", limits[0].name),
                (None, None) => return Ok(()),
            },
        };
        Err(Error::forbidden(told))
    }
}
