//! Level 2: the adapter to containerd. Carries out what `backend::runtime` and `backend::images` ask for.
//!
//! [`Child`] runs a containerd of our own, [`Containerd`] speaks to it or to one that runs already.

mod child;
mod client;
mod content;
mod images;
mod layers;
mod status;

use std::{path::PathBuf, sync::Arc};

use crate::{backend::runtime::RuntimeInfo, model::Result};

pub use child::{Child, ChildOptions};
pub use client::Client;
pub(crate) use status::from_status;

/// How to reach containerd and where this instance keeps what is its own.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Path of containerd's socket; `unix://` in front is allowed.
    pub address: PathBuf,
    /// containerd namespace of this instance. Two instances on one containerd must differ in it.
    pub namespace: String,
    /// Below it: FIFOs and the OCI runtime's state.
    pub exec_root: PathBuf,
    /// `runc`, `crun` or a shim's full name; `None` takes crun where it works, else runc.
    pub default_runtime: Option<String>,
    /// Which snapshotter, `overlayfs`.
    pub snapshotter: String,
}

impl ConnectOptions {
    /// Options with the defaults of `ringer serve`.
    pub fn new(address: impl Into<PathBuf>, exec_root: impl Into<PathBuf>) -> Self {
        Self {
            address: address.into(),
            namespace: "ringer".to_owned(),
            exec_root: exec_root.into(),
            default_runtime: None,
            snapshotter: "overlayfs".to_owned(),
        }
    }
}

/// A connection to containerd, cheap to clone. Implements [`crate::backend::runtime::Runtime`] and
/// [`crate::backend::images::ImageBackend`].
#[derive(Clone)]
pub struct Containerd {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    options: ConnectOptions,
    info: RuntimeInfo,
}

impl Containerd {
    /// Connects, makes the namespace, and finds out which runtimes work here.
    ///
    /// Fails with `Unavailable` if no containerd answers at the address.
    pub async fn connect(options: ConnectOptions) -> Result<Self> {
        let client = Client::new(&options.address, &options.namespace)?;
        let version = client.server_version().await?;
        client.ensure_namespace().await?;
        let info = RuntimeInfo {
            containerd_version: version.version,
            containerd_commit: version.revision,
            ..RuntimeInfo::default()
        };
        Ok(Self { shared: Arc::new(Shared { client, options, info }) })
    }

    /// The gRPC clients.
    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Name of the snapshotter in use.
    pub(crate) fn snapshotter_name(&self) -> &str {
        &self.shared.options.snapshotter
    }
}
