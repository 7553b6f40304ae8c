//! Level 4: the composition root. Config → adapters → engine → listeners, and back in reverse order at the end.

mod adapters;
mod doors;
mod folders;
mod metrics;
mod pages;

use std::sync::Arc;

use ringer::{
    admin::{self, AdminState},
    api::{self, ApiState},
    edge::{
        audit::Audit,
        measure::Door,
        server::{Access, ListenAddress, Listener, Listening, Server, Tls},
    },
    engine::Engine,
    model::{Error, Result, error::Context, id::TenantId},
    supervisor::Supervisor,
    web::{self, WebState},
};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use self::{
    adapters::Adapters,
    doors::JobDoors,
    folders::{DataRootLock, PidFile},
    pages::Pages,
};
use crate::config::{
    Config,
    run::{Fixed, RunSettings},
};

/// What launches runners, and where that is read again.
pub struct Forges {
    /// What is configured at the start.
    pub first: RunSettings,
    /// Reads it again, at a HUP.
    pub reread: Box<dyn Fn() -> Result<RunSettings> + Send + Sync>,
}

/// Runs the daemon until TERM or INT. What was set up is undone in reverse, also when a later step fails.
pub async fn serve(config: Config, forges: Option<Forges>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::forbidden(
            "ringer needs to be started with root privileges: it mounts, makes networks and runs containerd",
        ));
    }
    let mut signals = Signals::new()?;
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let hosts: Vec<String> = config.hosts.iter().map(ToString::to_string).collect();
    let _lock = DataRootLock::take(&config.engine.data_root, &hosts)?;
    let pidfile = PidFile::write(&config.pidfile)?;
    let adapters = tokio::select! {
        adapters = Adapters::start(&config) => adapters?,
        () = signals.stop() => return Ok(()),
    };
    let served = serve_with(&config, forges, tls.as_ref(), &adapters, &mut signals).await;
    adapters.stop().await;
    // The pid file may lie in there.
    drop(pidfile);
    folders::remove_empty(&config.engine.exec_root);
    served
}

