//! The runners of one forge: looks at its queue, launches what is missing, and follows what is there.
//!
//! `queue` sorts what waits, `origins` by whence it comes, `standing` says whether it launches, `job` what each of its jobs has, `told` what can be
//! said of it and what its webhook says, `webhook` makes that.

mod job;
mod origins;
mod queue;
mod standing;
mod told;
mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

pub use self::standing::Earlier;
use self::{
    origins::Origins,
    queue::{Queue, Unserved},
    standing::Standing,
    webhook::Made,
};
use super::{
    Shared,
    balance::{self, Class},
    forge::{self, Forge, Look, QueuedJob, RunningJob},
    hooks::Ear,
    launch::Launch,
    pauses::growing,
    record::{ForgeJob, LaunchRecord, Registration, Stage},
    secret::Secret,
    settings::ForgeSettings,
    tally::End,
};
use crate::model::{Error, Result, id::ContainerId, time::Timestamp};

/// Between the beginnings of two looks at least, whatever wakes us.
const PAUSE: Duration = Duration::from_secs(2);

/// Between two looks at a forge that does not answer: first, and at most.
const RETRIES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// After the first launch that failed, and at most.
const HOLDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// The pool of one forge.
pub struct Pool {
    /// What all pools share.
    pub shared: Arc<Shared>,
    /// What is configured of it.
    pub settings: ForgeSettings,
    /// Its API.
    pub forge: Arc<dyn Forge>,
    holds: Mutex<BTreeMap<Class, Hold>>,
    wake: Notify,
    told: Mutex<Told>,
    queue: Mutex<Queue>,
    origins: Mutex<Origins>,
    standing: Mutex<Standing>,
    /// What has taken its place.
    successor: OnceLock<Arc<Self>>,
    /// Images with runners, and when they were made.
    runner_images: Mutex<BTreeMap<String, Timestamp>>,
    /// What deliveries of its webhook are signed with, and what hears them.
    secret: Option<Secret>,
    ear: Option<Ear>,
    made: Mutex<Made>,
    /// Held by who makes or removes webhooks of ours.
    tending: Arc<tokio::sync::Mutex<()>>,
}

/// Launches of a class that failed one after another.
#[derive(Clone, Copy)]
struct Hold {
    failures: u32,
    until: Instant,
}

/// What was said last, so that it is said once.
#[derive(Default)]
struct Told {
    trouble: Option<String>,
    unserved: BTreeMap<i64, String>,
}

/// Hex digits by which launches of a forge differ.
const RANDOM: usize = 8;

