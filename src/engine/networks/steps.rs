//! The network of a build's step that BuildKit runs: what a container of the default bridge has, without a container of ours. Nothing is told
//! of it, as dockerd tells nothing.

use std::path::PathBuf;

use crate::{
    backend::builds::StepNetwork,
    engine::{
        Engine,
        networks::{
            resolv_conf::ResolvConf,
            runs::{RunNamespace, RunNetwork},
        },
        tenants::Scope,
    },
    model::{
        Error, Result,
        container::{Config, ContainerCreateRequest, ContainerRecord, ContainerState, HostConfig, Networking},
        id::{ContainerId, TenantId},
        image::{Descriptor, Platform},
        time::Timestamp,
    },
};

impl Engine {
    /// Makes it.
    pub(crate) async fn connect_step(&self, scope: &Scope, step: &ContainerId) -> Result<StepNetwork> {
        let request = ContainerCreateRequest::default();
        let attachments = self.resolve_networks(scope, &request).await?;
        let record = record(scope.tenant(), step, Networking { attachments, ..Networking::default() });
        match self.wire(&record).await {
            Ok((RunNetwork { namespace: RunNamespace::Path(namespace), files, .. }, _)) => {
                let resolv_conf = files.resolv_conf.ok_or_else(|| Error::system("a build's step has no resolver"))?;
                Ok(StepNetwork { namespace, resolv_conf })
            }
            Ok(_) => Err(Error::system("a build's step has no network of its own")),
            Err(error) => {
                self.release_step(scope.tenant(), step).await;
                Err(error.context("failed to set up the network of a build's step"))
            }
        }
    }

    /// Where the tenant's host is, for a process that is in no container: names resolve there.
    pub(crate) async fn open_host(&self, scope: &Scope) -> Result<Option<PathBuf>> {
        let host = scope.network();
        host.relay_names(&ResolvConf::in_etc().servers).await?;
        Ok(host.namespace())
    }

    /// Takes it back.
    pub(crate) async fn release_step(&self, tenant: &TenantId, step: &ContainerId) {
        self.unwire(&record(tenant, step, Networking::default())).await;
        let _not_there = tokio::fs::remove_dir_all(self.container_dir(step)).await;
    }
}

/// What stands for the step where networks are made: nobody stores it.
fn record(tenant: &TenantId, step: &ContainerId, networking: Networking) -> ContainerRecord {
    let nothing = Descriptor::of("", b"");
    ContainerRecord {
        tenant: tenant.clone(),
        id: step.clone(),
        name: format!("build-step-{}", step.short()),
        created: Timestamp::now(),
        image_id: nothing.digest.clone(),
        image_manifest: nothing,
        platform: Platform::default(),
        command: Vec::new(),
        config: Config::default(),
        host_config: HostConfig::default(),
        networking,
        mounts: Vec::new(),
        state: ContainerState::created(),
        health: None,
        restart_count: 0,
        has_been_manually_stopped: false,
        runtime: String::new(),
    }
}
