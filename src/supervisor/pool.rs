//! The runners of one forge: looks at its queue, launches what is missing, and follows what is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::{
    Shared,
    balance::{self, Class},
    forge::{self, Forge, Look, QueuedJob, RunningJob},
    launch::Launch,
    record::{ForgeJob, LaunchRecord, Registration},
    settings::ForgeSettings,
};
use crate::model::{
    Error, Result,
    error::Context,
    id::ContainerId,
    network::{Opening, Protocol},
};

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
    unserved: BTreeSet<i64>,
}

/// A job that waits for nobody, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// What waits.
    pub queued: QueuedJob,
    /// Why no runner is launched.
    pub why: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// That of a forge that is configured.
    pub fn new(shared: Arc<Shared>, settings: ForgeSettings) -> Result<Arc<Self>> {
        let forge = forge::connect(&settings)?;
        Ok(Arc::new(Self {
            shared,
            settings,
            forge,
            holds: Mutex::default(),
            wake: Notify::new(),
            told: Mutex::default(),
        }))
    }

    /// Its launches of which something is there.
    fn live(&self) -> Vec<Arc<Launch>> {
        let mut live = self.shared.live();
        live.retain(|launch| launch.record().forge == self.settings.name);
        live
    }

    /// Why nothing is launched at all, if so.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.told).trouble.clone()
    }

    /// What the forge lists a launch's runner by.
    pub fn runner_name(&self, launch: &str) -> String {
        format!("{}{launch}", self.shared.prefix())
    }

    /// The forge's own addresses: a job reaches them although they may be this machine's.
    pub async fn openings(&self) -> Result<BTreeSet<Opening>> {
        let url = reqwest::Url::parse(&self.settings.url).context(format!("reading {}", self.settings.url))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let given = self.settings.hosts.iter().filter(|(name, _)| *name == host);
        let mut addresses: Vec<SocketAddr> = given.map(|(_, address)| SocketAddr::new(*address, port)).collect();
        if addresses.is_empty() {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            addresses.extend(found.context(format!("looking up {host}"))?);
        }
        Ok(addresses.into_iter().map(|address| Opening { protocol: Protocol::Tcp, address }).collect())
    }

    /// Looks and launches until the supervisor stops.
    pub async fn run(self: Arc<Self>) {
        for launch in self.live() {
            self.shared.tasks.spawn(launch.sweep(self.clone()));
        }
        let (mut is_greeted, mut retry) = (false, RETRIES.0);
        loop {
            let begun = Instant::now();
            let looked = self.look(&mut is_greeted).await;
            let next = if looked.is_ok() { self.forge.pause() } else { retry };
            retry = if looked.is_ok() { RETRIES.0 } else { (retry * 2).min(RETRIES.1) };
            let looked_well = looked.is_ok();
            self.tell(looked.err());
            // A launch that has ended makes room for the next.
            tokio::select! {
                goes_on = self.shared.pause(next) => if !goes_on { return },
                () = self.wake.notified(), if looked_well => {
                    if !self.shared.pause(PAUSE.saturating_sub(begun.elapsed())).await {
                        return;
                    }
                }
            }
        }
    }

    async fn look(self: &Arc<Self>, is_greeted: &mut bool) -> Result<()> {
        if !*is_greeted {
            let greeting = self.forge.greet().await?;
            info!(forge = self.settings.name, "{}: {greeting}", self.settings.name);
            self.sweep_registrations().await?;
            *is_greeted = true;
        }
        let live = self.live();
        let registered: Vec<Registration> =
            live.iter().filter_map(|launch| launch.record().registration.clone()).collect();
        let seen = self.forge.look(&registered).await?;
        self.follow(&live, &seen).await;
        self.launch_missing(seen.queued)
    }

    /// What an earlier life registered and has no record of.
    async fn sweep_registrations(&self) -> Result<()> {
        let known: BTreeSet<String> =
            self.live().iter().map(|launch| self.runner_name(&launch.record().name)).collect();
        let prefix = format!("{}{}-", self.shared.prefix(), self.settings.name);
        for registration in self.forge.registrations(&prefix, None).await? {
            if !known.contains(&registration.name) {
                info!(forge = self.settings.name, "deregistering {}, left by an earlier life", registration.name);
                self.forge.deregister(&registration).await?;
            }
        }
        Ok(())
    }

    async fn follow(&self, live: &[Arc<Launch>], seen: &Look) {
        for launch in live {
            let record = launch.record();
            let Some(registration) = &record.registration else { continue };
            let is_its = |running: &&RunningJob| {
                let is_handled = running.handle.is_some() && running.handle == record.class.handle;
                is_handled || running.runner.as_deref() == Some(&registration.name)
            };
            if let Some(running) = seen.running.iter().find(is_its) {
                launch.is_assigned(&running.job);
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

    fn launch_missing(self: &Arc<Self>, queued: Vec<QueuedJob>) -> Result<()> {
        let by_handle: HashMap<String, ForgeJob> =
            queued.iter().filter_map(|queued| Some((queued.handle.clone()?, queued.job.clone()))).collect();
        let (served, unserved) = self.sort_out(queued);
        self.tell_unserved(unserved);
        if self.shared.is_draining() {
            return Ok(());
        }
        let to_come: Vec<Class> = self
            .live()
            .iter()
            .map(|launch| launch.record())
            .filter(|record| record.is_to_come())
            .map(|record| record.class.clone())
            .collect();
        for class in balance::missing(&served, &to_come) {
            if self.is_held(&class) {
                continue;
            }
            if !self.has_room() {
                break;
            }
            let meant_for = class.handle.as_ref().and_then(|handle| by_handle.get(handle)).cloned();
            self.launch(class, meant_for)?;
        }
        Ok(())
    }

    /// The classes of the jobs that are ours to run, and the others with the reason.
    fn sort_out(&self, queued: Vec<QueuedJob>) -> (Vec<Class>, Vec<Unserved>) {
        let (mut served, mut unserved) = (Vec::new(), Vec::new());
        for job in queued {
            let unknown: Vec<&str> =
                job.labels.iter().filter(|label| !self.settings.labels.contains(*label)).map(String::as_str).collect();
            let why = if !self.settings.allows(&job.job.repository) {
                Some(format!("jobs of {} are not allowed here", job.job.repository))
            } else if !unknown.is_empty() {
                Some(format!("no runner here has the label {}", unknown.join(", ")))
            } else {
                None
            };
            match why {
                Some(why) => unserved.push(Unserved { queued: job, why }),
                None => served.push(self.class_of(&job)),
            }
        }
        (served, unserved)
    }

    /// Where images depend on the repository, no runner may be given another one's job.
    fn class_of(&self, job: &QueuedJob) -> Class {
        let repository = self.settings.depends_on_repository().then(|| job.job.repository.clone());
        Class { labels: job.labels.iter().cloned().collect(), repository, handle: job.handle.clone() }
    }

    fn is_held(&self, class: &Class) -> bool {
        lock(&self.holds).get(&class.without_handle()).is_some_and(|hold| hold.until > Instant::now())
    }

    fn has_room(&self) -> bool {
        self.live().len() < self.settings.concurrency && self.shared.has_room(self.settings.limits.memory)
    }

    fn launch(self: &Arc<Self>, class: Class, meant_for: Option<ForgeJob>) -> Result<()> {
        let name = format!("{}-{}", self.settings.name, &ContainerId::random().short()[..8]);
        info!(launch = name, "launching {name} for {}", class.labels.iter().cloned().collect::<Vec<_>>().join(", "));
        let record = LaunchRecord {
            meant_for,
            ..LaunchRecord::new(name, self.settings.name.clone(), class, self.settings.limits)
        };
        let launch = Launch::new(record, &self.shared.records)?;
        self.shared.add(launch.clone());
        self.shared.tasks.spawn(launch.run(self.clone()));
        Ok(())
    }

    /// A launch has come to its end: the next of its class waits if it failed.
    pub fn has_ended(&self, launch: &Launch, is_failure: bool) {
        let record = launch.record();
        let (mut holds, class) = (lock(&self.holds), record.class.without_handle());
        if is_failure {
            let failures = holds.get(&class).map_or(0, |hold| hold.failures) + 1;
            let pause = (HOLDS.0 * 2u32.saturating_pow(failures.min(16) - 1)).min(HOLDS.1);
            if failures > 1 {
                error!(
                    forge = self.settings.name,
                    "{failures} launches in a row have failed; next in {} s",
                    pause.as_secs()
                );
            }
            holds.insert(class, Hold { failures, until: Instant::now() + pause });
        } else if record.work.is_some() {
            holds.remove(&class);
        }
        drop(holds);
        self.shared.forget_old();
        self.wake.notify_one();
    }

    /// Ends what has no job yet; what runs goes on.
    pub fn end_idle(&self, why: &str) {
        for launch in self.live() {
            if launch.record().is_to_come() {
                launch.tell_to_end(why);
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

    fn tell_unserved(&self, unserved: Vec<Unserved>) {
        let mut told = lock(&self.told);
        for Unserved { queued: QueuedJob { job, .. }, why } in &unserved {
            if !told.unserved.contains(&job.id) {
                info!(forge = self.settings.name, "job {} of {} is left alone: {why}", job.name, job.repository);
            }
        }
        told.unserved = unserved.into_iter().map(|unserved| unserved.queued.job.id).collect();
    }
}
