//! What a tenant reaches of the content that is here for all: what it has pulled, loaded or built itself, and nothing else by
//! knowing a digest. Three things could lead further, and are closed here.
//!
//! - An index names manifests that somebody else has brought. The tenant's names note which of them are its own ([`Held`]), and its view
//!   of an image ([`Tree::seen_with`]) has no others.
//! - A registry, which may be the tenant's own, names blobs that are here. Whoever names one has to have it ([`Reach`]): the
//!   registry's repository has given it before, or says that it has it and has given it from another, or the tenant has an image with it;
//!   else it is fetched again and compared.
//! - A configuration names the tars of layers, by which unpacked layers are found. A blob has to hold that tar
//!   ([`ImageStore::holds_tar`]), which is seen to before a container is made of an image, wherever that came from ([`Proven`]).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io::Read,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use tokio_util::io::SyncIoBridge;

use super::{
    load::decompressed,
    look_up::Found,
    push::repositories,
    tree::{Attestation, Tree},
};
use crate::{
    backend::images::ImageRecord,
    engine::{
        Engine,
        images::ImageStore,
        tenants::{Scope, Tenant},
    },
    model::{
        Result,
        error::Context,
        image::{Descriptor, documents::media_type},
        reference::Digest,
    },
    registry::Session,
    work::{self, Kind, Stop, Worker},
};

/// Labels of a name that say which documents below its index are the tenant's.
const HELD: &str = "ringer.held.";

/// What stands there if none is; containerd drops labels without a value.
const NOTHING: &str = "none";

/// Digests in one label: containerd's are at most 4 KiB long.
const PER_LABEL: usize = 50;

/// The label by which containerd's tools know the tar in a packed blob.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Manifests that are remembered as proven.
const PROVEN: usize = 16_384;

/// Bytes that are hashed at once.
const CHUNK: usize = 256 << 10;

/// The documents below an index, manifests and indexes, that a tenant has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(BTreeSet<Digest>);

impl Held {
    /// What a name notes. `None`, of an index, where it was made before there were such notes: all that is here.
    fn noted(record: &ImageRecord) -> Option<Self> {
        let is_note = |label: &String| label.starts_with(HELD);
        if media_type::is_index(&record.target.media_type) && !record.labels.keys().any(is_note) {
            return None;
        }
        let notes = record.labels.iter().filter(|(label, _)| is_note(label));
        Some(notes.flat_map(|(_, digests)| digests.split(',')).filter_map(|digest| digest.parse().ok()).collect())
    }

    /// What several names of one image note.
    pub(super) fn of<'r>(records: impl IntoIterator<Item = &'r ImageRecord>) -> Option<Self> {
        records.into_iter().try_fold(Self::default(), |mut all, record| {
            all.0.extend(Self::noted(record)?.0);
            Some(all)
        })
    }

    /// With what others hold.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// As labels of a name. Also nothing is said: no note would mean everything.
    pub(super) fn labels(&self) -> HashMap<String, String> {
        if self.0.is_empty() {
            return HashMap::from([(format!("{HELD}0"), NOTHING.to_owned())]);
        }
        let digests: Vec<&str> = self.0.iter().map(Digest::as_str).collect();
        let labels = digests.chunks(PER_LABEL).enumerate();
        labels.map(|(n, digests)| (format!("{HELD}{n}"), digests.join(","))).collect()
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }
}

impl FromIterator<Digest> for Held {
    fn from_iter<I: IntoIterator<Item = Digest>>(digests: I) -> Self {
        Self(digests.into_iter().collect())
    }
}

impl Found {
    /// What the tenant has below it; `None` is all that is here.
    pub(super) fn held(&self) -> Option<Held> {
        Held::of(&self.records)
    }
}

impl Tree {
    /// The image as one sees it who holds no more of it than this.
    pub(super) fn seen_with(self: Arc<Self>, held: Option<&Held>) -> Arc<Self> {
        let Some(held) = held else { return self };
        if !media_type::is_index(&self.target.media_type) {
            return self;
        }
        let is_named = |within: &Digest| *within == self.target.digest || held.contains(within);
        let all_held = self.variants.iter().all(|variant| {
            is_named(&variant.within) && (variant.content.is_none() || held.contains(&variant.descriptor.digest))
        });
        let is_said = |said: &Attestation| is_named(&said.within) && held.contains(&said.descriptor.digest);
        let all_held = all_held && self.attestations.iter().all(is_said);
        if all_held && self.indexes.iter().all(|index| held.contains(&index.digest)) {
            return self;
        }
        let mut seen = (*self).clone();
        seen.variants.retain(|variant| is_named(&variant.within));
        seen.attestations.retain(is_said);
        seen.indexes.retain(|index| held.contains(&index.digest));
        for variant in &mut seen.variants {
            variant.content = variant.content.take().filter(|_| held.contains(&variant.descriptor.digest));
        }
        Arc::new(seen)
    }
}

