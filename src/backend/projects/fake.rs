//! One file system, kept in memory. It limits projects once a test says so.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Projects, Room};
use crate::model::job::ProjectId;

/// Quotas of projects that refuse nothing: nobody writes here.
#[derive(Debug, Default)]
pub struct FakeProjects(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    are_limited: bool,
    refuses: bool,
    rooms: BTreeMap<ProjectId, Room>,
    folders: BTreeMap<PathBuf, ProjectId>,
}

impl FakeProjects {
    /// One that limits projects.
    pub fn limiting() -> Self {
        let fake = Self::default();
        fake.limit_from_now_on();
        fake
    }

    /// Limits projects from now on, as after a mount with `prjquota`.
    pub fn limit_from_now_on(&self) {
        self.lock().are_limited = true;
    }

    /// Refuses each change from now on.
    pub fn refuse(&self) {
        self.lock().refuses = true;
    }

    /// What all projects take that anybody uses.
    pub fn rooms(&self) -> Vec<(ProjectId, Room)> {
        self.lock().rooms.iter().map(|(project, room)| (*project, *room)).collect()
    }

    /// The project that a folder was put into.
    pub fn of(&self, folder: &Path) -> Option<ProjectId> {
        self.lock().folders.get(folder).copied()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_change(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.refuses { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(state) }
    }
}

impl Projects for FakeProjects {
    fn are_limited(&self, _: &Path) -> bool {
        self.lock().are_limited
    }

    fn room(&self, _: &Path, project: ProjectId) -> io::Result<Room> {
        Ok(self.lock().rooms.get(&project).copied().unwrap_or_default())
    }

    fn limit(&self, _: &Path, project: ProjectId, most: Option<u64>) -> io::Result<()> {
        let mut state = self.to_change()?;
        state.rooms.entry(project).or_default().most = most;
        state.rooms.retain(|_, room| *room != Room::default());
        Ok(())
    }

    fn add(&self, folder: &Path, project: ProjectId) -> io::Result<()> {
        let mut state = self.to_change()?;
        let folder = folder.canonicalize()?;
        state.folders.insert(folder, project);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::contract, *};

    #[test]
    fn the_contract_holds() {
        let folder = tempfile::tempdir().unwrap();
        contract::limits_are_set_and_taken_away(&FakeProjects::limiting(), folder.path());
    }
}
