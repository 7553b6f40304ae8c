//! The cgroups above our containers' own: where they are, which of them we made, and when they go.
//!
//! Below [`Parents::own`] all is ours. A client may name another place; what had to be made for that is noted, so that it can
//! go with the last container, also if a later daemon has to do it. Cgroups are only ever removed by `rmdir`, which the kernel
//! refuses where a process is.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::cgroups::Cgroups;
use crate::model::{
    Error, Result,
    id::{ContainerId, TenantId},
    job::JobLimits,
    path::clean_absolute,
};

/// How often, and how long apart, the removal of a tenant's cgroup is tried whose last process is about to end.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Length of a container's id, which is its cgroup's name.
const ID: usize = 64;

/// `PATH_MAX`.
const LONGEST: usize = 4096;

/// The parents of one daemon's containers.
pub(super) struct Parents {
    own: String,
    /// Where `noted` is kept for a later daemon.
    file: PathBuf,
    /// Cgroups of containers whose parent is not `own`, and the parents that had to be made for them.
    noted: Mutex<BTreeSet<String>>,
    /// Cgroups of tenants, which stay until they are removed.
    tenants: Mutex<BTreeSet<String>>,
    /// How many containers' cgroups are being made: no parent goes meanwhile.
    making: Mutex<usize>,
}

/// Held while the OCI runtime makes a container's cgroup.
pub(super) struct Making<'a> {
    parents: &'a Parents,
    cgroups: &'a Cgroups,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut making = lock(&self.parents.making);
        *making -= 1;
        self.parents.remove_unless(&making, self.cgroups);
    }
}

impl Parents {
    /// Removes what killed daemons left of this daemon's cgroups. No container is being made yet.
    pub(super) fn open(own: String, exec_root: &Path, cgroups: &Cgroups) -> Self {
        let file = exec_root.join("cgroups.json");
        let noted: BTreeSet<String> =
            fs::read(&file).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        cgroups.sweep(&own, is_container);
        for cgroup in noted.iter().rev() {
            if is_container(cgroup) { cgroups.remove_if_dead(cgroup) } else { cgroups.remove_if_empty(cgroup) }
        }
        let parents = Self { own, file, noted: Mutex::new(noted), tenants: Mutex::default(), making: Mutex::default() };
        parents.change(|noted| noted.retain(|cgroup| cgroups.is_somewhere(cgroup)));
        parents
    }

    /// Where a container's cgroup is. `wanted` is a client's `CgroupParent`: an absolute one counts from the root of the
    /// hierarchy, another one from our own parent, and neither leads out of there. Both count from the cgroup of its tenant, if that has one.
    pub(super) fn cgroup(&self, tenant: &TenantId, wanted: &str, id: &ContainerId) -> String {
        let (parent, of_tenant) = (clean_absolute(wanted), self.of_tenant(tenant));
        let above = match () {
            () if lock(&self.tenants).contains(&of_tenant) => of_tenant.as_str(),
            () if wanted.starts_with('/') => "",
            () => &self.own,
        };
        clean_absolute(&format!("{above}/{parent}/{id}"))
    }

    /// A runner is in the cgroup of whom it serves.
    fn of_tenant(&self, tenant: &TenantId) -> String {
        format!("{}/{}", self.own, tenant.served().as_ref().unwrap_or(tenant))
    }

    /// Makes the cgroup of a tenant and sets its limits.
    pub(super) fn make(&self, cgroups: &Cgroups, tenant: &TenantId, limits: &JobLimits) -> io::Result<()> {
        let cgroup = self.of_tenant(tenant);
        // First, so that it is nobody's remains.
        lock(&self.tenants).insert(cgroup.clone());
        cgroups.make(&cgroup)?;
        cgroups.limit(&cgroup, limits)
    }

    /// The cgroup of a tenant that has one of its own.
    pub(super) fn made_for(&self, tenant: &TenantId) -> Option<String> {
        Some(self.of_tenant(tenant)).filter(|cgroup| lock(&self.tenants).contains(cgroup))
    }

    /// Removes the cgroup of a tenant, with the empty ones in it.
    pub(super) async fn remove(&self, cgroups: &Cgroups, tenant: &TenantId) -> Result<()> {
        let cgroup = self.of_tenant(tenant);
        lock(&self.tenants).remove(&cgroup);
        for _ in 0..TRIES {
            cgroups.sweep(&cgroup, |_| false);
            if !cgroups.is_somewhere(&cgroup) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::unavailable(format!("processes are left in the cgroup {cgroup}")))
    }

    /// To be held while the OCI runtime makes a container's cgroup. Notes the parents that it will make.
    pub(super) fn begin<'a>(&'a self, cgroups: &'a Cgroups, cgroup: &str) -> Making<'a> {
        *lock(&self.making) += 1;
        let cgroup = clean_absolute(cgroup);
        // Of a longer path the kernel makes nothing.
        let tenants = lock(&self.tenants);
        let stays = |above: &str| above == self.own || tenants.contains(above);
        if parent(&cgroup).is_some_and(|parent| !stays(parent)) && cgroup.len() < LONGEST {
            let is_ours = |above: &&str| !stays(above) && (self.is_below_own(above) || !cgroups.is_somewhere(above));
            let new: Vec<String> = ancestors(&cgroup).take_while(is_ours).map(str::to_owned).collect();
            self.change(|noted| noted.extend(new.into_iter().chain([cgroup])));
        }
        Making { parents: self, cgroups }
    }

