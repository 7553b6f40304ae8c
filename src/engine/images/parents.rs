//! Which image was made on which. An image without a name stays as long as others are made on it, and goes with the
//! last of them; only the list of all shows it meanwhile. The steps of builds are such images.

use std::collections::{HashMap, HashSet};

use super::{
    ImageStore,
    keep::record,
    look_up::{Found, reference_of},
};
use crate::{
    engine::{Engine, tenants::Scope},
    model::{Result, reference::Digest},
};

/// Images by those that they were made on.
#[derive(Debug, Default)]
pub struct Family(HashMap<Digest, HashSet<Digest>>);

impl Family {
    /// Whether others were made on an image.
    pub fn is_parent(&self, image: &Digest) -> bool {
        self.0.get(image).is_some_and(|children| !children.is_empty())
    }

    fn take_away(&mut self, child: &Digest, parent: &Digest) {
        if let Some(children) = self.0.get_mut(parent) {
            children.remove(child);
        }
    }
}

impl ImageStore {
    /// Of a tenant's images and the steps of its builds.
    pub(crate) async fn family(&self, scope: &Scope) -> Result<Family> {
        self.family_of(&self.all_with_steps(scope).await?).await
    }

    /// The same of a list that is at hand.
    async fn family_of(&self, images: &[Found]) -> Result<Family> {
        let mut family = Family::default();
        for image in images {
            if let Some(parent) = &self.whole_tree(&image.target).await?.parent {
                family.0.entry(parent.clone()).or_default().insert(image.id().clone());
            }
        }
        Ok(family)
    }

    /// A tenant's images and the steps of its builds; what is both has the records of both.
    pub(crate) async fn all_with_steps(&self, scope: &Scope) -> Result<Vec<Found>> {
        let mut records = self.backend.list_images(scope.tenant()).await?;
        records.extend(self.backend.list_images(&scope.tenant().of_builds()).await?);
        Ok(super::look_up::by_target(records))
    }
}

impl Engine {
    /// An image goes: so do the nameless ones that it was made on, up to one that something else needs.
    pub(super) async fn delete_parents(&self, scope: &Scope, image: &Found) -> Result<Vec<Digest>> {
        let all = self.images.all_with_steps(scope).await?;
        let mut family = self.images.family_of(&all).await?;
        let all: HashMap<&Digest, &Found> = all.iter().map(|found| (found.id(), found)).collect();
        let mut deleted = Vec::new();
        let mut child = image.id().clone();
        let mut next = self.images.whole_tree(&image.target).await?.parent.clone();
        while let Some(parent) = next.take() {
            family.take_away(&child, &parent);
            let Some(found) = all.get(&parent) else { break };
            let is_named = found.records.iter().any(|record| reference_of(record).is_some());
            if is_named || family.is_parent(&parent) || !self.containers_of(scope, &parent).is_empty() {
                break;
            }
            next = self.images.whole_tree(&found.target).await?.parent.clone();
            for record in &found.records {
                self.images.backend.delete_image(&record.tenant, &record.name, false).await?;
            }
            self.images.forget_tree(&parent);
            deleted.push(parent.clone());
            child = parent;
        }
        Ok(deleted)
    }

    /// An image goes, and what it was made on stays: a build's step becomes an image without a name.
    pub(super) async fn keep_parent(&self, scope: &Scope, image: &Found) -> Result<()> {
        let Some(parent) = self.images.whole_tree(&image.target).await?.parent.clone() else { return Ok(()) };
        let all = self.images.all_with_steps(scope).await?;
        match all.iter().find(|found| *found.id() == parent) {
            Some(step) if step.records.iter().all(|record| record.tenant != *scope.tenant()) => {
                self.images.backend.put_image(&record(scope.tenant(), parent.as_str(), &step.target)).await.map(drop)
            }
            _ => Ok(()),
        }
    }
}
