//! Images between the engine and a builder beside it, BuildKit, which has a namespace of its own in our containerd: what the tenant has
//! is lent to it for `FROM`, what it builds is taken when it gives it a name.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::{ImageStore, keep::record, reach::Held, tree::Walk};
use crate::{
    backend::{
        builds::DANGLING,
        images::{ImageRecord, Lease},
    },
    engine::{Engine, tenants::Scope},
    model::{
        Error, ErrorKind, Result,
        id::TenantId,
        image::{
            Descriptor,
            documents::{Index, Manifest, media_type},
        },
        reference::{Digest, Reference},
    },
    work::Carried,
};

impl Engine {
    /// Gives what a builder has built its name, as it calls it, and tells of it: as dockerd with its containerd store of the image before the
    /// first of its names, and of each name. `carried` is for what it reads: nobody waits for a lock with a place.
    pub(crate) async fn put_built(
        &self,
        scope: &Scope,
        name: &str,
        target: &Descriptor,
        is_first: bool,
        carried: Carried,
    ) -> Result<ImageRecord> {
        let reference = if name.starts_with(DANGLING) { None } else { Some(Reference::parse(name)?) };
        let (engine, scope, target, named) = (self.clone(), scope.clone(), target.clone(), name.to_owned());
        self.run("put_built", async move {
            let (images, cache) = (&engine.images.backend, engine.build_cache_of(scope.tenant()));
            let lease = images.lease().await?;
            let result = match carried.during(engine.images.take_built(&lease, &cache, &target)).await {
                Ok(held) => engine.images.name_built(scope.tenant(), reference.as_ref(), &target, held).await,
                Err(error) => Err(error),
            };
            let kept = match &result {
                // Its builder comes again with the rest of it, and has let go of this by then.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    images.lend(&cache, std::slice::from_ref(&target)).await
                }
                _ => Ok(()),
            };
            if result.is_ok() {
                engine.tell_built(&scope, reference.as_ref(), &target, is_first);
            }
            images.release(lease).await?;
            result.and(kept)?;
            Ok(record(scope.tenant(), &named, &target))
        })
        .await
    }

    fn tell_built(&self, scope: &Scope, name: Option<&Reference>, target: &Descriptor, is_first: bool) {
        let id = target.digest.as_str();
        if is_first {
            self.image_event(scope, "create", id, id, IndexMap::new());
        }
        if let Some(name) = name {
            self.image_event(scope, "tag", id, &name.familiar(), IndexMap::new());
        }
    }
}

impl ImageStore {
    /// Takes an image from the builder of a cache, with all that it names and the builder has, and pins it as any other. It is unpacked
    /// when a container needs it. Answers which documents below it came with it.
    async fn take_built(&self, lease: &Lease, cache: &TenantId, target: &Descriptor) -> Result<Held> {
        let (mut walk, mut open) = (Walk::default(), vec![target.clone()]);
        let (mut taken, mut indexes) = (BTreeSet::new(), Vec::new());
        while let Some(next) = open.pop() {
            if !walk.enter(&next)? || !self.backend.take(lease, cache, &next).await? {
                continue;
            }
            taken.insert(next.digest.clone());
            let document = self.read_document(&next).await?;
            if media_type::is_index(&next.media_type) {
                let index = Index::parse(&document)?;
                open.extend(index.manifests.iter().cloned());
                indexes.push((next, index));
                continue;
            }
            let manifest = Manifest::parse(&document)?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                if !self.backend.take(lease, cache, blob).await? {
                    return Err(not_built(&blob.digest));
                }
            }
            self.pin_blobs(&next, &manifest).await?;
        }
        for (descriptor, index) in &indexes {
            self.pin_entries(descriptor, index, |entry| taken.contains(&entry.digest)).await?;
        }
        match taken.remove(&target.digest) {
            true => Ok(taken.into_iter().collect()),
            false => Err(not_built(&target.digest)),
        }
    }

    /// Gives it its name.
    async fn name_built(
        &self,
        tenant: &TenantId,
        name: Option<&Reference>,
        target: &Descriptor,
        held: Held,
    ) -> Result<()> {
        self.forget_tree(&target.digest);
        match name {
            Some(name) => self.point(tenant, name, target, held).await.map(drop),
            None => self.keep_nameless(tenant, target, held).await,
        }
    }

    /// Lends what a tenant has of an image to its builder, which works on a cache.
    pub(crate) async fn lend(&self, cache: &TenantId, record: &ImageRecord) -> Result<()> {
        let held = Held::of([record]);
        let (mut walk, mut open, mut lent) = (Walk::default(), vec![record.target.clone()], Vec::new());
        while let Some(next) = open.pop() {
            let is_own =
                next.digest == record.target.digest || held.as_ref().is_none_or(|held| held.contains(&next.digest));
            if !walk.enter(&next)? || !is_own || !self.is_here(&next.digest, None).await? {
                continue;
            }
            let document = self.read_document(&next).await?;
            if media_type::is_index(&next.media_type) {
                open.extend(Index::parse(&document)?.manifests);
            } else {
                let manifest = Manifest::parse(&document)?;
                lent.extend(manifest.layers);
                lent.push(manifest.config);
            }
            lent.push(next);
        }
        self.backend.lend(cache, &lent).await
    }
}

