//! `POST /commit`: an image of a container as it is. `store_child` is also a build's way from one image to the next.

use std::sync::Arc;

use super::tag::{import_name, new_name};
use crate::{
    backend::images::{Lease, NewLayer},
    dockerfile::changes,
    engine::{
        Engine,
        container::Container,
        images::{ImageStore, reach::Held, tree::Content},
        tenants::Scope,
    },
    model::{
        Error, Result,
        container::{Config, ContainerState},
        image::{
            Descriptor, ImageConfig, Platform,
            documents::{EMPTY_LAYER, HistoryEntry, ImageDocument},
        },
        reference::{Digest, Reference},
        time::Timestamp,
    },
};

/// What to make of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// Name of the image, empty for none.
    pub repository: String,
    /// Its tag, `latest` if empty.
    pub tag: String,
    /// Comment of its history.
    pub comment: String,
    /// Who made it; the base image's author if empty.
    pub author: String,
    /// Whether a running container stands still meanwhile.
    pub pause: bool,
    /// Dockerfile instructions for its configuration.
    pub changes: Vec<String>,
    /// What lies over the container's configuration.
    pub config: Option<Config>,
}

/// A step from one image to the next.
pub(crate) struct Step {
    /// The new image's configuration.
    pub config: ImageConfig,
    /// The base image's author if empty.
    pub author: String,
    /// For the history.
    pub comment: String,
    /// For the history.
    pub created_by: String,
    /// The base image's id, if there is a base image.
    pub parent: Option<Digest>,
}

impl Engine {
    /// Makes an image of a container and its configuration; returns its id.
    pub async fn image_commit(&self, scope: &Scope, request: CommitRequest) -> Result<Digest> {
        let name = name(&request)?;
        if request.container.is_empty() {
            return Err(Error::invalid("invalid name or ID supplied: \"\""));
        }
        let container = self.containers.get(scope.tenant(), &request.container)?;
        let (engine, scope) = (self.clone(), scope.clone());
        self.run("image_commit", async move { engine.commit(&scope, &container, &request, name.as_ref()).await }).await
    }

    async fn commit(
        &self,
        scope: &Scope,
        container: &Arc<Container>,
        request: &CommitRequest,
        name: Option<&Reference>,
    ) -> Result<Digest> {
        // One that runs may end meanwhile, for which a turn is needed; any other stays as it is.
        let turn = container.turn().await?;
        let id = container.id();
        match turn.state() {
            ContainerState::Dead(_) => {
                return Err(Error::conflict(format!("You cannot commit container {id} which is Dead")));
            }
            ContainerState::Removing(_) => {
                return Err(Error::conflict(format!("You cannot commit container {id} which is being removed")));
            }
            _ => {}
        }
        if !request.pause && turn.state().counts_as_running() {
            drop(turn);
            return self.commit_still(scope, container, request, name).await;
        }
        if !matches!(turn.state(), ContainerState::Running(_)) || self.pause(&turn).await.is_err() {
            // As with dockerd one that cannot be paused is committed all the same.
            return self.commit_still(scope, container, request, name).await;
        }
        drop(turn);
        let committed = self.commit_still(scope, container, request, name).await;
        self.unpause_if_paused(container).await;
        committed
    }

    /// After a commit, in which somebody else may have thawed, ended or removed the container.
    async fn unpause_if_paused(&self, container: &Arc<Container>) {
        let Ok(turn) = container.turn().await else { return };
        if matches!(turn.state(), ContainerState::Paused(_))
            && let Err(error) = self.unpause(&turn).await
        {
            tracing::warn!(container.id = %turn.id(), "unpausing container {} after its commit: {}", turn.id(), error.chain());
        }
    }

    async fn commit_still(
        &self,
        scope: &Scope,
        container: &Container,
        request: &CommitRequest,
        name: Option<&Reference>,
    ) -> Result<Digest> {
        let lease = self.images.backend.lease().await?;
        let made = self.commit_under(&lease, container, request).await;
        let named = match made {
            Ok(target) => self.name_commit(scope, &target, name).await.map(|()| target),
            Err(error) => Err(error),
        };
        self.images.backend.release(lease).await?;
        if named.is_err() {
            self.collect_garbage_soon();
        }
        let image = named?.digest;
        let reference = name.map(Reference::familiar).unwrap_or_default();
        let comment = request.comment.clone();
        let extra = [("comment", comment), ("imageID", image.to_string()), ("imageRef", reference)];
        self.events.container(&container.record(), "commit", &extra);
        Ok(image)
    }

    async fn commit_under(&self, lease: &Lease, container: &Container, request: &CommitRequest) -> Result<Descriptor> {
        let record = container.record();
        let config = config(&record.config, request)?;
        let target = Descriptor { platform: None, ..record.image_manifest.clone() };
        let tree = self.images.whole_tree(&target).await?;
        let base = tree.available().next().map(|(_, content)| content);
        let base = base.ok_or_else(|| Error::no_such_image(record.image_id.as_str()))?;
        let layer = self.images.backend.store_changes(lease, container.id()).await?;
        let step = Step {
            config,
            author: request.author.clone(),
            comment: request.comment.clone(),
            created_by: record.config.cmd.clone().unwrap_or_default().join(" "),
            parent: Some(record.image_id.clone()),
        };
        self.images.store_child(lease, Some(base), Some(layer), step).await
    }

