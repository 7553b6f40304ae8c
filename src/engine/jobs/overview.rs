//! What an operator sees: the containers and events of all tenants, each with the job that it belongs to. No client of Docker's API does.

use std::{collections::HashMap, sync::Arc};

use futures_util::{Stream, StreamExt};

use super::JobView;
use crate::{
    engine::{Engine, container::Container, events::received},
    model::{event::Event, id::TenantId},
};

/// Tenants that a listener remembers.
const OWNERS: usize = 4096;

/// Whose something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The default socket's.
    Default,
    /// A job's, by its name; its runner's if so.
    Job {
        /// Name of the job.
        name: String,
        /// Whether it is its runner's, which the job's clients do not see.
        is_runner: bool,
    },
}

impl Engine {
    /// All containers, running or not, oldest first.
    pub fn all_containers(&self) -> Vec<(Owner, Arc<Container>)> {
        let mut all = self.containers.list_all();
        all.sort_by_key(|container| container.record().created);
        all.into_iter().map(|container| (self.owner_of(&container.record().tenant), container)).collect()
    }

    /// All that happens from now on. Ends when the daemon stops.
    pub fn all_events(&self) -> impl Stream<Item = (Owner, Event)> + Send + 'static {
        let (engine, stopping) = (self.clone(), self.stopping());
        let events = received(self.events.subscribe_to_all());
        // Who hears late of a job's end hears its name still.
        let mut owners = HashMap::new();
        let owned = events.map(move |(tenant, event)| {
            if owners.len() >= OWNERS {
                owners.clear();
            }
            let owner = owners.entry(tenant.clone()).or_insert_with(|| engine.owner_of(&tenant));
            (owner.clone(), event)
        });
        owned.take_until(stopping.cancelled_owned())
    }

    fn owner_of(&self, tenant: &TenantId) -> Owner {
        if *tenant == TenantId::default_tenant() {
            return Owner::Default;
        }
        let served = tenant.served();
        let job = served.as_ref().unwrap_or(tenant);
        // Of a job that is gone meanwhile only the id is left.
        let name = self
            .job_inspect(job.as_str())
            .map_or_else(|_| job.to_string(), |JobView { record, .. }| record.name.clone());
        Owner::Job { name, is_runner: served.is_some() }
    }
}