/// What a tenant may take from here while it pulls.
pub(super) struct Reach {
    engine: Engine,
    tenant: Arc<Tenant>,
    /// With the registry that names the content, by the tenant's own credentials.
    pub(super) session: Session,
    own: OnceCell<HashSet<Digest>>,
}

impl Reach {
    pub(super) fn new(engine: &Engine, scope: &Scope, session: Session) -> Self {
        Self { engine: engine.clone(), tenant: scope.as_tenant().clone(), session, own: OnceCell::new() }
    }

    /// Who pulls.
    pub(super) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Who sends what is fetched, told from others by whom it may be slow or wrong: a registry, or a job that may be one itself.
    pub(super) fn source(&self) -> String {
        match self.session.vouches() {
            true => self.session.reference().registry().to_owned(),
            false => format!("{} of {}", self.session.reference().registry(), self.tenant.id()),
        }
    }

    /// Whether a blob is here, and whoever names it has it.
    pub(super) async fn has(&self, blob: &Descriptor) -> Result<bool> {
        let images = &self.engine.images;
        let Some(info) = images.backend.blob_info(&blob.digest).await? else { return Ok(false) };
        let name = self.session.reference();
        // At the loopback addresses of a job another registry is listening than at those of the machine.
        let given_by = if self.session.vouches() { repositories(&info, name.registry()) } else { Vec::new() };
        if given_by.iter().any(|repository| repository == name.repository()) || self.own().await?.contains(&blob.digest)
        {
            return Ok(true);
        }
        // Of a registry that never gave it such a word is worth nothing: it may be the tenant's.
        if given_by.is_empty() || !self.session.has(blob).await {
            return Ok(false);
        }
        images.remember_source(blob, &self.session).await?;
        Ok(true)
    }

    /// All that the tenant's images consist of.
    async fn own(&self) -> Result<&HashSet<Digest>> {
        let read = async || {
            let (images, mut own) = (&self.engine.images, HashSet::new());
            for tenant in [self.tenant.id(), &self.tenant.id().of_builds()] {
                for found in images.all(tenant).await? {
                    // What cannot be read proves nothing.
                    let Ok(tree) = images.tree(&found).await else { continue };
                    for (variant, content) in tree.available() {
                        let parts =
                            content.manifest.layers.iter().chain([&content.manifest.config, &variant.descriptor]);
                        own.extend(parts.map(|part| part.digest.clone()));
                    }
                }
            }
            Ok(own)
        };
        self.own.get_or_try_init(read).await
    }
}

/// Manifests whose layers were compared with what their configurations name, by this daemon. A manifest names both, so once is enough.
#[derive(Default)]
pub(super) struct Proven(Mutex<HashSet<Digest>>);

impl Proven {
    fn lock(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, manifest: &Digest) -> bool {
        self.lock().contains(manifest)
    }

    pub(super) fn add(&self, manifest: &Digest) {
        let mut proven = self.lock();
        if proven.len() >= PROVEN {
            proven.clear();
        }
        proven.insert(manifest.clone());
    }
}

impl ImageStore {
    /// Whether a blob that is here holds this tar, packed or not. It is looked into once, and then known.
    pub(super) async fn holds_tar(&self, blob: &Descriptor, diff_id: &Digest) -> Result<bool> {
        if blob.digest == *diff_id {
            return Ok(true);
        }
        let info = self.backend.blob_info(&blob.digest).await?;
        let known = info.and_then(|info| info.labels.get(UNCOMPRESSED).cloned());
        if let Some(known) = known {
            return Ok(known == diff_id.as_str());
        }
        let tar = self.digest_of_tar(blob).await?;
        let label = HashMap::from([(UNCOMPRESSED.to_owned(), tar.to_string())]);
        self.backend.label_blob(&blob.digest, label).await?;
        Ok(tar == *diff_id)
    }

    /// Notes what [`Self::holds_tar`] would find out, once it was unpacked and seen.
    pub(super) async fn remember_tar(&self, blob: &Descriptor, diff_id: &Digest) -> Result<()> {
        if blob.digest == *diff_id {
            return Ok(());
        }
        let label = HashMap::from([(UNCOMPRESSED.to_owned(), diff_id.to_string())]);
        self.backend.label_blob(&blob.digest, label).await
    }

    async fn digest_of_tar(&self, blob: &Descriptor) -> Result<Digest> {
        let worker = Worker::find(Kind::Layer, Stop::never()).await?;
        let packed = SyncIoBridge::new(self.backend.read_blob(&blob.digest, 0).await?);
        let name = blob.digest.clone();
        worker.run("digest", move || digest(decompressed(packed)?).context(format!("reading {name}"))).await
    }
}

fn digest(mut tar: impl Read) -> std::io::Result<Digest> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        work::check()?;
        match tar.read(&mut chunk)? {
            0 => return Ok(Digest::from_sha256(&hash.finalize())),
            read => hash.update(&chunk[..read]),
        }
    }
}
