//! Level 3: launches upstream runners for forges, one fresh runner and one private socket per job.
//!
//! It knows forges, and of the machine what the engine's verbs of jobs say; no containerd. `forge` has a file per forge behind one
//! trait, `pool` the loop that looks at a forge's queue and launches what `balance` finds missing, `launch` the life of one
//! launch, `record` what is stored of it before anything is made, `runner` the container of a runner.

pub mod balance;
pub mod check;
mod choice;
pub mod forge;
pub mod images;
mod launch;
mod log;
mod pool;
mod programs;
pub mod record;
mod runner;
pub mod secret;
pub mod settings;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use self::{launch::Launch, pool::Pool, programs::Programs, record::LaunchRecord, settings::Settings};
use crate::{
    engine::{Engine, records::RecordFolder},
    model::{Error, Result, error::Context, policy::PolicyRef},
};

/// Of launches that have ended, those that are remembered with their logs.
const REMEMBERED: usize = 500;

/// Launches runners until it is stopped. Clones share everything.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    pools: Vec<Arc<Pool>>,
}

/// What the pools share.
struct Shared {
    /// Whose jobs are made.
    pub engine: Engine,
    /// What is configured.
    pub settings: Settings,
    /// Launches on disk.
    pub records: Arc<RecordFolder>,
    /// The programs of runners, as images have them.
    pub programs: Programs,
    /// Loops and launches.
    pub tasks: TaskTracker,
    launches: Mutex<Vec<Arc<Launch>>>,
    logs: PathBuf,
    stop: CancellationToken,
    draining: AtomicBool,
}

/// What can be said of a launch.
#[derive(Clone, Debug)]
pub struct LaunchView {
    /// What is stored of it.
    pub record: Arc<LaunchRecord>,
}

/// What can be said of a forge.
#[derive(Clone, Debug)]
pub struct ForgeView {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Why nothing is launched, if so.
    pub trouble: Option<String>,
}

/// The log of a runner.
pub struct RunnerLog {
    path: PathBuf,
    launch: Arc<Launch>,
}

impl Supervisor {
    /// Takes up what an earlier life left below `data_root`. Nothing is launched before [`Self::start`].
    pub fn open(settings: Settings, engine: Engine, data_root: &Path) -> Result<Self> {
        for forge in &settings.forges {
            let policy = forge.policy.clone().map(PolicyRef::Named);
            engine.find_policy(policy.as_ref()).map_err(|error| error.context(format!("[{}]", forge.name)))?;
        }
        let logs = data_root.join("runner-logs");
        let programs = data_root.join("runner-programs");
        // Credentials of runners are in there.
        for folder in [&logs, &programs, &data_root.join("launches")] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.context(format!("making {}", folder.display()))?;
        }
        let records = Arc::new(RecordFolder::open(data_root, "launches")?);
        let left = records.read::<LaunchRecord>()?.into_iter();
        let launches = left.map(|record| Launch::of_earlier_life(record, &records)).collect();
        let shared = Arc::new(Shared {
            engine,
            records,
            programs: Programs::new(programs),
            tasks: TaskTracker::new(),
            launches: Mutex::new(launches),
            logs,
            stop: CancellationToken::new(),
            draining: AtomicBool::new(false),
            settings,
        });
        let settings = shared.settings.forges.iter();
        let pools = settings.map(|forge| Pool::new(shared.clone(), forge.clone())).collect::<Result<_>>()?;
        Ok(Self(Arc::new(Inner { shared, pools })))
    }

    /// Begins to look at the forges.
    pub fn start(&self) {
        let shared = &self.0.shared;
        for pool in &self.0.pools {
            shared.tasks.spawn(pool.clone().run());
        }
        let is_configured = |launch: &Launch| {
            let record = launch.record();
            shared.settings.forges.iter().any(|forge| forge.name == record.forge)
        };
        for launch in shared.live().into_iter().filter(|launch| !is_configured(launch)) {
            let shared = shared.clone();
            shared.tasks.clone().spawn(async move { launch.abandon(&shared).await });
        }
    }

    /// Ends all runners and takes back what the forges know of them. Returns when that has happened.
    pub async fn stop(&self) {
        self.0.shared.draining.store(true, Ordering::SeqCst);
        for launch in self.0.shared.live() {
            launch.tell_to_end("the daemon is shutting down");
        }
        self.0.shared.tasks.close();
        self.0.shared.stop.cancel();
        self.0.shared.tasks.wait().await;
    }

    /// Launches nothing any more; runners that wait for a job end, those that have one go on.
    pub fn drain(&self) {
        info!("draining: no runner is launched any more");
        self.0.shared.draining.store(true, Ordering::SeqCst);
        for pool in &self.0.pools {
            pool.end_idle("the daemon is draining");
        }
    }

    /// All launches that are remembered, oldest first.
    pub fn launches(&self) -> Vec<LaunchView> {
        let launches = self.0.shared.launches();
        let mut views: Vec<LaunchView> = launches.iter().map(|launch| LaunchView { record: launch.record() }).collect();
        views.sort_by_key(|view| view.record.times.begun);
        views
    }

    /// The forges.
    pub fn forges(&self) -> Vec<ForgeView> {
        let view = |pool: &Arc<Pool>| ForgeView {
            name: pool.settings.name.clone(),
            url: pool.settings.url.clone(),
            trouble: pool.trouble(),
        };
        self.0.pools.iter().map(view).collect()
    }

    /// The log of a launch's runner. A launch is named by its name or a unique beginning of it.
    pub fn log_of(&self, launch: &str) -> Result<RunnerLog> {
        let launches = self.0.shared.launches();
        let found = launches.iter().find(|found| found.record().name == launch).or_else(|| {
            let mut beginning = launches.iter().filter(|found| found.record().name.starts_with(launch));
            beginning.next().filter(|_| !launch.is_empty() && beginning.next().is_none())
        });
        let launch = found.ok_or_else(|| Error::not_found(format!("no such job: {launch}")))?;
        Ok(RunnerLog { path: self.0.shared.log_path(&launch.record().name), launch: launch.clone() })
    }
}

