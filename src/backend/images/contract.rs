//! What every [`ImageBackend`] must do. The fake runs it in its own tests, containerd in `tests/integration/images.rs`.
//! It panics where the contract is broken, as tests do.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::{
    ImageBackend, ImageRecord, Lease,
    samples::{Packing, Sample, image, pack, tar},
};
use crate::model::{
    container::ChangeKind,
    id::{ContainerId, TenantId},
    image::{Descriptor, ImageConfig, documents::EMPTY_LAYER},
    reference::Digest,
    time::Timestamp,
};

/// Runs all of it, on content of its own.
pub async fn image_backend(backend: &dyn ImageBackend) {
    blob_is_written_read_and_described(backend).await;
    broken_upload_is_taken_up_again(backend).await;
    wrong_bytes_are_refused_and_not_kept(backend).await;
    failed_uploads_tell_their_reason(backend).await;
    blob_with_unknown_digest_tells_it(backend).await;
    blob_without_lease_or_name_is_collected(backend).await;
    a_builder_has_what_is_lent_and_nothing_else_is_taken(backend).await;
    names_belong_to_tenants(backend).await;
    tenants_with_similar_names_do_not_meet(backend).await;
    image_record_pins_content_and_snapshots(backend).await;
    wrong_diff_id_is_refused_and_nothing_kept(backend).await;
    packed_layers_are_unpacked(backend).await;
}

/// Bytes that nobody has written before.
fn fresh(text: &str) -> Bytes {
    format!("{text} {}", ContainerId::random()).into()
}

fn tenant(name: &str) -> TenantId {
    let name = format!("{name}-{}", ContainerId::random().short());
    name.parse().expect("a valid name")
}

async fn write(backend: &dyn ImageBackend, lease: &Lease, bytes: &Bytes) -> Descriptor {
    let descriptor = Descriptor::of("application/octet-stream", bytes);
    store(backend, lease, &descriptor, bytes).await;
    descriptor
}

async fn store(backend: &dyn ImageBackend, lease: &Lease, descriptor: &Descriptor, bytes: &Bytes) {
    if let Some(mut writer) = backend.write_blob(lease, descriptor).await.expect("opening a writer") {
        writer.write(bytes.clone()).await.expect("writing");
        assert_eq!(writer.commit(HashMap::new()).await.expect("committing"), descriptor.digest);
    }
}

async fn a_builder_has_what_is_lent_and_nothing_else_is_taken(backend: &dyn ImageBackend) {
    let (first, second) = (tenant("builder"), tenant("builder"));
    let lease = backend.lease().await.unwrap();
    let (lent, kept) = (write(backend, &lease, &fresh("lent")).await, write(backend, &lease, &fresh("kept")).await);
    let absent = Descriptor::of("application/octet-stream", &fresh("absent"));
    backend.lend(&first, &[lent.clone(), absent.clone()]).await.unwrap();
    // Twice is once.
    backend.lend(&first, std::slice::from_ref(&lent)).await.unwrap();
    assert!(backend.take(&lease, &first, &lent).await.unwrap());
    for (tenant, blob) in [(&first, &kept), (&first, &absent), (&second, &lent)] {
        assert!(!backend.take(&lease, tenant, blob).await.unwrap());
    }
    // It stays with the builder when it is gone here, and can be had again.
    backend.release(lease).await.unwrap();
    backend.collect_garbage().await.unwrap();
    assert_eq!(backend.blob_info(&lent.digest).await.unwrap(), None);
    let lease = backend.lease().await.unwrap();
    // Whoever knows the digest alone brings its bytes, or gets nothing.
    let writer = backend.write_blob(&lease, &lent).await.unwrap().expect("it is the builder's");
    assert_eq!(writer.offset(), 0);
    drop(writer);
    assert_eq!(backend.blob_info(&lent.digest).await.unwrap(), None);
    assert!(backend.take(&lease, &first, &lent).await.unwrap());
    assert!(backend.blob_info(&lent.digest).await.unwrap().is_some());
    backend.release(lease).await.unwrap();
}

