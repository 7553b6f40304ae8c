//! The container of a runner: in its job's host, limits and lease, and in a tenant beside it, so that nothing that is done through
//! the job's socket sees it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    artifacts::JobHook,
    forge::{FOLDER, Plan},
};
use crate::{
    engine::{
        Engine,
        containers::{
            archive::{PutOptions, Upload},
            delete::DeleteOptions,
            stop::StopOptions,
            wait::WaitCondition,
        },
        images::PullRequest,
        tenants::Scope,
    },
    logs::{LogStream, ReadOptions},
    model::{
        Error, Result,
        container::{Config, ContainerCreateRequest, HostConfig, LogConfig},
        error::Context,
        id::TenantId,
        reference::Reference,
        time::Timestamp,
    },
    work::blocking,
};

/// What runners look for.
const SOCKET: &str = "/var/run/docker.sock";

/// The names of its containers, in a tenant of its own.
const NAME: &str = "runner";
const PROBE: &str = "probe";

/// What the container of a runner is made of.
pub struct Making<'a> {
    /// The image.
    pub image: &'a str,
    /// The runner's program in there.
    pub program: &'a str,
    /// What is put there for it.
    pub given: Given<'a>,
    /// Whether it gets the job's socket.
    pub socket: bool,
}

/// What is put into the image of a runner's container, if that has none.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    /// It has what it needs.
    Nothing,
    /// The program, a file of the machine.
    Program(&'a Path),
    /// The folder in which the program is. Folders of it are shared and cannot be written to; its files are copied, since the runner writes
    /// more of them beside them.
    Folder {
        /// One of the machine.
        from: &'a Path,
        /// Where it is put.
        at: &'static str,
    },
}

impl Given<'_> {
    /// What is bound, as `docker run -v` has it.
    fn binds(self, program: &str) -> Result<Vec<String>> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Program(path) => Ok(vec![format!("{}:{program}:ro", path.display())]),
            Self::Folder { from, at } => {
                let folders = entries_of(from)?.into_iter().filter(|path| path.is_dir());
                let bind =
                    |path: PathBuf| Some(format!("{}:{at}/{}:ro", path.display(), path.file_name()?.to_string_lossy()));
                Ok(folders.filter_map(bind).collect())
            }
        }
    }
}

fn entries_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", folder.display());
    let entries = fs::read_dir(folder).context(reading())?;
    entries.map(|entry| Ok(entry.context(reading())?.path())).collect()
}

/// One runner. It must be dropped before its job can end.
pub struct Runner {
    engine: Engine,
    scope: Scope,
    job: Scope,
}

impl Runner {
    /// That of a job.
    pub fn of(shared: &Shared, job: &TenantId) -> Result<Self> {
        let engine = shared.engine.clone();
        let (scope, job) = (engine.scope_of(&job.of_runner())?, engine.scope_of(job)?);
        Ok(Self { engine, scope, job })
    }

    /// Pulls its image, unless the operator has preloaded it. Layers that an earlier one pulled are there.
    pub async fn pull(&self, image: &str) -> Result<()> {
        self.pull_as(&self.scope, image).await
    }

    async fn pull_as(&self, scope: &Scope, image: &str) -> Result<()> {
        let reference = Reference::parse(image)?.or_latest();
        if self.engine.take_preloaded(scope, &reference).await? {
            return Ok(());
        }
        let request = PullRequest { image: reference.to_string(), ..PullRequest::default() };
        self.engine.image_pull_whole(scope, &request).await
    }

    /// The id of an image that was pulled.
    pub async fn image_id(&self, image: &str) -> Result<String> {
        Ok(self.engine.image_for_container(&self.scope, image, None).await?.id.to_string())
    }

    /// When it was made, if it tells.
    pub async fn image_made(&self, image: &str) -> Result<Option<Timestamp>> {
        let made = self.engine.image_inspect(&self.scope, image, None, false).await?.document.created;
        Ok(made.filter(|made| !made.is_zero()))
    }

    /// Makes a container of the image that is looked into and never started, and takes it away again.
    pub async fn with_probe<T>(
        &self,
        image: &str,
        look: impl AsyncFnOnce(&Engine, &Scope, &str) -> Result<T>,
    ) -> Result<T> {
        let config = Config { image: image.to_owned(), cmd: Some(vec!["true".to_owned()]), ..Config::default() };
        self.make(PROBE, config, HostConfig::default()).await?;
        let seen = look(&self.engine, &self.scope, PROBE).await;
        let options = DeleteOptions { force: true, volumes: true };
        self.engine.container_delete(&self.scope, PROBE, options).await?;
        seen
    }

    /// A variable of an image that was pulled.
    pub async fn image_variable(&self, image: &str, name: &str) -> Result<Option<String>> {
        let config = self.engine.image_inspect(&self.scope, image, None, false).await?.document.config;
        let of_name = |variable: &String| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        Ok(config.env.iter().find_map(of_name))
    }

