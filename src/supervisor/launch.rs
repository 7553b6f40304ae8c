//! One launch: from the decision to the last trace that is removed.

mod end;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::end::pauses_between_tries;
use super::{
    LaunchView, Shared,
    artifacts::JobHook,
    choice,
    forge::{Minted, Order, Quit, Steps},
    log,
    pool::Pool,
    record::{ForgeJob, LaunchRecord, Registration, Stage},
    runner::Runner,
    settings::Mode,
};
use crate::{
    engine::{
        jobs::{JobUsage, JobView},
        records::RecordFolder,
    },
    model::{Error, ErrorKind, Result, error::Context, job::JobRequest, reference::Digest, time::Timestamp},
};

/// How long a runner may go on whose registration is gone: one that has ended its job ends by itself.
const GRACE: Duration = Duration::from_secs(30);

/// How long a runner waits for a job at least before its end without one is taken for the forge's will: some take unused
/// registrations back after minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Beyond a job's own time, for the runner to end it by itself.
const LEEWAY: Duration = Duration::from_secs(60);

/// Beyond a job's own time, for what is around it.
const MARGIN: Duration = Duration::from_secs(600);

/// How long a job that begins waits for a look that sees it.
const LOOKED_UP: Duration = Duration::from_secs(5);

/// A launch that is there.
pub struct Launch {
    record: watch::Sender<Arc<LaunchRecord>>,
    records: Arc<RecordFolder>,
    end: CancellationToken,
    why: OnceLock<String>,
    /// Its runner has said that it has a job, whichever that is.
    has_begun: AtomicBool,
    /// Why its runner was told to take no job any more.
    quits: OnceLock<String>,
    missing: std::sync::Mutex<Option<Instant>>,
    /// Held while its runner is being registered.
    minting: Arc<tokio::sync::Mutex<()>>,
}

/// How a runner came to its end.
enum Ended {
    /// With this exit code.
    ByItself(i64),
    /// It has to be ended.
    OutOfTime(String),
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Launch").field(&self.record().name).finish()
    }
}

impl Launch {
    /// Stores what is decided on.
    pub fn new(record: LaunchRecord, records: &Arc<RecordFolder>) -> Result<Arc<Self>> {
        records.write(&record.name, &record).context(format!("storing launch {}", record.name))?;
        Ok(Self::of_earlier_life(record, records))
    }

    /// One whose record was found.
    pub fn of_earlier_life(record: LaunchRecord, records: &Arc<RecordFolder>) -> Arc<Self> {
        Arc::new(Self {
            record: watch::Sender::new(Arc::new(record)),
            records: records.clone(),
            end: CancellationToken::new(),
            why: OnceLock::new(),
            has_begun: AtomicBool::new(false),
            quits: OnceLock::new(),
            missing: std::sync::Mutex::default(),
            minting: Arc::default(),
        })
    }

    /// What is known of it now.
    pub fn record(&self) -> Arc<LaunchRecord> {
        self.record.borrow().clone()
    }

    /// Bytes of layers that were fetched for its job, and those that were here already.
    pub fn traffic(&self, shared: &Shared) -> (u64, u64) {
        let record = self.record();
        let now = record.tenant.as_ref().and_then(|job| shared.engine.job_traffic(job));
        now.unwrap_or((record.pulled, record.shared))
    }

    /// What its job uses, while that is there.
    async fn usage(&self, shared: &Shared) -> Option<JobUsage> {
        let record = self.record();
        let job = record.tenant.as_ref().filter(|_| record.is_live())?;
        shared.engine.job_usage(job).await
    }

    /// What can be said of it.
    pub async fn view(&self, shared: &Shared) -> LaunchView {
        let (usage, record, traffic) = (self.usage(shared).await, self.record(), self.traffic(shared));
        LaunchView {
            pulled: traffic.0,
            shared: traffic.1,
            cpu: Duration::from_nanos(usage.map_or(record.cpu, |usage| usage.cpu)),
            memory: usage.map(|usage| usage.memory),
            record,
        }
    }

    /// Waits until nothing is left of it.
    pub async fn gone(&self) {
        let mut records = self.record.subscribe();
        // The sender is ours: it is there for as long as we are.
        let _always = records.wait_for(|record| !record.is_live()).await;
    }

    /// Ends it; the first reason stays.
    pub fn tell_to_end(&self, why: impl Into<String>) {
        let _the_first_stays = self.why.set(why.into());
        self.end.cancel();
    }

