//! The container of a runner: in its job's host, limits and lease, and in a tenant beside it, so that nothing that is done through
//! the job's socket sees it.

use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    forge::{FOLDER, Plan},
    settings::Login,
};
use crate::{
    engine::{
        Engine,
        containers::{
            archive::{PutOptions, Upload},
            delete::DeleteOptions,
            wait::WaitCondition,
        },
        images::PullRequest,
        tenants::Scope,
    },
    logs::{LogStream, ReadOptions},
    model::{
        Error, Result,
        container::{Config, ContainerCreateRequest, HostConfig, LogConfig},
        id::TenantId,
        reference::Reference,
        registry_auth::RegistryAuth,
    },
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
    /// What is put there for it, if the image has no such program.
    pub given: Option<&'a Path>,
    /// Whether it gets the job's socket.
    pub socket: bool,
}

/// One runner. It must be dropped before its job can end.
pub struct Runner {
    engine: Engine,
    scope: Scope,
}

impl Runner {
    /// That of a job.
    pub fn of(shared: &Shared, job: &TenantId) -> Result<Self> {
        let engine = shared.engine.clone();
        let scope = engine.scope_of(&job.of_runner())?;
        Ok(Self { engine, scope })
    }

    /// Pulls its image. Layers that an earlier one pulled are there.
    pub async fn pull(&self, image: &str, login: Option<&Login>) -> Result<()> {
        let reference = Reference::parse(image)?.or_latest();
        let auth = login.map_or_else(RegistryAuth::default, |login| RegistryAuth {
            username: login.username.clone(),
            password: login.password.reveal().to_owned(),
            ..RegistryAuth::default()
        });
        let request = PullRequest { image: reference.to_string(), auth, ..PullRequest::default() };
        let mut messages = self.engine.image_pull(&self.scope, &request).await?;
        while let Some(message) = messages.next().await {
            message?;
        }
        Ok(())
    }

    /// The id of an image that was pulled.
    pub async fn image_id(&self, image: &str) -> Result<String> {
        Ok(self.engine.image_for_container(&self.scope, image, None).await?.id.to_string())
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

    /// Makes its container, with the files of its plan.
    pub async fn create(&self, making: &Making<'_>, plan: Plan) -> Result<()> {
        let socket = self.scope.socket().ok_or_else(|| Error::system("the job has no socket"))?;
        let config = Config {
            image: making.image.to_owned(),
            entrypoint: Some(vec![making.program.to_owned()]),
            cmd: Some(plan.arguments),
            env: Some(plan.env),
            ..Config::default()
        };
        let given = making.given.map(|path| format!("{}:{}:ro", path.display(), making.program));
        let bound = making.socket.then(|| format!("{}:{SOCKET}", socket.display()));
        let log_options =
            [("max-size", "32m"), ("max-file", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let host_config = HostConfig {
            network_mode: "host".into(),
            binds: Some(given.into_iter().chain(bound).collect()),
            log_config: LogConfig { kind: "json-file".to_owned(), config: log_options.into_iter().collect() },
            ..HostConfig::default()
        };
        self.make(NAME, config, host_config).await?;
        let files = plan.files.iter().map(|file| (file.name, file.content.reveal().as_bytes()));
        let body = tar_of(files)?;
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

    /// Waits for its end; answers its exit code.
    pub async fn ended(&self) -> Result<i64> {
        let ended = self.engine.container_wait(&self.scope, NAME, WaitCondition::NotRunning).await?;
        Ok(ended.await.status_code)
    }
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
