//! Hosts: the machine, and a network namespace for each job.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{
    LinuxNetwork, failed,
    netns::{self, Namespace},
    sandbox,
};
use crate::{
    backend::network::{Keep, NetworkBackend, NetworkHosts},
    model::{Result, id::TenantId},
};

/// Name of the file that holds a host's own namespace, beside the folder of those of its containers.
const OWN: &str = "host";
const OF_CONTAINERS: &str = "containers";

/// The hosts of one daemon instance.
pub struct LinuxHosts {
    instance: String,
    machine: Arc<LinuxNetwork>,
    /// A folder per job.
    folder: PathBuf,
    jobs: Mutex<BTreeMap<TenantId, Arc<LinuxNetwork>>>,
}

impl LinuxHosts {
    /// Takes over what belongs to `instance` on the machine. Namespaces are held below `exec_root`.
    pub async fn open(instance: &str, exec_root: &Path) -> Result<Self> {
        Ok(Self {
            instance: instance.to_owned(),
            machine: Arc::new(LinuxNetwork::open(instance, exec_root).await?),
            folder: exec_root.join("hosts"),
            jobs: Mutex::default(),
        })
    }

    async fn make(&self, tenant: &TenantId) -> Result<LinuxNetwork> {
        let folder = self.folder.join(tenant.as_str());
        let namespace = Namespace::hold(folder.join(OWN)).await;
        let namespace = namespace.map_err(|error| failed(&format!("making the host of {tenant}"), error))?;
        LinuxNetwork::open_in(namespace, &self.instance, folder.join(OF_CONTAINERS)).await
    }

    /// Lets go of the namespaces of a host and of its containers; the kernel then drops what is in them.
    async fn drop_namespaces(&self, tenant: &TenantId) -> Result<()> {
        let folder = self.folder.join(tenant.as_str());
        let released = Namespace::Machine.run("host", move || release(&folder)).await;
        released.map_err(|error| failed(&format!("removing the host of {tenant}"), error))
    }

    /// The hosts whose namespaces are held.
    async fn left(&self) -> Result<Vec<TenantId>> {
        let folder = self.folder.clone();
        let names = Namespace::Machine.run("hosts", move || names(&folder)).await;
        let names = names.map_err(|error| failed("looking for hosts", error))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

#[async_trait]
impl NetworkHosts for LinuxHosts {
    fn machine(&self) -> Arc<dyn NetworkBackend> {
        self.machine.clone()
    }

    async fn open(&self, tenant: &TenantId) -> Result<Arc<dyn NetworkBackend>> {
        let mut jobs = self.jobs.lock().await;
        if let Some(host) = jobs.get(tenant) {
            return Ok(host.clone());
        }
        match self.make(tenant).await {
            Ok(host) => Ok(jobs.entry(tenant.clone()).or_insert(Arc::new(host)).clone()),
            Err(error) => {
                // The first error is the one that tells; the sweep finds what is left.
                let _ = self.drop_namespaces(tenant).await;
                Err(error)
            }
        }
    }

    async fn remove(&self, tenant: &TenantId) -> Result<()> {
        let host = self.jobs.lock().await.remove(tenant);
        if let Some(host) = host {
            host.close().await;
        }
        self.drop_namespaces(tenant).await
    }

    async fn sweep(&self, keep: &BTreeSet<TenantId>) -> Result<()> {
        let mut result = Ok(());
        for tenant in self.left().await?.iter().filter(|tenant| !keep.contains(tenant)) {
            tracing::info!(tenant = %tenant, "removing the host of {tenant}");
            result = result.and(self.remove(tenant).await);
        }
        result
    }

    async fn shutdown(&self) -> Result<()> {
        let all_jobs_too = self.sweep(&BTreeSet::new()).await;
        self.machine.shutdown().await.and(all_jobs_too)
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn release(folder: &Path) -> io::Result<()> {
    let containers = sandbox::sweep(&folder.join(OF_CONTAINERS), &Keep::default());
    let own = netns::release(&folder.join(OWN));
    containers.and(own)?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
