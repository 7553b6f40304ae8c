//! Level 2: the adapter to BuildKit. It runs the real buildkitd and stands on both sides of it: `front` and `session` towards clients,
//! `facade` towards containerd, which buildkitd knows by us alone. Nothing of BuildKit is built here.
//!
//! BuildKit keeps its cache, its history and its clients' credentials in one pot for all who reach it, so each tenant has one of
//! its own ([`slot`]), or is lent one that it shares with nobody while it has it.

mod around;
mod build;
mod check;
mod child;
pub mod cni;
mod config;
mod containers;
mod content;
mod facade;
mod front;
mod grpc;
mod leftover;
mod names;
mod proxy;
mod refusal;
mod remains;
mod results;
#[cfg(test)]
mod rules;
mod served;
mod session;
mod sight;
mod slot;
mod solve;
mod steps;
mod uploads;
mod usage;
mod wire;

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    build::{BuildNews, BuildOptions, Exporter},
    refusal::refuse,
    uploads::Upload,
};
use self::{front::lock, remains::Remains, slot::Slot, uploads::Uploads};
use crate::{
    backend::{
        builds::{BuildPlace, BuildTenant, Builders, CachePrune, CacheRecord, Told},
        runtime::Runtime,
    },
    model::{Error, Result, id::TenantId},
};

/// Connections of one tenant at once. A build has about six.
const CONNECTIONS: usize = 512;

/// The program.
const BUILDKITD: &str = "buildkitd";

/// What this daemon's builders are told.
#[derive(Clone, Debug)]
pub struct Options {
    /// buildkitd, if it is here.
    pub program: Option<PathBuf>,
    /// `<data_root>/buildkit` has a folder for each cache.
    pub data_root: PathBuf,
    /// `<exec_root>/buildkit` has a folder for each that runs.
    pub exec_root: PathBuf,
    /// containerd, and what containers run under.
    pub place: BuildPlace,
    /// Registries without TLS or with certificates that nobody signed.
    pub insecure: Vec<String>,
    /// Bytes that caches may take together which outlive their tenants; none has more.
    pub most_kept: u64,
    /// How long one runs that nobody uses.
    pub idle: Duration,
}

/// Where buildkitd is: as it was named, else in `PATH`, else beside ourselves. `None` if it is nowhere; what was named must be there.
pub fn find(named: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(named) = named {
        return match named.is_file() {
            true => Ok(Some(named.to_owned())),
            false => Err(Error::invalid(format!("--buildkitd names no file: {}", named.display()))),
        };
    }
    let in_path = env::var_os("PATH").unwrap_or_default();
    let beside = env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    Ok(first_in(env::split_paths(&in_path).chain(beside)))
}

fn first_in(folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.into_iter().map(|folder| folder.join(BUILDKITD)).find(|program| program.is_file())
}

/// The builders of this daemon.
pub struct BuildKit {
    options: Arc<Options>,
    runtime: Arc<dyn Runtime>,
    slots: Mutex<Slots>,
    /// Builds of clients that do not speak gRPC, by the names that those gave them.
    named: build::Named,
    /// Contexts that wait for them.
    uploads: Uploads,
}

#[derive(Default)]
struct Slots {
    of: HashMap<TenantId, Arc<Slot>>,
    is_closed: bool,
}

impl BuildKit {
    /// None runs yet.
    pub fn new(options: Options, runtime: Arc<dyn Runtime>) -> Self {
        Self {
            options: Arc::new(options),
            runtime,
            slots: Mutex::default(),
            named: build::Named::default(),
            uploads: Uploads::default(),
        }
    }

    fn slot(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>) -> Result<Arc<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_closed {
            return Err(Error::unavailable("the daemon is shutting down"));
        }
        let new = || Arc::new(Slot::new(&self.options, &self.runtime, tenant, of));
        let slot = slots.of.entry(tenant.clone()).or_insert_with(new).clone();
        match slot.users() < CONNECTIONS {
            true => Ok(slot),
            false => Err(Error::unavailable(format!("more than {CONNECTIONS} connections to BuildKit at once"))),
        }
    }

    /// Serves a client's calls until it goes. `told` hears of each build that it asked for.
    pub async fn serve_calls<S>(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>, stream: S, told: Told)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connected = async {
            let slot = self.slot(tenant, of)?;
            let (upstream, used) = slot.connect().await?;
            Ok::<_, Error>((slot.known.clone(), Arc::new(upstream), used))
        };
        match connected.await {
            Ok((known, upstream, _used)) => front::serve(stream, &upstream, &known, told).await,
            Err(error) => {
                tracing::warn!("a client of BuildKit is refused: {}", error.chain());
                refuse(stream, error).await;
            }
        }
    }

    /// Carries a client's session to buildkitd until one of them goes. What it is about is in the headers of the request.
    pub async fn serve_session<S>(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>, headers: &HeaderMap, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let carried = async {
            let (upstream, _used) = self.slot(tenant, of)?.connect().await?;
            session::carry(stream, headers, &upstream).await
        };
        if let Err(error) = carried.await {
            tracing::warn!("a session of BuildKit: {}", error.chain());
        }
    }

    /// Ends all of them. Nobody is served any more.
    pub async fn stop(&self) {
        let slots: Vec<_> = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.is_closed = true;
            slots.of.drain().map(|(_, slot)| slot).collect()
        };
        futures_util::future::join_all(slots.iter().map(|slot| slot.stop())).await;
    }
}

#[async_trait]
impl Builders for BuildKit {
    async fn remove(&self, tenant: &TenantId) -> Result<()> {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).of.remove(tenant);
        if let Some(slot) = slot {
            slot.stop().await;
        }
        Remains::of(&self.options, &self.runtime, tenant, tenant).remove().await
    }

    async fn give_back(&self, tenant: &TenantId, cache: &TenantId) -> Result<u64> {
        let slot = lock(&self.slots).of.remove(tenant);
        if let Some(slot) = slot {
            slot.stop().await;
        }
        Remains::of(&self.options, &self.runtime, tenant, cache).give_back().await
    }

    fn is_here(&self) -> bool {
        self.options.program.is_some()
    }

    async fn cache_usage(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>) -> Result<Vec<CacheRecord>> {
        self.usage(tenant, of).await
    }

    async fn prune_cache(
        &self,
        tenant: &TenantId,
        of: Arc<dyn BuildTenant>,
        prune: &CachePrune,
    ) -> Result<Vec<CacheRecord>> {
        self.prune(tenant, of, prune).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_named_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("builder");
        assert!(find(Some(&program)).unwrap_err().message().contains("--buildkitd"));
        std::fs::write(&program, "").unwrap();
        assert_eq!(find(Some(&program)).unwrap(), Some(program));
    }

    #[test]
    fn it_is_looked_for_in_one_folder_after_the_other() {
        let (path, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = || [path.path(), Path::new("/none"), beside.path()].map(Path::to_owned);
        // A folder of that name is no program.
        std::fs::create_dir(path.path().join(BUILDKITD)).unwrap();
        assert_eq!(first_in(folders()), None);
        std::fs::write(beside.path().join(BUILDKITD), "").unwrap();
        assert_eq!(first_in(folders()), Some(beside.path().join(BUILDKITD)));
    }
}
