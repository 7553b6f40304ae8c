//! Level 3: launches upstream runners for forges, one fresh runner and one private socket per job.
//!
//! It knows forges, and of the machine what the engine's verbs of jobs say; no containerd. `forge` has a file per forge behind one
//! trait, `pool` the loop that looks at a forge's queue and launches what `balance` finds missing, `launch` the life of one
//! launch, `record` what is stored of it before anything is made, `runner` the container of a runner, `hooks` what forges send by
//! themselves, `hook_places` where that was asked for, `identities` registrations that outlive their runners, `kept_sets` scale sets, `origin` whence jobs come,
//! `tally` what is counted.

mod artifacts;
pub mod balance;
pub mod check;
mod choice;
pub mod forge;
mod hook_places;
pub mod hooks;
mod identities;
pub mod images;
mod kept_sets;
mod launch;
mod log;
pub mod origin;
mod pauses;
mod pool;
mod programs;
mod reach;
pub mod record;
mod room;
mod runner;
pub mod secret;
pub mod settings;
pub mod tally;

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

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub use self::reach::Reached;
use self::{
    forge::{Kept, QueuedJob},
    hook_places::{HookPlace, HookPlaces},
    hooks::Delivery,
    identities::{Identities, Identity},
    kept_sets::KeptSets,
    launch::Launch,
    pool::{Earlier, Pool},
    programs::Programs,
    record::LaunchRecord,
    room::Place,
    settings::{ForgeSettings, Settings},
    tally::Tally,
};
use crate::{
    engine::{Engine, records::RecordFolder},
    model::{Error, Result, error::Context, policy::PolicyRef, time::Timestamp},
};

/// Of launches that have had a job and ended, those that are remembered with their logs.
const REMEMBERED: usize = 500;

/// The same of those that have had none: where runners wait they are many, and say little.
const REMEMBERED_IDLE: usize = 100;

/// How long a purge waits for runners to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was removed of a forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Launches, those that had ended before too.
    pub launches: usize,
    /// Registrations that no launch was left of.
    pub registrations: usize,
    /// Webhooks that ringer had made.
    pub webhooks: usize,
}

/// Launches runners until it is stopped. Clones share everything.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    pools: Mutex<Pools>,
}

struct Pools {
    /// Those of the forges that are configured.
    current: Vec<Arc<Pool>>,
    /// Those that are not configured any more and follow what they have launched.
    retired: Vec<Arc<Pool>>,
}

/// What the pools share.
struct Shared {
    /// Whose jobs are made.
    pub engine: Engine,
    /// Launches on disk.
    pub records: Arc<RecordFolder>,
    /// What forges keep, on disk.
    pub kept: Kept,
    /// Where webhooks of ours were made, on disk.
    pub hook_places: HookPlaces,
    /// The programs of runners, as images have them.
    pub programs: Programs,
    /// Folders of what runners call before their job.
    pub hooks: PathBuf,
    /// What is counted.
    pub tally: Tally,
    /// Loops and launches.
    pub tasks: TaskTracker,
    /// Something has changed that may let any pool launch.
    pub news: watch::Sender<()>,
    settings: Mutex<Arc<Settings>>,
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
    /// Bytes of layers that were fetched for its job until now.
    pub pulled: u64,
    /// Bytes of layers that were here already.
    pub shared: u64,
    /// Time on the processors that its job has taken.
    pub cpu: Duration,
    /// Bytes of memory that its job has now, while it is there.
    pub memory: Option<u64>,
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
    /// When the last look that it answered began.
    pub looked: Option<Timestamp>,
    /// Launches at once at most.
    pub concurrency: usize,
    /// Launches of which something is there.
    pub live: usize,
    /// Kinds of launches that failed and wait for their next try.
    pub held: usize,
    /// What that look saw waiting.
    pub queue: Vec<WaitingJob>,
    /// Whether it has a webhook.
    pub takes_hooks: bool,
    /// Images with runners that were pulled since the daemon has started, and when they were made.
    pub runner_images: Vec<(String, Timestamp)>,
}

/// A job that waits at a forge.
#[derive(Clone, Debug)]
pub struct WaitingJob {
    /// What the forge says of it.
    pub queued: QueuedJob,
    /// Why nothing is launched for it, if so.
    pub why: Option<String>,
}

/// The log of a runner.
pub struct RunnerLog {
    path: PathBuf,
    launch: Arc<Launch>,
}

