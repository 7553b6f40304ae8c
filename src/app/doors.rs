//! The sockets of jobs: a listener each, through which everything is the job's tenant's.

use std::{
    path::Path,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use ringer::{
    api::{self, router::Router},
    edge::{
        audit::Audit,
        measure::{self, Measures},
        server::{Access, Bounds, Listener, Listening, Server},
        turns::InTurns,
    },
    engine::jobs::{Door, Doors},
    model::{Error, Result, job::JobRecord, limits},
};

/// Makes them on the daemon's server.
pub struct JobDoors {
    /// Not held: the engine has us, and the server's handlers have the engine.
    server: Weak<Server>,
    router: Router,
    audit: Arc<Audit>,
    measures: Arc<Measures>,
}

impl JobDoors {
    /// On `server`, with Docker's API.
    pub fn new(server: &Arc<Server>, router: Router, audit: Arc<Audit>, measures: Arc<Measures>) -> Self {
        Self { server: Arc::downgrade(server), router, audit, measures }
    }
}

impl Doors for JobDoors {
    fn open(&self, job: &JobRecord, socket: &Path) -> Result<Box<dyn Door>> {
        let server = self.server.upgrade().ok_or_else(|| Error::unavailable("the daemon is shutting down"))?;
        // Who may come through is said by the folder: users of the job's containers have other numbers.
        let listener = Listener::unix(socket, Access::Everybody)?;
        let api = api::for_tenant(&self.router, job.id.clone());
        // Within audit and measures, which are to see the time that it waits for its turns.
        let api = InTurns::of(api);
        let api = self.audit.of(api, Some(job.id.clone()));
        let api = self.measures.of(api, measure::Door::Job, Some(job.id.clone()));
        let bounds = Bounds { connections: limits::JOB_CONNECTIONS, answers: limits::JOB_ANSWERS };
        Ok(Box::new(JobDoor(server.listen_within(listener, api, bounds))))
    }
}

struct JobDoor(Listening);

#[async_trait]
impl Door for JobDoor {
    async fn close(self: Box<Self>) {
        self.0.cut_off().await;
    }
}
