//! A job's limit of the disk, kept by the file systems that can. A project of its own has the writable layers of its containers and its
//! volumes: what would be more than the limit is not written. What no file system counts is looked at (`jobs::disk`).

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::warn;

use crate::{
    backend::projects::{Projects, Room},
    model::job::{DiskPlace, ProjectId},
};

/// How many numbers are tried: one of a thousand million is hardly ever taken.
const TRIES: usize = 16;

/// Where jobs write.
pub type Places = Vec<(DiskPlace, PathBuf)>;

/// The project of a job, where it is limited.
pub struct Quota {
    projects: Arc<dyn Projects>,
    project: ProjectId,
    places: Places,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").field("project", &self.project).field("places", &self.places).finish_non_exhaustive()
    }
}

/// A number that nobody uses on any file system of `places` that limits projects; `None` if none does. Whoever else gives numbers there
/// (another daemon, an operator) takes other ones; it is random, so that no job knows that of another one.
pub fn choose_project(projects: &dyn Projects, places: &Places) -> io::Result<Option<ProjectId>> {
    choose(projects, places, ProjectId::random)
}

fn choose(projects: &dyn Projects, places: &Places, draw: impl FnMut() -> ProjectId) -> io::Result<Option<ProjectId>> {
    let limited: Vec<&Path> = limited(projects, places).map(|(_, folder)| folder.as_path()).collect();
    if limited.is_empty() {
        return Ok(None);
    }
    for project in std::iter::repeat_with(draw).take(TRIES) {
        let rooms = limited.iter().map(|folder| projects.room(folder, project)).collect::<io::Result<Vec<Room>>>()?;
        if rooms.iter().all(|room| *room == Room::default()) {
            return Ok(Some(project));
        }
    }
    Err(io::Error::other("all numbers of projects that were tried are in use"))
}

fn limited<'p>(projects: &'p dyn Projects, places: &'p Places) -> impl Iterator<Item = &'p (DiskPlace, PathBuf)> {
    places.iter().filter(|(_, folder)| projects.are_limited(folder))
}

impl Quota {
    /// Limits a project in those of `places` that can; what goes wrong in one is logged, and it is as one that cannot.
    pub fn set(projects: Arc<dyn Projects>, project: ProjectId, most: u64, places: &Places) -> Self {
        let is_set = |(_, folder): &&(DiskPlace, PathBuf)| match projects.limit(folder, project, Some(most)) {
            Ok(()) => true,
            Err(error) => {
                warn!("limiting project {} at {}: {error}", project.number(), folder.display());
                false
            }
        };
        let places = limited(&*projects, places).filter(is_set).cloned().collect();
        Self { projects, project, places }
    }

    /// Where the limit is kept.
    pub fn places(&self) -> impl Iterator<Item = DiskPlace> {
        self.places.iter().map(|(place, _)| *place)
    }

    /// Whether it is kept there.
    pub fn is_kept(&self, place: DiskPlace) -> bool {
        self.places().any(|kept| kept == place)
    }

    /// Counts what will be in an empty folder at such a place, if the limit is kept there.
    pub fn count(&self, place: DiskPlace, folder: &Path) -> io::Result<()> {
        if self.is_kept(place) { self.projects.add(folder, self.project) } else { Ok(()) }
    }

    /// Takes the limits away, as far as the file systems do it: a limit that stays is of a project that has nothing any more. Nobody gets
    /// the number anew while something is left that has it.
    pub fn clear(&self) {
        for (_, folder) in &self.places {
            if let Err(error) = self.projects.limit(folder, self.project, None) {
                tracing::warn!(%error, "the limit of {:?} stays at {}: {error}", self.project, folder.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::projects::fake::FakeProjects;

    fn places() -> Places {
        vec![(DiskPlace::Volumes, PathBuf::from("/data")), (DiskPlace::Layers, PathBuf::from("/layers"))]
    }

    /// Limits projects in `/data` alone.
    #[derive(Default)]
    struct OnlyVolumes(FakeProjects);

    impl Projects for OnlyVolumes {
        fn are_limited(&self, folder: &Path) -> bool {
            folder.starts_with("/data")
        }

        fn room(&self, folder: &Path, project: ProjectId) -> io::Result<Room> {
            self.0.room(folder, project)
        }

        fn limit(&self, folder: &Path, project: ProjectId, most: Option<u64>) -> io::Result<()> {
            assert!(folder.starts_with("/data"));
            self.0.limit(folder, project, most)
        }

        fn add(&self, folder: &Path, project: ProjectId) -> io::Result<()> {
            self.0.add(folder, project)
        }
    }

    #[test]
    fn a_number_in_use_is_not_chosen_and_without_quotas_none_is() {
        let projects = FakeProjects::default();
        assert_eq!(choose_project(&projects, &places()).unwrap(), None);
        projects.limit_from_now_on();
        let [used, free] = [ProjectId::random(), ProjectId::random()];
        projects.limit(Path::new("/data"), used, Some(1)).unwrap();
        let mut draws = [used, used, free].into_iter();
        assert_eq!(choose(&projects, &places(), || draws.next().unwrap()).unwrap(), Some(free));
        choose(&projects, &places(), || used).unwrap_err();
    }

    #[test]
    fn each_file_system_is_asked_for_itself() {
        let projects = Arc::new(OnlyVolumes::default());
        let project = choose_project(&*projects, &places()).unwrap().unwrap();
        let quota = Quota::set(projects.clone(), project, 7, &places());
        assert_eq!(quota.places().collect::<Vec<_>>(), [DiskPlace::Volumes]);
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        quota.count(DiskPlace::Volumes, folder.path()).unwrap();
        quota.count(DiskPlace::Layers, other.path()).unwrap();
        assert_eq!((projects.0.of(folder.path()), projects.0.of(other.path())), (Some(project), None));
        assert_eq!(projects.0.rooms(), [(project, Room { taken: 0, most: Some(7) })]);
        quota.clear();
        assert!(projects.0.rooms().is_empty());
    }

    #[test]
    fn what_cannot_be_set_is_not_kept() {
        let projects = Arc::new(FakeProjects::limiting());
        projects.refuse();
        let quota = Quota::set(projects, ProjectId::random(), 7, &places());
        assert_eq!(quota.places().count(), 0);
    }
}
