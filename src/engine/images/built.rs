//! Names as a builder beside the engine sees and sets them: BuildKit, whose results lie in our content store when it names them.

use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;

use super::{ImageStore, keep::record, reach::Held};
use crate::{
    backend::{
        builds::{BuildImages, DANGLING},
        images::ImageRecord,
    },
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        id::TenantId,
        image::{
            Descriptor,
            documents::{Index, media_type},
        },
        limits,
        reference::Reference,
    },
};

/// The names of one tenant.
struct OfTenant {
    engine: Engine,
    tenant: TenantId,
}

impl Engine {
    /// The images of a tenant, for a builder that works in its name.
    pub fn build_images(&self, tenant: &TenantId) -> Arc<dyn BuildImages> {
        Arc::new(OfTenant { engine: self.clone(), tenant: tenant.clone() })
    }

    /// Gives what was built its name, with dockerd's events.
    async fn name_built(&self, scope: &Scope, name: Option<&Reference>, target: &Descriptor) -> Result<()> {
        let (images, tenant, id) = (&self.images, scope.tenant(), target.digest.as_str());
        let held = images.parts(target).await?;
        images.forget_tree(&target.digest);
        let Some(name) = name else {
            images.keep_nameless(tenant, target, held).await?;
            self.image_event(scope, "create", id, id, IndexMap::new());
            return Ok(());
        };
        images.point(tenant, name, target, held).await?;
        self.image_event(scope, "create", id, id, IndexMap::new());
        self.image_event(scope, "tag", id, &name.familiar(), IndexMap::new());
        Ok(())
    }
}

#[async_trait]
impl BuildImages for OfTenant {
    async fn get(&self, name: &str) -> Result<Option<ImageRecord>> {
        self.engine.images.backend.get_image(&self.tenant, name).await
    }

    async fn list(&self) -> Result<Vec<ImageRecord>> {
        self.engine.images.backend.list_images(&self.tenant).await
    }

    async fn put(&self, name: &str, target: &Descriptor) -> Result<ImageRecord> {
        let scope = self.engine.scope_of(&self.tenant)?;
        let reference = if name.starts_with(DANGLING) { None } else { Some(Reference::parse(name)?) };
        let (engine, target, named) = (self.engine.clone(), target.clone(), name.to_owned());
        self.engine
            .run("name_built", async move {
                engine.name_built(&scope, reference.as_ref(), &target).await?;
                Ok(record(scope.tenant(), &named, &target))
            })
            .await
    }
}

impl ImageStore {
    /// What an image that was built here consists of: all documents below it, which its builder has just written.
    async fn parts(&self, target: &Descriptor) -> Result<Held> {
        let mut parts = Vec::new();
        let mut open = vec![target.clone()];
        while let Some(next) = open.pop() {
            if !media_type::is_index(&next.media_type) {
                continue;
            }
            let index = Index::parse(&self.read_document(&next).await?)?;
            if parts.len() + index.manifests.len() > limits::INDEX_TOTAL {
                return Err(Error::index_too_wide());
            }
            for entry in index.manifests {
                if self.is_here(&entry.digest, None).await? {
                    parts.push(entry.digest.clone());
                    open.push(entry);
                }
            }
        }
        Ok(parts.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::testing::Fakes,
        model::{
            image::documents::{ImageDocument, RootFs},
            reference::Digest,
        },
    };

    /// An index as BuildKit writes it: an image without layers, and something that is no image.
    async fn built(engine: &Engine) -> (Descriptor, [Digest; 2]) {
        let images = &engine.images;
        let lease = images.backend.lease().await.unwrap();
        let document = ImageDocument { rootfs: RootFs::default(), ..ImageDocument::default() };
        let (manifest, _) = images.store_manifest(&lease, &document, Vec::new()).await.unwrap();
        let statement = Descriptor::of(media_type::OCI_MANIFEST, b"{\"schemaVersion\":2}");
        images.store_document(&lease, &statement, b"{\"schemaVersion\":2}").await.unwrap();
        let parts = [manifest.digest.clone(), statement.digest.clone()];
        let index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: vec![manifest, statement],
            annotations: IndexMap::new(),
        };
        let bytes = serde_json::to_vec(&index).unwrap();
        let target = Descriptor::of(media_type::OCI_INDEX, &bytes);
        images.store_document(&lease, &target, &bytes).await.unwrap();
        (target, parts)
    }

    #[tokio::test]
    async fn what_is_built_is_the_tenants_alone_with_all_its_parts() {
        let Fakes { engine, folder: _folder, .. } = Fakes::new().await;
        let other = "other".parse().unwrap();
        let (scope, _of_other) = (engine.default_scope(), engine.scope_for(&other));
        let (target, parts) = built(&engine).await;
        let images = engine.build_images(scope.tenant());
        let name = "docker.io/library/x:latest";
        images.put(name, &target).await.unwrap();
        let stored = images.get(name).await.unwrap().expect("it was named");
        assert_eq!(Held::of([&stored]), Some(parts.into_iter().collect()));
        assert!(engine.build_images(&other).get(name).await.unwrap().is_none());
        assert!(engine.build_images(&other).list().await.unwrap().is_empty());
        // Named again, and without a name while it has one: nothing more.
        images.put(name, &target).await.unwrap();
        images.put(&format!("{DANGLING}{}", target.digest), &target).await.unwrap();
        assert_eq!(images.list().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_name_that_moves_leaves_its_image_without_one() {
        let Fakes { engine, folder: _folder, .. } = Fakes::with_box().await;
        let images = engine.build_images(engine.default_scope().tenant());
        let before = images.get("docker.io/library/box:latest").await.unwrap().expect("the box");
        let (target, _) = built(&engine).await;
        images.put("docker.io/library/box:latest", &target).await.unwrap();
        let mut names: Vec<_> = images.list().await.unwrap().into_iter().map(|record| record.name).collect();
        names.sort();
        assert_eq!(names, ["docker.io/library/box:latest", before.target.digest.as_str()]);
    }
}
