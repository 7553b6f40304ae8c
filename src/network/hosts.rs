//! Hosts: the machine, and for each job a network namespace with one filtered way out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};
use tokio::sync::Mutex;

use super::{
    LinuxNetwork, failed,
    firewall::Walls,
    links::Links,
    netns::{self, Namespace},
    sandbox,
    way_out::{self, Addresses, WayOut},
};
use crate::{
    backend::network::{Keep, NetworkBackend, NetworkHosts},
    model::{Result, id::TenantId, network::Opening},
};

/// Name of the file that holds a host's own namespace, beside the folder of those of its containers.
const OWN: &str = "host";
const OF_CONTAINERS: &str = "containers";

/// What no job reaches: where clouds tell a machine its secrets. `169.254.0.0/16` and `fe80::/10` are a link's own.
const REFUSED: [&str; 7] = [
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
];

/// What is configured of the networks of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobNetworks {
    /// What the addresses of ways out are cut from; empty takes ours.
    pub pools: Vec<Ipv4Net>,
    /// Destinations that no job reaches, beside those that none ever does.
    pub refused: Vec<IpNet>,
}

/// The hosts of one daemon instance.
pub struct LinuxHosts {
    instance: String,
    machine: Arc<LinuxNetwork>,
    /// A folder per job.
    folder: PathBuf,
    addresses: Addresses,
    jobs: std::sync::Mutex<BTreeMap<TenantId, Arc<Turn>>>,
}

/// Held while the host of one job is made or removed; others go on.
type Turn = Mutex<Option<Job>>;

/// The host of a job that is open.
struct Job {
    network: Arc<LinuxNetwork>,
    way: WayOut,
}

impl LinuxHosts {
    /// Takes over what belongs to `instance` on the machine. Namespaces are held below `exec_root`.
    pub async fn open(instance: &str, exec_root: &Path, jobs: &JobNetworks) -> Result<Self> {
        let always = REFUSED.iter().map(|net| net.parse().expect("a network"));
        let walls = Walls { refused: always.chain(jobs.refused.iter().copied()).collect() };
        Ok(Self {
            instance: instance.to_owned(),
            machine: Arc::new(LinuxNetwork::open_machine(instance, exec_root, Some(walls)).await?),
            folder: exec_root.join("hosts"),
            addresses: Addresses::new(&jobs.pools, instance),
            jobs: std::sync::Mutex::default(),
        })
    }