async fn blob_is_written_read_and_described(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    let bytes = fresh("content");
    let blob = write(backend, &lease, &bytes).await;
    let info = backend.blob_info(&blob.digest).await.unwrap().expect("it is there");
    assert_eq!(info.size, blob.size);
    assert!(backend.write_blob(&lease, &blob).await.unwrap().is_none(), "a blob that is there needs no writer");

    backend
        .label_blob(&blob.digest, HashMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]))
        .await
        .unwrap();
    backend.label_blob(&blob.digest, HashMap::from([("b".into(), String::new())])).await.unwrap();
    let labels = backend.blob_info(&blob.digest).await.unwrap().unwrap().labels;
    assert_eq!((labels.get("a").map(String::as_str), labels.get("b")), (Some("1"), None));

    let mut rest = Vec::new();
    backend.read_blob(&blob.digest, 3).await.unwrap().read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, &bytes[3..]);
    assert!(
        backend.read_blob(&Digest::of(b"never written"), 0).await.is_err() || {
            let mut reader = backend.read_blob(&Digest::of(b"never written"), 0).await.unwrap();
            reader.read_to_end(&mut rest).await.is_err()
        }
    );
    backend.release(lease).await.unwrap();
}

async fn broken_upload_is_taken_up_again(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    let bytes: Bytes = fresh("x").repeat(60_000).into();
    let blob = Descriptor::of("application/octet-stream", &bytes);
    let mut writer = backend.write_blob(&lease, &blob).await.unwrap().unwrap();
    writer.write(bytes.slice(..2 << 20)).await.unwrap();
    drop(writer);

    let mut writer = backend.write_blob(&lease, &blob).await.unwrap().unwrap();
    let offset = usize::try_from(writer.offset()).unwrap();
    assert_eq!(offset, 2 << 20, "what was written is still there");
    writer.write(bytes.slice(offset..)).await.unwrap();
    writer.commit(HashMap::new()).await.unwrap();

    let sent: Bytes = fresh("w").repeat(60_000).into();
    let blob = Descriptor::of("application/octet-stream", &sent);
    let mut slow = backend.fetch_blob(&lease, &blob, "evil.test").await.unwrap().unwrap();
    slow.write(bytes.slice(..2 << 20)).await.unwrap();
    let mut writer = backend.fetch_blob(&lease, &blob, "registry.test:5000").await.unwrap().unwrap();
    assert_eq!(writer.offset(), 0, "what another has sent is not taken for a beginning");
    writer.write(sent).await.unwrap();
    writer.commit(HashMap::new()).await.unwrap();
    drop(slow);

    let other: Bytes = fresh("y").repeat(60_000).into();
    let blob = Descriptor::of("application/octet-stream", &other);
    let mut writer = backend.write_blob(&lease, &blob).await.unwrap().unwrap();
    writer.write(bytes.slice(..2 << 20)).await.unwrap();
    writer.truncate().await.unwrap();
    assert_eq!(writer.offset(), 0);
    writer.write(other).await.unwrap();
    writer.commit(HashMap::new()).await.unwrap();
    backend.release(lease).await.unwrap();
}

async fn wrong_bytes_are_refused_and_not_kept(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    let bytes = fresh("right");
    let blob = Descriptor::of("application/octet-stream", &bytes);
    let mut writer = backend.write_blob(&lease, &blob).await.unwrap().unwrap();
    writer.write(Bytes::from(vec![b'z'; bytes.len()])).await.unwrap();
    let error = writer.commit(HashMap::new()).await.unwrap_err();
    assert!(error.message().contains("verification failed for digest"), "{}", error.message());
    assert!(backend.blob_info(&blob.digest).await.unwrap().is_none());
    let writer = backend.write_blob(&lease, &blob).await.unwrap().unwrap();
    assert_eq!(writer.offset(), 0, "nothing of the wrong bytes is left");
    drop(writer);
    backend.release(lease).await.unwrap();
}