    /// A container's cgroup is gone: parents that we made go with the last one.
    pub(super) fn end(&self, cgroups: &Cgroups, id: &ContainerId) {
        let name = format!("/{id}");
        let Some(cgroup) = lock(&self.noted).iter().find(|cgroup| cgroup.ends_with(&name)).cloned() else { return };
        cgroups.remove_if_empty(&cgroup);
        self.change(|noted| noted.retain(|known| *known != cgroup));
        self.remove_empty(cgroups);
    }

    /// Removes the parents that we noted and that are empty; while a container is being made that comes after it.
    fn remove_empty(&self, cgroups: &Cgroups) {
        self.remove_unless(&lock(&self.making), cgroups);
    }

    fn remove_unless(&self, making: &MutexGuard<'_, usize>, cgroups: &Cgroups) {
        if **making > 0 {
            return;
        }
        let parents: Vec<String> = lock(&self.noted).iter().filter(|cgroup| !is_container(cgroup)).cloned().collect();
        // What is deeper comes later in the order.
        parents.iter().rev().for_each(|cgroup| cgroups.remove_if_empty(cgroup));
        self.change(|noted| noted.retain(|cgroup| is_container(cgroup) || cgroups.is_somewhere(cgroup)));
    }

    /// Removes whatever is empty, at the end of the daemon. Our own parent stays until then: the next container would
    /// only have to make it again.
    pub(super) fn remove_remains(&self, cgroups: &Cgroups) {
        self.remove_empty(cgroups);
        cgroups.remove_if_empty(&self.own);
    }

