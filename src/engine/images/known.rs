//! The names of images as containerd keeps them.
//!
//! Nobody but this daemon changes names in its namespace, so that what it has read and written since is what containerd would say.
//! containerd finds a tenant's names by looking at those of all tenants; here they are found without, and while it is silent.
//! Who has restarted it may have given it another root: after that it is asked again.
//! Everything else goes straight through.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::silence::Silence;
use crate::{
    backend::images::{BlobInfo, BlobReader, BlobWriter, ImageBackend, ImageRecord, Lease, NewLayer},
    model::{
        Error, ErrorKind, Result,
        container::Change,
        id::{ContainerId, TenantId},
        image::Descriptor,
        limits,
        reference::Digest,
    },
    work::Carried,
};

/// How long a list that is known waits for containerd.
const LIST_PATIENCE: Duration = Duration::from_secs(2);

/// For how long a change that nobody waits for any more may still be made: containerd looks at no client while it waits for its disk.
const LATE: Duration = Duration::from_secs(600);

/// The same of changes that an earlier life of the daemon asked for.
const LATE_AT_START: Duration = Duration::from_secs(60);

/// Tenants that are remembered before those without names are forgotten; twice as many as have names, if that is more.
const TENANTS: usize = 1024;

/// Bytes that a name takes, about.
const NAME: usize = 1 << 10;

/// Those of a tenant.
type Records = BTreeMap<String, ImageRecord>;

/// An image store that remembers the names in it.
pub struct Remembering {
    store: Arc<dyn ImageBackend>,
    names: Mutex<KnownNames>,
    silence: Silence,
}

struct KnownNames {
    of: HashMap<TenantId, Names>,
    /// Grows with each change.
    changes: u64,
    /// The changes when tenants were last forgotten or all were in doubt: a list that was asked for before says nothing.
    forgotten_at: u64,
    /// Tenants that are remembered before those without names are forgotten.
    most: usize,
    /// The connection over which they were read.
    connection: u64,
    /// From then on a list may be surely what containerd has.
    sure_from: Instant,
}

/// What is known of a tenant's.
#[derive(Default)]
struct Names {
    read: Read,
    /// Changes that wait for their answer.
    changing: usize,
    /// The number of the last one: a list that was asked for before it may not know of it.
    changed_at: u64,
    /// Until then an unanswered change may still be made.
    late_until: Option<Instant>,
}

#[derive(Default)]
enum Read {
    #[default]
    NotYet,
    /// As they were last read and changed since, but for a change that containerd may make later, has made in another order or not at all.
    Perhaps(Records),
    /// What containerd would say: each change since they were read was answered, one after the other.
    Surely(Records),
}

impl Names {
    fn records(&mut self) -> Option<&mut Records> {
        match &mut self.read {
            Read::NotYet => None,
            Read::Perhaps(records) | Read::Surely(records) => Some(records),
        }
    }

    fn doubt(&mut self) {
        if let Some(records) = self.records() {
            self.read = Read::Perhaps(std::mem::take(records));
        }
    }

    /// In doubt if another change is on its way: nobody knows which of them containerd made last.
    fn begin(&mut self, number: u64) {
        if self.changing > 0 {
            self.doubt();
        }
        self.changing += 1;
        self.changed_at = number;
    }

    fn end(&mut self, number: u64, is_answered: bool) {
        if !is_answered {
            self.doubt();
            self.late_until = Some(Instant::now() + LATE);
        }
        self.changing -= 1;
        self.changed_at = number;
    }

    fn is_worth_keeping(&mut self) -> bool {
        self.changing > 0
            || self.late_until.is_some_and(|until| Instant::now() < until)
            || self.records().is_some_and(|records| !records.is_empty())
    }
}

impl KnownNames {
    fn records(&mut self, tenant: &TenantId) -> Option<&mut Records> {
        self.of.get_mut(tenant).and_then(Names::records)
    }

