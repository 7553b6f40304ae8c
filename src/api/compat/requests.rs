//! What requests of old clients mean. A field that is younger than the client's version says nothing, as for dockerd:
//! the client cannot have meant it. Where that would weaken what was asked for, it is refused.

use serde_json::Value;

use super::ApiVersion;
use crate::model::{
    Error, Result,
    container::{ContainerCreateRequest, HostConfig, MountRequest},
    filters::Filters,
    network::NetworkCreateRequest,
};

impl ApiVersion {
    /// Before 1.30 there was one condition to wait for.
    pub fn reads_wait_condition(self) -> bool {
        self >= Self::v1(30)
    }

    /// Since 1.42 stop and restart name a signal.
    pub fn reads_stop_signal(self) -> bool {
        self >= Self::v1(42)
    }

    /// Since 1.42 a terminal can have its size from its start.
    pub fn reads_console_size(self) -> bool {
        self >= Self::v1(42)
    }

    /// Since 1.41 create chooses a platform of the image.
    pub fn reads_create_platform(self) -> bool {
        self >= Self::v1(41)
    }

    /// Makes of an old client's request what a new one would have sent.
    pub fn adjust_network_create(self, request: &mut NetworkCreateRequest) {
        if self < Self::v1(48) {
            request.enable_ipv4 = None;
        }
    }

    /// Since 1.42 a prune of volumes spares those with names, unless it is asked for all.
    pub fn adjust_volume_prune(self, filters: &mut Filters) {
        if self < Self::v1(42) {
            filters.add("all", "true".to_owned());
        }
    }

    /// Makes of an old client's update what a new one would have sent.
    pub fn adjust_limits(self, host_config: &mut HostConfig) {
        if self < Self::v1(42) {
            // Older clients sent 0 where they meant nothing.
            host_config.pids_limit = host_config.pids_limit.filter(|limit| *limit != 0);
        }
    }

    /// Makes of an old client's request what a new one would have sent.
    pub fn adjust_create(self, request: &mut ContainerCreateRequest) -> Result<()> {
        self.set_old_defaults(request);
        self.adjust_mounts(request.host_config.mounts.as_deref_mut().unwrap_or_default())?;
        self.adjust_networking(request)
    }

    fn set_old_defaults(self, request: &mut ContainerCreateRequest) {
        let host_config = &mut request.host_config;
        // Both 0 and less mean no limit, in every version.
        host_config.pids_limit = host_config.pids_limit.filter(|limit| *limit > 0);
        if self < Self::v1(25) {
            // A client that knew no AutoRemove removes by itself.
            host_config.auto_remove = false;
        }
        if self < Self::v1(40) && host_config.ipc_mode.is_empty() {
            // Before that the default was to share.
            host_config.ipc_mode = "shareable".to_owned();
        }
        if self < Self::v1(41) && host_config.cgroupns_mode.is_empty() && !host_config.privileged {
            host_config.cgroupns_mode = "host".to_owned();
        }
        if !self.reads_console_size() {
            host_config.console_size = [0, 0];
        }
        if self < Self::v1(43) {
            host_config.annotations = None;
        }
        if self < Self::v1(44)
            && let Some(check) = &mut request.config.healthcheck
        {
            check.start_interval = 0;
        }
    }

    fn adjust_mounts(self, mounts: &mut [MountRequest]) -> Result<()> {
        for mount in mounts {
            if self < Self::v1(40) {
                forget(mount, "NonRecursive");
            }
            if self < Self::v1(42) {
                forget(mount, "CreateMountpoint");
            }
            if self < Self::v1(44) && option(mount, "ReadOnlyForceRecursive").is_some_and(|value| *value == true) {
                return Err(Error::needs_api_version("BindOptions.ReadOnlyForceRecursive", Self::v1(44)));
            }
            if self < Self::v1(45) && mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty()) {
                return Err(Error::needs_api_version("VolumeOptions.Subpath", Self::v1(45)));
            }
            if self < Self::v1(48) && mount.kind == "image" {
                return Err(Error::needs_api_version("Mount type \"Image\"", Self::v1(48)));
            }
        }
        Ok(())
    }

    fn adjust_networking(self, request: &mut ContainerCreateRequest) -> Result<()> {
        let Some(endpoints) = &mut request.networking.endpoints_config else { return Ok(()) };
        if self < Self::v1(44) && endpoints.len() > 1 {
            return Err(Error::multiple_endpoints(endpoints.keys()));
        }
        for settings in endpoints.values_mut().flatten() {
            if self < Self::v1(44) {
                // The hardware address was the container's.
                settings.mac_address.clear();
            }
            if self < Self::v1(48) {
                settings.gw_priority = 0;
            }
        }
        Ok(())
    }
}

fn bind_option<'m>(mount: &'m MountRequest, name: &str) -> Option<(&'m String, &'m Value)> {
    mount.bind_options.as_ref()?.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))
}

fn option<'m>(mount: &'m MountRequest, name: &str) -> Option<&'m Value> {
    bind_option(mount, name).map(|(_, value)| value)
}

fn forget(mount: &mut MountRequest, name: &str) {
    let Some(key) = bind_option(mount, name).map(|(key, _)| key.clone()) else { return };
    if let Some(options) = mount.bind_options.as_mut().and_then(Value::as_object_mut) {
        options.remove(&key);
    }
}
