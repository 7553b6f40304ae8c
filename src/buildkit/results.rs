//! Results of builds on their way to the engine. buildkitd names an image before it has fetched those of its layers that no step needed:
//! such a name waits for the end of its build, of which no client hears before the image is there.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use containerd_client::{services::v1::Image, types::Descriptor as Target};
use indexmap::IndexMap;

use super::{front::lock, names};
use crate::{
    backend::builds::{Asked, BuildTenant, Told, Wish},
    model::{ErrorKind, Result, container::HostConfig},
};

/// Those of one slot.
pub(super) struct Results {
    tenant: Arc<dyn BuildTenant>,
    /// Images of which something is still to come, by their names.
    waiting: Mutex<IndexMap<String, Image>>,
    /// What was named last, until a build ends: a result gets its names one after the other. Of builds beside each other a `create` may be
    /// told once more or not at all.
    last: Mutex<Option<Target>>,
    /// Who is told of steps that are refused: the client that asked for a build last, since no step says whose it is.
    told: Mutex<Option<Told>>,
    /// Builds that go on.
    building: AtomicUsize,
}

/// Held while a build goes on.
pub(super) struct Building(Arc<Results>);

impl Drop for Building {
    fn drop(&mut self) {
        *lock(&self.0.last) = None;
        // What nobody waits for any more has failed.
        if self.0.building.fetch_sub(1, Ordering::AcqRel) == 1 {
            lock(&self.0.waiting).clear();
        }
    }
}

impl Results {
    pub(super) fn of(tenant: Arc<dyn BuildTenant>) -> Self {
        Self {
            tenant,
            waiting: Mutex::default(),
            last: Mutex::default(),
            told: Mutex::default(),
            building: AtomicUsize::new(0),
        }
    }

    /// 403 if the tenant's policy does not allow the step of a build.
    pub(super) fn permit(&self, step: &HostConfig) -> Result<()> {
        self.tenant.permit(Wish::Steps(step)).inspect_err(|error| {
            let told = lock(&self.told).clone();
            if let Some(told) = told {
                let (failed, refused_by) = (Some(error.kind()), error.refused_by());
                told(Asked { is_step: true, names: String::new(), begun: Instant::now(), failed, refused_by });
            }
        })
    }

    /// A build begins, of whose steps `told` hears if it is there.
    pub(super) fn begin(self: &Arc<Self>, told: Option<&Told>) -> Building {
        if let Some(told) = told {
            *lock(&self.told) = Some(told.clone());
        }
        if self.building.fetch_add(1, Ordering::AcqRel) == 0 {
            // Of a build whose client was gone before.
            *lock(&self.last) = None;
        }
        Building(self.clone())
    }

    /// Names an image, now or when all of it is there.
    pub(super) async fn put(&self, image: Image) -> Result<Image> {
        // The last one counts.
        lock(&self.waiting).shift_remove(&image.name);
        match self.name(image.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound && self.building.load(Ordering::Acquire) > 0 => {
                tracing::debug!("{} waits for the end of its build: {}", image.name, error.chain());
                lock(&self.waiting).insert(image.name.clone(), image.clone());
                Ok(image)
            }
            put => put,
        }
    }

    /// Names what waited and is whole now. To be called when a build has ended, before that is told.
    pub(super) async fn settle(&self) -> Result<()> {
        let waiting: Vec<Image> = lock(&self.waiting).values().cloned().collect();
        for image in waiting {
            match self.name(image.clone()).await {
                // Another build's, or one that has failed.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    tracing::debug!("{} still waits: {}", image.name, error.chain());
                }
                put => {
                    lock(&self.waiting).retain(|_, other| *other != image);
                    put?;
                }
            }
        }
        Ok(())
    }

    async fn name(&self, image: Image) -> Result<Image> {
        let target = image.target.clone();
        let is_first = *lock(&self.last) != target;
        let named = names::put(self.tenant.as_ref(), image, is_first).await?;
        *lock(&self.last) = target;
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buildkit::steps::tests::Tenant, model::reference::Digest};

    fn image(content: &str) -> Image {
        named("x", content)
    }

    fn named(name: &str, content: &str) -> Image {
        let target = Target { digest: Digest::of(content.as_bytes()).to_string(), ..Target::default() };
        Image { name: format!("docker.io/library/{name}:latest"), target: Some(target), ..Image::default() }
    }

    #[tokio::test]
    async fn a_name_waits_until_its_image_is_whole() {
        let tenant = Arc::new(Tenant::default());
        let results = Arc::new(Results::of(tenant.clone()));
        tenant.has_no_content(true);
        assert_eq!(results.put(image("a")).await.unwrap_err().kind(), ErrorKind::NotFound, "nobody builds");
        let building = results.begin(None);
        results.put(image("a")).await.unwrap();
        results.settle().await.unwrap();
        assert_eq!(tenant.named(), 0);
        // A later build of the same name takes its place.
        results.put(image("b")).await.unwrap();
        tenant.has_no_content(false);
        results.settle().await.unwrap();
        results.settle().await.unwrap();
        assert_eq!(tenant.named(), 1);
        tenant.has_no_content(true);
        results.put(image("c")).await.unwrap();
        drop(building);
        tenant.has_no_content(false);
        results.settle().await.unwrap();
        assert_eq!(tenant.named(), 1, "its build has failed");
    }

    #[tokio::test]
    async fn of_the_names_that_a_build_gives_one_is_the_first() {
        let tenant = Arc::new(Tenant::default());
        let results = Arc::new(Results::of(tenant.clone()));
        for _ in 0..2 {
            let _building = results.begin(None);
            for (name, content) in [("x", "a"), ("y", "a"), ("z", "b")] {
                results.put(named(name, content)).await.unwrap();
            }
        }
        let names = tenant.names();
        let which: Vec<_> = names.iter().filter_map(|name| name.split(' ').next()).collect();
        assert_eq!(which, ["first", "further", "first"].repeat(2));
    }
}
