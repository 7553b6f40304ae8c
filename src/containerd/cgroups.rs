//! What we look up in cgroups ourselves: kills for want of memory, and parents that remained empty.

mod make;
mod sweep;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How often, and how long apart, the removal of a cgroup is tried whose last process is about to end.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Where the machine's cgroup hierarchies are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroups {
    /// All hierarchies, each with the controllers it has; one without any on a machine with cgroup v2 only.
    roots: Vec<(PathBuf, Vec<String>)>,
    /// File that counts kills, below a container's cgroup in the hierarchy that knows about memory.
    memory: Option<(PathBuf, &'static str)>,
}

impl Cgroups {
    /// Reads our own mount table.
    pub(super) fn detect() -> Self {
        Self::from_mountinfo(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn from_mountinfo(text: &str) -> Self {
        let mut roots = Vec::new();
        let mut memory = None;
        for (root, kind, options) in text.lines().filter_map(mount) {
            match kind {
                "cgroup" if options.split(',').any(|option| option == "memory") => {
                    memory = Some((root.clone(), "memory.oom_control"));
                }
                // In a hybrid set-up the v2 hierarchy has no controllers, and memory stays with v1.
                "cgroup2" if memory.is_none() => memory = Some((root.clone(), "memory.events")),
                _ => {}
            }
            let controllers = if kind == "cgroup" { options } else { "" };
            roots.push((root, controllers.split(',').map(str::to_owned).collect()));
        }
        Self { roots, memory }
    }

    /// Whether the kernel killed a process of this cgroup for want of memory. Must be asked before the OCI
    /// runtime takes the cgroup away; an absent one has seen no kill.
    pub(super) fn had_oom_kill(&self, cgroup: &str) -> bool {
        let Some((root, file)) = &self.memory else { return false };
        let path = below(root, cgroup).join(file);
        fs::read_to_string(path).is_ok_and(|text| oom_kills(&text) > 0)
    }

    /// Whether the controllers are in one tree (version 2).
    pub(super) fn is_unified(&self) -> bool {
        self.memory.as_ref().is_none_or(|(_, file)| *file == "memory.events")
    }

    /// A cgroup's folder in the hierarchy of a controller; on a machine with cgroup v2 only, its one folder.
    pub(super) fn place(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        let is_it = |controllers: &Vec<String>| controllers.iter().any(|known| known == controller);
        let (root, _) = match self.is_unified() {
            true => self.roots.iter().find(|(_, controllers)| controllers.iter().all(String::is_empty)),
            false => self.roots.iter().find(|(_, controllers)| is_it(controllers)),
        }?;
        Some(below(root, cgroup))
    }

    /// Whether a cgroup is there.
    pub(super) fn exists(&self, cgroup: &str) -> bool {
        self.place("memory", cgroup).is_some_and(|folder| folder.exists())
    }

    /// Whether a cgroup is there in any hierarchy.
    pub(super) fn is_somewhere(&self, cgroup: &str) -> bool {
        self.roots.iter().any(|(root, _)| below(root, cgroup).exists())
    }

    /// Removes a cgroup as soon as its last process is gone; does not wait long for that.
    pub(super) async fn remove_soon(&self, cgroup: &str) {
        for _ in 0..TRIES {
            self.remove_if_empty(cgroup);
            if !self.is_somewhere(cgroup) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Kills all processes in a cgroup and removes it, with all that they made in it. Whether it is gone.
    pub(super) async fn end(&self, cgroup: &str) -> bool {
        for _ in 0..TRIES {
            self.roots.iter().for_each(|(root, _)| kill_all(&below(root, cgroup)));
            self.remove_if_dead(cgroup);
            if !self.is_somewhere(cgroup) {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    /// The folder of the cgroup in which the first process of a container begins: the container's own, or none.
    pub(super) fn folder_of(&self, container: &str, pid: u32) -> Option<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let cgroup =
            text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find(|path| path.ends_with(container))?;
        self.roots.iter().map(|(root, _)| below(root, cgroup)).find(|folder| folder.exists())
    }

    /// Lets what is frozen in a cgroup go on.
    pub(super) fn thaw(&self, cgroup: &str) {
        for (root, _) in &self.roots {
            for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                let path = below(root, cgroup).join(file);
                if path.exists() {
                    let _gone_already = fs::write(path, word);
                }
            }
        }
    }

    /// Removes a cgroup from every hierarchy if nothing is in it.
    pub(super) fn remove_if_empty(&self, cgroup: &str) {
        for (root, _) in &self.roots {
            // One that is in use or not there is left alone, which the kernel decides better than we.
            let _ = fs::remove_dir(below(root, cgroup));
        }
    }
}

/// Kills all processes in a cgroup, by its folder.
pub(super) fn kill_all(folder: &Path) {
    for pid in members(folder) {
        // A number may have changed hands meanwhile: what the descriptor names must still be a member.
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            && members(folder).contains(&pid)
        {
            let _ended_already = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

fn members(folder: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

fn below(root: &Path, cgroup: &str) -> PathBuf {
    // Never above the hierarchy's root, whatever a stored spec says.
    root.join(crate::model::path::clean_absolute(cgroup).trim_start_matches('/'))
}

/// Mount point, file system and its options of one line of mountinfo, if it is a cgroup hierarchy.
fn mount(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?;
    let mut fields = right.split(' ');
    let kind = fields.next().filter(|kind| kind.starts_with("cgroup"))?;
    Some((PathBuf::from(point), kind, fields.nth(1)?))
}

/// The counter in `memory.events` (v2) and in `memory.oom_control` (v1, since kernel 4.13).
fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_asked_of_v1_where_the_machine_is_hybrid() {
        let text = "35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                    37 31 0:34 / /proc rw - proc proc rw";
        let cgroups = Cgroups::from_mountinfo(text);
        assert_eq!(cgroups.memory, Some(("/sys/fs/cgroup/memory".into(), "memory.oom_control")));
        assert_eq!(cgroups.roots.len(), 2);
        assert_eq!(cgroups.place("memory", "/a"), Some("/sys/fs/cgroup/memory/a".into()));
        assert_eq!(cgroups.place("cpu", "/a"), None);
    }

    #[test]
    fn memory_is_asked_of_v2_where_there_is_nothing_else() {
        let cgroups = Cgroups::from_mountinfo("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        assert_eq!(cgroups.memory, Some(("/sys/fs/cgroup".into(), "memory.events")));
        assert_eq!(cgroups.place("cpu", "/a/b"), Some("/sys/fs/cgroup/a/b".into()));
    }

    #[test]
    fn kills_are_read_from_both_forms() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(oom_kills("low 0\noom 2\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(oom_kills("oom_kill_disable 0\n"), 0);
    }
}
