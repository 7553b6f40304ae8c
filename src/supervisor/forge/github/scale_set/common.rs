//! What the scale sets of a forge share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{
    super::{
        GitHub,
        hub::{Failure, Hub},
    },
    heard::Heard,
    service::Service,
};
use crate::{
    model::{Error, Result},
    supervisor::{
        kept_sets::KeptSets,
        settings::{ForgeSettings, Github},
    },
};

/// GitHub's own server.
const PUBLIC: &str = "https://github.com";

/// Of other servers, whose age is not known [doc: enterprise-server@3.9, "Deploying runner scale sets"].
const OLD: &str =
    ". A GitHub Enterprise Server has scale sets from 3.9 on: set discovery to \"webhook\" or \"poll\" on an older one";

/// What they share.
pub struct Common {
    /// The server, as it is without them.
    pub github: GitHub,
    /// What was told of their jobs.
    pub heard: Arc<Heard>,
    /// What is kept of them on disk.
    pub kept: Option<Arc<KeptSets>>,
    /// What is ours is known by, once the pool has said it.
    name: OnceLock<String>,
    services: Mutex<BTreeMap<String, Arc<Service>>>,
}

impl Common {
    /// That of a forge. What was heard before is known.
    pub fn new(
        settings: &ForgeSettings,
        github: &Github,
        heard: Arc<Heard>,
        kept: Option<Arc<KeptSets>>,
    ) -> Result<Self> {
        Ok(Self {
            github: GitHub::new(settings, github)?,
            heard,
            kept,
            name: OnceLock::new(),
            services: Mutex::default(),
        })
    }

    /// Calls of the REST API.
    pub fn hub(&self) -> &Hub {
        &self.github.hub
    }

    /// The forge's name in the configuration.
    pub fn forge(&self) -> &str {
        &self.github.settings.name
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.github.settings.url
    }

    /// What a failure means. What a token has to be allowed is less than where the queue is asked for.
    pub fn refused(&self, failure: Failure) -> Error {
        let needs = match self.github.settings.repositories {
            None => {
                "a classic one needs the scope admin:org, a fine-grained one or an App the organisation's permission Self-hosted runners: write"
            }
            Some(_) => {
                "a classic one needs the scope repo, a fine-grained one or an App the permission Administration: write"
            }
        };
        let age = if self.url() == PUBLIC { "" } else { OLD };
        self.github.refused_without(failure, &format!("{needs}{age}"))
    }

    /// What is ours is known by; `None` before the first look.
    pub fn name(&self) -> Option<&str> {
        self.name.get().map(String::as_str)
    }

    /// It is always the same.
    pub fn is_called(&self, name: &str) {
        self.name.get_or_init(|| name.to_owned());
    }

    /// What sets are called by the configuration, if it says.
    pub fn named(&self) -> Option<&str> {
        self.github.github.scale_sets.as_ref()?.name.as_deref()
    }

    /// What sets are called where what is ours is known by `name`.
    pub fn set_name(&self, name: &str) -> String {
        self.named().map_or_else(|| name.to_owned(), ToOwned::to_owned)
    }

    /// What `runs-on` may ask a set for, and by what it is known as ours.
    pub fn labels(&self, name: &str) -> BTreeSet<String> {
        let names = [self.set_name(name).to_lowercase(), name.to_owned()];
        self.github.settings.labels.iter().cloned().chain(names).collect()
    }

    /// The service at `scope`.
    pub fn service(&self, scope: &str) -> Arc<Service> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Service::new(self.url(), scope));
        services.entry(scope.to_owned()).or_insert_with(new).clone()
    }
}
