//! Containers in which the kernel killed for want of memory.
//!
//! Whether a container that ended was one of them is read from its cgroup, which cannot be missed; the shim's
//! event may come later than the exit. The events serve `docker events`, and shims whose containers have no cgroup here.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use containerd_client::{events::TaskOom, services::v1::SubscribeRequest, tonic::Status, types::Envelope};
use prost::Message;
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::Client;
use crate::model::id::ContainerId;

/// Pause before a broken subscription is made again.
const PAUSE: Duration = Duration::from_millis(200);

/// Listens as long as it lives.
pub(super) struct OomWatch {
    seen: Arc<Mutex<HashSet<String>>>,
    events: broadcast::Sender<ContainerId>,
    _listener: AbortOnDropHandle<()>,
}

impl OomWatch {
    /// Starts to listen.
    pub(super) fn start(client: Client) -> Self {
        let seen = Arc::<Mutex<HashSet<String>>>::default();
        let (events, _) = broadcast::channel(64);
        let listener = tokio::spawn(listen(client, Arc::clone(&seen), events.clone()));
        Self { seen, events, _listener: AbortOnDropHandle::new(listener) }
    }

    /// Events from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<ContainerId> {
        self.events.subscribe()
    }

    /// Whether an event was seen for the container's present task.
    pub(super) fn seen(&self, id: &ContainerId) -> bool {
        lock(&self.seen).contains(id.as_str())
    }

    /// Forgets a container, before a new task or after its end.
    pub(super) fn forget(&self, id: &ContainerId) {
        lock(&self.seen).remove(id.as_str());
    }
}

fn lock(seen: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(client: Client, seen: Arc<Mutex<HashSet<String>>>, events: broadcast::Sender<ContainerId>) {
    loop {
        if let Err(status) = follow(&client, &seen, &events).await {
            debug!(%status, "the subscription to containerd's events broke");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(
    client: &Client,
    seen: &Mutex<HashSet<String>>,
    events: &broadcast::Sender<ContainerId>,
) -> Result<(), Status> {
    let filters = vec![format!("namespace=={:?},topic==\"/tasks/oom\"", client.namespace())];
    // Returns with the first event only, since containerd sends no headers before.
    let mut stream = client.events().subscribe(SubscribeRequest { filters }).await?.into_inner();
    while let Some(envelope) = stream.message().await? {
        if let Some(id) = container_of(&envelope) {
            lock(seen).insert(id.clone());
            // An error means that nobody listens.
            let _ = events.send(ContainerId::from_stored(id));
        }
    }
    Ok(())
}

fn container_of(envelope: &Envelope) -> Option<String> {
    let event = TaskOom::decode(envelope.event.as_ref()?.value.as_slice()).ok()?;
    (!event.container_id.is_empty()).then_some(event.container_id)
}