async fn serve_with(
    config: &Config,
    forges: Option<Forges>,
    tls: Option<&Tls>,
    adapters: &Adapters,
    signals: &mut Signals,
) -> Result<()> {
    let engine = Engine::open(adapters.host(), config.engine.clone(), adapters.backends()).await?;
    let state = ApiState::new(engine.clone()).building_with(adapters.buildkit());
    let begun = async {
        let settings = forges.as_ref().map(|forges| forges.first.settings.clone());
        let supervisor = settings.map(|settings| Supervisor::open(settings, engine.clone(), &config.engine.data_root));
        let supervisor = supervisor.transpose()?;
        let (server, listening, pages) = listen(config, tls, state.clone(), supervisor.clone()).await?;
        Ok((supervisor, server, listening, pages))
    };
    let (supervisor, server, _listening, mut pages) = match begun.await {
        Ok(served) => served,
        Err(error) => {
            engine.shutdown().await;
            return Err(error);
        }
    };
    let logins = forges.as_ref().map(|forges| forges.first.settings.registries.clone()).unwrap_or_default();
    engine.preload(&logins);
    info!("API listens on {}", config.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    if let Some(supervisor) = &supervisor {
        supervisor.start();
    }
    tell_systemd(&[NotifyState::Ready]);
    while signals.next().await == News::Reread {
        match (&forges, &supervisor) {
            (Some(forges), Some(supervisor)) => reread(forges, supervisor, &mut pages).await,
            _ => info!("there is nothing that `ringer serve` reads again"),
        }
    }
    info!("stopping");
    tell_systemd(&[NotifyState::Stopping]);
    tokio::select! {
        ended = tokio::time::timeout(config.shutdown_timeout, stop(&server, &state, &engine, supervisor.as_ref())) => if ended.is_err() {
            warn!("not everything ended within {} s", config.shutdown_timeout.as_secs());
        },
        () = signals.stop() => warn!("told twice to stop: leaving the rest as it is"),
    }
    Ok(())
}

/// A file that is wrong is refused aloud, and what is known stays.
async fn reread(forges: &Forges, supervisor: &Supervisor, pages: &mut Pages) {
    let fixed = match take_up(forges, supervisor, pages).await {
        Ok(fixed) => fixed,
        Err(error) => return error!("the configuration stays as it is: {}", error.chain()),
    };
    info!("the configuration is read again");
    let changed = forges.first.fixed.changed(&fixed);
    if !changed.is_empty() {
        warn!("changed, and taken up at the next start alone: {}", changed.join(", "));
    }
}

/// The listener first: webhooks are made for where it is.
async fn take_up(forges: &Forges, supervisor: &Supervisor, pages: &mut Pages) -> Result<Fixed> {
    let (again, before) = ((forges.reread)()?, pages.http());
    pages.move_to(again.http.as_ref()).await.map_err(|error| error.context("[http] listen"))?;
    if let Err(error) = supervisor.reload(again.settings) {
        pages.move_to(before.as_ref()).await?;
        return Err(error);
    }
    Ok(again.fixed)
}

/// Listeners come last: who can connect finds a daemon that works.
async fn listen(
    config: &Config,
    tls: Option<&Tls>,
    state: ApiState,
    supervisor: Option<Supervisor>,
) -> Result<(Arc<Server>, Vec<Listening>, Pages)> {
    if let Some(socket) = config.hosts.iter().find_map(ListenAddress::unix_path) {
        state.engine.tenant_listens_at(&TenantId::default_tenant(), socket.to_owned())?;
    }
    let mut listeners = Vec::new();
    for address in &config.hosts {
        listeners.extend(Listener::open(address, &config.group, tls)?);
    }
    let admin = Listener::unix(&config.admin_socket, Access::Root)?;
    let server = Arc::new(Server::new()?.allowing_hosts(&config.allowed_hosts));
    let engine = state.engine.clone();
    let router = api::router(state);
    let audit = Audit::open(&config.audit_log).context(format!("opening {}", config.audit_log.display()))?;
    let (registry, measures) = metrics::of(&engine, supervisor.as_ref());
    engine.serve_jobs(Arc::new(JobDoors::new(&server, router.clone(), audit.clone(), measures.clone()))).await;
    let of_web = web::api(WebState::new(engine.clone(), supervisor.clone(), registry.clone(), measures.clone()));
    let mut pages = Pages::new(server.clone(), measures.of(of_web, Door::Http, None), &config.group);
    pages.move_to(config.http.as_ref()).await?;
    let of_default = || {
        let api = audit.of(api::for_tenant(&router, TenantId::default_tenant()), None);
        measures.of(api, Door::Docker, None)
    };
    let mut listening: Vec<_> = listeners.into_iter().map(|listener| server.listen(listener, of_default())).collect();
    let of_admin =
        admin::api(AdminState { engine: engine.clone(), supervisor: supervisor.clone(), registry: registry.clone() });
    listening.push(server.listen(admin, measures.of(audit.of(of_admin, None), Door::Admin, None)));
    Ok((server, listening, pages))
}

/// No more connections; then containers are stopped, which ends what waits for them, while requests go on.
async fn stop(server: &Server, state: &ApiState, engine: &Engine, supervisor: Option<&Supervisor>) {
    // Runners end first: their jobs and registrations are taken back while the engine still works.
    if let Some(supervisor) = supervisor {
        supervisor.stop().await;
    }
    state.tasks.close();
    let carried_out = async {
        // Steps of builds are in cgroups and networks that the engine takes away at its end.
        if let Some(buildkit) = &state.buildkit {
            buildkit.stop().await;
        }
        engine.shutdown().await;
    };
    tokio::join!(server.drain(), carried_out, state.tasks.wait());
}

/// Without systemd there is nobody to tell.
fn tell_systemd(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        warn!(%error, "telling systemd: {error}");
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Stop,
    Reread,
}

/// TERM, INT and HUP.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let of = |kind| signal(kind).context("catching signals");
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hangup: of(SignalKind::hangup())?,
        })
    }

    /// The next of them.
    async fn next(&mut self) -> News {
        tokio::select! {
            _ = self.terminate.recv() => News::Stop,
            _ = self.interrupt.recv() => News::Stop,
            _ = self.hangup.recv() => News::Reread,
        }
    }

    /// Ends at the next that asks to stop.
    async fn stop(&mut self) {
        while self.next().await != News::Stop {}
    }
}
