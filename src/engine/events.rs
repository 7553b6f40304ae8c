//! The event bus: what happened lately, and who wants to know.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use indexmap::IndexMap;
use tokio::sync::broadcast;

use crate::model::{
    container::ContainerRecord,
    event::{Event, EventType},
    id::TenantId,
    time::Timestamp,
};

/// How many past events `since` can reach, as dockerd keeps.
const HISTORY: usize = 256;

/// How many events a slow listener may lie behind.
const BACKLOG: usize = 4096;

/// An event and whose it is.
#[derive(Clone, Debug)]
pub struct TenantEvent {
    /// Who may see it.
    pub tenant: TenantId,
    /// What happened.
    pub event: Event,
}

/// Publishes events to all who listen.
pub struct EventBus {
    sender: broadcast::Sender<TenantEvent>,
    history: Mutex<VecDeque<TenantEvent>>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, history: Mutex::new(VecDeque::new()) }
    }
}

impl EventBus {
    /// Publishes what just happened to `actor`.
    pub fn publish(
        &self,
        tenant: &TenantId,
        kind: EventType,
        action: impl Into<String>,
        actor: impl Into<String>,
        attributes: IndexMap<String, String>,
    ) {
        let event = Event { kind, action: action.into(), actor: actor.into(), attributes, time: Timestamp::now() };
        let event = TenantEvent { tenant: tenant.clone(), event };
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(event.clone());
        // Sent under the lock, so that a listener's past and future neither overlap nor have a gap.
        let _nobody_listens = self.sender.send(event);
    }

    /// An event of a container, with the attributes dockerd gives all of them: labels, image, name.
    pub fn container(&self, record: &ContainerRecord, action: impl Into<String>, extra: &[(&str, String)]) {
        let mut attributes: IndexMap<String, String> = record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".to_owned(), record.config.image.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        for (key, value) in extra {
            attributes.insert((*key).to_owned(), value.clone());
        }
        self.publish(&record.tenant, EventType::Container, action, record.id.as_str(), attributes);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// The past that is still known, oldest first, and all that comes.
    pub fn subscribe(&self) -> (Vec<TenantEvent>, broadcast::Receiver<TenantEvent>) {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        (history.iter().cloned().collect(), self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_future_follows_past() {
        let bus = EventBus::default();
        let tenant = TenantId::default_tenant();
        let publish = |n: usize| bus.publish(&tenant, EventType::Volume, "create", n.to_string(), IndexMap::new());
        (0..300).for_each(publish);
        let (past, mut future) = bus.subscribe();
        publish(300);
        assert_eq!(past.len(), HISTORY);
        assert_eq!(past.last().unwrap().event.actor, "299");
        assert_eq!(future.try_recv().unwrap().event.actor, "300");
    }
}