impl Supervisor {
    /// Takes up what an earlier life left below `data_root`. Nothing is launched before [`Self::start`].
    pub fn open(settings: Settings, engine: Engine, data_root: &Path) -> Result<Self> {
        check_policies(&engine, &settings)?;
        let logs = data_root.join("runner-logs");
        let programs = data_root.join("runner-programs");
        let hooks = data_root.join("runner-hooks");
        // Nobody speaks through those of an earlier life any more.
        if let Err(error) = fs::remove_dir_all(&hooks)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).context(format!("removing {}", hooks.display()));
        }
        // Credentials of runners are in there.
        for folder in [&logs, &programs, &hooks, &data_root.join("launches"), &data_root.join(identities::FOLDER)] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.context(format!("making {}", folder.display()))?;
        }
        let records = Arc::new(RecordFolder::open(data_root, "launches")?);
        let left = records.read::<LaunchRecord>()?.into_iter();
        let launches = left.map(|record| Launch::of_earlier_life(record, &records)).collect();
        let shared = Arc::new(Shared {
            engine,
            records,
            kept: Kept {
                identities: Arc::new(Identities::open(data_root)?),
                sets: Arc::new(KeptSets::open(data_root)?),
            },
            hook_places: HookPlaces::open(data_root)?,
            programs: Programs::new(programs),
            hooks,
            tally: Tally::default(),
            tasks: TaskTracker::new(),
            launches: Mutex::new(launches),
            logs,
            stop: CancellationToken::new(),
            draining: AtomicBool::new(false),
            news: watch::Sender::new(()),
            settings: Mutex::new(Arc::new(settings)),
        });
        let settings = shared.settings();
        let pools = settings.forges.iter().map(|forge| Pool::new(shared.clone(), forge.clone(), None));
        let pools = Pools { current: pools.collect::<Result<_>>()?, retired: Vec::new() };
        Ok(Self(Arc::new(Inner { shared, pools: Mutex::new(pools) })))
    }

    /// Begins to look at the forges.
    pub fn start(&self) {
        let shared = &self.0.shared;
        for pool in self.pools() {
            shared.tasks.spawn(pool.run(Earlier::Swept));
        }
        let settings = shared.settings();
        let is_configured = |launch: &Launch| {
            let record = launch.record();
            settings.forges.iter().any(|forge| forge.name == record.forge)
        };
        for set in shared.kept.sets.others(&settings.forges) {
            warn!(
                forge = set.forge,
                "no forge that is configured looks after the scale set {set}, and GitHub may give it jobs: `ringer purge` removes it where its \
                 forge still has scale sets of that server, or else remove it by hand"
            );
        }
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
        let pools = self.all_pools();
        let held = pools.iter().filter(|pool| !pool.is_left());
        join_all(held.map(|pool| pool.forge.leave(pool.is_retired()))).await;
    }

    /// Launches nothing any more; runners that wait for a job end, those that have one go on.
    pub fn drain(&self) {
        info!("draining: no runner is launched any more");
        self.0.shared.draining.store(true, Ordering::SeqCst);
        for pool in self.pools() {
            pool.end_idle("the daemon is draining");
        }
        self.0.shared.wake_pools();
    }

    /// Launches again after [`Self::drain`] or [`Self::purge`].
    pub fn uncordon(&self) {
        info!("runners are launched again");
        self.0.shared.draining.store(false, Ordering::SeqCst);
        for pool in &self.lock().current {
            pool.uncordon();
        }
    }

    /// Takes up another configuration. Forges whose section has changed are asked anew; runners that are there end as they began.
    pub fn reload(&self, settings: Settings) -> Result<()> {
        let shared = &self.0.shared;
        check_policies(&shared.engine, &settings)?;
        let mut pools = self.lock();
        let (mut next, mut fresh) = (Vec::new(), Vec::new());
        for forge in &settings.forges {
            match pools.current.iter().find(|pool| pool.settings == *forge) {
                Some(same) => next.push(same.clone()),
                None => {
                    pools.check_successor(forge)?;
                    let mut all = pools.current.iter().chain(&pools.retired);
                    let earlier = all.find(|old| old.settings.name == forge.name);
                    let pool = Pool::new(shared.clone(), forge.clone(), earlier.map(|old| &**old))?;
                    if pools.current.iter().any(|old| old.settings.name == forge.name && old.is_cordoned()) {
                        pool.cordon();
                    }
                    next.push(pool.clone());
                    fresh.push(pool);
                }
            }
        }
        let mut old: Vec<_> = pools.current.iter().chain(&pools.retired).cloned().collect();
        old.retain(|old| !old.is_left() && !next.iter().any(|pool| Arc::ptr_eq(pool, old)));
        for old in &old {
            old.retire(next.iter().find(|pool| pool.settings.name == old.settings.name));
        }
        *pools = Pools { current: next, retired: old };
        drop(pools);
        *shared.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        for pool in fresh {
            info!(forge = pool.settings.name, "[{}] is new or has changed", pool.settings.name);
            shared.tasks.spawn(pool.run(Earlier::GoesOn));
        }
        // There may be more room now for those that stay, too.
        shared.wake_pools();
        Ok(())
    }

    /// Ends the runners of a forge, or of all, takes back every registration and webhook of ours there, and forgets what was stored of
    /// them. Nothing is launched there until [`Self::uncordon`]. It goes on when its caller has left.
    pub async fn purge(&self, forge: Option<String>) -> Result<Purged> {
        let supervisor = self.clone();
        let purging = self.0.shared.tasks.spawn(async move { supervisor.purge_all_of(forge.as_deref()).await });
        purging.await.map_err(|panic| Error::system("purging failed").with_source(panic))?
    }

    async fn purge_all_of(&self, forge: Option<&str>) -> Result<Purged> {
        let shared = &self.0.shared;
        let is_meant = |name: &str| forge.is_none_or(|forge| forge == name);
        let pools = self.cordon(is_meant);
        let mut launches = shared.launches();
        launches.retain(|launch| is_meant(&launch.record().forge));
        if let (Some(forge), true, true) = (forge, pools.is_empty(), launches.is_empty()) {
            return Err(Error::not_found(format!("no such forge: {forge}")));
        }
        for launch in launches.iter().filter(|launch| launch.record().is_live()) {
            launch.tell_to_end("everything of this forge is being removed");
        }
        let ended = tokio::select! {
            ended = tokio::time::timeout(PATIENCE, join_all(launches.iter().map(|launch| launch.gone()))) => ended,
            // Some are left to the next life then, and the end waits for us.
            () = shared.stop.cancelled() => return Err(Error::unavailable("the daemon is shutting down")),
        };
        if ended.is_err() {
            let left = launches.iter().filter(|launch| launch.record().is_live()).count();
            return Err(Error::unavailable(format!(
                "{left} of {} runners have not ended within {} s: `ringer jobs` tells of them",
                launches.len(),
                PATIENCE.as_secs()
            )));
        }
        let mut purged = Purged { launches: launches.len(), registrations: 0, webhooks: 0 };
        let mut failures = Vec::new();
        for pool in &pools {
            match pool.sweep_registrations().await {
                Ok(count) => purged.registrations += count,
                Err(error) => failures.push(format!("{}: {}", pool.settings.name, error.chain())),
            }
            match pool.sweep_webhooks().await {
                Ok(count) => purged.webhooks += count,
                Err(error) => failures.push(format!("{}: {}", pool.settings.name, error.chain())),
            }
            if let Err(error) = pool.forge.forget().await {
                failures.push(format!("{}: {}", pool.settings.name, error.chain()));
            }
        }
        shared.forget(&launches);
        if forge.is_none() {
            let settings = shared.settings();
            let is_configured = |identity: &Identity| settings.forges.iter().any(|forge| forge.name == identity.forge);
            let forgotten = shared.kept.identities.forget_all(|identity| !is_configured(identity));
            let is_out_of_reach = |place: &HookPlace| !place.is_within_reach(&settings.forges);
            let sets = shared.kept.sets.forget_others(&settings.forges);
            let hooks = shared.hook_places.forget_all(&shared.mark(), is_out_of_reach);
            let cleared = shared.programs.clear().await;
            failures.extend([forgotten, sets, hooks, cleared].into_iter().filter_map(|done| Some(done.err()?.chain())));
        }
        if failures.is_empty() { Ok(purged) } else { Err(Error::unavailable(failures.join("; "))) }
    }

    /// Under the lock, so that a pool that takes another's place meanwhile is cordoned too.
    fn cordon(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Arc<Pool>> {
        let pools = self.lock();
        let meant = pools.current.iter().filter(|pool| is_meant(&pool.settings.name));
        meant.inspect(|pool| pool.cordon()).cloned().collect()
    }

    /// Whether nothing is launched any more.
    pub fn is_draining(&self) -> bool {
        self.0.shared.is_draining()
    }

    /// All launches that are remembered, oldest first.
    pub async fn launches(&self) -> Vec<LaunchView> {
        let (shared, launches) = (&self.0.shared, self.0.shared.launches());
        let mut views = join_all(launches.iter().map(|launch| launch.view(shared))).await;
        views.sort_by_key(|view| view.record.times.begun);
        views
    }

    /// The forges.
    pub fn forges(&self) -> Vec<ForgeView> {
        self.pools().iter().map(|pool| pool.view()).collect()
    }

    /// Whether jobs of a forge reach it, asked from one that is made for that.
    pub async fn reach(&self, forge: &str) -> Result<Vec<Reached>> {
        let pool = self.pool(forge)?;
        // To its end, also when the caller has left: a job is made.
        let reaching = self.0.shared.tasks.spawn(async move { pool.reach_from_a_job().await });
        reaching.await.map_err(|panic| Error::system("asking from a job failed").with_source(panic))?
    }

    /// Takes a delivery of a forge's webhook.
    pub fn hear(&self, forge: &str, delivery: &Delivery<'_>) -> Result<()> {
        self.pool(forge)?.hear(delivery)
    }

    fn pool(&self, forge: &str) -> Result<Arc<Pool>> {
        let pool = self.pools().into_iter().find(|pool| pool.settings.name == forge);
        pool.ok_or_else(|| Error::not_found(format!("no such forge: {forge}")))
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().current.clone()
    }

    fn all_pools(&self) -> Vec<Arc<Pool>> {
        let pools = self.lock();
        pools.current.iter().chain(&pools.retired).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted.
    pub fn tally(&self) -> &Tally {
        &self.0.shared.tally
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

impl Pools {
    /// Whether a forge may be called so. Who follows runners asks the forge that the name leads to: another one knows none of them, and
    /// they would be ended.
    fn check_successor(&self, forge: &ForgeSettings) -> Result<()> {
        let mut of_the_name =
            self.current.iter().chain(&self.retired).filter(|pool| pool.settings.name == forge.name && !pool.is_over());
        match of_the_name.find(|pool| !forge.leads_to_the_same(&pool.settings) && pool.has_launches()) {
            Some(_) => Err(Error::conflict(format!(
                "[{}]: another server, owner or kind while runners of it are there: give it another name, or drain and wait until \
                 `ringer jobs` is empty",
                forge.name
            ))),
            None => Ok(()),
        }
    }
}

fn check_policies(engine: &Engine, settings: &Settings) -> Result<()> {
    for forge in &settings.forges {
        let policy = forge.policy.clone().map(PolicyRef::Named);
        engine.find_policy(policy.as_ref()).map_err(|error| error.context(format!("[{}]", forge.name)))?;
    }
    Ok(())
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

    /// By what our webhooks are known, whatever `public_url` was when they were made.
    pub fn mark(&self) -> String {
        format!("?by={}", self.prefix().trim_end_matches('-'))
    }

    /// Where the log of a launch's runner is kept.
    pub fn log_path(&self, launch: &str) -> PathBuf {
        self.logs.join(format!("{launch}.log"))
    }

    /// What is configured now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits; `false` if the supervisor stops meanwhile.
    pub async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Lets all pools look again.
    pub fn wake_pools(&self) {
        self.news.send_replace(());
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

    /// Whether one more launch of a forge fits beside those of all.
    fn has_room(&self, forge: &ForgeSettings, waits: bool) -> bool {
        self.with_places(|settings, there| settings.has_room(there, forge, waits))
    }

    /// Of how many jobs of a forge there may be runners.
    fn room_of(&self, forge: &ForgeSettings) -> usize {
        self.with_places(|settings, there| settings.room_of(there, forge))
    }

    fn with_places<T>(&self, of: impl FnOnce(&Settings, &[Place<'_>]) -> T) -> T {
        let records: Vec<_> = self.live().iter().map(|launch| launch.record()).collect();
        let there: Vec<_> =
            records.iter().map(|record| Place { forge: &record.forge, memory: record.limits.memory }).collect();
        of(&self.settings(), &there)
    }

    /// Forgets the oldest launches that have ended, with their logs.
    fn forget_old(&self) {
        let ended = self.launches().into_iter().filter(|launch| !launch.record().is_live());
        let (worked, idle): (Vec<_>, Vec<_>) = ended.partition(|launch| launch.record().work.is_some());
        for (mut ended, most) in [(worked, REMEMBERED), (idle, REMEMBERED_IDLE)] {
            ended.truncate(ended.len().saturating_sub(most));
            self.forget(&ended);
        }
    }

    /// Forgets these, with their logs.
    fn forget(&self, launches: &[Arc<Launch>]) {
        self.lock().retain(|launch| !launches.iter().any(|forgotten| Arc::ptr_eq(launch, forgotten)));
        for record in launches.iter().map(|launch| launch.record()) {
            for removed in [self.records.remove(&record.name), fs::remove_file(self.log_path(&record.name))] {
                if let Err(error) = removed
                    && error.kind() != io::ErrorKind::NotFound
                {
                    warn!("forgetting launch {}: {error}", record.name);
                }
            }
        }
    }
}
