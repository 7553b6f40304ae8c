//! Level 4: the composition root. Config → adapters → engine → listeners, and back in reverse order at the end.

mod adapters;
mod doors;
mod folders;

use std::sync::Arc;

use ringer::{
    admin::{self, AdminState},
    api::{self, ApiState},
    edge::{
        audit::Audit,
        server::{Access, ListenAddress, Listener, Listening, Server, Tls},
    },
    engine::Engine,
    model::{Error, Result, error::Context, id::TenantId},
    supervisor::{Supervisor, settings::Settings},
};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use self::{
    adapters::Adapters,
    doors::JobDoors,
    folders::{DataRootLock, PidFile},
};
use crate::config::Config;

/// Runs the daemon until TERM or INT. What was set up is undone in reverse, also when a later step fails.
pub async fn serve(config: Config, forges: Option<Settings>) -> Result<()> {
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
    forges: Option<Settings>,
    tls: Option<&Tls>,
    adapters: &Adapters,
    signals: &mut Signals,
) -> Result<()> {
    let engine = Engine::open(config.engine.clone(), adapters.backends()).await?;
    let state = ApiState::new(engine.clone()).building_with(adapters.buildkit());
    let begun = async {
        let supervisor = forges.map(|forges| Supervisor::open(forges, engine.clone(), &config.engine.data_root));
        let supervisor = supervisor.transpose()?;
        let (server, listening) = listen(config, tls, state.clone(), supervisor.clone()).await?;
        Ok((supervisor, server, listening))
    };
    let (supervisor, server, _listening) = match begun.await {
        Ok(served) => served,
        Err(error) => {
            engine.shutdown().await;
            return Err(error);
        }
    };
    info!("API listens on {}", config.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    if let Some(supervisor) = &supervisor {
        supervisor.start();
    }
    tell_systemd(&[NotifyState::Ready]);
    signals.stop().await;
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

/// Listeners come last: who can connect finds a daemon that works.
async fn listen(
    config: &Config,
    tls: Option<&Tls>,
    state: ApiState,
    supervisor: Option<Supervisor>,
) -> Result<(Arc<Server>, Vec<Listening>)> {
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
    engine.serve_jobs(Arc::new(JobDoors::new(&server, router.clone(), audit.clone()))).await;
    let of_default = || audit.of(api::for_tenant(&router, TenantId::default_tenant()), None);
    let mut listening: Vec<_> = listeners.into_iter().map(|listener| server.listen(listener, of_default())).collect();
    listening.push(server.listen(admin, audit.of(admin::api(AdminState { engine, supervisor }), None)));
    Ok((server, listening))
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

/// TERM and INT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let of = |kind| signal(kind).context("catching signals");
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    /// Ends at the next of them.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
