//! A slot: one buildkitd with a cache of its own, for one tenant. It is started at the first call and stopped when nobody has used it
//! for a while.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::UnixStream, sync::Mutex, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::{
    Options,
    child::{Child, Start},
    cni, config,
    containers::Walls,
    facade::{self, Facade},
    front::Known,
    leftover,
    proxy::Upstream,
    steps::Steps,
};
use crate::{
    backend::{builds::BuildTenant, runtime::Runtime},
    model::{Error, Result, error::Context, id::TenantId},
};

/// How long a start may take: 0.2 s, and more on a busy machine with a large cache.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Between looks whether it serves.
const START_PAUSE: Duration = Duration::from_millis(20);

/// How long nobody may use it before it is stopped, and how often that is looked at.
const IDLE: Duration = Duration::from_secs(600);
const IDLE_PAUSE: Duration = Duration::from_secs(60);

/// Where a slot's files are.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// Its cache.
    pub(super) root: PathBuf,
    /// Sockets, configuration and log.
    pub(super) run: PathBuf,
}

impl Folders {
    pub(super) fn of(options: &Options, slot: &str) -> Self {
        let below = |root: &Path| root.join("buildkit").join(slot);
        Self { root: below(&options.data_root), run: below(&options.exec_root) }
    }

    /// Where buildkitd serves.
    pub(super) fn socket(&self) -> PathBuf {
        self.run.join("buildkitd.sock")
    }