impl RunnerLog {
    /// Where it is, once there is one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether more may come.
    pub fn goes_on(&self) -> bool {
        self.launch.record().is_live()
    }
}

impl Shared {
    /// What the names of our registrations begin with: other supervisors of the same forge have another one.
    pub fn prefix(&self) -> String {
        let instance: String = self.engine.id.as_str().chars().take(8).collect();
        format!("ringer-{instance}-")
    }

    /// Where the log of a launch's runner is kept.
    pub fn log_path(&self, launch: &str) -> PathBuf {
        self.logs.join(format!("{launch}.log"))
    }

    /// Waits; `false` if the supervisor stops meanwhile.
    pub async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Whether nothing may be launched.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn launches(&self) -> Vec<Arc<Launch>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Launch>>> {
        self.launches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Launches of all forges of which something is there.
    fn live(&self) -> Vec<Arc<Launch>> {
        self.launches().into_iter().filter(|launch| launch.record().is_live()).collect()
    }

    fn add(&self, launch: Arc<Launch>) {
        self.lock().push(launch);
    }

    /// Whether a job with so much memory fits beside those of all forges.
    fn has_room(&self, memory: Option<u64>) -> bool {
        let live = self.live();
        let used =
            live.iter().fold(0u64, |used, launch| used.saturating_add(launch.record().limits.memory.unwrap_or(0)));
        let fits = self.settings.max_memory.is_none_or(|max| used.saturating_add(memory.unwrap_or(0)) <= max);
        fits && self.settings.max_jobs.is_none_or(|max| live.len() < max)
    }

    /// Forgets the oldest launches that have ended, with their logs.
    fn forget_old(&self) {
        let mut launches = self.lock();
        let ended = launches.iter().filter(|launch| !launch.record().is_live()).count();
        let mut surplus = ended.saturating_sub(REMEMBERED);
        launches.retain(|launch| {
            let record = launch.record();
            if surplus == 0 || record.is_live() {
                return true;
            }
            surplus -= 1;
            for removed in [self.records.remove(&record.name), fs::remove_file(self.log_path(&record.name))] {
                if let Err(error) = removed
                    && error.kind() != io::ErrorKind::NotFound
                {
                    warn!("forgetting launch {}: {error}", record.name);
                }
            }
            false
        });
    }
}
