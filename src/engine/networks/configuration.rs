//! Networks that are only a configuration (`ConfigOnly`), and those that are made from one (`ConfigFrom`).

use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        network::{NetworkCreateRequest, NetworkRecord},
    },
};

/// What does not go together, in dockerd's words.
pub fn check(request: &NetworkCreateRequest) -> Result<()> {
    let from = &request.config_from.network;
    if request.config_only {
        if request.ingress || request.internal || request.attachable || !request.scope.is_empty() {
            return Err(Error::forbidden(
                "configuration network can only contain network specific fields. Network operator fields like \
                 [ ingress | internal | attachable | scope ] are not supported.",
            ));
        }
        if !from.is_empty() {
            return Err(Error::forbidden("a configuration network cannot depend on another configuration network"));
        }
        return Ok(());
    }
    if from.is_empty() {
        return Ok(());
    }
    let ipam = &request.ipam;
    let has_ipam = !matches!(ipam.driver.as_str(), "" | "default")
        || !ipam.config.is_empty()
        || ipam.options.as_ref().is_some_and(|options| !options.is_empty());
    if has_ipam || !request.labels.is_empty() || request.enable_ipv4 == Some(false) || request.enable_ipv6 == Some(true)
    {
        return Err(Error::forbidden(
            "user specified configurations are not supported if the network depends on a configuration network",
        ));
    }
    if !request.options.is_empty() {
        return Err(Error::forbidden(
            "network driver options are not supported if the network depends on a configuration network",
        ));
    }
    Ok(())
}

impl Engine {
    /// The request with all that its configuration says.
    pub(super) fn configured(&self, scope: &Scope, request: NetworkCreateRequest) -> Result<NetworkCreateRequest> {
        let name = &request.config_from.network;
        if name.is_empty() {
            return Ok(request);
        }
        // Only by its name, as with dockerd.
        let networks = self.networks.list(scope.tenant());
        let Some(configuration) = networks.iter().find(|record| record.config_only && record.name == *name) else {
            return Err(Error::not_found(format!("configuration network {name:?} does not exist")));
        };
        Ok(NetworkCreateRequest {
            enable_ipv4: Some(configuration.enable_ipv4),
            enable_ipv6: Some(configuration.enable_ipv6),
            ipam: configuration.ipam.clone(),
            options: configuration.options.clone(),
            labels: configuration.labels.clone(),
            ..request
        })
    }

    /// A configuration stays as long as there is a network that was made from it.
    pub(super) fn check_configuration_is_unused(&self, record: &NetworkRecord) -> Result<()> {
        let uses = |other: &NetworkRecord| other.config_from.network == record.name;
        if record.config_only && self.networks.list(&record.tenant).iter().any(|other| uses(other)) {
            let text = format!("configuration network {:?} is in use", record.name);
            return Err(Error::forbidden(format!("error while removing network: {text}")));
        }
        Ok(())
    }
}
