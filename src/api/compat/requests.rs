//! What requests of old clients mean. A field that is younger than the client's version says nothing, as for dockerd:
//! the client cannot have meant it. Where that would weaken what was asked for, it is refused.

use super::ApiVersion;
use crate::model::{
    Error, Result,
    container::{CgroupnsMode, ContainerCreateRequest, HostConfig, IpcMode, MountRequest, NetworkMode},
    filters::Filters,
    network::NetworkCreateRequest,
};

/// What dockerd answers to a container's own hardware address.
const MAC_ADDRESS_WARNING: &str =
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.";

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

    /// Before 1.52 images as mounts were an experiment.
    pub fn warns_of_image_mounts(self) -> bool {
        self < Self::v1(52)
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
        if self.warns_of_image_mounts() {
            // dockerd says it of each of them.
            let images = request.host_config.mounts.iter().flatten().filter(|mount| mount.kind == "image").count();
            let warning = "Image mount is an experimental feature".to_owned();
            request.warnings.extend(std::iter::repeat_n(warning, images));
        }
        self.adjust_networking(request)?;
        self.move_mac_address(request)
    }

    fn set_old_defaults(self, request: &mut ContainerCreateRequest) {
        let host_config = &mut request.host_config;
        // Both 0 and less mean no limit, in every version.
        host_config.pids_limit = host_config.pids_limit.filter(|limit| *limit > 0);
        if self < Self::v1(25) {
            // A client that knew no AutoRemove removes by itself.
            host_config.auto_remove = false;
        }
        if self < Self::v1(40) {
            // Before that the default was to share.
            request.defaults.ipc_mode = IpcMode::Shareable;
        }
        if self < Self::v1(41) && !host_config.privileged {
            request.defaults.cgroupns_mode = CgroupnsMode::Host;
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
            let mut bind = mount.bind_options.as_mut();
            if let Some(options) = bind.as_mut().filter(|_| self < Self::v1(40)) {
                options.non_recursive = false;
            }
            if let Some(options) = bind.as_mut().filter(|_| self < Self::v1(42)) {
                options.create_mountpoint = false;
            }
            if self < Self::v1(44) && bind.is_some_and(|options| options.read_only_force_recursive) {
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

    /// Gives the container's hardware address to its endpoint in the main network. Before 1.44 it was the container's and
    /// ruled; since then it is deprecated, and must not say another thing than the endpoint.
    fn move_mac_address(self, request: &mut ContainerCreateRequest) -> Result<()> {
        let is_container_wide = self < Self::v1(44);
        let address = request.config.mac_address.clone();
        if address.is_empty() {
            return Ok(());
        }
        let mode = &request.host_config.network_mode;
        let has_no_endpoint = matches!(mode, NetworkMode::Host | NetworkMode::None);
        if let Some(mode) = mode.network().filter(|_| !has_no_endpoint) {
            let endpoints = request.networking.endpoints_config.get_or_insert_default();
            if endpoints.is_empty() {
                endpoints.insert(mode.to_owned(), None);
            }
            let is_only = is_container_wide && endpoints.len() == 1;
            let is_main = |name: &String| is_only || name == mode || (mode == "bridge" && name == "default");
            let main = endpoints.iter_mut().find(|(name, _)| is_main(name));
            let (_, settings) = main.ok_or_else(Error::mac_address_without_endpoint)?;
            let settings = settings.get_or_insert_default();
            if !is_container_wide && !settings.mac_address.is_empty() && settings.mac_address != address {
                return Err(Error::mac_addresses_differ());
            }
            settings.mac_address = address;
        }
        if !is_container_wide {
            request.config.mac_address.clear();
            request.warnings.push(MAC_ADDRESS_WARNING.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn adjusted(minor: u16, mode: &str, endpoints: Value, mac_address: &str) -> Result<ContainerCreateRequest> {
        let mut request = ContainerCreateRequest::default();
        mac_address.clone_into(&mut request.config.mac_address);
        request.host_config.network_mode = mode.into();
        request.networking = from_value(json!({ "EndpointsConfig": endpoints })).unwrap();
        ApiVersion::v1(minor).adjust_create(&mut request).map(|()| request)
    }

    fn addresses(request: &ContainerCreateRequest) -> Vec<(&str, &str)> {
        let endpoints = request.networking.endpoints_config.iter().flatten();
        endpoints
            .map(|(name, settings)| (name.as_str(), settings.as_ref().map_or("", |settings| &settings.mac_address)))
            .collect()
    }

    const ONE: &str = "02:42:00:00:00:77";

    #[test]
    fn a_containers_hardware_address_is_that_of_its_main_network() {
        for (mode, name) in [("", "bridge"), ("default", "bridge"), ("bridge", "bridge"), ("job", "job")] {
            let old = adjusted(43, mode, Value::Null, ONE).unwrap();
            assert_eq!((addresses(&old), old.config.mac_address.as_str()), (vec![(name, ONE)], ONE));
            assert_eq!(old.warnings, [""; 0]);
            let new = adjusted(44, mode, Value::Null, ONE).unwrap();
            assert_eq!((addresses(&new), new.config.mac_address.as_str()), (vec![(name, ONE)], ""));
            assert_eq!(new.warnings, [MAC_ADDRESS_WARNING]);
        }
        let none = adjusted(44, "none", Value::Null, ONE).unwrap();
        assert_eq!((addresses(&none), none.warnings.len()), (vec![], 1));
        let two = adjusted(44, "job", json!({ "other": {}, "job": {} }), ONE).unwrap();
        assert_eq!(addresses(&two), [("other", ""), ("job", ONE)]);
    }

    #[test]
    fn a_containers_hardware_address_says_what_its_endpoint_says() {
        let endpoint = |name: &str, address: &str| json!({ name: { "MacAddress": address } });
        assert!(adjusted(44, "job", endpoint("job", ONE), ONE).is_ok());
        let refused = |endpoints: Value| adjusted(44, "job", endpoints, ONE).unwrap_err();
        assert_eq!(refused(endpoint("job", "02:42:00:00:00:78")).message(), Error::mac_addresses_differ().message());
        assert_eq!(refused(endpoint("other", "")).message(), Error::mac_address_without_endpoint().message());
        // An old client's endpoint has none of its own, and the only one is meant.
        let old = adjusted(43, "job", endpoint("other", "02:42:00:00:00:78"), ONE).unwrap();
        assert_eq!(addresses(&old), [("other", ONE)]);
    }
}
