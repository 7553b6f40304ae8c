//! The networks of the steps that run: each goes with its container, or with whoever asked for it in vain.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use super::{containers::name_of, front::lock};
use crate::{
    backend::builds::{BuildTenant, StepNetwork},
    model::{Result, error::Context},
};

/// Of one slot.
pub(super) struct Steps {
    tenant: Arc<dyn BuildTenant>,
    /// Containers that have one, by what buildkitd calls them.
    connected: Mutex<HashSet<String>>,
}

/// A network whose container is not made yet; it is given back with this.
pub(super) struct Connected {
    steps: Arc<Steps>,
    id: String,
    network: StepNetwork,
    is_kept: bool,
}

impl Connected {
    /// What the container gets.
    pub(super) fn network(&self) -> &StepNetwork {
        &self.network
    }

    /// The container is made: its network goes with it.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (steps, id) = (self.steps.clone(), std::mem::take(&mut self.id));
        tokio::spawn(async move { steps.release(&id).await });
    }
}

impl Steps {
    pub(super) fn of(tenant: Arc<dyn BuildTenant>) -> Self {
        Self { tenant, connected: Mutex::default() }
    }

    /// Makes the network of a container.
    pub(super) async fn connect(self: &Arc<Self>, id: &str) -> Result<Connected> {
        let (steps, id) = (self.clone(), id.to_owned());
        // On a task of its own: whoever asks may be gone before it is made, and then it goes.
        let connecting = tokio::spawn(async move {
            lock(&steps.connected).insert(id.clone());
            match steps.tenant.connect(&name_of(&id)).await {
                Ok(network) => Ok(Connected { steps, id, network, is_kept: false }),
                Err(error) => {
                    tracing::warn!("wiring a build's step: {}", error.chain());
                    lock(&steps.connected).remove(&id);
                    Err(error)
                }
            }
        });
        connecting.await.context("wiring a build's step")?
    }

    /// Takes the network of a container back, if it has one.
    pub(super) async fn release(&self, id: &str) {
        if lock(&self.connected).remove(id) {
            self.tenant.release(&name_of(id)).await;
        }
    }

    /// Takes those of all containers back. None of them runs any more.
    pub(super) async fn release_all(&self) {
        let all: Vec<String> = lock(&self.connected).iter().cloned().collect();
        for id in all {
            self.release(&id).await;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        collections::HashMap,
        path::PathBuf,
        sync::atomic::{AtomicBool, Ordering},
    };

    use async_trait::async_trait;

    use super::*;
    use crate::{
        backend::{
            builds::{Around, BuildImages, BuildRules, BuildSurroundings, StepNetworks, Wish},
            images::ImageRecord,
        },
        model::{
            Error,
            id::{ContainerId, TenantId},
            image::Descriptor,
            time::Timestamp,
        },
    };

    /// Notes what it is asked.
    #[derive(Default)]
    pub(in crate::buildkit) struct Tenant(Mutex<Vec<String>>, AtomicBool);

    impl Tenant {
        /// Whether it misses something of every image.
        pub fn has_no_content(&self, is_so: bool) {
            self.1.store(is_so, Ordering::SeqCst);
        }

        /// How many images were named.
        pub fn named(&self) -> usize {
            self.names().len()
        }

        /// What each was: the first name of a build's result, or a further one.
        pub fn names(&self) -> Vec<String> {
            lock(&self.0).iter().filter(|line| line.contains(" name ")).cloned().collect()
        }
    }

    impl BuildSurroundings for Tenant {
        fn cache(&self) -> TenantId {
            TenantId::default_tenant()
        }

        fn around(&self) -> Around {
            Around::default()
        }
    }

    #[async_trait]
    impl StepNetworks for Tenant {
        async fn connect(&self, step: &ContainerId) -> Result<StepNetwork> {
            lock(&self.0).push(format!("connect {step}"));
            Ok(StepNetwork { namespace: "/n".into(), resolv_conf: "/r".into() })
        }

        async fn release(&self, step: &ContainerId) {
            lock(&self.0).push(format!("release {step}"));
        }

        async fn host(&self) -> Result<Option<PathBuf>> {
            Ok(None)
        }
    }

    impl BuildRules for Tenant {
        fn permit(&self, _: Wish<'_>) -> Result<()> {
            Ok(())
        }
    }

    #[async_trait]
    impl BuildImages for Tenant {
        async fn get(&self, _: &str) -> Result<Option<ImageRecord>> {
            Ok(None)
        }

        async fn put(&self, name: &str, target: &Descriptor, is_first: bool) -> Result<ImageRecord> {
            if self.1.load(Ordering::SeqCst) {
                return Err(Error::not_found("content: not found"));
            }
            lock(&self.0).push(format!("{} name {name}", if is_first { "first" } else { "further" }));
            Ok(ImageRecord {
                tenant: TenantId::default_tenant(),
                name: name.to_owned(),
                target: target.clone(),
                labels: HashMap::new(),
                created: Timestamp::zero(),
                updated: Timestamp::zero(),
            })
        }
    }

    impl Connected {
        /// One of nobody's.
        pub fn for_test(namespace: &str, resolv_conf: &str) -> Self {
            let steps = Arc::new(Steps::of(Arc::new(Tenant::default())));
            let network = StepNetwork { namespace: namespace.into(), resolv_conf: resolv_conf.into() };
            Self { steps, id: String::new(), network, is_kept: true }
        }
    }

    #[tokio::test]
    async fn a_network_goes_with_its_container_or_with_who_asked_in_vain() {
        let tenant = Arc::new(Tenant::default());
        let steps = Arc::new(Steps::of(tenant.clone()));
        let said = || lock(&tenant.0).len();
        steps.connect("a").await.unwrap().keep();
        drop(steps.connect("b").await.unwrap());
        while said() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lock(&tenant.0)[2], format!("release {}", name_of("b")));
        steps.release("a").await;
        steps.release("a").await;
        assert_eq!(said(), 4, "once");
        steps.connect("c").await.unwrap().keep();
        steps.release_all().await;
        assert_eq!(said(), 6);
    }
}
