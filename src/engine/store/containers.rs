//! Containers by id and name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    engine::{
        container::{Container, WaitOutcome},
        scoped::Scoped,
    },
    model::{
        Error, Result,
        id::{ContainerId, TenantId},
    },
};

/// How long the end of a container that removed itself can still be asked for.
const MEMORY: Duration = Duration::from_secs(30);

/// A container that removed itself.
struct Buried {
    id: ContainerId,
    name: String,
    outcome: WaitOutcome,
    at: Instant,
}

#[derive(Default)]
struct TenantContainers {
    buried: Vec<Buried>,
    by_id: BTreeMap<ContainerId, Arc<Container>>,
    /// Names that are taken. A name may be reserved for a container that is not in `by_id` yet.
    names: HashMap<String, ContainerId>,
}

/// All containers. A look-up sees those of its tenant and no others.
#[derive(Default)]
pub struct ContainerStore(Scoped<TenantContainers>);

impl ContainerStore {
    /// Takes a name for a container that is about to be made. Conflict if somebody has it.
    pub fn reserve_name(&self, tenant: &TenantId, name: &str, id: &ContainerId) -> Result<()> {
        self.0.add(tenant, |TenantContainers { names, .. }| match names.get(name) {
            Some(owner) => Err(Error::name_in_use(name, owner.as_str())),
            None => {
                names.insert(name.to_owned(), id.clone());
                Ok(())
            }
        })
    }

    /// Gives a name back, if it is still this container's.
    pub fn release_name(&self, tenant: &TenantId, name: &str, id: &ContainerId) {
        self.0.change(tenant, |TenantContainers { names, .. }| {
            if names.get(name) == Some(id) {
                names.remove(name);
            }
        });
    }

    /// Adds a container. Its name was reserved before, or is taken with it (at start-up).
    pub fn insert(&self, container: Arc<Container>) {
        let record = container.record();
        self.0.add(&record.tenant, |containers| {
            containers.names.entry(record.name.clone()).or_insert_with(|| record.id.clone());
            containers.by_id.insert(record.id.clone(), container);
        });
    }

    /// Takes a container out, with its name. If it removed itself, its end is remembered for a while: a client that asks for it
    /// right after its output has ended (Gitea's runner) would else get no answer.
    pub fn bury(&self, container: &Container) {
        let snapshot = container.snapshot();
        let record = &snapshot.record;
        self.0.change(&record.tenant, |containers| {
            containers.by_id.remove(&record.id);
            containers.names.retain(|_, owner| *owner != record.id);
            if record.host_config.auto_remove {
                containers.buried.retain(|buried| buried.at.elapsed() < MEMORY);
                containers.buried.push(Buried {
                    id: record.id.clone(),
                    name: record.name.clone(),
                    outcome: WaitOutcome::of(&snapshot),
                    at: Instant::now(),
                });
            }
        });
    }

    /// How a container ended that removed itself a short while ago.
    pub fn last_words(&self, tenant: &TenantId, reference: &str) -> Option<WaitOutcome> {
        let name = reference.strip_prefix('/').unwrap_or(reference);
        let is_meant =
            |buried: &&Buried| buried.at.elapsed() < MEMORY && (buried.id.as_str() == reference || buried.name == name);
        self.0.look(tenant, |containers| {
            containers.buried.iter().rev().find(is_meant).map(|buried| buried.outcome.clone())
        })
    }

    /// By id, name (with or without slash) or unique prefix of an id.
    pub fn get(&self, tenant: &TenantId, reference: &str) -> Result<Arc<Container>> {
        self.0.look(tenant, |containers| containers.get(reference))
    }

    /// Forgets a tenant that is gone, with the ends of its containers.
    pub fn forget(&self, tenant: &TenantId) {
        self.0.forget(tenant);
    }

    /// All containers of a tenant.
    pub fn list(&self, tenant: &TenantId) -> Vec<Arc<Container>> {
        self.0.look(tenant, |containers| containers.by_id.values().cloned().collect())
    }

    /// By its whole id, whosever it is.
    pub fn find(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.0.look_at_all(|tenants| tenants.values().find_map(|containers| containers.by_id.get(id).cloned()))
    }

    /// All containers of all tenants, for start-up and shutdown, and for telling where a client sits.
    pub fn list_all(&self) -> Vec<Arc<Container>> {
        self.0
            .look_at_all(|tenants| tenants.values().flat_map(|containers| containers.by_id.values().cloned()).collect())
    }
}

impl TenantContainers {
    fn get(&self, reference: &str) -> Result<Arc<Container>> {
        let name = reference.strip_prefix('/').unwrap_or(reference);
        let by_id = self.by_id.get(&ContainerId::from_stored(reference));
        let by_name = || self.names.get(name).and_then(|id| self.by_id.get(id));
        if let Some(container) = by_id.or_else(by_name) {
            return Ok(container.clone());
        }
        if reference.is_empty() {
            return Err(Error::invalid("invalid name or ID supplied: \"\""));
        }
        let mut matches = self
            .by_id
            .range(ContainerId::from_stored(reference)..)
            .take_while(|(id, _)| id.as_str().starts_with(reference))
            .map(|(_, container)| container);
        match (matches.next(), matches.next()) {
            (Some(container), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!("Multiple IDs found with provided prefix: {reference}"))),
            _ => Err(Error::no_such_container(reference)),
        }
    }
}
