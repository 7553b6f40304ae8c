//! What every [`Projects`] must do: the fake in unit tests, the kernel where a file system limits projects (`scripts/quota`).

use std::{fs, io, path::Path};

use super::{Projects, Room};
use crate::model::job::ProjectId;

/// Goes through all calls; `folder` is empty and on a file system that limits projects.
pub fn limits_are_set_and_taken_away(projects: &dyn Projects, folder: &Path) {
    let project = ProjectId::random();
    assert!(projects.are_limited(folder));
    assert_eq!(projects.room(folder, project).unwrap(), Room::default());
    projects.limit(folder, project, Some(1 << 20)).unwrap();
    assert_eq!(projects.room(folder, project).unwrap(), Room { taken: 0, most: Some(1 << 20) });

    let inner = folder.join("inner");
    assert_eq!(projects.add(&inner, project).unwrap_err().kind(), io::ErrorKind::NotFound);
    fs::create_dir(&inner).unwrap();
    projects.add(&inner, project).unwrap();
    fs::remove_dir(&inner).unwrap();
    projects.limit(folder, project, None).unwrap();
    assert_eq!(projects.room(folder, project).unwrap(), Room::default());
}
