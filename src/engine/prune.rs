//! What all prunes have in common: one at a time of each kind, their filters and their event.

use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;

use crate::{
    engine::Engine,
    model::{Error, Result, event::EventType, filters::Filters, id::TenantId, time::Timestamp},
};

/// Prunes that are under way.
#[derive(Clone, Default)]
pub struct Prunes(Arc<Mutex<Vec<(TenantId, EventType)>>>);

impl Prunes {
    /// Begins one. Conflict, as with dockerd, if one of the same kind is under way.
    pub fn begin(&self, tenant: &TenantId, kind: EventType) -> Result<Prune> {
        let running = (tenant.clone(), kind);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains(&running) {
            return Err(Error::prune_is_running());
        }
        all.push(running.clone());
        Ok(Prune { all: self.clone(), running })
    }
}

/// A prune that is under way, until it is dropped.
pub struct Prune {
    all: Prunes,
    running: (TenantId, EventType),
}

impl Drop for Prune {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != self.running);
    }
}

/// The filters that objects with an age and labels are chosen by.
pub struct PruneFilter {
    filters: Filters,
    until: Option<Timestamp>,
}

impl PruneFilter {
    /// Reads `until`, `label` and `label!`; refuses all others.
    pub fn read(filters: Filters) -> Result<Self> {
        filters.allow_only(&["label", "label!", "until"])?;
        Ok(Self { until: filters.until()?, filters })
    }

    /// Whether an object is old enough and has the right labels.
    pub fn matches<'a>(&self, created: Timestamp, labels: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.until.is_none_or(|until| created < until) && self.filters.matches_labels(labels)
    }
}

impl Engine {
    /// The event that ends a prune.
    pub(crate) fn prune_event(&self, tenant: &TenantId, kind: EventType, reclaimed: u64) {
        let attributes = IndexMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
        self.events.publish(tenant, kind, "prune", "", attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_prune_of_the_same_kind_is_conflict() {
        let (prunes, tenant) = (Prunes::default(), TenantId::default_tenant());
        let first = prunes.begin(&tenant, EventType::Volume).unwrap();
        let _other = prunes.begin(&tenant, EventType::Network).unwrap();
        let error = prunes.begin(&tenant, EventType::Volume).err().unwrap();
        assert_eq!(error.message(), "a prune operation is already running");
        drop(first);
        prunes.begin(&tenant, EventType::Volume).unwrap();
    }

    #[test]
    fn until_spares_what_is_younger() {
        let filter = PruneFilter::read(Filters::parse(r#"{"until":["100"]}"#).unwrap()).unwrap();
        assert!(filter.matches(Timestamp::from_unix(99, 0), |_| None));
        assert!(!filter.matches(Timestamp::from_unix(100, 0), |_| None));
    }
}
