//! Layers of a pull: fetched three at a time, unpacked in their order while later ones still come.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{OwnedMutexGuard, oneshot},
    task::JoinSet,
};

use super::{Pull, job::Job, layer_id};
use crate::{
    backend::images::{BlobWriter, Lease},
    engine::{
        Engine,
        images::{progress::Message, reach::Reach},
        tenants::Scope,
    },
    model::{
        Error, Result,
        image::{
            Descriptor,
            documents::{ImageDocument, Manifest},
        },
        reference::Digest,
    },
    registry::{BlobSink, Progress, Proof},
};

/// How long another pull of the same layer is waited for, which fetches it from the same registry through a network of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a download reports; dockerd's interval.
const REPORT_EVERY: Duration = Duration::from_millis(100);

impl Pull<'_> {
    /// Fetches and unpacks what is missing. Whether anything was.
    pub(super) async fn layers(
        &self,
        reach: &Arc<Reach>,
        manifest: &Manifest,
        document: &ImageDocument,
    ) -> Result<bool> {
        let chains = document.chain_ids();
        let here = self.layers_here(reach, manifest, document).await?;
        let shared = manifest.layers.iter().zip(&here).filter(|(_, here)| **here).map(|(layer, _)| layer.size);
        let shared = shared.fold(0, u64::saturating_add);
        self.engine.note_shared(self.scope, shared);
        if here.iter().all(|here| *here) {
            return Ok(false);
        }
        for (layer, here) in manifest.layers.iter().zip(&here) {
            let text = if *here { "Already exists" } else { "Pulling fs layer" };
            self.job.say(Message::layer(layer_id(layer), text));
        }
        // Dropping the set ends the downloads: when one fails, or the pull is given up.
        let mut downloads = JoinSet::new();
        let mut arrivals = Vec::new();
        for (layer, _) in manifest.layers.iter().zip(&here).filter(|(_, here)| !**here) {
            let (done, arrival) = oneshot::channel();
            let download = Download {
                engine: self.engine.clone(),
                scope: self.scope.clone(),
                lease: self.lease.clone(),
                reach: reach.clone(),
                layer: layer.clone(),
                job: self.job.clone(),
            };
            downloads.spawn(async move { drop(done.send(download.run().await)) });
            arrivals.push(arrival);
        }
        let mut arrivals = arrivals.into_iter();
        for (n, layer) in manifest.layers.iter().enumerate().filter(|(n, _)| !here[*n]) {
            let arrival = arrivals.next().expect("one for each missing layer");
            arrival.await.unwrap_or_else(|_| Err(Error::system(format!("downloading {} failed", layer.digest))))?;
            let parent = if n == 0 { "" } else { chains[n - 1].as_str() };
            self.unpack(layer, parent, &chains[n], &document.rootfs.diff_ids[n]).await?;
        }
        Ok(true)
    }

    /// Which layers are fetched and unpacked, and may be taken; the lease keeps them from now on.
    async fn layers_here(&self, reach: &Reach, manifest: &Manifest, document: &ImageDocument) -> Result<Vec<bool>> {
        let images = &self.engine.images;
        let (chains, diff_ids) = (document.chain_ids(), &document.rootfs.diff_ids);
        let mut here = Vec::with_capacity(chains.len());
        for (n, layer) in manifest.layers.iter().enumerate() {
            here.push(
                reach.has(layer).await?
                    && images.backend.write_blob(self.lease, layer).await?.is_none()
                    && images.backend.has_snapshot(self.lease, &chains[n]).await?
                    && images.holds_tar(layer, &diff_ids[n]).await?,
            );
        }
        Ok(here)
    }

    /// containerd tells nothing while it unpacks, so there is a beginning and an end.
    async fn unpack(&self, layer: &Descriptor, parent: &str, chain_id: &str, diff_id: &Digest) -> Result<()> {
        let extracting = |current| Message::layer_progress(layer_id(layer), "Extracting", current, layer.size);
        self.job.say(extracting(0));
        self.engine.images.unpack_one(self.lease, layer, parent, chain_id, diff_id).await?;
        self.job.say(extracting(layer.size));
        self.job.say(Message::layer(layer_id(layer), "Pull complete"));
        Ok(())
    }
}

/// The fetching of one layer.
struct Download {
    engine: Engine,
    scope: Scope,
    lease: Lease,
    reach: Arc<Reach>,
    layer: Descriptor,
    job: Arc<Job>,
}

impl Download {
    async fn run(&self) -> Result<()> {
        let images = &self.engine.images;
        let slots = self.reach.tenant().downloads();
        let _slot = match slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                self.say("Waiting");
                let slot = slots.clone().acquire_owned().await;
                slot.map_err(|closed| Error::system("downloads are over").with_source(closed))?
            }
        };
        // With a place to fetch it: whoever waits for one holds nobody up.
        let (source, _turn) = self.turn().await;
        let is_proven = self.reach.has(&self.layer).await?;
        match images.backend.fetch_blob(&self.lease, &self.layer, &source).await? {
            Some(writer) => {
                let mut sink = Sink(writer);
                self.fetch(&mut sink).await?;
                sink.0.commit(HashMap::new()).await?;
            }
            None if is_proven => self.engine.note_shared(&self.scope, self.layer.size),
            // Somebody else's: the registry has to show that it has it.
            None => {
                let mut proof = Proof::default();
                self.fetch(&mut proof).await?;
                proof.finish(&self.layer)?;
            }
        }
        images.remember_source(&self.layer, &self.reach.session).await?;
        self.say("Download complete");
        Ok(())
    }

    /// Waits for another pull that is at the same layer, which is then found. Not for one that another registry sends, and not for ever:
    /// a job may be as slow as it likes. Answers under what name it is fetched.
    async fn turn(&self) -> (String, OwnedMutexGuard<()>) {
        let locks = &self.engine.images.locks;
        let lock = async |source: &str| locks.lock(&format!("{source} {}", self.layer.digest)).await;
        let shared = self.reach.source();
        if let Ok(turn) = tokio::time::timeout(PATIENCE, lock(&shared)).await {
            return (shared, turn);
        }
        let own = format!("{shared} of {}", self.reach.tenant().id());
        let turn = lock(&own).await;
        (own, turn)
    }

    async fn fetch(&self, sink: &mut dyn BlobSink) -> Result<()> {
        self.reach.session.download(&self.layer, sink, &mut self.reporter()).await?;
        self.engine.note_pulled(&self.scope, self.layer.size);
        self.say("Verifying Checksum");
        Ok(())
    }

    fn say(&self, text: &str) {
        self.job.say(Message::layer(layer_id(&self.layer), text));
    }

    fn reporter(&self) -> impl FnMut(Progress) + Send + use<> {
        let (job, layer) = (self.job.clone(), self.layer.clone());
        let mut last: Option<Instant> = None;
        move |progress| match progress {
            Progress::Downloaded(bytes) => {
                if bytes == layer.size || last.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
                    last = Some(Instant::now());
                    job.say(Message::layer_progress(layer_id(&layer), "Downloading", bytes, layer.size));
                }
            }
            Progress::Retrying(seconds) => {
                let plural = if seconds == 1 { "" } else { "s" };
                job.say(Message::layer(layer_id(&layer), format!("Retrying in {seconds} second{plural}")));
            }
        }
    }
}

/// A blob writer as the registry client sees it.
struct Sink(Box<dyn BlobWriter>);

#[async_trait]
impl BlobSink for Sink {
    fn offset(&self) -> u64 {
        self.0.offset()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.write(bytes).await
    }

    async fn truncate(&mut self) -> Result<()> {
        self.0.truncate().await
    }
}
