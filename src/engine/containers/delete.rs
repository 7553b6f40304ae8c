//! `DELETE /containers/{id}`, and removal after the end (`AutoRemove`).

use std::sync::Arc;

use tracing::warn;

use crate::{
    engine::{
        Engine,
        container::{Container, Turn},
        tenants::Scope,
    },
    model::{Error, ErrorKind, Result, container::ContainerState},
};

/// How a container is to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Also if it runs: it is killed.
    pub force: bool,
    /// With its anonymous volumes.
    pub volumes: bool,
}

impl Engine {
    /// Removes a container. Answers when its name is free; its task and its files follow.
    pub async fn container_delete(&self, scope: &Scope, reference: &str, options: DeleteOptions) -> Result<()> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let (engine, named) = (self.clone(), reference.to_owned());
        self.run("container_delete", async move { engine.remove_named(&container, &named, options).await }).await
    }

    /// Removes a container after its end. Its anonymous volumes go with it.
    pub(crate) async fn auto_remove(&self, container: &Arc<Container>) {
        if container.is_auto_remove_held() {
            return;
        }
        self.remove_at_end(container).await;
    }

    /// The same, whether or not somebody holds it back: after a start that failed.
    pub(crate) async fn remove_at_end(&self, container: &Arc<Container>) {
        match self.remove(container, DeleteOptions { force: true, volumes: true }).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Conflict || error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                warn!(container.id = %container.id(), "removing container {}: {}", container.id(), error.chain());
            }
        }
    }

    /// Goes on with a removal in whose middle the last daemon ended.
    pub(crate) async fn resume_removal(&self, container: &Arc<Container>) {
        if let Ok(turn) = container.turn().await {
            turn.update(|record| record.state = record.state.reopen_removal());
        }
        let options = DeleteOptions { force: true, volumes: container.record().host_config.auto_remove };
        if let Err(error) = self.remove(container, options).await {
            warn!(container.id = %container.id(), "removing container {}: {}", container.id(), error.chain());
        }
    }

    pub(crate) async fn remove(&self, container: &Arc<Container>, options: DeleteOptions) -> Result<()> {
        self.remove_named(container, container.id().as_str(), options).await
    }

    /// `named` is how the one who wants it removed calls it.
    async fn remove_named(&self, container: &Arc<Container>, named: &str, options: DeleteOptions) -> Result<()> {
        let is_sure = options.force || !container.state().counts_as_running();
        let _work_ended = is_sure.then(|| container.end_work());
        let turn = container.turn().await?;
        let tenant = self.tenants.get(&turn.record().tenant)?;
        let removal = turn.begin_removal(named)?;
        let turn = self.end_for_removal(turn, options.force).await?;
        let record = turn.record();
        turn.try_update(|record| {
            record.state = record.state.begin_removal(named)?;
            Ok::<_, Error>(())
        })?;
        // Stored first: a daemon that is killed now goes on with the removal at its next start.
        match turn.store(&*self.backends.runtime).await {
            // A removal is what makes room again.
            Err(error) if error.is_of_a_full_disk() => {
                warn!(container.id = %container.id(), "storing container {}: {error}", container.id());
            }
            Err(error) => {
                turn.update(|changed| changed.state = record.state.clone());
                return Err(error);
            }
            Ok(()) => {}
        }
        self.containers.bury(container);
        self.execs.forget_container(&record.tenant, container.id());
        self.release_volumes(&record, options.volumes).await;
        self.refresh_names(&record.tenant).await;
        self.events.container(&record, "destroy", &[]);
        removal.finish();
        turn.publish_removed();
        container.until_removal().cancel();
        let engine = self.clone();
        let container = container.clone();
        self.spawn(
            "remove",
            tenant.track(async move {
                let _torn_down = container.teardown.lock().await;
                engine.remove_rest(&container).await;
            }),
        );
        Ok(())
    }

    /// Sees that the container does not run: with `force` by killing it, else it is an error that it does.
    async fn end_for_removal(&self, mut turn: Turn, force: bool) -> Result<Turn> {
        loop {
            let name = turn.record().name.clone();
            match turn.state() {
                ContainerState::Running(_) if !force => return Err(Error::remove_running(&name, false)),
                ContainerState::Paused(_) if !force => return Err(Error::remove_running(&name, true)),
                ContainerState::Restarting(_) if !force => {
                    return Err(Error::conflict(format!(
                        "cannot remove container \"{name}\": container is restarting: \
                         stop the container before removing or force remove"
                    )));
                }
                ContainerState::Running(_) | ContainerState::Paused(_) => {
                    let container = turn.clone();
                    self.kill_and_wait(turn).await?;
                    turn = container.turn().await?;
                }
                ContainerState::Restarting(_) => {
                    self.cancel_restart(&turn).await;
                    return Ok(turn);
                }
                ContainerState::Created(_)
                | ContainerState::Exited(_)
                | ContainerState::Removing(_)
                | ContainerState::Dead(_) => return Ok(turn),
            }
        }
    }

    /// What nobody waits for: the container object with its writable layer, and its files.
    pub(crate) async fn remove_rest(&self, container: &Container) {
        let id = container.id();
        let deleted = self.backends.runtime.delete_container(id).await;
        let record = container.record();
        // Of a start in whose middle a daemon was killed.
        self.hide_sources(&record).await;
        self.delete_image_layers(&record.mounts).await;
        let folder = self.container_dir(id);
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(container.id = %id, "removing {}: {error}", folder.display());
            }
            _ => {}
        }
        let deleted = match deleted {
            // Its log is gone, which may be all the room that was wanted.
            Err(error) if error.is_of_a_full_disk() => self.backends.runtime.delete_container(id).await,
            other => other,
        };
        if let Err(error) = deleted {
            warn!(container.id = %id, "removing container {id}: {}", error.chain());
        }
    }
}