/// As containerd says it.
fn not_built(digest: &Digest) -> Error {
    Error::not_found(format!("content {digest}: not found"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::images::samples::tar,
        engine::testing::Fakes,
        model::image::documents::{ImageDocument, RootFs},
    };

    /// An image as BuildKit has it: an index of a manifest with a layer, and of what is no image.
    struct Built {
        target: Descriptor,
        below: [Digest; 2],
        layer: Digest,
    }

    impl Built {
        /// In the builder of a tenant, but for `left_out`.
        fn by(fakes: &Fakes, tenant: &TenantId, left_out: &str) -> Self {
            let store = |kind: &str, name: &str, bytes: &[u8]| {
                if name != left_out {
                    fakes.images.give_builder(tenant, bytes);
                }
                Descriptor::of(kind, bytes)
            };
            let layer_tar = tar(&[]);
            // Another tar than its configuration says.
            let blob = if left_out == "truth" { tar(&[("lie", b"")]) } else { layer_tar.clone() };
            let layer = store(media_type::OCI_LAYER, "layer", &blob);
            let diff_ids = vec![Digest::of(&layer_tar)];
            let document =
                ImageDocument { rootfs: RootFs { diff_ids, ..RootFs::default() }, ..ImageDocument::default() };
            let manifest = |name: &str, document: &ImageDocument, layers: Vec<Descriptor>| {
                let config = store(media_type::OCI_CONFIG, "config", &serde_json::to_vec(document).unwrap());
                let annotations = IndexMap::from([("of".to_owned(), name.to_owned())]);
                let media = media_type::OCI_MANIFEST.to_owned();
                let manifest = Manifest { schema_version: 2, media_type: media, config, layers, annotations };
                store(media_type::OCI_MANIFEST, name, &serde_json::to_vec(&manifest).unwrap())
            };
            let mut manifests = vec![
                manifest("image", &document, vec![layer.clone()]),
                manifest("statement", &ImageDocument::default(), Vec::new()),
            ];
            let said = ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
            manifests[1].annotations.extend([said]);
            let below = [manifests[0].digest.clone(), manifests[1].digest.clone()];
            let media = media_type::OCI_INDEX.to_owned();
            let index = Index { schema_version: 2, media_type: media, manifests, annotations: IndexMap::new() };
            let target = store(media_type::OCI_INDEX, "index", &serde_json::to_vec(&index).unwrap());
            Self { target, below, layer: layer.digest }
        }
    }

    async fn names(engine: &Engine, tenant: &TenantId) -> Vec<ImageRecord> {
        engine.images.backend.list_images(tenant).await.unwrap()
    }

    const NAME: &str = "docker.io/library/x:latest";

    #[tokio::test]
    async fn what_is_built_is_the_tenants_alone_with_all_its_parts() {
        let fakes = Fakes::new().await;
        let (engine, other) = (&fakes.engine, "other".parse().unwrap());
        let (scope, of_other) = (engine.default_scope(), engine.scope_for(&other));
        let built = Built::by(&fakes, scope.tenant(), "");
        engine.put_built(&scope, NAME, &built.target, true, Carried::default()).await.unwrap();
        let stored = names(engine, scope.tenant()).await;
        assert_eq!((stored.len(), stored[0].name.as_str()), (1, NAME));
        assert_eq!(Held::of(&stored), Some(built.below.iter().cloned().collect()));
        assert!(names(engine, &other).await.is_empty());
        // Named again, and without a name while it has one: nothing more.
        engine.put_built(&scope, NAME, &built.target, true, Carried::default()).await.unwrap();
        engine
            .put_built(&scope, &format!("{DANGLING}{}", built.target.digest), &built.target, true, Carried::default())
            .await
            .unwrap();
        assert_eq!(names(engine, scope.tenant()).await.len(), 1);
        // All of it outlives the lease under which it was taken.
        engine.images.backend.collect_garbage().await.unwrap();
        for digest in built.below.iter().chain([&built.layer]) {
            assert!(engine.images.is_here(digest, None).await.unwrap(), "{digest}");
        }
        // Another one, whose builder knows the names and has nothing, gets nothing.
        let error = engine.put_built(&of_other, NAME, &built.target, true, Carried::default()).await.unwrap_err();
        assert!(error.message().ends_with("not found"), "{error}");
        let without = Built::by(&fakes, &other, "layer");
        let error = engine.put_built(&of_other, NAME, &without.target, true, Carried::default()).await.unwrap_err();
        assert_eq!(error.message(), format!("content {}: not found", without.layer));
        assert!(names(engine, &other).await.is_empty());
    }

    #[tokio::test]
    async fn a_builder_is_lent_what_its_tenant_has() {
        let fakes = Fakes::new().await;
        let (engine, other) = (&fakes.engine, "other".parse().unwrap());
        let (scope, of_other) = (engine.default_scope(), engine.scope_for(&other));
        let built = Built::by(&fakes, scope.tenant(), "");
        engine.put_built(&scope, NAME, &built.target, true, Carried::default()).await.unwrap();
        // The other one has the index, and nothing of what it names.
        let images = &engine.images;
        let record = record(&other, NAME, &built.target);
        images.backend.put_image(&ImageRecord { labels: Held::default().labels(), ..record }).await.unwrap();
        for (scope, has) in [(&scope, true), (&of_other, false)] {
            let record = names(engine, scope.tenant()).await.remove(0);
            images.lend(scope.tenant(), &record).await.unwrap();
            let lease = images.backend.lease().await.unwrap();
            for digest in built.below.iter().chain([&built.layer]) {
                let blob = Descriptor { digest: digest.clone(), ..built.target.clone() };
                assert_eq!(images.backend.take(&lease, scope.tenant(), &blob).await.unwrap(), has, "{digest}");
            }
            assert!(images.backend.take(&lease, scope.tenant(), &built.target).await.unwrap());
        }
    }

    #[tokio::test]
    async fn what_was_said_of_an_image_is_its_tenants_alone() {
        let fakes = Fakes::new().await;
        let (engine, other) = (&fakes.engine, "other".parse().unwrap());
        let scope = engine.default_scope();
        let built = Built::by(&fakes, scope.tenant(), "");
        engine.put_built(&scope, NAME, &built.target, true, Carried::default()).await.unwrap();
        // The other one has the index, and nothing of what it names.
        let record = record(&other, NAME, &built.target);
        let images = &engine.images;
        images.backend.put_image(&ImageRecord { labels: Held::default().labels(), ..record }).await.unwrap();
        for (tenant, has) in [(scope.tenant(), 1), (&other, 0)] {
            let found = images.find(tenant, "x").await.unwrap();
            let tree = images.tree(&found).await.unwrap();
            assert_eq!((tree.attestations.len(), tree.manifests().count()), (has, 2 * has), "{tenant}");
        }
    }

    #[tokio::test]
    async fn a_name_that_moves_leaves_its_image_without_one() {
        let fakes = Fakes::with_box().await;
        let (engine, scope) = (&fakes.engine, fakes.engine.default_scope());
        let before = names(engine, scope.tenant()).await.remove(0);
        let built = Built::by(&fakes, scope.tenant(), "");
        engine
            .put_built(&scope, "docker.io/library/box:latest", &built.target, true, Carried::default())
            .await
            .unwrap();
        let mut names: Vec<_> = names(engine, scope.tenant()).await.into_iter().map(|record| record.name).collect();
        names.sort();
        assert_eq!(names, ["docker.io/library/box:latest", before.target.digest.as_str()]);
    }

    #[tokio::test]
    async fn a_configuration_opens_no_layer_that_its_blobs_do_not_hold() {
        // The layer of `box` is unpacked, and somebody else's.
        let fakes = Fakes::with_box().await;
        let (engine, other) = (&fakes.engine, "other".parse().unwrap());
        let scope = engine.scope_for(&other);
        let lie = Built::by(&fakes, &other, "truth");
        engine.put_built(&scope, NAME, &lie.target, true, Carried::default()).await.unwrap();
        let error = engine.image_for_container(&scope, "x", None).await.unwrap_err();
        assert!(error.message().contains(lie.layer.as_str()), "{error}");
        let truth = Built::by(&fakes, &other, "");
        engine.put_built(&scope, NAME, &truth.target, true, Carried::default()).await.unwrap();
        engine.image_for_container(&scope, "x", None).await.unwrap();
    }
}