    fn turn(&self, tenant: &TenantId) -> Arc<Turn> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant.clone()).or_default().clone()
    }

    /// Forgets a turn that nobody waits for.
    fn forget(&self, tenant: &TenantId) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and the caller's.
        if jobs.get(tenant).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
            jobs.remove(tenant);
        }
    }

    fn folder_of(&self, tenant: &TenantId) -> PathBuf {
        self.folder.join(tenant.as_str())
    }

    async fn make(&self, tenant: &TenantId) -> Result<Job> {
        let (folder, link) = (self.folder_of(tenant), way_out::link_of(&self.instance, tenant));
        let doing = |error| failed(&format!("making the host of {tenant}"), error);
        let namespace = Namespace::hold(folder.join(OWN)).await.map_err(doing)?;
        let way = self.find_way(&folder.join(OWN), &link, &self.note(tenant)).await.map_err(doing)?;
        let way = match way {
            Some(way) => {
                self.wall_in(&way).await?;
                way
            }
            None => self.make_way(&folder.join(OWN), link, self.note(tenant)).await?,
        };
        let containers = folder.join(OF_CONTAINERS);
        let of_machine = Some(self.machine.ports.clone());
        match LinuxNetwork::open_in(namespace, &self.instance, containers, None, of_machine).await {
            Ok(network) => Ok(Job { network: Arc::new(network), way }),
            Err(error) => {
                // The first error is the one that tells.
                if self.retire(&way.link).await.is_ok() {
                    let _ = self.let_go(&way).await;
                }
                Err(error)
            }
        }
    }

    fn note(&self, tenant: &TenantId) -> String {
        format!("{}{tenant}", self.mark())
    }

    fn mark(&self) -> String {
        format!("{}job ", self.machine.mark)
    }

    async fn find_way(&self, namespace: &Path, link: &str, note: &str) -> io::Result<Option<WayOut>> {
        let (path, name, text) = (namespace.to_owned(), link.to_owned(), note.to_owned());
        let found = Namespace::Machine.run_apart("way-out", move || way_out::find(&name, &text, &path)).await?;
        match &found {
            Some(way) => self.addresses.note(way.pair),
            // One half of it may be there.
            None => self.retire(link).await?,
        }
        Ok(found)
    }

    /// The walls stand before there is a link.
    async fn make_way(&self, namespace: &Path, link: String, note: String) -> Result<WayOut> {
        let (used, mtu, ipv6) = self.machine.blocking("reading routes", way_out::look_around).await?;
        let pair = self.addresses.lease(&used).map_err(|error| failed("finding a way out", error))?;
        let way = WayOut { link, note, pair, ipv6 };
        let (path, made) = (namespace.to_owned(), way.clone());
        let result = match self.wall_in(&way).await {
            Ok(()) => Namespace::Machine
                .run_apart("way-out", move || way_out::make(&made, mtu, &File::open(&path)?))
                .await
                .map_err(|error| failed("making a way out", error)),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => Ok(way),
            Err(error) => {
                // The first error is the one that tells.
                let _ = self.let_go(&way).await;
                Err(error)
            }
        }
    }

    async fn wall_in(&self, way: &WayOut) -> Result<()> {
        let (link, sources) = (way.link.clone(), way.sources());
        self.machine.with_firewall("walling a job in", move |firewall| firewall.add_job(link, sources)).await
    }

    /// Takes the rules of a way out away, whose link is down, and gives its addresses back.
    async fn let_go(&self, way: &WayOut) -> Result<()> {
        let link = way.link.clone();
        let removed =
            self.machine.with_firewall("removing the walls of a job", move |firewall| firewall.remove_job(&link)).await;
        self.addresses.release(way.pair);
        removed
    }

    /// Takes a link of the machine out of use; the kernel deletes it behind us.
    async fn retire(&self, link: &str) -> io::Result<()> {
        let name = link.to_owned();
        if let Some(index) = Namespace::Machine.run("netlink", move || way_out::retire(&name)).await? {
            self.machine.delete_in_background(move || Links::open()?.delete(index));
        }
        Ok(())
    }

    /// Everything that is there in the name of a tenant, whoever made it.
    async fn remove_all(&self, tenant: &TenantId, job: Option<Job>) -> Result<()> {
        let doing = |error| failed(&format!("removing the host of {tenant}"), error);
        let retired = self.retire(&way_out::link_of(&self.instance, tenant)).await.map_err(doing);
        let mut result = retired;
        if let Some(job) = job {
            job.network.close().await;
            // Only a link that is down may be without walls.
            if result.is_ok() {
                result = self.let_go(&job.way).await;
            }
        }
        let folder = self.folder_of(tenant);
        let released = Namespace::Machine.run("host", move || release(&folder)).await;
        result.and(released.map_err(doing))
    }

    /// The tenants of whom something is there: open here, or left of an earlier life.
    async fn there(&self) -> Result<BTreeSet<TenantId>> {
        let (folder, mark) = (self.folder.clone(), self.mark());
        let left = self.machine.blocking("looking for hosts", move || left(&folder, &mark)).await?;
        let open = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect::<Vec<_>>();
        Ok(left.iter().filter_map(|name| name.parse().ok()).chain(open).collect())
    }

    async fn remove_all_but(&self, keep: &BTreeSet<TenantId>) -> Result<()> {
        let mut result = Ok(());
        for tenant in self.there().await?.difference(keep) {
            result = result.and(self.remove(tenant).await);
        }
        result
    }
}

#[async_trait]
impl NetworkHosts for LinuxHosts {
    fn machine(&self) -> Arc<dyn NetworkBackend> {
        self.machine.clone()
    }

    async fn open_to(&self, openings: BTreeSet<Opening>) -> Result<()> {
        self.machine.with_firewall("opening the walls of jobs", move |firewall| firewall.set_openings(openings)).await
    }

    async fn open(&self, tenant: &TenantId) -> Result<Arc<dyn NetworkBackend>> {
        let turn = self.turn(tenant);
        let mut job = turn.lock().await;
        if let Some(job) = &*job {
            return Ok(job.network.clone());
        }
        match self.make(tenant).await {
            Ok(made) => Ok(job.insert(made).network.clone()),
            Err(error) => {
                // The first error is the one that tells; the sweep finds what is left.
                let _ = self.remove_all(tenant, None).await;
                Err(error)
            }
        }
    }

    async fn open_job_to(&self, tenant: &TenantId, openings: BTreeSet<Opening>) -> Result<()> {
        let link = way_out::link_of(&self.instance, tenant);
        let doing = "opening the walls of a job";
        self.machine.with_firewall(doing, move |firewall| firewall.set_openings_of(&link, openings)).await
    }

    async fn remove(&self, tenant: &TenantId) -> Result<()> {
        let turn = self.turn(tenant);
        let mut job = turn.lock().await;
        let removed = self.remove_all(tenant, job.take()).await;
        drop(job);
        self.forget(tenant);
        removed
    }

    async fn sweep(&self, keep: &BTreeSet<TenantId>) -> Result<()> {
        self.remove_all_but(keep).await
    }

    async fn shutdown(&self) -> Result<()> {
        let of_jobs = self.remove_all_but(&BTreeSet::new()).await;
        self.machine.shutdown().await.and(of_jobs)
    }
}

/// Names of tenants of whom a folder or a link is there.
fn left(folder: &Path, mark: &str) -> io::Result<Vec<String>> {
    let mut names = way_out::noted(mark)?;
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
    }
    Ok(names)
}

fn release(folder: &Path) -> io::Result<()> {
    let containers = sandbox::sweep(&folder.join(OF_CONTAINERS), &Keep::default());
    containers.and(netns::release(&folder.join(OWN)))?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