    /// Pulls an image that its job names, as the job would, and shows it in the runner's container, which runs: the first of these folders
    /// of it that is there. Answers its id.
    pub async fn show_image(&self, image: &str, parts: &[&str], place: &str) -> Result<String> {
        self.pull_as(&self.job, image).await.context(format!("pulling {image}"))?;
        let shown = self.engine.container_show_image(&self.scope, NAME, &self.job, image, parts, place).await;
        shown.context(format!("showing {image} at {place}")).map(|id| id.to_string())
    }

    /// Makes its container, with the files of its plan.
    pub async fn create(&self, making: &Making<'_>, plan: Plan, hook: Option<&JobHook>) -> Result<()> {
        let socket = self.scope.socket().ok_or_else(|| Error::system("the job has no socket"))?;
        let env = plan.env.iter().map(|(name, value)| format!("{name}={}", value.reveal()));
        let config = Config {
            image: making.image.to_owned(),
            entrypoint: Some(vec![making.program.to_owned()]),
            cmd: Some(plan.arguments),
            env: Some(env.chain(hook.map(JobHook::variable)).collect()),
            ..Config::default()
        };
        let given = making.given.binds(making.program)?;
        let bound = making.socket.then(|| format!("{}:{SOCKET}", socket.display()));
        let log_options =
            [("max-size", "32m"), ("max-file", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let host_config = HostConfig {
            network_mode: "host".into(),
            binds: Some(given.into_iter().chain(bound).chain(hook.map(JobHook::bind)).collect()),
            log_config: LogConfig { kind: "json-file".to_owned(), config: log_options.into_iter().collect() },
            ..HostConfig::default()
        };
        self.make(NAME, config, host_config).await?;
        if let Given::Folder { from, at } = making.given {
            let from = from.to_owned();
            self.put(blocking(move || tar_of_files_in(&from, at)).await?).await?;
        }
        if !plan.files.is_empty() {
            self.put(tar_of(plan.files.iter().map(|file| (file.name, file.content.reveal().as_bytes())))?).await?;
        }
        Ok(())
    }

    /// Puts files there, which are its user's.
    async fn put(&self, body: Vec<u8>) -> Result<()> {
        let upload = Upload {
            body: Box::pin(stream::once(async move { Ok(Bytes::from(body)) })),
            gone: CancellationToken::new(),
        };
        let options = PutOptions { owned_by_user: true, ..PutOptions::default() };
        self.engine.put_container_archive(&self.scope, NAME, "/", options, upload).await
    }

    async fn make(&self, name: &str, config: Config, host_config: HostConfig) -> Result<()> {
        let request = ContainerCreateRequest {
            name: Some(name.to_owned()),
            config,
            host_config,
            ..ContainerCreateRequest::default()
        };
        self.engine.container_create(&self.scope, request).await.map(drop)
    }

    /// Its log, from its beginning until it ends.
    pub fn log(&self) -> Result<LogStream> {
        let options =
            ReadOptions { stdout: true, stderr: true, follow: true, timestamps: true, ..ReadOptions::default() };
        self.engine.container_log(&self.scope, NAME, options)
    }

    /// Starts it.
    pub async fn start(&self) -> Result<()> {
        self.engine.container_start(&self.scope, NAME).await
    }

    /// Sends its program a signal, as `docker kill -s` names it.
    pub async fn signal(&self, signal: &str) -> Result<()> {
        self.engine.container_kill(&self.scope, NAME, Some(signal)).await
    }

    /// Tells it to end, and ends it when it has not by then. What the image says of signals is meant for other ends: GitLab's makes the
    /// runner wait for its job.
    pub async fn stop(&self, limit: Duration) -> Result<()> {
        let options = StopOptions {
            signal: Some("SIGTERM".to_owned()),
            timeout: Some(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX)),
        };
        self.engine.container_stop(&self.scope, NAME, options).await
    }

    /// Waits for its end; answers its exit code.
    pub async fn ended(&self) -> Result<i64> {
        let ended = self.engine.container_wait(&self.scope, NAME, WaitCondition::NotRunning).await?;
        Ok(ended.await.status_code)
    }
}

/// The files right in a folder of the machine, at another place.
fn tar_of_files_in(folder: &Path, at: &str) -> Result<Vec<u8>> {
    let at = Path::new(at.trim_start_matches('/'));
    let mut tar = tar::Builder::new(Vec::new());
    let packing = || format!("packing {}", folder.display());
    tar.append_dir(at, folder).context(packing())?;
    for path in entries_of(folder)?.into_iter().filter(|path| path.is_file()) {
        let name = path.file_name().expect("it is one of a folder's");
        tar.append_path_with_name(&path, at.join(name)).context(packing())?;
    }
    tar.into_inner().context(packing())
}

/// Files that their owner alone reads, in [`FOLDER`].
fn tar_of<'f>(files: impl Iterator<Item = (&'f str, &'f [u8])>) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::system("packing a runner's files").with_source(error);
    let folder = FOLDER.trim_start_matches('/');
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o700);
    header.set_size(0);
    tar.append_data(&mut header, folder, std::io::empty()).map_err(failed)?;
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, format!("{folder}/{name}"), content).map_err(failed)?;
    }
    tar.into_inner().map_err(failed)
}
