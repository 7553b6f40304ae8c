//! Takes away what dead containers left, with what they made themselves below their cgroups.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Cgroups, below};

impl Cgroups {
    /// Removes a container's cgroup, with all that it made in it, if no process is in any of them.
    pub(in crate::containerd) fn remove_if_dead(&self, cgroup: &str) {
        self.roots.iter().for_each(|(root, _)| remove_dead(below(root, cgroup)));
    }

    /// Removes everything below a cgroup, and itself, that no process is in; a container, of which `is_container` knows
    /// the name, as a whole or not at all.
    pub(in crate::containerd) fn sweep(&self, cgroup: &str, is_container: impl Fn(&str) -> bool) {
        for (root, _) in &self.roots {
            let mut containers = Vec::new();
            let parents = tree(below(root, cgroup), |folder| {
                let found = folder.to_str().is_some_and(&is_container);
                containers.extend(found.then(|| folder.to_owned()));
                !found
            });
            containers.into_iter().for_each(remove_dead);
            remove_all(&parents);
        }
    }

    /// One hierarchy, of version 2, in a folder.
    #[cfg(test)]
    pub(in crate::containerd) fn at(root: &Path) -> Self {
        Self { roots: vec![(root.to_owned(), vec![String::new()])], memory: Some((root.to_owned(), "memory.events")) }
    }
}

fn remove_dead(folder: PathBuf) {
    let folders = tree(folder, |_| true);
    let is_empty = |folder: &PathBuf| fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|text| text.is_empty());
    if folders.iter().all(|folder| is_empty(folder) || !folder.join("cgroup.procs").exists()) {
        remove_all(&folders);
    }
}

/// What is deeper first. What is in use stays.
fn remove_all(folders: &[PathBuf]) {
    folders.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
}

/// A folder and all below it that are `wanted`, each after the one that it is in.
fn tree(top: PathBuf, mut wanted: impl FnMut(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = vec![top];
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        next += 1;
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let inside: Vec<PathBuf> = folders.map(|entry| entry.path()).filter(|path| wanted(path)).collect();
        found.extend(inside);
    }
    found
}