/// Also when what is there of them cannot be removed at once.
async fn failed_uploads_tell_their_reason(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    for round in 0..20 {
        let bytes: Bytes = fresh("short").repeat(20_000).into();
        let blob = Descriptor::of("application/octet-stream", &bytes);
        let mut writer = backend.write_blob(&lease, &blob).await.unwrap().unwrap();
        writer.write(bytes.slice(..bytes.len() - 1)).await.unwrap();
        writer.truncate().await.unwrap();
        writer.write(bytes.slice(1..)).await.unwrap();
        let error = writer.commit(HashMap::new()).await.unwrap_err();
        assert!(error.message().contains("verification failed for digest"), "round {round}: {}", error.message());
    }
    backend.release(lease).await.unwrap();
}

async fn blob_with_unknown_digest_tells_it(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    let bytes = fresh("new");
    for _ in 0..2 {
        let mut writer = backend.write_new_blob(&lease).await.unwrap();
        writer.write(bytes.clone()).await.unwrap();
        assert_eq!(writer.commit(HashMap::new()).await.unwrap(), Digest::of(&bytes));
    }
    assert!(backend.blob_info(&Digest::of(&bytes)).await.unwrap().is_some());
    backend.release(lease).await.unwrap();
}

async fn blob_without_lease_or_name_is_collected(backend: &dyn ImageBackend) {
    let (first, second) = (backend.lease().await.unwrap(), backend.lease().await.unwrap());
    let bytes = fresh("garbage");
    let blob = write(backend, &first, &bytes).await;
    assert!(backend.write_blob(&second, &blob).await.unwrap().is_none());
    backend.release(first).await.unwrap();
    backend.collect_garbage().await.unwrap();
    assert!(backend.blob_info(&blob.digest).await.unwrap().is_some(), "the second lease asked for it");
    backend.release(second).await.unwrap();
    backend.collect_garbage().await.unwrap();
    assert!(backend.blob_info(&blob.digest).await.unwrap().is_none());
}

fn record(tenant: &TenantId, name: &str, target: &Descriptor) -> ImageRecord {
    ImageRecord {
        tenant: tenant.clone(),
        name: name.to_owned(),
        target: target.clone(),
        labels: HashMap::new(),
        created: Timestamp::zero(),
        updated: Timestamp::zero(),
    }
}

async fn names_belong_to_tenants(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    let (ours, theirs) = (tenant("ours"), tenant("theirs"));
    let (one, two) = (write(backend, &lease, &fresh("1")).await, write(backend, &lease, &fresh("2")).await);
    backend.put_image(&record(&ours, "docker.io/library/a:1", &one)).await.unwrap();
    let kept = backend.put_image(&record(&ours, "docker.io/library/a:1", &two)).await.unwrap();
    let found = backend.get_image(&ours, "docker.io/library/a:1").await.unwrap().unwrap();
    assert_eq!(kept, found);
    assert_eq!((found.target.digest, found.name.as_str()), (two.digest, "docker.io/library/a:1"));
    assert!(found.created <= found.updated && !found.created.is_zero());
    assert_eq!(backend.list_images(&ours).await.unwrap().len(), 1);
    assert!(backend.list_images(&theirs).await.unwrap().is_empty());
    assert!(backend.get_image(&theirs, "docker.io/library/a:1").await.unwrap().is_none());
    backend.delete_image(&ours, "docker.io/library/a:1", true).await.unwrap();
    backend.delete_image(&ours, "docker.io/library/a:1", true).await.unwrap();
    assert!(backend.list_images(&ours).await.unwrap().is_empty());
    backend.release(lease).await.unwrap();
}