    /// What it takes for containerd.
    pub(super) fn facade(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// Its network plugins and their configuration.
    pub(super) fn plugins(&self) -> PathBuf {
        self.run.join("cni")
    }

    fn log(&self) -> PathBuf {
        self.run.join("log")
    }

    /// What it writes and mounts for the time of a step.
    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

/// One of them.
pub(super) struct Slot {
    name: String,
    options: Arc<Options>,
    folders: Folders,
    facade: Arc<Facade>,
    pub(super) known: Arc<Known>,
    running: Mutex<Option<Running>>,
    users: AtomicUsize,
    /// Nobody starts it any more.
    is_over: AtomicBool,
}

struct Running {
    child: Child,
    serving: AbortOnDropHandle<()>,
    idling: AbortOnDropHandle<()>,
}

/// Held by whoever uses a slot.
pub(super) struct Use(Arc<Slot>);

impl Drop for Use {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Slot {
    /// A tenant's; nothing is started.
    pub(super) fn new(
        options: &Arc<Options>,
        runtime: &Arc<dyn Runtime>,
        tenant: &TenantId,
        of: Arc<dyn BuildTenant>,
    ) -> Self {
        let (runtime, whose) = (runtime.clone(), tenant.clone());
        let folders = Folders::of(options, tenant.as_str());
        let own = vec![folders.root.clone(), folders.run.clone()];
        let facade = Facade {
            slot: tenant.to_string(),
            namespace: options.place.namespace.clone(),
            steps: Arc::new(Steps::of(of.clone())),
            tenant: of,
            walls: Walls::new(&options.place, own, move |id| runtime.cgroup_path(&whose, id, "")),
        };
        Self {
            name: tenant.to_string(),
            folders,
            options: options.clone(),
            facade: Arc::new(facade),
            known: Arc::default(),
            running: Mutex::default(),
            users: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// How many use it.
    pub(super) fn users(&self) -> usize {
        self.users.load(Ordering::Acquire)
    }

    /// A connection to its buildkitd, which is started if it does not run.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<(Upstream, Use)> {
        // Counted first: it is not stopped from now on.
        self.users.fetch_add(1, Ordering::AcqRel);
        let used = Use(self.clone());
        let slot = self.clone();
        // On a task of its own: clients come and go while it is started, and half a start would be nobody's.
        tokio::spawn(async move { slot.run().await }).await.context("starting BuildKit")??;
        let upstream = Upstream::connect(&self.folders.socket()).await.context("connecting to BuildKit")?;
        Ok((upstream, used))
    }

    /// Starts it unless it runs.
    async fn run(self: Arc<Self>) -> Result<()> {
        let mut running = self.running.lock().await;
        if self.is_over.load(Ordering::Acquire) {
            return Err(Error::unavailable("the daemon is shutting down"));
        }
        if running.as_ref().is_none_or(|running| running.child.ended().is_cancelled()) {
            *running = None;
            *running = Some(self.start().await.map_err(|error| error.context("starting BuildKit"))?);
        }
        Ok(())
    }

    async fn start(self: &Arc<Self>) -> Result<Running> {
        let began = Instant::now();
        self.make_folders()?;
        self.tidy().await?;
        fs::create_dir_all(self.folders.temporary()).context("making a folder for BuildKit")?;
        cni::install(&self.folders.plugins(), Path::new(&format!("/proc/{}/exe", std::process::id())))?;
        let config = self.folders.run.join("buildkitd.toml");
        fs::write(&config, config::text(&self.options, &self.folders)).context("writing BuildKit's configuration")?;
        let listener = facade::listen(&self.folders.facade())?;
        let serve = self.facade.clone().serve(listener, self.options.place.address.clone());
        let serving = AbortOnDropHandle::new(tokio::spawn(serve));
        let child = Child::spawn(Start {
            program: self.options.program.clone(),
            config,
            log: self.folders.log(),
            temporary: self.folders.temporary(),
        })
        .await?;
        if let Err(error) = self.wait_until_serving(&child).await {
            child.stop().await;
            return Err(error);
        }
        #[allow(clippy::cast_possible_truncation, reason = "a start takes less than an age")]
        let duration_ms = began.elapsed().as_millis() as u64;
        info!(slot = self.name, duration_ms, "BuildKit serves {}", self.name);
        let idling = AbortOnDropHandle::new(tokio::spawn(stop_when_idle(Arc::downgrade(self))));
        Ok(Running { child, serving, idling })
    }

    fn make_folders(&self) -> Result<()> {
        for folder in [&self.folders.root, &self.folders.run] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(folder).context(format!("making {}", folder.display()))?;
        }
        Ok(())
    }

    /// Takes away what a buildkitd left that was killed.
    async fn tidy(&self) -> Result<()> {
        leftover::end_containers(&self.options.place, &self.name).await?;
        self.facade.steps.release_all().await;
        leftover::unmount_below(&self.folders.root).await;
        let _not_there = fs::remove_dir_all(self.folders.temporary());
        for socket in [self.folders.socket(), self.folders.facade(), self.folders.run.join("otel.sock")] {
            let _not_there = fs::remove_file(socket);
        }
        Ok(())
    }

    async fn wait_until_serving(&self, child: &Child) -> Result<()> {
        let (deadline, ended) = (Instant::now() + START_LIMIT, child.ended());
        while Instant::now() < deadline {
            match UnixStream::connect(self.folders.socket()).await {
                Ok(_) => return Ok(()),
                Err(error) => debug!(%error, "buildkitd does not serve yet: {error}"),
            }
            if tokio::time::timeout(START_PAUSE, ended.cancelled()).await.is_ok() {
                return Err(Error::unavailable(format!("buildkitd ended at start: {}", log_tail(&self.folders.log()))));
            }
        }
        Err(Error::unavailable(format!("buildkitd does not serve after {} s", START_LIMIT.as_secs())))
    }

    /// Ends its buildkitd for good. The cache stays.
    pub(super) async fn stop(&self) {
        self.is_over.store(true, Ordering::Release);
        let stopped = self.running.lock().await.take();
        let Some(running) = stopped else { return };
        running.child.stop().await;
        drop(running);
        if let Err(error) = self.tidy().await {
            warn!("tidying up after BuildKit: {}", error.chain());
        }
        let _not_there = fs::remove_dir_all(&self.folders.run);
    }

    /// Ends it if it is not used.
    async fn stop_unless_used(&self) -> bool {
        let mut running = self.running.lock().await;
        if self.users() > 0 {
            return false;
        }
        let Some(Running { child, serving, idling }) = running.take() else { return true };
        child.stop().await;
        drop(serving);
        // It is that task which does this.
        drop(idling.detach());
        info!(slot = self.name, "BuildKit of {} was idle and is stopped", self.name);
        true
    }
}

async fn stop_when_idle(slot: Weak<Slot>) {
    let mut last_used = Instant::now();
    loop {
        tokio::time::sleep(IDLE_PAUSE).await;
        let Some(slot) = slot.upgrade() else { return };
        if slot.users() > 0 {
            last_used = Instant::now();
        }
        if last_used.elapsed() >= IDLE && slot.stop_unless_used().await {
            return;
        }
    }
}

/// Why it ended, which it says in a line before the stack of its calls, or what it said last.
fn log_tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error: io::Error| error.to_string());
    let why = text.lines().find_map(|line| line.strip_prefix("buildkitd: "));
    why.or_else(|| text.lines().last()).unwrap_or("it said nothing").to_owned()
}