    async fn name_commit(&self, scope: &Scope, target: &Descriptor, name: Option<&Reference>) -> Result<()> {
        let id = target.digest.as_str();
        self.images.keep_nameless(scope.tenant(), target, Held::default()).await?;
        self.image_event(scope, "create", id, id, self.images.whole_tree(target).await?.labels());
        if let Some(name) = name {
            self.images.point(scope.tenant(), name, target, Held::default()).await?;
            self.image_event(scope, "tag", id, &name.familiar(), self.images.whole_tree(target).await?.labels());
        }
        Ok(())
    }
}

impl ImageStore {
    /// Stores, unpacks and pins an image that has a step, and perhaps a layer, more than its base. An empty layer is
    /// none. The caller names it while the lease lives.
    pub(crate) async fn store_child(
        &self,
        lease: &Lease,
        base: Option<&Content>,
        layer: Option<NewLayer>,
        step: Step,
    ) -> Result<Descriptor> {
        let layer = layer.filter(|layer| layer.diff_id.as_str() != EMPTY_LAYER);
        let created = Some(Timestamp::now());
        let mut document = base
            .map(|base| base.document.clone())
            .unwrap_or_else(|| ImageDocument { platform: Platform::host(), ..ImageDocument::default() });
        let mut layers = base.map(|base| base.manifest.layers.clone()).unwrap_or_default();
        document.created = created;
        document.comment = String::new();
        document.docker_version = String::new();
        document.config = step.config;
        if !step.author.is_empty() {
            document.author = step.author;
        }
        document.history.push(HistoryEntry {
            created,
            created_by: step.created_by,
            author: document.author.clone(),
            comment: step.comment,
            empty_layer: layer.is_none(),
        });
        if let Some(layer) = layer {
            document.rootfs.diff_ids.push(layer.diff_id);
            layers.push(layer.blob);
        }
        let (target, manifest) = self.store_manifest(lease, &document, layers).await?;
        self.unpack(lease, &manifest, &document).await?;
        self.pin_manifest(&target, &manifest, &document).await?;
        self.set_parent(&target.digest, step.parent.as_ref()).await?;
        Ok(target)
    }
}

fn name(request: &CommitRequest) -> Result<Option<Reference>> {
    if request.repository.is_empty() {
        return Ok(None);
    }
    import_name(&request.repository)?;
    new_name(&request.repository, &request.tag).map(Some)
}

/// The client's configuration, or the container's, with the changes made; the container's lies below.
fn config(container: &Config, request: &CommitRequest) -> Result<ImageConfig> {
    let below = ImageConfig::of_container(container);
    let mut config = ImageConfig::of_container(request.config.as_ref().unwrap_or(container));
    changes::apply(&mut config, &request.changes)?;
    let merged = config.to_container_config().over(&below);
    Ok(ImageConfig { args_escaped: config.args_escaped, ..ImageConfig::of_container(&merged) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn committed(own: Option<serde_json::Value>, changes: &[&str]) -> serde_json::Value {
        let container = json!({"Cmd": ["sh"], "Env": ["A=1", "P=/bin"], "Labels": {"l": "1"}, "Hostname": "h"});
        let container: Config = serde_json::from_value(container).unwrap();
        let changes = changes.iter().map(|change| (*change).to_owned()).collect();
        let own = own.map(|own| serde_json::from_value(own).unwrap());
        let request = CommitRequest { config: own, changes, ..CommitRequest::default() };
        serde_json::to_value(config(&container, &request).unwrap()).unwrap()
    }

    #[test]
    fn changes_go_over_the_containers_configuration() {
        let config = committed(None, &["ENV B=2", "CMD foo", "LABEL m=2"]);
        assert_eq!(config["Env"], json!(["A=1", "P=/bin", "B=2"]));
        assert_eq!(config["Cmd"], json!(["/bin/sh", "-c", "foo"]));
        assert_eq!(config["Labels"], json!({"l": "1", "m": "2"}));
        assert!(config.get("Hostname").is_none());
    }

    #[test]
    fn entrypoint_takes_the_old_command_away() {
        assert_eq!(committed(None, &["ENTRYPOINT x"])["Cmd"], json!(null));
        assert_eq!(committed(None, &["CMD [\"a\"]", "ENTRYPOINT [\"x\"]"])["Cmd"], json!(["a"]));
    }

    #[test]
    fn clients_configuration_lies_over_the_containers() {
        let config = committed(Some(json!({"Env": ["A=3"], "Entrypoint": ["/e"], "Labels": {"b": "2"}})), &[]);
        assert_eq!(config["Env"], json!(["A=3", "P=/bin"]));
        assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/e"]), &json!(null)));
        assert_eq!(config["Labels"], json!({"b": "2", "l": "1"}));
    }

    #[test]
    fn names_are_checked_in_dockerds_words() {
        let refused = |repository: &str, tag: &str| {
            let request = CommitRequest { repository: repository.into(), tag: tag.into(), ..CommitRequest::default() };
            name(&request).unwrap_err().message().to_owned()
        };
        assert_eq!(refused(&format!("a@{EMPTY_LAYER}"), ""), "cannot import digest reference");
        assert_eq!(refused("a", "-x"), "invalid tag format");
        assert!(refused("Bad", "").ends_with("must be lowercase"));
    }
}
