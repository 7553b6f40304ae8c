//! A slot: one buildkitd with a cache of its own, for one tenant. It is started at the first call and stopped when nobody has used it
//! for a while.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::UnixStream, sync::Mutex, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

use super::{
    Options,
    child::{Child, Start},
    cni, config,
    containers::Walls,
    facade::{self, Facade},
    front::{Known, lock},
    leftover::Left,
    proxy::Upstream,
    remains::Remains,
    sight::Sight,
    steps::Steps,
    usage,
};
use crate::{
    backend::{builds::BuildTenant, runtime::Runtime},
    model::{Error, Result, error::Context, id::TenantId},
};

/// How long a start may take: 0.2 s, and more on a busy machine with a large cache.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to say how much it has.
const MEASURE_LIMIT: Duration = Duration::from_secs(10);

/// Between looks whether it serves.
const START_PAUSE: Duration = Duration::from_millis(20);

/// Between looks whether containerd is back.
const LOST_PAUSE: Duration = Duration::from_millis(200);

/// Between looks whether somebody uses it: the least, and the most.
const IDLE_PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// A log of buildkitd that is longer is emptied: its clients' errors stand there, and it lies in memory.
const LOG_LIMIT: u64 = 4 << 20;

/// One of them.
pub(super) struct Slot {
    options: Arc<Options>,
    remains: Remains,
    facade: Arc<Facade>,
    pub(super) known: Arc<Known>,
    running: Mutex<Option<Running>>,
    users: AtomicUsize,
    /// When the last one left.
    last_used: std::sync::Mutex<Instant>,
    /// Nobody starts it any more.
    is_over: AtomicBool,
}

struct Running {
    child: Child,
    serving: AbortOnDropHandle<()>,
    idling: AbortOnDropHandle<()>,
    watching: AbortOnDropHandle<()>,
}

/// Held by whoever uses a slot.
pub(super) struct Use(Arc<Slot>);

impl Drop for Use {
    fn drop(&mut self) {
        *lock(&self.0.last_used) = Instant::now();
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
        let (cgroups, whose) = (runtime.clone(), tenant.clone());
        let remains = Remains::of(options, runtime, tenant, &of.cache());
        let own = [remains.folders.root.clone(), remains.folders.run.clone()];
        let known = Arc::new(Known::of(of.clone()));
        let facade = Facade {
            results: known.results.clone(),
            namespace: remains.namespace(),
            steps: Arc::new(Steps::of(of.clone())),
            tenant: of,
            walls: Walls::new(&options.place, own, move |id| cgroups.cgroup_path(&whose, id, "")),
        };
        Self {
            options: options.clone(),
            remains,
            facade: Arc::new(facade),
            known,
            running: Mutex::default(),
            users: AtomicUsize::new(0),
            last_used: std::sync::Mutex::new(Instant::now()),
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
        let upstream = Upstream::connect(&self.remains.folders.socket()).await.context("connecting to BuildKit")?;
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
        let program = self.options.program.clone().ok_or_else(Error::no_buildkit)?;
        // First: a tenant that ends has none, and what is made after that would stay.
        let network = self.network().await?;
        self.make_folders()?;
        self.remains.note_size(None)?;
        let left = self.tidy().await?;
        left.make_namespaces().await?;
        fs::create_dir_all(self.remains.folders.temporary()).context("making a folder for BuildKit")?;
        cni::install(&self.remains.folders.plugins(), Path::new(&format!("/proc/{}/exe", std::process::id())))?;
        let config = self.remains.folders.run.join("buildkitd.toml");
        let around = self.facade.tenant.around();
        fs::write(&config, config::text(&self.options, &self.remains, &self.facade.namespace, &around))
            .context("writing BuildKit's configuration")?;
        let listener = facade::listen(&self.remains.folders.facade())?;
        let lost = CancellationToken::new();
        let serve = self.facade.clone().serve(listener, self.options.place.address.clone(), lost.clone());
        let serving = AbortOnDropHandle::new(tokio::spawn(serve));
        let child = Child::spawn(Start {
            sight: Sight::prepare(&self.options, &self.remains.folders, &around)?,
            program,
            config,
            log: self.remains.folders.log(),
            temporary: self.remains.folders.temporary(),
            env: around.builder_env,
            network,
            cgroup: self.remains.open_cgroup()?,
        })
        .await?;
        if let Err(error) = self.wait_until_serving(&child).await {
            child.stop().await;
            return Err(error);
        }
        #[allow(clippy::cast_possible_truncation, reason = "a start takes less than an age")]
        let duration_ms = began.elapsed().as_millis() as u64;
        info!(tenant = %self.remains.tenant, duration_ms, "BuildKit serves {}", self.remains.tenant);
        let idling = AbortOnDropHandle::new(tokio::spawn(stop_when_idle(Arc::downgrade(self), self.options.idle)));
        let watching = AbortOnDropHandle::new(tokio::spawn(stop_when_lost(Arc::downgrade(self), lost, child.ended())));
        Ok(Running { child, serving, idling, watching })
    }

    /// The network namespace in which it is, if that is not the machine's.
    pub(super) async fn network(&self) -> Result<Option<File>> {
        let open = |path: PathBuf| File::open(&path).context(format!("opening {}", path.display()));
        self.facade.tenant.host().await?.map(open).transpose()
    }

    fn make_folders(&self) -> Result<()> {
        for folder in [&self.remains.folders.root, &self.remains.folders.run] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(folder).context(format!("making {}", folder.display()))?;
        }
        Ok(())
    }

