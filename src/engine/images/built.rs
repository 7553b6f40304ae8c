//! Names as a builder beside the engine sees and sets them: BuildKit, whose results lie in our content store when it names them.

use indexmap::IndexMap;

use super::{ImageStore, keep::record, reach::Held};
use crate::{
    backend::{builds::DANGLING, images::ImageRecord},
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        image::{
            Descriptor,
            documents::{Index, media_type},
        },
        limits,
        reference::Reference,
    },
};

impl Engine {
    /// Gives what a builder has built its name, as it calls it.
    pub(crate) async fn put_built(&self, scope: &Scope, name: &str, target: &Descriptor) -> Result<ImageRecord> {
        let reference = if name.starts_with(DANGLING) { None } else { Some(Reference::parse(name)?) };
        let (engine, scope, target, named) = (self.clone(), scope.clone(), target.clone(), name.to_owned());
        self.run("put_built", async move {
            engine.name_built(&scope, reference.as_ref(), &target).await?;
            Ok(record(scope.tenant(), &named, &target))
        })
        .await
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
        // dockerd tells the name as it was typed, which is mostly without a tag.
        let told = if name.tag() == Some("latest") { name.familiar_name() } else { name.familiar() };
        self.image_event(scope, "tag", id, &told, IndexMap::new());
        self.image_event(scope, "create", id, id, IndexMap::new());
        Ok(())
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
            id::TenantId,
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

    async fn names(engine: &Engine, tenant: &TenantId) -> Vec<ImageRecord> {
        engine.images.backend.list_images(tenant).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_built_is_the_tenants_alone_with_all_its_parts() {
        let Fakes { engine, folder: _folder, .. } = Fakes::new().await;
        let other = "other".parse().unwrap();
        let (scope, _of_other) = (engine.default_scope(), engine.scope_for(&other));
        let (target, parts) = built(&engine).await;
        let name = "docker.io/library/x:latest";
        engine.put_built(&scope, name, &target).await.unwrap();
        let stored = names(&engine, scope.tenant()).await;
        assert_eq!((stored.len(), stored[0].name.as_str()), (1, name));
        assert_eq!(Held::of(&stored), Some(parts.into_iter().collect()));
        assert!(names(&engine, &other).await.is_empty());
        // Named again, and without a name while it has one: nothing more.
        engine.put_built(&scope, name, &target).await.unwrap();
        engine.put_built(&scope, &format!("{DANGLING}{}", target.digest), &target).await.unwrap();
        assert_eq!(names(&engine, scope.tenant()).await.len(), 1);
    }

    #[tokio::test]
    async fn a_name_that_moves_leaves_its_image_without_one() {
        let Fakes { engine, folder: _folder, .. } = Fakes::with_box().await;
        let scope = engine.default_scope();
        let before = names(&engine, scope.tenant()).await.remove(0);
        let (target, _) = built(&engine).await;
        engine.put_built(&scope, "docker.io/library/box:latest", &target).await.unwrap();
        let mut names: Vec<_> = names(&engine, scope.tenant()).await.into_iter().map(|record| record.name).collect();
        names.sort();
        assert_eq!(names, ["docker.io/library/box:latest", before.target.digest.as_str()]);
    }
}
