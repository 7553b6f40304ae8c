//! Level 2: the adapter to containerd. Carries out what `backend::runtime` and `backend::images` ask for.
//!
//! [`Child`] runs a containerd of our own, [`Containerd`] speaks to it or to one that runs already.

mod begun_execs;
mod cgroup_parents;
mod cgroups;
mod changes;
mod child;
mod client;
mod containers;
mod content;
mod images;
mod io;
mod layers;
mod leases;
mod limits;
mod lost_exits;
mod oom;
mod runtime;
mod runtimes;
mod silence;
mod snapshots;
mod snapshotters;
mod status;
mod tasks;
mod usage;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    begun_execs::BegunExecs, cgroup_parents::Parents, cgroups::Cgroups, lost_exits::LostExits, oom::OomWatch,
    runtimes::Runtimes,
};
use crate::{
    backend::{builds::BuildPlace, runtime::RuntimeInfo},
    model::{Result, error::Context, id::ContainerId},
};

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
    /// Parent of our containers' cgroups where the request names none, as `/docker` is dockerd's; nobody else's are in it.
    /// `None` is called as the namespace.
    pub cgroup_parent: Option<String>,
    /// Which snapshotter; `None` takes overlayfs where it works, else native.
    pub snapshotter: Option<String>,
}

impl ConnectOptions {
    /// Options with the defaults of `ringer serve`.
    pub fn new(address: impl Into<PathBuf>, exec_root: impl Into<PathBuf>) -> Self {
        Self {
            address: address.into(),
            namespace: "ringer".to_owned(),
            exec_root: exec_root.into(),
            default_runtime: None,
            cgroup_parent: None,
            snapshotter: None,
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
    snapshotter: String,
    runtimes: Runtimes,
    cgroups: Cgroups,
    cgroup_parents: Parents,
    oom: OomWatch,
    begun_execs: BegunExecs,
    lost_exits: LostExits,
    /// Containers whose tasks this life has made and not taken away.
    own_tasks: Mutex<HashSet<ContainerId>>,
}

impl Containerd {
    /// Connects, makes the namespace, and finds out which runtimes work here.
    ///
    /// Fails with `Unavailable` if no containerd answers at the address, or if no OCI runtime or snapshotter works.
    pub async fn connect(options: ConnectOptions) -> Result<Self> {
        let client = Client::new(&options.address, &options.namespace)?;
        let version = client.server_version().await?;
        client.ensure_namespace().await?;
        fs::create_dir_all(&options.exec_root).context(format_args!("making {}", options.exec_root.display()))?;
        let wanted = options.default_runtime.as_deref();
        let runtimes = Runtimes::detect(&options.exec_root, &options.namespace, wanted).await?;
        let (snapshotter, layers) = snapshotters::choose(&client, options.snapshotter.as_deref()).await?;
        let info = RuntimeInfo {
            containerd_version: version.version,
            containerd_commit: version.revision,
            default_runtime: runtimes.default_name().to_owned(),
            runtimes: runtimes.programs().to_vec(),
            init: runtimes.init().cloned(),
            layers,
        };
        let oom = OomWatch::start(client.clone());
        let cgroups = Cgroups::detect();
        let parent = options.cgroup_parent.clone().unwrap_or_else(|| format!("/{}", options.namespace));
        let cgroup_parents = Parents::open(parent, &options.exec_root, &cgroups);
        let begun_execs = BegunExecs::of(&info.containerd_version);
        let shared = Shared {
            client,
            options,
            info,
            snapshotter,
            runtimes,
            cgroups,
            cgroup_parents,
            oom,
            begun_execs,
            lost_exits: LostExits::default(),
            own_tasks: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Lets go of what a daemon that was killed had stored for work that it did not come to finish. To be called before
    /// any work begins.
    pub async fn end_leases_of_the_dead(&self) -> Result<()> {
        leases::end_those_of_the_dead(self.client()).await
    }

    /// What a builder beside the engine is told of containerd and of the runtime, whose steps have that score.
    pub fn build_place(&self, oom_score_adj: i32) -> Result<BuildPlace> {
        let shim = self.runtimes().shim_of("")?;
        let (address, namespace, _) = self.place();
        Ok(BuildPlace {
            address,
            namespace,
            folders: vec![self.runtimes().state().to_owned()],
            snapshotter: self.snapshotter_name().to_owned(),
            shim: shim.name,
            shim_options: shim.options.map(|options| (options.type_url, options.value)),
            oom_score_adj,
        })
    }

    /// The gRPC clients.
    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Name of the snapshotter in use.
    pub(crate) fn snapshotter_name(&self) -> &str {
        &self.shared.snapshotter
    }

    fn runtime_info(&self) -> &RuntimeInfo {
        &self.shared.info
    }

    fn runtimes(&self) -> &Runtimes {
        &self.shared.runtimes
    }

    fn cgroups(&self) -> &Cgroups {
        &self.shared.cgroups
    }

    fn cgroup_parents(&self) -> &Parents {
        &self.shared.cgroup_parents
    }

    fn oom(&self) -> &OomWatch {
        &self.shared.oom
    }

    fn begun_execs(&self) -> &BegunExecs {
        &self.shared.begun_execs
    }

    fn own_tasks(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.shared.own_tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost_exits(&self) -> &LostExits {
        &self.shared.lost_exits
    }

    /// The socket, the namespace, and the runtime's folder of it, by which shims and first processes are known.
    fn place(&self) -> (PathBuf, String, PathBuf) {
        let options = &self.shared.options;
        let address = options.address.strip_prefix("unix:").map(|path| Path::new("/").join(path));
        let runtime = self.runtimes().state().join(&options.namespace);
        (address.unwrap_or_else(|_| options.address.clone()), options.namespace.clone(), runtime)
    }

    fn exec_root(&self) -> &Path {
        &self.shared.options.exec_root
    }

    /// Parent cgroups and folders of the OCI runtime, if nothing is in them. containerd leaves them behind.
    fn remove_empty_remains(&self) {
        self.cgroup_parents().remove_remains(self.cgroups());
        let state = self.runtimes().state();
        let root = self.exec_root();
        let folders = [
            state.join(&self.shared.options.namespace),
            state.to_owned(),
            root.join("io"),
            root.join(io::UNREAD),
            root.join("containers"),
        ];
        for folder in folders {
            // One that is not empty stays, which is what we want.
            let _ = fs::remove_dir(folder);
        }
    }
}