/// `x.build` read as an expression is also `x-build`, and all of them begin with `x`.
async fn tenants_with_similar_names_do_not_meet(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    let one = tenant("x");
    let beside: TenantId = format!("{one}-build").parse().expect("a valid name");
    let tenants = [one.clone(), beside, one.of_builds()];
    for owner in &tenants {
        let blob = write(backend, &lease, &fresh(owner.as_str())).await;
        backend.put_image(&record(owner, "docker.io/library/a:1", &blob)).await.unwrap();
        backend.put_image(&record(owner, &format!("docker.io/library/of-{owner}:1"), &blob)).await.unwrap();
    }
    for owner in &tenants {
        let mut names: Vec<String> =
            backend.list_images(owner).await.unwrap().into_iter().map(|image| image.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["docker.io/library/a:1".to_owned(), format!("docker.io/library/of-{owner}:1")]);
        for other in tenants.iter().filter(|other| *other != owner) {
            let theirs = format!("docker.io/library/of-{other}:1");
            assert!(backend.get_image(owner, &theirs).await.unwrap().is_none());
            backend.delete_image(owner, &theirs, false).await.unwrap();
        }
    }
    for owner in &tenants {
        assert_eq!(backend.list_images(owner).await.unwrap().len(), 2, "nobody deletes what is another's");
        for name in ["docker.io/library/a:1".to_owned(), format!("docker.io/library/of-{owner}:1")] {
            backend.delete_image(owner, &name, false).await.unwrap();
        }
    }
    backend.release(lease).await.unwrap();
}

/// Stores all of an image and unpacks it, with the labels that the engine sets.
async fn store_sample(backend: &dyn ImageBackend, lease: &Lease, sample: &Sample) -> Vec<String> {
    for (descriptor, bytes) in &sample.blobs {
        store(backend, lease, descriptor, bytes).await;
    }
    let (manifest, document) = (sample.manifest(), sample.document());
    let chains = document.chain_ids();
    for (n, layer) in manifest.layers.iter().enumerate() {
        let parent = if n == 0 { "" } else { &chains[n - 1] };
        let diff_id = &document.rootfs.diff_ids[n];
        backend.unpack_layer(lease, layer, parent, &chains[n], diff_id).await.expect("unpacking");
        assert!(backend.has_snapshot(lease, &chains[n]).await.unwrap());
    }
    let layers = manifest.layers.iter().enumerate();
    let mut labels: HashMap<String, String> =
        layers.map(|(n, layer)| (format!("containerd.io/gc.ref.content.l.{n}"), layer.digest.to_string())).collect();
    labels.insert("containerd.io/gc.ref.content.config".into(), manifest.config.digest.to_string());
    backend.label_blob(&sample.target.digest, labels).await.unwrap();
    let snapshot = format!("containerd.io/gc.ref.snapshot.{}", backend.snapshotter());
    let top = chains.last().expect("samples have layers").clone();
    backend.label_blob(&manifest.config.digest, HashMap::from([(snapshot, top)])).await.unwrap();
    chains
}

async fn image_record_pins_content_and_snapshots(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    let owner = tenant("pins");
    let layers = [(tar(&[("a", &fresh("a"))]), Packing::Plain), (tar(&[("b", &fresh("b"))]), Packing::Gzip)];
    let sample = image("linux/amd64", ImageConfig::default(), &layers);
    let chains = store_sample(backend, &lease, &sample).await;
    assert!(backend.snapshot_size(&chains[1]).await.unwrap() > 0);
    backend.put_image(&record(&owner, "docker.io/library/pinned:1", &sample.target)).await.unwrap();
    backend.release(lease).await.unwrap();
    backend.collect_garbage().await.unwrap();

    for (blob, _) in &sample.blobs {
        assert!(backend.blob_info(&blob.digest).await.unwrap().is_some(), "{} is pinned", blob.media_type);
    }
    for chain in &chains {
        assert!(backend.snapshot_size(chain).await.is_ok(), "snapshots are pinned");
    }

    backend.delete_image(&owner, "docker.io/library/pinned:1", true).await.unwrap();
    for (blob, _) in &sample.blobs {
        assert!(
            gone(async || backend.blob_info(&blob.digest).await.unwrap().is_none()).await,
            "content goes with its name"
        );
    }
    assert!(gone(async || backend.snapshot_size(&chains[0]).await.is_err()).await, "and so do snapshots");
}

