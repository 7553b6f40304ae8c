//! The tenant's own socket as the source of a bind. Agents bind `/var/run/docker.sock` into their containers and mean the daemon that
//! they talk to, wherever its socket is: in a job that is the job's, never the machine's.

use std::{
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::{
    engine::{Engine, containers::seat::Seat, tenants::Scope},
    model::{
        Error, Result,
        container::{MountPoint, SourceRoot},
        id::{ContainerId, TenantId},
    },
    rootfs::{self, SeenPath},
    work::blocking,
};

/// Where clients look for the socket of a daemon.
pub(super) const USUAL: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

impl Engine {
    /// Whether a client means its tenant's socket by the source of a bind.
    pub(super) async fn is_own_socket(&self, scope: &Scope, seat: &Seat, point: &MountPoint) -> Result<bool> {
        let Some(socket) = scope.socket().map(Path::to_owned) else { return Ok(false) };
        let source = point.source.clone();
        match seat {
            // What is there on the machine is meant; without it, dockerd would make a folder of that name.
            Seat::Machine if *scope.tenant() == TenantId::default_tenant() => {
                Ok(is_usual_socket(&source) && !Path::new(&source).exists())
            }
            Seat::Machine => blocking(move || Ok(is_usual_socket(&source) || leads_to_socket(&source, &socket))).await,
            Seat::Container(container) => self.is_own_socket_in(container, source, socket).await,
        }
    }

    async fn is_own_socket_in(&self, container: &ContainerId, source: String, socket: PathBuf) -> Result<bool> {
        // Also after a restart of the daemon, when what is bound there is the socket of the former one.
        let is_bound = |point: &MountPoint| match &point.root {
            SourceRoot::Socket => point.destination == source,
            SourceRoot::Machine => point.destination == source && Path::new(&point.source) == socket,
            SourceRoot::Container(_) | SourceRoot::Exact => false,
        };
        if self.containers.find(container).is_some_and(|other| other.record().mounts.iter().any(is_bound)) {
            return Ok(true);
        }
        let (engine, container) = (self.clone(), container.clone());
        blocking(move || {
            let gone = || Error::bind_source_gone(&source, &container);
            let process = engine.first_process(&container).ok_or_else(gone)?;
            let path = SeenPath { path: source, create: false, recursive: false, shared: false };
            Ok(match path.open(&process) {
                Ok(file) => rootfs::is_same_file(file.as_fd(), &socket),
                Err(_) => is_usual_socket(&path.path),
            })
        })
        .await
    }

    /// Mounts a tenant's socket at `place`.
    pub(crate) async fn hold_own_socket(&self, tenant: &TenantId, place: PathBuf) -> Result<()> {
        let tenant = self.tenants.get(tenant)?;
        let socket = tenant.socket().map(Path::to_owned);
        let socket = socket.ok_or_else(|| Error::unavailable("this daemon listens on no unix socket"))?;
        blocking(move || rootfs::hold_socket(&socket, &place)).await
    }
}

/// Whether a path is one where clients look for the socket of a daemon.
pub(super) fn is_usual_socket(source: &str) -> bool {
    USUAL.contains(&source)
}

/// Whether a path of the machine leads to `socket` or to the machine's own, by any link.
fn leads_to_socket(source: &str, socket: &Path) -> bool {
    let file = |path: &Path| std::fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    let sockets = USUAL.iter().map(Path::new).chain([socket]);
    file(Path::new(source)).is_some_and(|wanted| sockets.filter_map(file).any(|found| found == wanted))
}