/// Whether a name is one of a launch: the forge's prefix, and what is random of it.
fn is_launch(name: &str, prefix: &str) -> bool {
    let random = name.strip_prefix(prefix).unwrap_or_default();
    random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// That of a forge that is configured, in the place of an earlier one.
    pub fn new(shared: Arc<Shared>, settings: ForgeSettings, earlier: Option<&Self>) -> Result<Arc<Self>> {
        let forge = forge::connect(&settings, earlier.map(|earlier| &earlier.forge), Some(shared.kept.clone()))?;
        let made = settings.public_url.as_ref().map(|_| Secret::random());
        let secret = settings.webhook_secret.clone().or(made);
        let ear = secret.as_ref().map(Ear::new);
        Ok(Arc::new(Self {
            shared,
            settings,
            forge,
            holds: Mutex::default(),
            wake: Notify::new(),
            told: Mutex::default(),
            queue: Mutex::default(),
            origins: Mutex::default(),
            standing: Mutex::default(),
            successor: OnceLock::new(),
            runner_images: Mutex::default(),
            secret,
            ear,
            made: Mutex::default(),
            tending: earlier.map(|earlier| earlier.tending.clone()).unwrap_or_default(),
        }))
    }

    /// Its launches of which something is there.
    fn live(&self) -> Vec<Arc<Launch>> {
        let mut live = self.shared.live();
        live.retain(|launch| launch.record().forge == self.settings.name);
        live
    }

    /// Whether something is there of what was launched for it.
    pub fn has_launches(&self) -> bool {
        !self.live().is_empty()
    }

    /// Why nothing is launched at all, if so.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.told).trouble.clone()
    }

    /// An image with a runner was made then.
    pub fn note_runner_image(&self, image: &str, made: Timestamp) {
        lock(&self.runner_images).insert(image.to_owned(), made);
    }

    /// What the forge lists a launch's runner by.
    pub fn runner_name(&self, launch: &str) -> String {
        format!("{}{launch}", self.shared.prefix())
    }

    /// Looks and launches until the supervisor stops, or another pool is in its place.
    pub async fn run(self: Arc<Self>, earlier: Earlier) {
        if earlier == Earlier::Swept {
            for launch in self.live() {
                self.shared.tasks.spawn(launch.sweep(self.clone()));
            }
        }
        let (mut is_greeted, mut retry) = (false, RETRIES.0);
        let mut news = self.shared.news.subscribe();
        while !self.is_over() {
            let begun = Instant::now();
            let looked = self.look(&mut is_greeted).await;
            let next = if looked.is_ok() { self.pause() } else { retry };
            retry = if looked.is_ok() { RETRIES.0 } else { (retry * 2).min(RETRIES.1) };
            let looked_well = looked.is_ok();
            self.tell(looked.err());
            tokio::select! {
                goes_on = self.shared.pause(next) => if !goes_on { return },
                () = self.woken(&mut news, looked_well) => {
                    if !self.shared.pause(PAUSE.saturating_sub(begun.elapsed())).await {
                        return;
                    }
                }
            }
        }
        self.leave(&mut news).await;
    }

    /// Ends what is held at the forge, when its own runners need it no more: who is in its place does not hear of them.
    async fn leave(&self, news: &mut watch::Receiver<()>) {
        while !self.forge.leave(self.is_retired()).await {
            let goes_on = tokio::select! {
                goes_on = self.shared.pause(RETRIES.1) => goes_on,
                () = self.woken(news, true) => self.shared.pause(PAUSE).await,
            };
            if !goes_on {
                return;
            }
        }
        self.has_left();
    }

    /// One that does not answer is not asked again for what others tell.
    async fn woken(&self, news: &mut watch::Receiver<()>, answers: bool) {
        tokio::select! {
            () = self.wake.notified(), if answers => {}
            () = self.forge.news() => {}
            // The sender is ours: it is there for as long as we are.
            _always = news.changed(), if answers => {}
        }
    }

    /// Until the next look, unless something wakes us: also a launch that may be tried again is due then.
    fn pause(&self) -> Duration {
        let pause = self.forge.pause(!self.live().is_empty());
        let now = Instant::now();
        let held = lock(&self.holds).values().filter(|hold| hold.until > now).map(|hold| hold.until - now).min();
        held.map_or(pause, |held| pause.min(held.max(PAUSE)))
    }

    async fn look(self: &Arc<Self>, is_greeted: &mut bool) -> Result<()> {
        let room = self.launches().then(|| self.shared.room_of(&self.settings));
        self.forge.takes(room, &self.runner_name(&self.settings.name));
        if !*is_greeted {
            let greeting = self.forge.greet().await?;
            info!(forge = self.settings.name, "{}: {greeting}", self.settings.name);
            self.sweep_registrations().await?;
            *is_greeted = true;
        }
        if self.launches() {
            self.tend_webhooks();
        }
        let live = self.live();
        let registered: Vec<Registration> =
            live.iter().filter_map(|launch| launch.record().registration.clone()).collect();
        let begun = Timestamp::now();
        let seen = self.forge.look(&registered).await?;
        self.follow(&live, &seen).await;
        let ahead = if self.launches() {
            self.forge.ahead(&self.runner_name(&self.new_name()), self.settings.warm).await?
        } else {
            0
        };
        let (served, unserved) = self.sort_out(seen.queued).await;
        self.launch_missing(served, unserved, begun, ahead)
    }

    fn launches(&self) -> bool {
        !self.shared.is_draining() && *lock(&self.standing) == Standing::Launches
    }

    /// Takes back what an earlier life registered and has no record of; how many these were.
    pub async fn sweep_registrations(&self) -> Result<usize> {
        let known: BTreeSet<String> =
            self.live().iter().map(|launch| self.runner_name(&launch.record().name)).collect();
        let prefix = format!("{}{}-", self.shared.prefix(), self.settings.name);
        let mut left = self.forge.registrations(&prefix, None).await?;
        // Another forge of ours may have a longer name that begins like this one's.
        left.retain(|left| is_launch(&left.name, &prefix) && !known.contains(&left.name));
        for registration in &left {
            info!(forge = self.settings.name, "deregistering {}, left by an earlier life", registration.name);
            self.forge.deregister(registration).await?;
        }
        Ok(left.len())
    }

    async fn follow(&self, live: &[Arc<Launch>], seen: &Look) {
        for launch in live {
            let record = launch.record();
            let Some(registration) = &record.registration else { continue };
            let is_its = |running: &&RunningJob| {
                let is_handled = running.handle.is_some() && running.handle == record.class.handle;
                is_handled || running.runner.as_deref() == Some(&registration.name)
            };
            if let Some(running) = seen.running.iter().find(is_its)
                && launch.is_assigned(&running.job)
            {
                self.shared.tally.assigned(&self.settings.name, &launch.record().times);
            }
            let is_listed = seen.registered.contains(registration);
            launch.is_listed(is_listed);
            if !is_listed {
                self.end_if_cancelled(launch).await;
            }
        }
    }

    /// A runner that has ended its job reports it and ends by itself; one whose job was cancelled is told nothing.
    async fn end_if_cancelled(&self, launch: &Launch) {
        let Some(job) = launch.record().work.clone() else { return };
        // What cannot be asked now is found out by the time that is left.
        if let Ok(Some(conclusion)) = self.forge.conclusion(&job).await
            && conclusion == "cancelled"
        {
            launch.tell_to_end("the job was cancelled at the forge");
        }
    }

    /// For the jobs that wait, and so many runners `ahead` of those that will.
    fn launch_missing(
        self: &Arc<Self>,
        jobs: Vec<QueuedJob>,
        unserved: Vec<Unserved>,
        looked: Timestamp,
        ahead: usize,
    ) -> Result<()> {
        let by_handle: HashMap<String, ForgeJob> =
            jobs.iter().filter_map(|queued| Some((queued.handle.clone()?, queued.job.clone()))).collect();
        self.tell_unserved(&unserved);
        let of_all = Class { labels: self.settings.labels.clone(), ..Class::default() };
        let served: Vec<Class> =
            jobs.iter().map(|job| self.class_of(job)).chain(std::iter::repeat_n(of_all, ahead)).collect();
        {
            let mut queue = lock(&self.queue);
            self.note_discovered(&jobs, &queue);
            *queue = Queue { looked: Some(looked), served: jobs, unserved };
        }
        // Held until all are there: who cordons finds every one of them.
        let standing = lock(&self.standing);
        if self.shared.is_draining() || *standing != Standing::Launches {
            return Ok(());
        }
        let to_come: Vec<Class> = self
            .live()
            .iter()
            .map(|launch| launch.record())
            .filter(|record| record.is_to_come())
            .map(|record| record.class.clone())
            .collect();
        // Those of jobs come first; the others wait for whatever comes.
        let for_jobs = balance::missing(&served[..served.len() - ahead], &to_come).len();
        for (number, class) in balance::missing(&served, &to_come).into_iter().enumerate() {
            if self.is_held(&class) {
                continue;
            }
            if !self.has_room(number >= for_jobs) {
                break;
            }
            let meant_for = class.handle.as_ref().and_then(|handle| by_handle.get(handle)).cloned();
            self.launch(class, meant_for)?;
        }
        Ok(())
    }

    fn is_held(&self, class: &Class) -> bool {
        lock(&self.holds).get(&class.without_handle()).is_some_and(|hold| hold.until > Instant::now())
    }

    fn has_room(&self, waits: bool) -> bool {
        self.live().len() < self.settings.concurrency && self.shared.has_room(&self.settings, waits)
    }

    fn launch(self: &Arc<Self>, class: Class, meant_for: Option<ForgeJob>) -> Result<()> {
        let name = self.new_name();
        info!(launch = name, "launching {name} for {}", class.words());
        let record = LaunchRecord {
            meant_for,
            ..LaunchRecord::new(name, self.settings.name.clone(), class, self.settings.limits)
        };
        let launch = Launch::new(record, &self.shared.records)?;
        self.shared.add(launch.clone());
        self.shared.tasks.spawn(launch.run(self.clone()));
        Ok(())
    }

    pub(super) fn new_name(&self) -> String {
        format!("{}-{}", self.settings.name, &ContainerId::random().short()[..RANDOM])
    }

    /// A launch has failed: the next of its class waits. Said before it is cleaned up after, when it counts as none any more.
    /// One that cannot go well before somebody has changed something waits for longest at once.
    pub fn has_failed(&self, launch: &Launch, is_hopeless: bool) {
        let (mut holds, class) = (lock(&self.holds), launch.record().class.without_handle());
        let failures = holds.get(&class).map_or(0, |hold| hold.failures) + 1;
        let pause = if is_hopeless { HOLDS.1 } else { growing(HOLDS, failures) };
        if failures > 1 {
            error!(
                forge = self.settings.name,
                "{failures} launches in a row have failed; next in {} s",
                pause.as_secs()
            );
        }
        holds.insert(class, Hold { failures, until: Instant::now() + pause });
    }

    /// A launch has come to its end.
    pub fn has_ended(&self, launch: &Launch, is_failure: bool) {
        let record = launch.record();
        self.shared.tally.ended(&self.settings.name, end_of(&record, is_failure));
        let (mut holds, class) = (lock(&self.holds), record.class.without_handle());
        if !is_failure && record.work.is_some() {
            holds.remove(&class);
        }
        drop(holds);
        self.shared.forget_old();
        // It makes room for the next: of another forge, or of the pool that has taken our place.
        self.shared.wake_pools();
    }

    /// Ends what has no job yet; what runs goes on.
    pub fn end_idle(self: &Arc<Self>, why: &str) {
        for launch in self.live() {
            if launch.record().is_to_come() {
                let (pool, why) = (self.clone(), why.to_owned());
                self.shared.tasks.spawn(async move { launch.quit(&pool, why).await });
            }
        }
    }

    fn tell(&self, trouble: Option<Error>) {
        let text = trouble.map(|error| error.chain());
        let mut told = lock(&self.told);
        if told.trouble != text {
            match &text {
                Some(text) => warn!(forge = self.settings.name, "{}: {text}", self.settings.name),
                None => info!(forge = self.settings.name, "{} answers again", self.settings.name),
            }
            told.trouble = text;
        }
    }
}

fn end_of(record: &LaunchRecord, is_failure: bool) -> End {
    match (&record.stage, &record.work) {
        (_, None) if is_failure => End::NotLaunched,
        (_, None) => End::NoJob,
        (Stage::Ended(words), Some(_)) => End::of_job(words),
        // Given up: the supervisor stops.
        (_, Some(_)) => End::Unknown,
    }
}
