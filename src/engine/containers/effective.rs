//! From what a client asks for at create to what will be: defaults are filled in, the image's configuration is laid below, names
//! of networks, containers and paths are looked up. Nothing is made.

use crate::{
    engine::{Engine, containers::own_socket::is_usual_socket, host::hostname, networks, tenants::Scope},
    logs,
    model::{
        Error, Result,
        container::{
            Attachment, CgroupnsMode, ContainerCreateRequest, Effective, HostConfig, NetworkMode, SourceRoot,
            VersionDefaults, mount_spec::wanted_mounts,
        },
        id::{ContainerId, NetworkId, TenantId},
        image::ImageConfig,
        network::EndpointSettings,
    },
    oci::{self, HostFacts},
};

/// A request in which nothing is left to defaults.
pub(crate) struct Filled {
    pub(crate) request: ContainerCreateRequest,
    /// What was asked for and is not carried out.
    pub(crate) warnings: Vec<String>,
}

impl Engine {
    /// Lays an image's configuration below a request, checks what the request says by itself, and fills defaults in.
    pub(super) fn fill(
        &self,
        scope: &Scope,
        mut request: ContainerCreateRequest,
        image: &ImageConfig,
        id: &ContainerId,
    ) -> Result<Filled> {
        request.config = std::mem::take(&mut request.config).lay_over(image)?;
        request.defaults = defaults_for(scope.tenant(), request.defaults);
        let warnings = fill_in(&mut request, &self.host)?;
        let host_config = &mut request.host_config;
        self.pin_containers(scope, host_config)?;
        host_config.runtime = self.backends.runtime.resolve_runtime(&host_config.runtime)?;
        if request.config.hostname.is_empty() {
            request.config.hostname = match host_config.network_mode {
                NetworkMode::Host => hostname(),
                _ => id.short().to_owned(),
            };
        }
        Ok(Filled { request, warnings })
    }

    /// Modes that name another container name it by its id from now on, whatever it is called later. That the owner of
    /// a network is not there is an error only at start, as with dockerd.
    fn pin_containers(&self, scope: &Scope, config: &mut HostConfig) -> Result<()> {
        let pin = |other: &mut String| -> Result<()> {
            *other = self.containers.get(scope.tenant(), other)?.id().to_string();
            Ok(())
        };
        let _missing_at_start = config.network_mode.container_mut().map(pin);
        for other in [config.pid_mode.container_mut(), config.ipc_mode.container_mut()].into_iter().flatten() {
            pin(other).map_err(|error| Error::invalid(error.message()).with_source(error))?;
        }
        Ok(())
    }

    /// Looks up what a filled request names: networks, links, mounts.
    pub(super) async fn effective(&self, scope: &Scope, request: ContainerCreateRequest) -> Result<Effective> {
        let attachments = self.resolve_networks(scope, &request).await?;
        let linked = self.linked_containers(scope, &request.host_config)?;
        let mounts = self.resolve_mounts(scope, &request).await?;
        let default_runtime = self.backends.runtime.resolve_runtime("")?;
        let runtime = &request.host_config.runtime;
        Ok(Effective {
            attachments,
            linked,
            mounts,
            other_runtime: (*runtime != default_runtime).then(|| runtime.clone()),
            uncovered_paths: oci::uncovered_paths(&request.host_config, &self.host),
            config: request.config,
            host_config: request.host_config,
        })
    }
}

/// Checks what a request says by itself and fills defaults in. Answers what is not carried out.
fn fill_in(request: &mut ContainerCreateRequest, host: &HostFacts) -> Result<Vec<String>> {
    let mut warnings = std::mem::take(&mut request.warnings);
    let (config, host_config) = (&request.config, &mut request.host_config);
    warnings.extend(oci::validate(config, host_config, &request.defaults, host)?);
    warnings.extend(logs::check(&host_config.log_config)?);
    if host_config.network_mode == NetworkMode::Host && host_config.binds_ports() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if host_config.log_config.kind.is_empty() {
        "json-file".clone_into(&mut host_config.log_config.kind);
    }
    if matches!(host_config.network_mode, NetworkMode::Unset | NetworkMode::Default) {
        host_config.network_mode = NetworkMode::from(NetworkMode::BRIDGE);
    }
    networks::request::check(config, host_config)?;
    Ok(warnings)
}

/// What a request of a job would be as far as it says so by itself: without an image, and with nothing looked up. Paths are taken for
/// the machine's, but for the usual ones of the daemon's socket.
pub fn alone(mut request: ContainerCreateRequest, host: &HostFacts) -> Result<Effective> {
    request.defaults.cgroupns_mode = CgroupnsMode::Private;
    let asked_runtime = request.host_config.runtime.clone();
    fill_in(&mut request, host)?;
    let mut mounts = wanted_mounts(&request.config, &request.host_config, Vec::new())?;
    for mount in mounts.iter_mut().filter(|mount| is_usual_socket(&mount.point.source)) {
        mount.point.root = SourceRoot::Socket;
    }
    let endpoints = request.networking.endpoints_config.into_iter().flatten();
    let attachment = |(name, settings): (String, Option<EndpointSettings>)| Attachment {
        name,
        network: NetworkId::from_stored(""),
        settings: settings.unwrap_or_default(),
        dns_names: Vec::new(),
        endpoint: None,
    };
    Ok(Effective {
        attachments: endpoints.map(attachment).collect(),
        linked: Vec::new(),
        mounts,
        other_runtime: Some(asked_runtime).filter(|name| !name.is_empty()),
        uncovered_paths: oci::uncovered_paths(&request.host_config, host),
        config: request.config,
        host_config: request.host_config,
    })
}

/// In jobs the cgroup namespace is the container's own unless a client says otherwise, on every kernel and in every version of
/// the API: the machine's would show the tree that all jobs are in.
fn defaults_for(tenant: &TenantId, defaults: VersionDefaults) -> VersionDefaults {
    if *tenant == TenantId::default_tenant() {
        return defaults;
    }
    VersionDefaults { cgroupns_mode: CgroupnsMode::Private, ..defaults }
}