    /// Takes away what a buildkitd left that was killed.
    async fn tidy(&self) -> Result<Left> {
        let left = self.remains.tidy().await?;
        self.facade.steps.release_all().await;
        Ok(left)
    }

    async fn wait_until_serving(&self, child: &Child) -> Result<()> {
        let (deadline, ended) = (Instant::now() + START_LIMIT, child.ended());
        while Instant::now() < deadline {
            match UnixStream::connect(self.remains.folders.socket()).await {
                Ok(_) => return Ok(()),
                Err(error) => debug!(%error, "buildkitd does not serve yet: {error}"),
            }
            if tokio::time::timeout(START_PAUSE, ended.cancelled()).await.is_ok() {
                return Err(Error::unavailable(format!(
                    "buildkitd ended at start: {}",
                    log_tail(&self.remains.folders.log())
                )));
            }
        }
        Err(Error::unavailable(format!("buildkitd does not serve after {} s", START_LIMIT.as_secs())))
    }

    /// Ends its buildkitd for good. The cache stays.
    pub(super) async fn stop(&self) {
        self.is_over.store(true, Ordering::Release);
        let stopped = self.running.lock().await.take();
        let Some(running) = stopped else { return };
        self.measure().await;
        running.child.stop().await;
        drop(running);
        if let Err(error) = self.tidy().await {
            warn!("tidying up after BuildKit: {}", error.chain());
        }
        let _not_there = fs::remove_dir_all(&self.remains.folders.run);
    }

    /// Ends it, since containerd was gone meanwhile, and it would wait for the ends of its steps for ever, or takes away what it left
    /// that has ended without us.
    async fn stop_lost(&self, why: &str) {
        let mut running = self.running.lock().await;
        let Some(Running { child, watching, .. }) = running.take() else { return };
        // It is that task which does this.
        drop(watching.detach());
        warn!("BuildKit of {} {why}", self.remains.tenant);
        child.kill().await;
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = self.tidy().await {
            if Instant::now() >= deadline || self.is_over.load(Ordering::Acquire) {
                return warn!("tidying up after BuildKit: {}", error.chain());
            }
            tokio::time::sleep(LOST_PAUSE).await;
        }
    }

    /// Asks how much it has, if that outlives its tenant. It runs; if it does not answer, that is not known.
    async fn measure(&self) {
        if !self.remains.is_lent() {
            return;
        }
        let measured = async {
            let upstream = Upstream::connect(&self.remains.folders.socket()).await.context("connecting to BuildKit")?;
            usage::usage(&upstream).await
        };
        match tokio::time::timeout(MEASURE_LIMIT, measured).await {
            Ok(Ok(records)) => {
                let bytes = records.iter().map(|record| record.size).sum();
                if let Err(error) = self.remains.note_size(Some(bytes)) {
                    warn!("{}", error.chain());
                }
            }
            Ok(Err(error)) => warn!("measuring a build cache: {}", error.chain()),
            Err(_) => warn!("a builder does not say how much it keeps"),
        }
    }

    /// Ends it if it is not used.
    async fn stop_unless_used(&self) -> bool {
        let mut running = self.running.lock().await;
        if self.users() > 0 {
            return false;
        }
        let Some(Running { child, serving, idling, watching: _watching }) = running.take() else { return true };
        self.measure().await;
        child.stop().await;
        drop(serving);
        // It is that task which does this.
        drop(idling.detach());
        info!(tenant = %self.remains.tenant, "BuildKit of {} was idle and is stopped", self.remains.tenant);
        true
    }
}

async fn stop_when_lost(slot: Weak<Slot>, lost: CancellationToken, ended: CancellationToken) {
    let why = tokio::select! {
        () = lost.cancelled() => "has lost containerd and is ended with its builds",
        () = ended.cancelled() => "has ended by itself, and its builds with it",
    };
    if let Some(slot) = slot.upgrade() {
        slot.stop_lost(why).await;
    }
}

async fn stop_when_idle(slot: Weak<Slot>, idle: Duration) {
    let [least, most] = IDLE_PAUSE;
    loop {
        tokio::time::sleep(idle.clamp(least, most)).await;
        let Some(slot) = slot.upgrade() else { return };
        if let Err(error) = trim(&slot.remains.folders.log()) {
            debug!(%error, "emptying the log of BuildKit: {error}");
        }
        let unused = lock(&slot.last_used).elapsed();
        if slot.users() == 0 && unused >= idle && slot.stop_unless_used().await {
            return;
        }
    }
}

/// Empties a file that has become too long; whoever writes it appends.
fn trim(log: &Path) -> io::Result<()> {
    if fs::metadata(log)?.len() > LOG_LIMIT {
        File::options().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}

/// Why it ended, which it says in a line before the stack of its calls, or what it said last.
fn log_tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error: io::Error| error.to_string());
    let why = text.lines().find_map(|line| line.strip_prefix("buildkitd: "));
    why.or_else(|| text.lines().last()).unwrap_or("it said nothing").to_owned()
}
