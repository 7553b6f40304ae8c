//! The event bus: what happened lately, and who wants to know.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{Stream, stream};
use indexmap::IndexMap;
use tokio::sync::broadcast::{self, Receiver, error::RecvError};

use crate::{
    engine::scoped::Scoped,
    model::{
        container::ContainerRecord,
        event::{Event, EventType},
        id::TenantId,
        limits,
        time::Timestamp,
    },
};

/// How many past events `since` can reach, as dockerd keeps.
const HISTORY: usize = 256;

/// How many events a slow listener may lie behind, dockerd's number.
const BACKLOG: usize = 1024;

/// Publishes events, to each tenant its own.
#[derive(Default)]
pub struct EventBus {
    tenants: Scoped<OfTenant>,
    /// For who listens to all of them.
    all: Mutex<Option<broadcast::Sender<(TenantId, Event)>>>,
}

/// One tenant's past, and who waits for what comes.
#[derive(Default)]
struct OfTenant {
    history: VecDeque<Event>,
    /// Made for the first who listens: its backlog takes room from the beginning.
    sender: Option<broadcast::Sender<Event>>,
}

impl EventBus {
    fn all(&self) -> MutexGuard<'_, Option<broadcast::Sender<(TenantId, Event)>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what just happened to `actor`. It is kept for a while and for each who is slow to listen, so what is too long is cut.
    pub fn publish(
        &self,
        tenant: &TenantId,
        kind: EventType,
        action: impl Into<String>,
        actor: impl Into<String>,
        attributes: IndexMap<String, String>,
    ) {
        let action = limits::shown(&action.into(), limits::EVENT).into_owned();
        let attributes = last_that_fit(attributes);
        let event = Event { kind, action, actor: actor.into(), attributes, time: Timestamp::now() };
        self.tenants.add(tenant, |OfTenant { history, sender }| {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(event.clone());
            let mut all = self.all();
            if all.as_ref().is_some_and(|all| all.send((tenant.clone(), event.clone())).is_err()) {
                *all = None;
            }
            // Sent under the lock, so that a listener's past and future neither overlap nor have a gap.
            if sender.as_ref().is_some_and(|sender| sender.send(event).is_err()) {
                // Nobody listens any more.
                *sender = None;
            }
        });
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

    /// Forgets a tenant that is gone; whoever still listens has heard all.
    pub fn forget(&self, tenant: &TenantId) {
        self.tenants.forget(tenant);
    }

    /// How many of a tenant's clients listen.
    pub fn listeners(&self, tenant: &TenantId) -> usize {
        self.tenants.look(tenant, |own| own.sender.as_ref().map_or(0, broadcast::Sender::receiver_count))
    }

    /// The past of a tenant that is still known, oldest first, and all that comes.
    pub fn subscribe(&self, tenant: &TenantId) -> (Vec<Event>, broadcast::Receiver<Event>) {
        self.tenants.add(tenant, |OfTenant { history, sender }| {
            let future = sender.get_or_insert_with(|| broadcast::channel(BACKLOG).0).subscribe();
            (history.iter().cloned().collect(), future)
        })
    }

    /// What happens to all tenants from now on, with the tenant's name.
    pub fn subscribe_to_all(&self) -> broadcast::Receiver<(TenantId, Event)> {
        self.all().get_or_insert_with(|| broadcast::channel(BACKLOG).0).subscribe()
    }
}

/// As many of the last attributes as an event may have: labels stand before what every event has.
fn last_that_fit(mut attributes: IndexMap<String, String>) -> IndexMap<String, String> {
    let mut room = limits::EVENT;
    let fits = |(key, value): &(&String, &String)| {
        let left = room.checked_sub(key.len() + value.len());
        room = left.unwrap_or_default();
        left.is_some()
    };
    let fitting = attributes.iter().rev().take_while(fits).count();
    attributes.split_off(attributes.len() - fitting)
}

/// What comes. What a listener that is too slow misses is left out, as by dockerd.
pub(crate) fn received<T: Clone + Send + 'static>(receiver: Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async move {
        loop {
            match receiver.recv().await {
                Ok(event) => return Some((event, receiver)),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "a listener missed {missed} events"),
                Err(RecvError::Closed) => return None,
            }
        }
    })
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
        let (past, mut future) = bus.subscribe(&tenant);
        publish(300);
        assert_eq!(past.len(), HISTORY);
        assert_eq!(past.last().unwrap().actor, "299");
        assert_eq!(future.try_recv().unwrap().actor, "300");
        drop(future);
        assert_eq!(bus.listeners(&tenant), 0);
        publish(301);
        assert_eq!(bus.subscribe(&tenant).0.last().unwrap().actor, "301");
    }

    #[test]
    fn labels_that_are_too_long_are_left_out() {
        let bus = EventBus::default();
        let tenant = TenantId::default_tenant();
        let labels = [("big", "x".repeat(limits::EVENT)), ("small", "y".to_owned()), ("image", "box".to_owned())];
        let attributes = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        bus.publish(&tenant, EventType::Container, "x".repeat(1 << 20), "a", attributes);
        let (past, _) = bus.subscribe(&tenant);
        assert_eq!(past[0].attributes.keys().collect::<Vec<_>>(), ["small", "image"]);
        assert!(past[0].action.len() < 2 * limits::EVENT);
    }

    #[test]
    fn nobody_hears_what_happens_to_others() {
        let bus = EventBus::default();
        let (one, other) = (TenantId::default_tenant(), "default-build".parse().unwrap());
        let (_, mut future) = bus.subscribe(&other);
        bus.publish(&one, EventType::Volume, "create", "a", IndexMap::new());
        assert!(future.try_recv().is_err() && bus.subscribe(&other).0.is_empty());
        assert_eq!((bus.listeners(&one), bus.listeners(&other)), (0, 1));
        let mut all = bus.subscribe_to_all();
        bus.publish(&one, EventType::Volume, "create", "b", IndexMap::new());
        let (tenant, event) = all.try_recv().unwrap();
        assert_eq!((&tenant, event.actor.as_str()), (&one, "b"));
        bus.forget(&one);
        assert!(bus.subscribe(&one).0.is_empty());
    }
}