    /// Conflict if a job has no room for a new name beside those that are known.
    fn check(&mut self, image: &ImageRecord) -> Result<()> {
        let most = if image.tenant.is_of_builds() { limits::INSTRUCTIONS } else { limits::JOB_IMAGES };
        match self.records(&image.tenant) {
            Some(records) if records.len() >= most && !records.contains_key(&image.name) => {
                Err(Error::conflict(format!("there is no room for more: a job has {most} names of images at most")))
            }
            _ => Ok(()),
        }
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// Over another connection all of them may be other ones.
    fn look_over(&mut self, connection: u64) {
        if self.connection != connection {
            self.connection = connection;
            self.of.values_mut().for_each(Names::doubt);
            self.forgotten_at = self.next_change();
        }
    }

    /// What was listed when there had been so many changes.
    fn learn(&mut self, tenant: &TenantId, records: &[ImageRecord], asked_at: u64) {
        let (forgotten_at, sure_from) = (self.forgotten_at, self.sure_from);
        let names = self.of.entry(tenant.clone()).or_default();
        if names.changing == 0 && names.changed_at.max(forgotten_at) <= asked_at {
            let records = records.iter().map(|record| (record.name.clone(), record.clone())).collect();
            let is_sure = names.late_until.unwrap_or(sure_from).max(sure_from) <= Instant::now();
            names.read = if is_sure { Read::Surely(records) } else { Read::Perhaps(records) };
        }
        self.forget_empty();
    }

    /// A job that is gone has no names any more.
    fn forget_empty(&mut self) {
        if self.of.len() > self.most {
            self.of.retain(|_, names| names.is_worth_keeping());
            self.forgotten_at = self.changes;
            self.most = TENANTS.max(2 * self.of.len());
        }
    }
}

/// A change of a tenant's names that was asked for. Dropped without an answer, nobody knows whether it was made.
struct Changing<'a> {
    names: &'a Remembering,
    tenant: &'a TenantId,
    is_answered: bool,
}

impl<'a> Changing<'a> {
    fn begin(names: &'a Remembering, tenant: &'a TenantId) -> Self {
        let mut known = names.known();
        let number = known.next_change();
        known.of.entry(tenant.clone()).or_default().begin(number);
        Self { names, tenant, is_answered: false }
    }

    fn answered(mut self, change: impl FnOnce(&mut Records)) {
        self.is_answered = true;
        // The lock ends here: dropping `self` takes it again.
        let mut known = self.names.known();
        if let Some(records) = known.of.get_mut(self.tenant).and_then(Names::records) {
            change(records);
        }
        drop(known);
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut known = self.names.known();
        let number = known.next_change();
        if let Some(names) = known.of.get_mut(self.tenant) {
            names.end(number, self.is_answered);
        }
    }
}

impl Remembering {
    /// Nothing is known yet.
    pub fn new(store: Arc<dyn ImageBackend>) -> Self {
        let sure_from = Instant::now() + LATE_AT_START;
        let names =
            KnownNames { of: HashMap::new(), changes: 0, forgotten_at: 0, most: TENANTS, connection: 0, sure_from };
        Self { store, names: Mutex::new(names), silence: Silence::default() }
    }

    fn known(&self) -> MutexGuard<'_, KnownNames> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list from containerd; `None` if it is silent and a list is known.
    async fn ask(&self, tenant: &TenantId, is_known: bool) -> Result<Option<Vec<ImageRecord>>> {
        let listing = self.store.list_images(tenant);
        if !is_known {
            return listing.await.map(Some);
        }
        if self.silence.is_now() {
            return Ok(None);
        }
        match tokio::time::timeout(LIST_PATIENCE, listing).await {
            Ok(Err(error)) if error.kind() == ErrorKind::Unavailable => Ok(None),
            Ok(listed) => listed.map(Some),
            Err(_) => {
                self.silence.begin();
                Ok(None)
            }
        }
    }
}

#[async_trait]
impl ImageBackend for Remembering {
    async fn list_images(&self, tenant: &TenantId) -> Result<Vec<ImageRecord>> {
        let is_large = self.known().records(tenant).is_some_and(|records| records.len() * NAME > limits::SMALL_HOLDING);
        let _place = if is_large { Some(Carried::here().place().await?) } else { None };
        let (asked_at, perhaps) = {
            let mut known = self.known();
            known.look_over(self.store.connection());
            match known.of.get(tenant).map(|names| (&names.read, names.changing)) {
                Some((Read::Surely(records), 0)) => return Ok(records.values().cloned().collect()),
                Some((Read::Surely(records) | Read::Perhaps(records), _)) => {
                    (known.changes, Some(records.values().cloned().collect()))
                }
                Some((Read::NotYet, _)) | None => (known.changes, None),
            }
        };
        let Some(listed) = self.ask(tenant, perhaps.is_some()).await? else { return Ok(perhaps.unwrap_or_default()) };
        self.known().learn(tenant, &listed, asked_at);
        Ok(listed)
    }

    async fn put_image(&self, image: &ImageRecord) -> Result<ImageRecord> {
        if !image.tenant.is_operators() {
            let is_known = self.known().records(&image.tenant).is_some();
            if !is_known {
                self.list_images(&image.tenant).await?;
            }
            self.known().check(image)?;
        }
        let changing = Changing::begin(self, &image.tenant);
        let kept = self.store.put_image(image).await?;
        changing.answered(|known| drop(known.insert(kept.name.clone(), kept.clone())));
        Ok(kept)
    }