    /// Keeps its runner from taking a job. One that has a job goes on.
    pub async fn quit(&self, pool: &Pool, why: String) {
        let record = self.record();
        if record.work.is_some() || self.has_begun.load(Ordering::Relaxed) {
            return;
        }
        let (Some(job), Some(registration)) = (&record.tenant, &record.registration) else {
            self.tell_to_end(why);
            return;
        };
        let quit = pool.forge.quit();
        // One that is being started may have a job before we know that it runs; of the others only one that runs can be told.
        if record.stage != Stage::Waiting && quit != Quit::TakenBack {
            self.tell_to_end(why);
            return;
        }
        let _the_first_stays = self.quits.set(why.clone());
        let told = async {
            match quit {
                Quit::Ended => self.tell_to_end(why.clone()),
                Quit::Signalled(signal) => Runner::of(&pool.shared, job)?.signal(signal).await?,
                Quit::Told => pool.forge.keep_idle(registration).await?,
                Quit::TakenBack => self.take_back(pool, registration, &why).await,
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = told.await {
            warn!(launch = record.name, "telling {} to take no job any more: {}", record.name, error.chain());
            self.tell_to_end(why);
        }
    }

    /// Ends its runner if the forge says that it has no job, and asks until it says something.
    async fn take_back(&self, pool: &Pool, registration: &Registration, why: &str) {
        let mut pauses = pauses_between_tries();
        while self.record().is_to_come() {
            let error = match pool.forge.take_back(registration).await {
                Ok(true) => return self.tell_to_end(why.to_owned()),
                Ok(false) => return,
                Err(error) => error,
            };
            if !self.may_try_again(pool, &mut pauses, "taking its registration back", &error).await {
                return;
            }
        }
    }

    /// The forge has given its runner a job; whether that is news.
    pub fn is_assigned(&self, job: &ForgeJob) -> bool {
        if self.record().work.is_some() {
            return false;
        }
        info!(launch = self.record().name, "{} has job {} of {}", self.record().name, job.name, job.repository);
        self.change(|record| {
            record.work = Some(job.clone());
            if record.stage == Stage::Waiting {
                record.stage = Stage::Running;
            }
            record.times.assigned = Some(Timestamp::now());
        });
        true
    }

    /// Whether the forge still lists its runner: one that it does not has ended its job, or has none to do any more, since a user's
    /// cancel deletes it and tells nobody.
    pub fn is_listed(&self, listed: bool) {
        let since = {
            let mut missing = self.missing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *missing = if listed { None } else { missing.or_else(|| Some(Instant::now())) };
            *missing
        };
        if since.is_some_and(|since| since.elapsed() >= GRACE) {
            self.tell_to_end(match self.record().work {
                Some(_) => "the forge has dropped its registration: the job was cancelled there",
                None => "the forge has dropped its registration: no job came",
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut LaunchRecord)) {
        self.record.send_modify(|record| {
            let mut changed = LaunchRecord::clone(record);
            change(&mut changed);
            // What is known in memory is right also when the disk is full.
            if let Err(error) = self.records.write(&changed.name, &changed) {
                warn!(launch = changed.name, "storing launch {}: {error}", changed.name);
            }
            *record = Arc::new(changed);
        });
    }

    /// Carries it out to its end.
    pub async fn run(self: Arc<Self>, pool: Arc<Pool>) {
        let ended = {
            let going = std::pin::pin!(self.go(&pool));
            let told = std::pin::pin!(self.end.cancelled());
            match select(going, told).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => Ok(self.why.get().cloned().unwrap_or_default()),
            }
        };
        let is_failure = ended.is_err();
        let is_hopeless = ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidParameter);
        let words = ended.unwrap_or_else(|error| error.chain());
        if is_failure {
            warn!(launch = self.record().name, "launching {}: {words}", self.record().name);
            pool.has_failed(&self, is_hopeless);
        }
        self.clean_up(&pool, words).await;
        pool.has_ended(&self, is_failure);
    }

    async fn go(self: &Arc<Self>, pool: &Arc<Pool>) -> Result<String> {
        let job = self.make_job(pool).await.context("making its job")?;
        let runner = Runner::of(&pool.shared, &job.record.id)?;
        let chosen = choice::choose(pool, &runner, self.record().class.repository.as_deref()).await?;
        self.change(|record| {
            record.job_image = Some(chosen.job.clone());
            record.times.pulled = Some(Timestamp::now());
        });
        let minted = self.mint(pool, &chosen.job).await.context("registering its runner")?;
        let (record, name) = (self.record(), pool.runner_name(&self.record().name));
        let plan = pool.forge.plan(&order(pool, &record, &name, &chosen.job), &minted);
        let making = chosen.making(pool.settings.mode);
        let hook = JobHook::make(pool, &runner, &record.name, making.image).await?;
        runner.create(&making, plan, hook.as_ref()).await.context("making its runner")?;
        runner.start().await.context("starting its runner")?;
        let log = runner.log()?;
        self.change(|record| {
            // It may have been heard of its job already.
            record.stage = if record.work.is_some() { Stage::Running } else { Stage::Waiting };
            record.times.started = Some(Timestamp::now());
        });
        pool.shared.tally.started(&pool.settings.name, &self.record().times);
        let started = Instant::now();
        let (launch, reader) = (self.clone(), pool.clone());
        let reads = move |line: &str| launch.reads(&reader, &minted.registration, line);
        let logged = tokio::spawn(log::keep(pool.shared.log_path(&record.name), log, reads));
        let ended = JobHook::serving(hook, pool, &runner, self.begins(pool), self.watch(pool, &runner)).await?;
        let _all_of_it = tokio::time::timeout(Duration::from_secs(10), logged).await;
        self.note_work(pool).await;
        match (ended, &self.record().work) {
            (Ended::OutOfTime(why), _) => Ok(why),
            (Ended::ByItself(code), Some(_)) => Ok(format!("the runner has ended with exit code {code}")),
            (Ended::ByItself(_), None) if let Some(why) = self.quits.get() => Ok(why.clone()),
            (Ended::ByItself(0), None) if started.elapsed() >= PATIENCE => {
                Ok("no job came, and the runner has ended: it waited long enough, or the forge has taken its registration back".to_owned())
            }
            // The next of its kind would end in the same way.
            (Ended::ByItself(code), None) => Err(why_without_job(pool, &record.name, code).await),
        }
    }

    /// A line of its runner's log.
    fn reads(&self, pool: &Pool, registration: &Registration, line: &str) {
        if let Some(job) = pool.forge.reads(registration, line)
            && self.is_assigned(&job)
        {
            pool.shared.tally.assigned(&pool.settings.name, &self.record().times);
        }
    }

    /// Its runner says that it has a job, which has not begun. One that waited may have a job that is over before any look has seen it.
    async fn begins(&self, pool: &Pool) {
        self.has_begun.store(true, Ordering::Relaxed);
        if pool.settings.warm == 0 {
            return;
        }
        self.note_work(pool).await;
        if self.record().work.is_none() {
            pool.shared.wake_pools();
            let mut records = self.record.subscribe();
            let _told_or_not = tokio::time::timeout(LOOKED_UP, records.wait_for(|record| record.work.is_some())).await;
        }
    }

    async fn make_job(&self, pool: &Pool) -> Result<JobView> {
        let settings = &pool.settings;
        let cache_key = self.cache_key(pool).await;
        let all = pool.shared.settings();
        let named = all.named_registries.iter().cloned();
        let ttl = pool.forge.patience() + settings.job_timeout + MARGIN;
        let request = JobRequest {
            limits: settings.limits,
            registries: settings.images.registries().into_iter().chain(named).collect(),
            logins: all.registries.clone(),
            // Without a repository there are none: they are what makes a launch depend on it.
            cache_volumes: cache_key.as_ref().map(|_| settings.cache_volumes.clone()).unwrap_or_default(),
            cache_key,
            ..pool.job_request(self.record().name.clone(), ttl).await?
        };
        let job = pool.shared.engine.job_create(request).await?;
        self.change(|record| {
            record.tenant = Some(job.record.id.clone());
            record.times.made = Some(Timestamp::now());
        });
        Ok(job)
    }

    /// The key of the caches that its job finds, if it finds any. It does without what cannot be told apart.
    async fn cache_key(&self, pool: &Pool) -> Option<String> {
        let (settings, record) = (&pool.settings, self.record());
        let repository = record.class.repository.as_ref().filter(|_| settings.keeps_caches())?;
        let key = settings.cache_key(repository);
        if !settings.branch_caches {
            return Some(key);
        }
        let origin = pool.origin_of(record.meant_for.as_ref()?).await;
        match origin.and_then(|origin| origin.cache_scope.ok_or_else(|| Error::unavailable("its ref is not told"))) {
            // Of one length, whatever a branch is called; no name of a repository has the sign in it.
            Ok(scope) => Some(format!("{key}#{}", &Digest::of(scope.as_bytes()).hex()[..32])),
            Err(error) => {
                warn!(launch = record.name, "{} has no caches of its branch: {}", record.name, error.chain());
                None
            }
        }
    }

    /// Goes on when the launch is told to end: what the forge has made must be known before it is taken back.
    async fn mint(self: &Arc<Self>, pool: &Arc<Pool>, job_image: &str) -> Result<Minted> {
        self.change(|record| record.is_registering = true);
        let (launch, pool, job_image) = (self.clone(), pool.clone(), job_image.to_owned());
        let minting = self.minting.clone().lock_owned().await;
        let task = tokio::spawn(async move {
            let _minting = minting;
            let record = launch.record();
            let name = pool.runner_name(&record.name);
            let minted = pool.forge.mint(&order(&pool, &record, &name, &job_image)).await;
            launch.change(|record| match &minted {
                Ok(minted) => {
                    record.is_registering = false;
                    record.registration = Some(minted.registration.clone());
                    record.credential = Some(minted.credential.clone());
                    record.times.minted = Some(Timestamp::now());
                }
                // A refusal is an answer; of a call that broke off nobody knows what came of it.
                Err(error) => record.is_registering = error.kind() == ErrorKind::Unavailable,
            });
            minted
        });
        task.await.map_err(|panic| Error::system("minting failed").with_source(panic))?
    }

    /// Until the runner has ended, or its time to get a job, and then the job's, is up.
    async fn watch(&self, pool: &Pool, runner: &Runner) -> Result<Ended> {
        let ended = std::pin::pin!(runner.ended());
        let job = pool.settings.job_timeout;
        let limit = std::pin::pin!(self.out_of_time(pool.forge.patience(), job + LEEWAY, self.look_closer(pool)));
        Ok(match select(ended, limit).await {
            Either::Left((code, _)) => Ended::ByItself(code?),
            Either::Right(_) => Ended::OutOfTime(format!("it took longer than {} s", job.as_secs())),
        })
    }

    /// Until the time for a job is up. It begins when `look_closer` is done where no look has seen a job within `idle`.
    async fn out_of_time(&self, idle: Duration, job: Duration, look_closer: impl Future<Output = ()>) {
        let mut records = self.record.subscribe();
        let assigned = records.wait_for(|record| record.stage != Stage::Waiting);
        if tokio::time::timeout(idle, assigned).await.is_err() {
            look_closer.await;
        }
        tokio::time::sleep(job).await;
    }

    /// Whether it has a job that no look has seen. Otherwise its runner is kept from taking one, and ends: where it is not ended for
    /// that, one whose job nobody tells us of does it first.
    async fn look_closer(&self, pool: &Pool) {
        self.note_work(pool).await;
        self.quit(pool, format!("no job has come within {} s", pool.forge.patience().as_secs())).await;
    }

    /// What it had to do, if it was done before anybody looked.
    async fn note_work(&self, pool: &Pool) {
        let record = self.record();
        let (None, Some(registration)) = (&record.work, &record.registration) else { return };
        match pool.forge.work_of(registration, record.meant_for.as_ref()).await {
            // When it was given the job is not known any more.
            Ok(Some(job)) => {
                self.is_assigned(&job);
            }
            Ok(None) => {}
            Err(error) => warn!(launch = record.name, "asking what {} has done: {}", record.name, error.chain()),
        }
    }
}

/// Why a runner has ended that has had no job.
async fn why_without_job(pool: &Pool, name: &str, code: i64) -> Error {
    let log = log::end_of(pool.shared.log_path(name)).await.unwrap_or_default();
    match pool.forge.explain(&log) {
        Some(words) => Error::invalid(words),
        None => Error::unavailable(format!(
            "the runner has ended with exit code {code} and has had no job: its log tells why"
        )),
    }
}

fn order<'a>(pool: &Pool, record: &'a LaunchRecord, name: &'a str, job_image: &'a str) -> Order<'a> {
    let steps = match pool.settings.mode {
        Mode::Socket => Steps::In(job_image),
        Mode::Single { .. } => Steps::Here,
    };
    Order { name, class: &record.class, steps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::job::JobLimits, supervisor::balance::Class};

    #[tokio::test]
    async fn a_job_that_no_look_has_seen_gets_a_jobs_time() {
        let folder = tempfile::tempdir().unwrap();
        let records = Arc::new(RecordFolder::open(folder.path(), "launches").unwrap());
        let mut record = LaunchRecord::new("a".to_owned(), "gitlab".to_owned(), Class::default(), JobLimits::default());
        record.stage = Stage::Waiting;
        let launch = Launch::new(record, &records).unwrap();
        let work = ForgeJob {
            id: 1,
            run: None,
            task: None,
            is_heard: false,
            repository: "acme/tool".to_owned(),
            name: "unseen".to_owned(),
            url: String::new(),
        };
        let (begun, job) = (Instant::now(), Duration::from_millis(50));
        let look_closer = async { assert!(launch.is_assigned(&work)) };
        launch.out_of_time(Duration::from_millis(1), job, look_closer).await;
        assert!(begun.elapsed() >= job && !launch.end.is_cancelled());
        assert_eq!((&launch.record().stage, &launch.record().work), (&Stage::Running, &Some(work)));
    }
}
