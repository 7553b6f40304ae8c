//! A container's network over its life: what create checks, what a start sets up and an end takes back.

use std::path::PathBuf;

use crate::{
    engine::Engine,
    model::{
        Error, Result,
        container::{Attachment, ContainerCreateRequest, ContainerRecord},
        id::Tenant,
        network::PublishedPort,
    },
    oci::{NetworkFiles, NetworkNamespace},
};

/// Where a run's network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunNamespace {
    /// The host's own.
    Host,
    /// A path: the container's own sandbox, or another container's.
    Path(PathBuf),
}

impl RunNamespace {
    /// For the spec.
    pub(crate) fn as_oci(&self) -> NetworkNamespace<'_> {
        match self {
            Self::Host => NetworkNamespace::Host,
            Self::Path(path) => NetworkNamespace::Path(path.to_str().expect("our own paths are UTF-8")),
        }
    }
}

/// What a start has set up.
#[derive(Clone, Debug)]
pub(crate) struct RunNetwork {
    /// Where the network is.
    pub namespace: RunNamespace,
    /// Attachments with their endpoints, for the record.
    pub attachments: Vec<Attachment>,
    /// Ports as they are published, for the record.
    pub published: Vec<PublishedPort>,
    /// Files to mount over those of the image.
    pub files: NetworkFiles,
    /// The name the container calls itself.
    pub hostname: String,
}

impl RunNetwork {
    /// Path of the container's own sandbox or of the one that it shares.
    pub(crate) fn sandbox_path(&self) -> Option<String> {
        match &self.namespace {
            RunNamespace::Host => None,
            RunNamespace::Path(path) => Some(path.to_string_lossy().into_owned()),
        }
    }
}

impl Engine {
    /// The networks that a container asks for, checked as dockerd checks them at create.
    pub(crate) async fn resolve_networks(
        &self,
        _tenant: &Tenant,
        request: &ContainerCreateRequest,
    ) -> Result<Vec<Attachment>> {
        match request.host_config.network_mode.as_str() {
            "host" => Ok(Vec::new()),
            mode => Err(Error::not_implemented(format!("network mode {mode} is not implemented by ringer"))),
        }
    }

    /// Sets up the network of a run. Nothing is left behind by a failure that `release_network` does not find.
    pub(crate) async fn connect_run(&self, record: &ContainerRecord) -> Result<RunNetwork> {
        Ok(RunNetwork {
            namespace: RunNamespace::Host,
            attachments: Vec::new(),
            published: Vec::new(),
            files: NetworkFiles::default(),
            hostname: record.config.hostname.clone(),
        })
    }

    /// Takes the network of a run back; goes on after failures and logs them. `record` is from before the end.
    pub(crate) async fn release_network(&self, _record: &ContainerRecord) {}

    /// Tells the name servers who is called what, after names, attachments or states have changed.
    pub(crate) async fn refresh_names(&self) {}
}
