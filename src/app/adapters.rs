//! Starts what the engine works with: containerd and the kernel's networking.

use std::sync::Arc;

use ringer::{
    backend::builds::Builders,
    buildkit::{self, BuildKit},
    containerd::{Child, ChildOptions, ConnectOptions, Containerd},
    engine::Backends,
    model::{Error, Result},
    network::LinuxHosts,
    oci::HostFacts,
    rootfs::LinuxProjects,
};

use crate::config::{Config, NAME as DEFAULT_INSTANCE};

/// The running adapters.
pub struct Adapters {
    host: HostFacts,
    child: Option<Child>,
    backends: Backends,
    buildkit: Arc<BuildKit>,
}

impl Adapters {
    /// Starts a containerd of our own unless one is named, and connects to it. If that fails, it is stopped again.
    pub async fn start(config: &Config) -> Result<Self> {
        let host = HostFacts::detect();
        let child = match &config.containerd {
            Some(_) => None,
            None => Some(Child::spawn(ChildOptions::new(&config.engine.data_root, &config.engine.exec_root)).await?),
        };
        match connect(config, &host, child.as_ref()).await {
            Ok((backends, buildkit)) => Ok(Self { host, child, backends, buildkit }),
            Err(error) => {
                stop(child).await;
                Err(error)
            }
        }
    }

    /// What they were told of the host.
    pub fn host(&self) -> HostFacts {
        self.host.clone()
    }

    /// What the engine gets.
    pub fn backends(&self) -> Backends {
        self.backends.clone()
    }

    /// Who builds with BuildKit, if it is here.
    pub fn buildkit(&self) -> Option<Arc<BuildKit>> {
        Some(self.buildkit.clone()).filter(|buildkit| buildkit.is_here())
    }

    /// Takes our rules out of the kernel and stops our own containerd; one that was named goes on.
    pub async fn stop(self) {
        if let Err(error) = self.backends.network.shutdown().await {
            tracing::warn!("letting go of networking: {}", error.chain());
        }
        stop(self.child).await;
    }
}

async fn stop(child: Option<Child>) {
    if let Some(child) = child {
        child.stop().await;
    }
}

/// A daemon's own, so that it may sweep it: daemons of one machine differ in their instance.
fn cgroup_parent(instance: &str) -> String {
    if instance == DEFAULT_INSTANCE { format!("/{instance}") } else { format!("/{DEFAULT_INSTANCE}-{instance}") }
}

async fn connect(config: &Config, host: &HostFacts, child: Option<&Child>) -> Result<(Backends, Arc<BuildKit>)> {
    let address = match (&config.containerd, child) {
        (Some(address), _) => address,
        (None, Some(child)) => child.address(),
        (None, None) => return Err(Error::system("neither a containerd is named nor one of our own runs")),
    };
    let options = ConnectOptions {
        namespace: config.containerd_namespace.clone(),
        default_runtime: Some(config.engine.default_runtime.clone()).filter(|name| !name.is_empty()),
        cgroup_parent: Some(cgroup_parent(&config.engine.instance)),
        ..ConnectOptions::new(address, &config.engine.exec_root)
    };
    let containerd = Arc::new(Containerd::connect(options).await?);
    containerd.end_leases_of_the_dead().await?;
    let network = LinuxHosts::open(&config.engine.instance, &config.engine.exec_root, &config.job_networks).await?;
    let buildkit = builder(config, host, &containerd, child)?;
    let backends = Backends {
        runtime: containerd.clone(),
        images: containerd,
        network: Arc::new(network),
        builders: buildkit.clone(),
        projects: Arc::new(LinuxProjects),
    };
    Ok((backends, buildkit))
}

/// BuildKit. It is started when somebody builds, if its program is here; what an earlier life left of it is taken away in any case.
fn builder(
    config: &Config,
    host: &HostFacts,
    containerd: &Arc<Containerd>,
    child: Option<&Child>,
) -> Result<Arc<BuildKit>> {
    let program = buildkit::find(config.buildkitd.as_deref())?;
    if let Some(program) = &program {
        tracing::info!("builds with {}", program.display());
    }
    let mut place = containerd.build_place(host.least_oom_score_adj(0))?;
    place.folders.extend(child.into_iter().flat_map(Child::task_folders).cloned());
    let options = buildkit::Options {
        program,
        data_root: config.engine.data_root.clone(),
        exec_root: config.engine.exec_root.clone(),
        place,
        insecure: config.engine.insecure_registries.clone(),
        most_kept: config.engine.cache_limits().0,
        idle: config.buildkitd_idle,
    };
    Ok(Arc::new(BuildKit::new(options, containerd.clone())))
}