    fn is_below_own(&self, cgroup: &str) -> bool {
        cgroup.strip_prefix(self.own.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Changes what is noted, here and in the file.
    fn change(&self, change: impl FnOnce(&mut BTreeSet<String>)) {
        let mut noted = lock(&self.noted);
        let before = noted.clone();
        change(&mut noted);
        if *noted == before {
            return;
        }
        let half = self.file.with_extension("new");
        let json = serde_json::to_vec(&*noted).expect("texts are always valid JSON");
        let stored = match noted.is_empty() {
            true => fs::remove_file(&self.file),
            false => fs::write(&half, json).and_then(|()| fs::rename(&half, &self.file)),
        };
        if let Err(error) = stored {
            tracing::warn!("noting parent cgroups in {}: {error}", self.file.display());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_container(cgroup: &str) -> bool {
    let name = cgroup.rsplit('/').next().unwrap_or_default();
    name.len() == ID && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn parent(cgroup: &str) -> Option<&str> {
    cgroup.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty())
}

fn ancestors(cgroup: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(cgroup), |above| parent(above))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose one hierarchy is a folder; folders behave as cgroups do in what matters here.
    struct World {
        folder: tempfile::TempDir,
        cgroups: Cgroups,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let cgroups = Cgroups::at(&folder.path().join("cgroup"));
            Self { folder, cgroups }
        }

        fn open(&self) -> Parents {
            Parents::open("/ringer-test".to_owned(), self.folder.path(), &self.cgroups)
        }

        fn path(&self, cgroup: &str) -> PathBuf {
            self.folder.path().join("cgroup").join(cgroup.trim_start_matches('/'))
        }

        /// What the OCI runtime does.
        fn make(&self, cgroup: &str) {
            fs::create_dir_all(self.path(cgroup)).unwrap();
        }

        fn start(&self, parents: &Parents, wanted: &str) -> (ContainerId, String) {
            let id = ContainerId::random();
            let cgroup = parents.cgroup(&TenantId::default_tenant(), wanted, &id);
            let _making = parents.begin(&self.cgroups, &cgroup);
            self.make(&cgroup);
            (id, cgroup)
        }
    }

    #[test]
    fn a_parent_leads_nowhere_else() {
        let world = World::new();
        let (parents, id) = (world.open(), ContainerId::random());
        for (wanted, parent) in [
            ("", "/ringer-test"),
            (".", "/ringer-test"),
            ("..", "/ringer-test"),
            ("nets", "/ringer-test/nets"),
            ("nets.slice", "/ringer-test/nets.slice"),
            ("a/../../b", "/ringer-test/b"),
            ("/", ""),
            ("/x/", "/x"),
            ("/../../../x", "/x"),
            ("/docker/../y", "/y"),
            ("//a/.//b", "/a/b"),
        ] {
            assert_eq!(parents.cgroup(&TenantId::default_tenant(), wanted, &id), format!("{parent}/{id}"), "{wanted}");
        }
    }

    #[tokio::test]
    async fn a_tenant_never_leaves_its_cgroup_and_the_cgroup_stays_until_it_is_removed() {
        let world = World::new();
        let (parents, tenant, id) = (world.open(), "job-1".parse().unwrap(), ContainerId::random());
        let limits = JobLimits { memory: Some(1 << 30), nano_cpus: Some(1_500_000_000), pids: Some(100), disk: None };
        parents.make(&world.cgroups, &tenant, &limits).unwrap();
        let read = |file: &str| fs::read_to_string(world.path("/ringer-test/job-1").join(file)).unwrap();
        assert_eq!(
            (read("memory.max"), read("cpu.max"), read("pids.max")),
            ("1073741824".to_owned(), "150000 100000".to_owned(), "100".to_owned())
        );
        for (wanted, parent) in
            [("", ""), ("/x", "/x"), ("x", "/x"), ("/../../y", "/y"), ("/ringer-test", "/ringer-test")]
        {
            assert_eq!(parents.cgroup(&tenant, wanted, &id), format!("/ringer-test/job-1{parent}/{id}"), "{wanted}");
        }
        let cgroup = parents.cgroup(&tenant, "/x", &id);
        let making = parents.begin(&world.cgroups, &cgroup);
        world.make(&cgroup);
        drop(making);
        fs::remove_dir(world.path(&cgroup)).unwrap();
        parents.end(&world.cgroups, &id);
        assert!(!world.path("/ringer-test/job-1/x").exists(), "what the container had made is gone");
        assert_eq!(read("pids.max"), "100", "but not the tenant's own");
        for file in ["memory.max", "memory.swap.max", "cpu.max", "pids.max", "cgroup.subtree_control"] {
            fs::remove_file(world.path("/ringer-test/job-1").join(file)).unwrap();
        }
        parents.remove(&world.cgroups, &tenant).await.unwrap();
        assert!(!world.path("/ringer-test/job-1").exists());
        assert_eq!(parents.cgroup(&tenant, "", &id), format!("/ringer-test/{id}"));
    }

    #[test]
    fn parents_that_were_made_go_with_their_last_container() {
        let world = World::new();
        let parents = world.open();
        let (first, cgroup) = world.start(&parents, "/x/y");
        let (second, _) = world.start(&parents, "/x");
        let (third, _) = world.start(&parents, "z");
        fs::remove_dir(world.path(&cgroup)).unwrap();
        parents.end(&world.cgroups, &first);
        assert!(!world.path("/x/y").exists() && world.path("/x").exists(), "the second is in it");
        parents.end(&world.cgroups, &second);
        assert!(!world.path("/x").exists());
        parents.end(&world.cgroups, &third);
        assert!(!world.path("/ringer-test/z").exists() && world.path("/ringer-test").exists());
        parents.remove_remains(&world.cgroups);
        assert_eq!(fs::read_dir(world.path("/")).unwrap().count(), 0);
        assert!(!world.folder.path().join("cgroups.json").exists(), "nothing is noted any more");
    }

    #[test]
    fn a_parent_that_was_there_stays() {
        let world = World::new();
        world.make("/limited");
        let parents = world.open();
        let (id, _) = world.start(&parents, "/limited/deep");
        parents.end(&world.cgroups, &id);
        parents.remove_remains(&world.cgroups);
        assert!(world.path("/limited").exists() && !world.path("/limited/deep").exists());
    }

    #[test]
    fn no_parent_goes_while_a_container_is_made() {
        let world = World::new();
        let parents = world.open();
        let (id, _) = world.start(&parents, "/x");
        let next = parents.cgroup(&TenantId::default_tenant(), "/x", &ContainerId::random());
        let making = parents.begin(&world.cgroups, &next);
        parents.end(&world.cgroups, &id);
        assert!(world.path("/x").exists());
        drop(making);
        assert!(!world.path("/x").exists(), "it goes when that one is made, or is not");
    }

    #[test]
    fn ends_that_meet_leave_no_parent() {
        let world = World::new();
        let parents = world.open();
        let started: Vec<_> = (0..16).map(|n| world.start(&parents, &format!("/x{n}/y"))).collect();
        std::thread::scope(|scope| {
            for (id, cgroup) in &started {
                let (world, parents) = (&world, &parents);
                scope.spawn(move || {
                    fs::remove_dir(world.path(cgroup)).unwrap();
                    parents.end(&world.cgroups, id);
                });
            }
        });
        assert_eq!(fs::read_dir(world.path("/")).unwrap().count(), 0);
    }

    #[test]
    fn a_start_sweeps_what_killed_daemons_left() {
        let world = World::new();
        let before = world.open();
        let (_, own) = world.start(&before, "");
        let (_, elsewhere) = world.start(&before, "/x/y");
        let (_, alive) = world.start(&before, "z");
        world.make(&format!("{own}/nested/deeper"));
        world.make(&format!("{alive}/nested"));
        fs::write(world.path(&alive).join("cgroup.procs"), "7\n").unwrap();
        let foreign = format!("/foreign/{}", ContainerId::random());
        world.make(&foreign);
        drop(before);
        drop(world.open());
        assert!(!world.path(&own).exists() && !world.path(&elsewhere).exists() && !world.path("/x").exists());
        assert!(world.path(&alive).join("nested").exists(), "a living container keeps what it made");
        assert!(world.path(&foreign).exists());
    }
}
