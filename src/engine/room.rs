//! How much of the daemon's memory the things of a tenant take: who makes one takes a place for it, and gives it back with it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    engine::scoped::Scoped,
    model::{Error, Result, id::TenantId, limits},
};

/// The room of each tenant for things of some kinds together.
#[derive(Clone, Debug)]
pub struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What they are called.
    things: &'static str,
    /// Bytes.
    most: usize,
    /// Whose room has no end.
    unbounded: Option<TenantId>,
    /// What each has taken.
    taken: Scoped<Arc<AtomicUsize>>,
}

/// What a thing takes of its tenant's room, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<AtomicUsize>,
    things: &'static str,
    most: usize,
    bytes: usize,
}

impl Default for Rooms {
    /// For what jobs have stored. The default tenant is the operator's own, as its connections are.
    fn default() -> Self {
        Self::new("containers, networks and volumes", limits::JOB_RECORDS, Some(TenantId::default_tenant()))
    }
}

impl Rooms {
    /// Rooms of so many bytes each, but for one tenant's.
    pub fn new(things: &'static str, most: usize, unbounded: Option<TenantId>) -> Self {
        Self(Arc::new(Inner { things, most, unbounded, taken: Scoped::default() }))
    }

    /// A place for something new. Conflict if there is none.
    pub fn take(&self, tenant: &TenantId, bytes: usize) -> Result<Place> {
        let mut place = self.hold(tenant, 0);
        let fits = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= place.most);
        place.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| place.full())?;
        place.bytes = bytes;
        Ok(place)
    }

    /// The place of what is there already, whether there is room for it or not.
    pub fn hold(&self, tenant: &TenantId, bytes: usize) -> Place {
        let taken = self.0.taken.add(tenant, |taken| taken.clone());
        taken.fetch_add(bytes, Ordering::Relaxed);
        let most = if self.0.unbounded.as_ref() == Some(tenant) { usize::MAX } else { self.0.most };
        Place { taken, things: self.0.things, most, bytes }
    }

    /// Forgets a tenant that is gone.
    pub fn forget(&self, tenant: &TenantId) {
        self.0.taken.forget(tenant);
    }
}

impl Place {
    /// Conflict if there is not so much more. Nothing is taken yet.
    pub fn check(&self, more: usize) -> Result<()> {
        let sum = self.taken.load(Ordering::Relaxed).checked_add(more);
        if sum.is_some_and(|sum| sum <= self.most) { Ok(()) } else { Err(self.full()) }
    }

    fn full(&self) -> Error {
        Error::no_room(self.things, self.most)
    }

    /// What it takes as it is now, whether there is room for it or not.
    pub fn set(&mut self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.taken.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_full_takes_nothing_until_something_goes() {
        let (one, other): (TenantId, TenantId) = ("x".parse().unwrap(), "y".parse().unwrap());
        let rooms = Rooms::new("things", 100, Some(TenantId::default_tenant()));
        let first = rooms.take(&one, 60).unwrap();
        let refusal = rooms.take(&one, 41).unwrap_err();
        assert_eq!(refusal.kind(), crate::model::ErrorKind::Conflict);
        let mut second = rooms.take(&one, 40).unwrap();
        assert!(second.check(1).is_err() && second.check(0).is_ok() && rooms.take(&one, 1).is_err());
        rooms.take(&other, 100).unwrap();
        rooms.take(&TenantId::default_tenant(), 1 << 40).unwrap();
        drop(first);
        second.check(60).unwrap();
        second.set(10);
        drop(rooms.take(&one, 90).unwrap());
        second.set(200);
        assert!(rooms.take(&one, 0).is_err(), "what is there counts, though it is too much");
        drop(second);
        rooms.take(&one, 100).unwrap();
    }
}