/// containerd removes snapshots a moment after their metadata.
async fn gone(look: impl AsyncFn() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !look().await {
        if tokio::time::Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

async fn wrong_diff_id_is_refused_and_nothing_kept(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    let layer = tar(&[("a", &fresh("diff"))]);
    let blob = write(backend, &lease, &layer).await;
    let (chain, wrong) = (Digest::of(&fresh("chain")).to_string(), Digest::of(b"something else"));
    let error = backend.unpack_layer(&lease, &blob, "", &chain, &wrong).await.unwrap_err();
    assert!(error.message().contains("don't match image configuration"), "{}", error.message());
    assert!(!backend.has_snapshot(&lease, &chain).await.unwrap());

    let no_tar = write(backend, &lease, &fresh("no tar at all").repeat(100).into()).await;
    let error = backend.unpack_layer(&lease, &no_tar, "", &chain, &wrong).await.unwrap_err();
    assert!(error.message().contains("invalid tar header"), "{}", error.message());
    backend.release(lease).await.unwrap();
}

async fn packed_layers_are_unpacked(backend: &dyn ImageBackend) {
    let lease = backend.lease().await.unwrap();
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let layer = tar(&[("a", &fresh("packed"))]);
        let diff_id = Digest::of(&layer);
        let blob = write(backend, &lease, &pack(&layer, packing)).await;
        for _ in 0..2 {
            backend.unpack_layer(&lease, &blob, "", diff_id.as_str(), &diff_id).await.expect("twice is no error");
        }
        assert!(backend.has_snapshot(&lease, diff_id.as_str()).await.unwrap(), "{packing:?}");
    }
    backend.release(lease).await.unwrap();
}

/// What a container changed is a layer for its image. `changed` makes a container on a parent which holds `gone` and
/// `kept`, adds a file `new` to it and removes `gone`; `untouched` makes one that stays as it is.
pub async fn changes(
    backend: &dyn ImageBackend,
    changed: impl AsyncFn(&str) -> ContainerId,
    untouched: impl AsyncFn(&str) -> ContainerId,
) {
    let lease = backend.lease().await.unwrap();
    let layer = tar(&[("gone", &fresh("gone")), ("kept", b"kept")]);
    let base = Digest::of(&layer);
    let blob = write(backend, &lease, &layer).await;
    backend.unpack_layer(&lease, &blob, "", base.as_str(), &base).await.unwrap();

    let container = changed(base.as_str()).await;
    let other = backend.lease().await.unwrap();
    let stored = backend.store_changes(&other, &container).await.unwrap();
    backend.release(other).await.unwrap();
    // Stored twice it is the same, and the second lease keeps it.
    let again = backend.store_changes(&lease, &container).await.unwrap();
    assert_eq!(stored, again);
    backend.collect_garbage().await.unwrap();
    assert_eq!(stored.blob.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    let bytes = read_all(backend, &stored.blob.digest).await;
    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (stored.blob.digest.clone(), stored.blob.size));
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut tar).unwrap();
    assert_eq!(Digest::of(&tar), stored.diff_id);
    assert_eq!(names(&tar), [".wh.gone", "new"]);
    let mut listed: Vec<_> = backend.list_changes(&container).await.unwrap();
    listed.sort_by(|a, b| a.path.cmp(&b.path));
    let listed: Vec<_> = listed.iter().map(|change| (change.path.as_str(), change.kind)).collect();
    assert_eq!(listed, [("/gone", ChangeKind::Deleted), ("/new", ChangeKind::Added)]);
    let chain = crate::model::image::documents::chain_ids(&[base.clone(), stored.diff_id.clone()]).remove(1);
    backend.unpack_layer(&lease, &stored.blob, base.as_str(), &chain, &stored.diff_id).await.unwrap();

    let untouched = untouched(base.as_str()).await;
    assert!(backend.list_changes(&untouched).await.unwrap().is_empty());
    let stored = backend.store_changes(&lease, &untouched).await.unwrap();
    assert_eq!(stored.diff_id.as_str(), EMPTY_LAYER);
    backend.release(lease).await.unwrap();
}

async fn read_all(backend: &dyn ImageBackend, digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    backend.read_blob(digest, 0).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Paths in a tar, in order, the root left out.
fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let path = |entry: tar::Entry<'_, &[u8]>| entry.path().unwrap().display().to_string();
    let mut names: Vec<String> = archive.entries().unwrap().map(|entry| path(entry.unwrap())).collect();
    names.retain(|name| !name.trim_matches(['.', '/']).is_empty());
    names.sort();
    names
}
