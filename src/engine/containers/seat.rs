//! Where a client sits: on the machine, or in one of our containers, whose files it then means by the paths that it names.
//!
//! What tells is what the kernel knows of the process that connected. It names the files of a container if it sees the same
//! mounts from the same root as that container's first process: nobody comes to see them by pretending. One that is in a
//! container and sees others (it made mounts of its own, it is a container within the container) must not be taken for one on
//! the machine; it is known by its pid namespace, which lies within the container's, or its cgroup.

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use tracing::debug;

use crate::{
    engine::{Engine, container::Container, tenants::Scope},
    model::{
        Error, Result,
        caller::{Peer, PeerProcess},
        error::Context,
        id::ContainerId,
    },
    processes::{Namespace, Process},
    work::blocking,
};

/// How long a container's first process may run before it is known here that it does.
const START_DELAY: Duration = Duration::from_secs(10);

/// Whose files a client means by the paths that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// The machine's.
    Machine,
    /// Those of a container.
    Container(ContainerId),
}

/// What can be said of a client.
enum Finding {
    Seat(Seat),
    /// It is in a container that, as far as is known here, does not run.
    Unknown(ContainerId),
}

/// A container, and the number of its first process if it runs.
type Candidate = (ContainerId, Option<u32>);

impl Engine {
    /// Where the client sits. 400 if it sees files that are neither the machine's nor a container's.
    pub(crate) async fn seat(&self, scope: &Scope) -> Result<Seat> {
        let Some(peer) = scope.caller().process() else { return Ok(Seat::Machine) };
        let first = self.find_seat(peer.clone()).await?;
        let finding = match first {
            Finding::Unknown(container) => {
                self.await_start(&container).await;
                self.find_seat(peer.clone()).await?
            }
            known @ Finding::Seat(_) => known,
        };
        match finding {
            Finding::Seat(seat) => {
                debug!("the client sits in {seat:?}");
                Ok(seat)
            }
            Finding::Unknown(_) => Err(Error::caller_sees_others()),
        }
    }

    async fn find_seat(&self, peer: Peer) -> Result<Finding> {
        // Of all tenants: a runner's container may have the socket of another one.
        let candidate = |container: &Arc<Container>| (container.id().clone(), pid_of(container));
        let candidates: Vec<Candidate> = self.containers.list_all().iter().map(candidate).collect();
        blocking(move || find(&peer, candidates)).await
    }

    /// A program that a container starts with may ask before the start itself has said that it runs.
    async fn await_start(&self, container: &ContainerId) {
        let Some(container) = self.containers.find(container) else { return };
        let started = container.wait_for(|snapshot| snapshot.record.state.live().is_some());
        let _still_unknown = tokio::time::timeout(START_DELAY, started).await;
    }

    /// The first process of a container, if it runs. Blocks.
    pub(crate) fn first_process(&self, container: &ContainerId) -> Option<Process> {
        let pid = pid_of(&*self.containers.find(container)?)?;
        first_process(container, pid).ok().flatten()
    }
}

fn pid_of(container: &Container) -> Option<u32> {
    Some(container.state().live()?.pid)
}

/// `None` if the number is another process's by now: the end of a container is known here only a little later.
fn first_process(container: &ContainerId, pid: u32) -> io::Result<Option<Process>> {
    let process = Process::numbered(pid)?;
    let is_its = is_named_in(&process.cgroups()?, container);
    Ok(is_its.then_some(process))
}

fn is_named_in(cgroups: &[String], container: &ContainerId) -> bool {
    cgroups.iter().any(|cgroup| cgroup.contains(container.as_str()))
}

fn find(peer: &Peer, candidates: Vec<Candidate>) -> Result<Finding> {
    let process = match &peer.process {
        PeerProcess::Outside => return Ok(Finding::Seat(Seat::Machine)),
        PeerProcess::Gone => return Err(Error::caller_has_ended()),
        PeerProcess::Known(pidfd) => Process::of(pidfd.as_fd()),
    };
    let process = process.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::caller_has_ended().with_source(error),
        _ => Error::system("looking at the client's process").with_source(error),
    })?;
    Client::look(&process).and_then(|client| client.find(candidates)).context("looking at the client's process")?
}

/// What a client's process sees.
struct Client<'p> {
    process: &'p Process,
    mounts: Namespace,
    pids: Vec<Namespace>,
    cgroups: Vec<String>,
}

impl<'p> Client<'p> {
    fn look(process: &'p Process) -> io::Result<Self> {
        let (mounts, pids) = (process.mount_namespace()?, process.pid_namespaces()?);
        Ok(Self { process, mounts, pids, cgroups: process.cgroups()? })
    }

    fn find(&self, mut candidates: Vec<Candidate>) -> io::Result<Result<Finding>> {
        let own = Process::own()?;
        if self.mounts == own.mount_namespace()? {
            return Ok(Ok(Finding::Seat(Seat::Machine)));
        }
        // Its cgroup tells nearly always.
        candidates.sort_by_key(|(id, _)| !is_named_in(&self.cgroups, id));
        let (own_pids, mut is_inside, mut unknown) = (own.pid_namespaces()?, false, None);
        for (id, pid) in candidates {
            let is_named = is_named_in(&self.cgroups, &id);
            // One that ends meanwhile is not the client's.
            let first = pid.and_then(|pid| first_process(&id, pid).ok().flatten());
            let Some(first) = first else {
                unknown = if is_named { Some(id) } else { unknown };
                continue;
            };
            if first.mount_namespace().is_ok_and(|mounts| mounts == self.mounts) {
                let has_same_root = first.root_folder()? == self.process.root_folder()?;
                let seat = Finding::Seat(Seat::Container(id));
                return Ok(if has_same_root { Ok(seat) } else { Err(Error::caller_sees_others()) });
            }
            let pids = first.pid_namespaces().ok().and_then(|pids| pids.first().copied());
            let is_below = pids.is_some_and(|pids| self.pids.contains(&pids) && !own_pids.contains(&pids));
            is_inside |= is_named || is_below;
        }
        Ok(match unknown {
            _ if is_inside => Err(Error::caller_sees_others()),
            Some(container) => Ok(Finding::Unknown(container)),
            None => Ok(Finding::Seat(Seat::Machine)),
        })
    }
}