    async fn delete_image(&self, tenant: &TenantId, name: &str, sync: bool) -> Result<()> {
        let changing = Changing::begin(self, tenant);
        self.store.delete_image(tenant, name, sync).await?;
        changing.answered(|known| drop(known.remove(name)));
        Ok(())
    }

    async fn lease(&self) -> Result<Lease> {
        self.store.lease().await
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        self.store.release(lease).await
    }

    async fn get_image(&self, tenant: &TenantId, name: &str) -> Result<Option<ImageRecord>> {
        self.store.get_image(tenant, name).await
    }

    async fn blob_info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        self.store.blob_info(digest).await
    }

    async fn read_blob(&self, digest: &Digest, offset: u64) -> Result<BlobReader> {
        self.store.read_blob(digest, offset).await
    }

    async fn fetch_blob(
        &self,
        lease: &Lease,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<Box<dyn BlobWriter>>> {
        self.store.fetch_blob(lease, descriptor, source).await
    }

    async fn write_new_blob(&self, lease: &Lease) -> Result<Box<dyn BlobWriter>> {
        self.store.write_new_blob(lease).await
    }

    async fn lend(&self, tenant: &TenantId, blobs: &[Descriptor]) -> Result<()> {
        self.store.lend(tenant, blobs).await
    }

    async fn take(&self, lease: &Lease, tenant: &TenantId, blob: &Descriptor) -> Result<bool> {
        self.store.take(lease, tenant, blob).await
    }

    async fn label_blob(&self, digest: &Digest, labels: HashMap<String, String>) -> Result<()> {
        self.store.label_blob(digest, labels).await
    }

    async fn has_snapshot(&self, lease: &Lease, chain_id: &str) -> Result<bool> {
        self.store.has_snapshot(lease, chain_id).await
    }

    async fn unpack_layer(
        &self,
        lease: &Lease,
        layer: &Descriptor,
        parent: &str,
        chain_id: &str,
        expected_diff_id: &Digest,
    ) -> Result<()> {
        self.store.unpack_layer(lease, layer, parent, chain_id, expected_diff_id).await
    }

    async fn store_changes(&self, lease: &Lease, container: &ContainerId) -> Result<NewLayer> {
        self.store.store_changes(lease, container).await
    }

    async fn list_changes(&self, container: &ContainerId) -> Result<Vec<Change>> {
        self.store.list_changes(container).await
    }

    async fn snapshot_size(&self, chain_id: &str) -> Result<u64> {
        self.store.snapshot_size(chain_id).await
    }

    fn snapshotter(&self) -> &str {
        self.store.snapshotter()
    }

    fn connection(&self) -> u64 {
        self.store.connection()
    }

    async fn collect_garbage(&self) -> Result<()> {
        self.store.collect_garbage().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::images::{fake::FakeImages, samples},
        model::{image::ImageConfig, time::Timestamp},
    };

    fn names() -> (FakeImages, Remembering, TenantId) {
        let store = FakeImages::default();
        let names = Remembering::new(Arc::new(store.clone()));
        names.known().sure_from = Instant::now();
        (store, names, TenantId::default_tenant())
    }

    fn record(name: &str) -> ImageRecord {
        ImageRecord {
            tenant: TenantId::default_tenant(),
            name: name.to_owned(),
            target: samples::image("linux/amd64", ImageConfig::default(), &[]).target,
            labels: HashMap::new(),
            created: Timestamp::zero(),
            updated: Timestamp::zero(),
        }
    }

    async fn listed(names: &Remembering) -> Vec<String> {
        let records = names.list_images(&TenantId::default_tenant()).await.unwrap();
        records.into_iter().map(|record| record.name).collect()
    }

    #[tokio::test]
    async fn what_was_read_once_is_not_asked_again() {
        let (store, names, tenant) = names();
        names.put_image(&record("a")).await.unwrap();
        assert_eq!(listed(&names).await, ["a"]);
        // By somebody who is not there in reality: it would be seen by asking.
        store.put_image(&record("foreign")).await.unwrap();
        let kept = names.put_image(&record("b")).await.unwrap();
        names.delete_image(&tenant, "a", false).await.unwrap();
        assert_eq!(names.list_images(&tenant).await.unwrap(), [kept]);
    }

    #[tokio::test]
    async fn another_connection_is_asked() {
        let (store, names, _) = names();
        names.put_image(&record("a")).await.unwrap();
        assert_eq!(listed(&names).await, ["a"]);
        store.delete_image(&TenantId::default_tenant(), "a", false).await.unwrap();
        assert_eq!(listed(&names).await, ["a"]);
        store.reconnect();
        assert!(listed(&names).await.is_empty());
        store.put_image(&record("foreign")).await.unwrap();
        assert!(listed(&names).await.is_empty(), "it is sure again");
    }

    #[tokio::test]
    async fn a_change_without_an_answer_is_asked_for() {
        let (store, names, _) = names();
        assert!(listed(&names).await.is_empty());
        store.lose_next_answer();
        names.put_image(&record("a")).await.unwrap_err();
        assert_eq!(listed(&names).await, ["a"]);
        // It may be made later than the list.
        store.put_image(&record("late")).await.unwrap();
        assert_eq!(listed(&names).await, ["a", "late"]);
        names.known().of.get_mut(&TenantId::default_tenant()).unwrap().late_until = Some(Instant::now());
        assert_eq!(listed(&names).await, ["a", "late"]);
        store.put_image(&record("foreign")).await.unwrap();
        assert_eq!(listed(&names).await, ["a", "late"]);
    }

    #[tokio::test]
    async fn names_are_asked_for_while_one_of_them_changes() {
        let (store, names, tenant) = names();
        assert!(listed(&names).await.is_empty());
        let changing = Changing::begin(&names, &tenant);
        store.put_image(&record("a")).await.unwrap();
        assert_eq!(listed(&names).await, ["a"]);
        changing.answered(|known| drop(known.insert("a".to_owned(), record("a"))));
        store.put_image(&record("foreign")).await.unwrap();
        assert_eq!(listed(&names).await, ["a"]);
    }

    #[tokio::test]
    async fn what_an_earlier_life_asked_for_may_come_after_the_first_list() {
        let store = FakeImages::default();
        let names = Remembering::new(Arc::new(store.clone()));
        assert!(listed(&names).await.is_empty());
        store.put_image(&record("late")).await.unwrap();
        assert_eq!(listed(&names).await, ["late"]);
    }

    #[tokio::test]
    async fn changes_at_once_are_asked_for() {
        let (store, names, tenant) = names();
        assert!(listed(&names).await.is_empty());
        let (one, two) = (Changing::begin(&names, &tenant), Changing::begin(&names, &tenant));
        store.put_image(&record("a")).await.unwrap();
        one.answered(|known| drop(known.remove("a")));
        two.answered(|known| drop(known.insert("b".to_owned(), record("b"))));
        assert_eq!(listed(&names).await, ["a"]);
    }

    #[tokio::test]
    async fn a_list_that_a_change_overtook_is_not_kept() {
        let (_, names, tenant) = names();
        let asked_at = names.known().changes;
        names.put_image(&record("a")).await.unwrap();
        names.known().learn(&tenant, &[], asked_at);
        assert_eq!(listed(&names).await, ["a"]);
    }

    #[tokio::test]
    async fn a_list_from_before_its_tenant_was_forgotten_is_not_kept() {
        let (_, names, tenant) = names();
        let asked_at = names.known().changes;
        names.put_image(&record("a")).await.unwrap();
        {
            let mut known = names.known();
            for number in 0..=TENANTS {
                let (other, now) = (format!("t{number}").parse().unwrap(), known.changes);
                known.learn(&other, &[], now);
            }
            assert!(!known.of.contains_key(&tenant));
            known.learn(&tenant, &[], asked_at);
        }
        assert_eq!(listed(&names).await, ["a"]);
    }

    #[tokio::test]
    async fn names_of_a_job_have_an_end() {
        let store = Remembering::new(Arc::new(FakeImages::default()));
        let job: TenantId = "job".parse().unwrap();
        let name = async |tenant: &TenantId, number: usize| {
            store.put_image(&ImageRecord { tenant: tenant.clone(), ..record(&format!("n{number}")) }).await.map(drop)
        };
        for tenant in [&job, &TenantId::default_tenant(), &job.of_builds()] {
            for number in 0..limits::JOB_IMAGES {
                name(tenant, number).await.unwrap();
            }
        }
        name(&TenantId::default_tenant(), limits::JOB_IMAGES).await.unwrap();
        name(&job.of_builds(), limits::JOB_IMAGES).await.unwrap();
        let refusal = name(&job, limits::JOB_IMAGES).await.unwrap_err();
        assert_eq!((refusal.kind(), refusal.message().contains("1000 names")), (ErrorKind::Conflict, true));
        name(&job, 0).await.unwrap();
        store.delete_image(&job, "n1", false).await.unwrap();
        name(&job, limits::JOB_IMAGES).await.unwrap();
    }
}
