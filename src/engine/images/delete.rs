//! `DELETE /images/{name}`.

use std::sync::Arc;

use crate::{
    backend::images::ImageRecord,
    engine::{
        Engine,
        images::look_up::{Found, reference_of},
        tenants::Scope,
    },
    model::{
        Error, Result,
        container::ContainerRecord,
        reference::{Digest, Reference},
    },
};

/// How to delete.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteOptions {
    /// Also with stopped containers, or with names in several repositories.
    pub force: bool,
    /// Images without a name that it was made on stay.
    pub keep_parents: bool,
}

/// One step of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// A name is gone.
    Untagged(String),
    /// The image is gone.
    Deleted(Digest),
}

impl Engine {
    /// Takes a name away, and with its last name the image, unless others were made on it. By id, all names go.
    ///
    /// Conflicts as dockerd has them: the last name while a container uses the image, an id with several repositories, a
    /// stopped container (these two can be forced), an id on which another image was made here, a running container (these
    /// cannot).
    pub async fn image_delete(&self, scope: &Scope, image: &str, options: DeleteOptions) -> Result<Vec<Deleted>> {
        let (engine, scope, image) = (self.clone(), scope.clone(), image.to_owned());
        self.run("image_delete", async move {
            let _lock = engine.images.names.lock(scope.tenant().as_str()).await;
            let found = engine.images.find(scope.tenant(), &image).await?;
            match found.named.clone() {
                Some(name) => engine.delete_name(&scope, &found, &name, options).await,
                None => engine.delete_id(&scope, &found, options).await,
            }
        })
        .await
    }

    async fn delete_name(
        &self,
        scope: &Scope,
        found: &Found,
        name: &Reference,
        options: DeleteOptions,
    ) -> Result<Vec<Deleted>> {
        let (going, staying): (Vec<&ImageRecord>, Vec<&ImageRecord>) =
            found.records.iter().partition(|record| is_meant(record, name));
        if !staying.is_empty() {
            return self.untag(scope, found, &going, false).await;
        }
        let users = self.containers_of(scope, found.id());
        if let Some(user) = users.first()
            && !options.force
        {
            return Err(Error::image_reference_in_use(&name.familiar(), user.id.short(), found.short_id()));
        }
        if users.is_empty() && !self.images.family(scope).await?.is_parent(found.id()) {
            return self.delete_all(scope, found, &going, options.keep_parents).await;
        }
        // What needs it goes on; the image stays without a name, so that it can be found by its id.
        self.untag(scope, found, &going, true).await
    }

    async fn delete_id(&self, scope: &Scope, found: &Found, options: DeleteOptions) -> Result<Vec<Deleted>> {
        if self.images.family(scope).await?.is_parent(found.id()) {
            return Err(Error::image_delete_impossible(found.short_id(), "image has dependent child images"));
        }
        let users = self.containers_of(scope, found.id());
        if let Some(running) = users.iter().find(|user| user.state.is_running()) {
            let reason = format!("image is being used by running container {}", running.id.short());
            return Err(Error::image_delete_impossible(found.short_id(), &reason));
        }
        if !options.force {
            self.check_unforced(found, &users)?;
        }
        let all: Vec<&ImageRecord> = found.records.iter().collect();
        self.delete_all(scope, found, &all, options.keep_parents).await
    }

    fn check_unforced(&self, found: &Found, users: &[Arc<ContainerRecord>]) -> Result<()> {
        let mut repositories: Vec<String> = found.references().iter().map(Reference::name).collect();
        repositories.dedup();
        let tags = found.references().iter().filter(|reference| reference.tag().is_some()).count();
        if repositories.len() > 1 || tags > 1 {
            let reason = "image is referenced in multiple repositories";
            return Err(Error::image_delete_needs_force(found.short_id(), reason));
        }
        if let Some(stopped) = users.first() {
            let reason = format!("image is being used by stopped container {}", stopped.id.short());
            return Err(Error::image_delete_needs_force(found.short_id(), &reason));
        }
        Ok(())
    }

    /// Takes names away from an image that stays, under its other names or without any.
    pub(super) async fn untag(
        &self,
        scope: &Scope,
        found: &Found,
        going: &[&ImageRecord],
        nameless: bool,
    ) -> Result<Vec<Deleted>> {
        if nameless {
            let record = ImageRecord { name: found.id().to_string(), ..found.records[0].clone() };
            self.images.backend.put_image(&record).await?;
        }
        let mut deleted = Vec::new();
        for record in going {
            self.images.backend.delete_image(scope.tenant(), &record.name, false).await?;
            self.report_untagged(scope, found.id(), record, &mut deleted);
        }
        Ok(deleted)
    }

    pub(super) async fn delete_all(
        &self,
        scope: &Scope,
        found: &Found,
        records: &[&ImageRecord],
        keep_parents: bool,
    ) -> Result<Vec<Deleted>> {
        let mut deleted = Vec::new();
        let parents = match keep_parents {
            true => self.keep_parent(scope, found).await.map(|()| Vec::new())?,
            false => self.delete_parents(scope, found).await?,
        };
        // A build's last step is the image itself.
        self.images.backend.delete_image(&scope.tenant().of_builds(), found.id().as_str(), false).await?;
        for (n, record) in records.iter().enumerate() {
            // With the last name the collector comes: the answer means that the space is free.
            let last = n + 1 == records.len();
            // A step of a build, named by its id, is not the tenant's own.
            self.images.backend.delete_image(&record.tenant, &record.name, last).await?;
            self.report_untagged(scope, found.id(), record, &mut deleted);
        }
        self.images.forget_tree(found.id());
        for id in std::iter::once(found.id().clone()).chain(parents) {
            self.image_event(scope, "delete", id.as_str(), id.as_str(), indexmap::IndexMap::new());
            deleted.push(Deleted::Deleted(id));
        }
        Ok(deleted)
    }

    fn report_untagged(&self, scope: &Scope, id: &Digest, record: &ImageRecord, deleted: &mut Vec<Deleted>) {
        if let Some(reference) = reference_of(record) {
            let name = reference.familiar();
            self.image_event(scope, "untag", id.as_str(), &name, indexmap::IndexMap::new());
            deleted.push(Deleted::Untagged(name));
        }
    }

    /// The tenant's containers that were made from an image or have it mounted.
    pub(super) fn containers_of(&self, scope: &Scope, image: &Digest) -> Vec<Arc<ContainerRecord>> {
        let records = self.containers.list(scope.tenant()).into_iter().map(|container| container.record());
        let mounts = |record: &ContainerRecord| {
            record.mounts.iter().any(|mount| mount.image.as_ref().is_some_and(|mounted| mounted.id == *image))
        };
        records.filter(|record| record.image_id == *image || mounts(record)).collect()
    }
}

/// `name:tag` means that record; `name@digest` means every record of the repository.
fn is_meant(record: &ImageRecord, name: &Reference) -> bool {
    match name.digest() {
        None => record.name == name.to_string(),
        Some(_) => reference_of(record).is_some_and(|own| own.name() == name.name()),
    }
}
