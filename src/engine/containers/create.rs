//! `POST /containers/create`.

use std::{collections::HashMap, sync::Arc};

use tracing::{info, warn};

use crate::{
    backend::runtime::NewContainer,
    engine::{
        Engine, container::Container, containers::storage::ResolvedMounts, host::hostname, networks, tenants::Scope,
    },
    logs::{self, ContainerLog, Facts},
    model::{
        Error, ErrorKind, Result,
        container::{ContainerCreateRequest, ContainerRecord, ContainerState, HostConfig, NetworkMode, Networking},
        id::ContainerId,
        image::ImageForContainer,
        record,
        time::Timestamp,
    },
    oci,
};

/// A container that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// What was asked for and is not carried out.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container; nothing runs yet. What a failure has made already is taken away again.
    pub async fn container_create(&self, scope: &Scope, request: ContainerCreateRequest) -> Result<Created> {
        let engine = self.clone();
        let scope = scope.clone();
        self.run("container_create", async move { engine.create(&scope, request).await }).await
    }

    async fn create(&self, scope: &Scope, request: ContainerCreateRequest) -> Result<Created> {
        if let Some(name) = &request.name {
            super::name::check_name(name)?;
        }
        let reference = request.config.image.clone();
        if reference.is_empty() {
            return Err(Error::invalid("no image specified"));
        }
        let image = self.image_for_container(scope, &reference, request.platform.as_ref()).await?;
        self.create_of(scope, request, image).await
    }

    /// Makes a container of an image that was looked up already; the step of a build is made of one without a name.
    pub(crate) async fn create_of(
        &self,
        scope: &Scope,
        mut request: ContainerCreateRequest,
        image: ImageForContainer,
    ) -> Result<Created> {
        let mut config = std::mem::take(&mut request.config).lay_over(&image.config)?;
        let mut warnings = std::mem::take(&mut request.warnings);
        warnings.extend(oci::validate(&config, &mut request.host_config, &self.host)?);
        warnings.extend(logs::check(&request.host_config.log_config)?);
        if request.host_config.network_mode == NetworkMode::Host && request.host_config.binds_ports() {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        if request.host_config.log_config.kind.is_empty() {
            "json-file".clone_into(&mut request.host_config.log_config.kind);
        }
        if matches!(request.host_config.network_mode, NetworkMode::Unset | NetworkMode::Default) {
            request.host_config.network_mode = NetworkMode::from(NetworkMode::BRIDGE);
        }
        networks::request::check(&config, &request.host_config)?;
        self.pin_containers(scope, &mut request.host_config)?;
        let runtime = self.backends.runtime.resolve_runtime(&request.host_config.runtime)?;
        request.host_config.runtime.clone_from(&runtime);
        let id = ContainerId::random();
        if config.hostname.is_empty() {
            config.hostname = match request.host_config.network_mode {
                NetworkMode::Host => hostname(),
                _ => id.short().to_owned(),
            };
        }
        let name = self.take_name(scope, request.name.as_deref(), &id)?;
        let draft = Draft { id, name, image, config, warnings, runtime };
        let (id, name) = (draft.id.clone(), draft.name.clone());
        let made = self.make(scope, request, draft).await;
        if made.is_err() {
            self.containers.release_name(scope.tenant(), &name, &id);
        }
        made
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

    async fn make(&self, scope: &Scope, request: ContainerCreateRequest, draft: Draft) -> Result<Created> {
        let request = ContainerCreateRequest { config: draft.config, ..request };
        let attachments = self.resolve_networks(scope, &request).await?;
        let linked = self.linked_containers(scope, &request.host_config)?;
        let resolved = self.resolve_mounts(scope, &draft.id, &request.config, &request.host_config).await?;
        let record = ContainerRecord {
            tenant: scope.tenant().clone(),
            id: draft.id,
            name: draft.name,
            created: Timestamp::now(),
            image_id: draft.image.id,
            image_manifest: draft.image.manifest,
            platform: draft.image.platform,
            command: request.config.command(),
            config: request.config,
            host_config: request.host_config,
            networking: Networking { attachments, linked, ..Networking::default() },
            mounts: resolved.points.clone(),
            state: ContainerState::created(),
            health: None,
            restart_count: 0,
            has_been_manually_stopped: false,
            runtime: draft.runtime,
        };
        let made = async {
            self.backends.runtime.create_container(&stored(&record, draft.image.chain_id)).await?;
            self.prepare_rootfs(&record).await?;
            self.fill_volumes(&record).await
        };
        if let Err(error) = made.await {
            self.unmake(&record, resolved).await;
            return Err(if error.kind() == ErrorKind::NotFound {
                // The image was removed meanwhile.
                Error::no_such_image(&record.config.image).with_source(error)
            } else {
                error
            });
        }
        let id = record.id.clone();
        info!(container.id = %id, container.name = record.name, image.ref = record.config.image,
            "created container {} from {}", record.name, record.config.image);
        self.events.container(&record, "create", &[]);
        self.containers.insert(self.in_memory(record));
        drop(resolved);
        Ok(Created { id, warnings: draft.warnings })
    }

    async fn unmake(&self, record: &ContainerRecord, mounts: ResolvedMounts) {
        if let Err(error) = self.backends.runtime.delete_container(&record.id).await {
            warn!(container.id = %record.id, "removing container {} that could not be made: {error}", record.id);
        }
        self.drop_new_mounts(&record.tenant, mounts).await;
    }

    /// A container with its log.
    pub(crate) fn in_memory(&self, record: ContainerRecord) -> Arc<Container> {
        let facts = Facts {
            id: record.id.as_str(),
            name: &record.name,
            image_id: record.image_id.as_str(),
            image_name: &record.config.image,
            labels: record.config.labels.as_ref(),
            env: record.config.env.as_deref().unwrap_or_default(),
        };
        let log = ContainerLog::new(self.container_dir(&record.id), &record.host_config.log_config, &facts);
        Arc::new(Container::new(record, log))
    }
}

/// What is known of a container before its networks and mounts are.
struct Draft {
    id: ContainerId,
    name: String,
    image: ImageForContainer,
    config: crate::model::container::Config,
    warnings: Vec<String>,
    runtime: String,
}

fn stored(record: &ContainerRecord, parent: String) -> NewContainer {
    let labels = HashMap::from([
        ("ringer.tenant".to_owned(), record.tenant.to_string()),
        ("ringer.name".to_owned(), record.name.clone()),
    ]);
    NewContainer {
        id: record.id.clone(),
        parent,
        image: record.config.image.clone(),
        labels,
        runtime: record.runtime.clone(),
        record: record::write(record),
    }
}
