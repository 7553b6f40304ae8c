//! `POST /containers/create`.

use std::{collections::HashMap, sync::Arc};

use tracing::{info, warn};

use crate::{
    backend::runtime::NewContainer,
    engine::{Engine, container::Container, containers::storage::ResolvedMounts, room::Place, tenants::Scope},
    logs::{ContainerLog, Facts},
    model::{
        Error, ErrorKind, Result,
        container::{ContainerCreateRequest, ContainerRecord, ContainerState, Effective, Networking},
        id::ContainerId,
        image::ImageForContainer,
        policy::Key,
        record,
        time::Timestamp,
    },
    policy::Asked,
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
        request: ContainerCreateRequest,
        image: ImageForContainer,
    ) -> Result<Created> {
        let request = self.stand_in_for_builder(scope, request, &image.config)?;
        let wanted_name = request.name.clone();
        let id = ContainerId::random();
        let filled = self.fill(scope, request, &image.config, &id)?;
        let name = self.take_name(scope, wanted_name.as_deref(), &id)?;
        let draft = Draft { id: id.clone(), name: name.clone(), image, warnings: filled.warnings };
        let made = async {
            let effective = self.effective(scope, filled.request).await?;
            scope.permit(Asked::Create(&effective)).map_err(|refusal| match refusal.refused_by() {
                Some(Key::Privileged) if name.starts_with(super::buildx::PREFIX) => refusal.or_the_default_builder(),
                Some(Key::Privileged) => refusal.or_the_jobs_docker(),
                _ => refusal,
            })?;
            self.make(scope, draft, effective).await
        };
        let made = made.await;
        if made.is_err() {
            self.containers.release_name(scope.tenant(), &name, &id);
        }
        made
    }

    async fn make(&self, scope: &Scope, draft: Draft, effective: Effective) -> Result<Created> {
        let resolved = self.realise_mounts(scope, &draft.id, effective.mounts).await?;
        let record = ContainerRecord {
            tenant: scope.tenant().clone(),
            id: draft.id,
            name: draft.name,
            created: Timestamp::now(),
            image_id: draft.image.id,
            image_manifest: draft.image.manifest,
            platform: draft.image.platform,
            command: effective.config.command(),
            config: effective.config,
            runtime: effective.host_config.runtime.clone(),
            host_config: effective.host_config,
            networking: Networking {
                attachments: effective.attachments,
                linked: effective.linked,
                ..Networking::default()
            },
            mounts: resolved.points.clone(),
            state: ContainerState::created(),
            health: None,
            restart_count: 0,
            has_been_manually_stopped: false,
        };
        let new = stored(&record, draft.image.chain_id);
        let place = match self.rooms.take(scope.tenant(), record::weigh(&new.record)) {
            Ok(place) => place,
            Err(error) => {
                self.drop_new_mounts(scope.tenant(), resolved).await;
                return Err(error);
            }
        };
        let made = async {
            self.backends.runtime.create_container(&new).await?;
            self.prepare_rootfs(scope, &record).await?;
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
        self.containers.insert(self.in_memory(record, place));
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
    pub(crate) fn in_memory(&self, record: ContainerRecord, place: Place) -> Arc<Container> {
        let facts = Facts {
            id: record.id.as_str(),
            name: &record.name,
            image_id: record.image_id.as_str(),
            image_name: &record.config.image,
            labels: record.config.labels.as_ref(),
            env: record.config.env.as_deref().unwrap_or_default(),
        };
        let log = ContainerLog::new(self.container_dir(&record.id), &record.host_config.log_config, &facts);
        Arc::new(Container::new(record, place, log))
    }
}

/// A container that is being made.
struct Draft {
    id: ContainerId,
    name: String,
    image: ImageForContainer,
    warnings: Vec<String>,
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
