//! References to other containers mean the one that was there when they were made.

use std::path::PathBuf;

use rustix::mount::{UnmountFlags, unmount};

use super::Bench;
use crate::{
    backend::runtime::Runtime,
    model::{
        container::{ContainerRecord, HostConfig, IpcMode},
        id::ContainerId,
    },
};

/// The memory that a run shares, which is really mounted; it goes with this.
struct SharedMemory(PathBuf);

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let _not_there = unmount(&self.0, UnmountFlags::DETACH);
    }
}

impl Bench {
    /// Renames a container, and gives its name to another one.
    async fn replace(&self, name: &str) {
        self.engine.container_rename(&self.scope, name, "renamed").await.unwrap();
        self.create(name, "sleep 100", HostConfig::default()).await.unwrap();
    }

    fn record(&self, name: &str) -> ContainerRecord {
        (*self.engine.containers.get(self.scope.tenant(), name).unwrap().record()).clone()
    }
}

#[tokio::test]
async fn modes_name_the_other_container_by_its_id() {
    let bench = Bench::new().await;
    let shareable = HostConfig { ipc_mode: IpcMode::Shareable, ..HostConfig::default() };
    let id: ContainerId = bench.create("db", "sleep 100", shareable).await.unwrap();
    let _shared = SharedMemory(bench.runtime.state_dir(&id).join("shm"));
    let joining = HostConfig {
        network_mode: "container:db".into(),
        pid_mode: "container:db".into(),
        ipc_mode: format!("container:{}", id.short()).into(),
        ..HostConfig::default()
    };
    bench.create("web", "sleep 100", joining).await.unwrap();
    let config = bench.record("web").host_config;
    let joined = [config.network_mode.container(), config.pid_mode.container(), config.ipc_mode.container()];
    assert_eq!(joined, [Some(id.as_str()); 3]);
    bench.start("db").await.unwrap();
    bench.replace("db").await;
    bench.start("web").await.expect("the one that it was made for runs");
    let network = bench.record("web").networking.sandbox;
    assert_eq!(network, bench.record("renamed").networking.sandbox);
}

#[tokio::test]
async fn that_the_owner_of_a_network_is_missing_is_told_at_the_start() {
    let bench = Bench::new().await;
    let joining = HostConfig { network_mode: "container:nope".into(), ..HostConfig::default() };
    bench.create("web", "true", joining).await.unwrap();
    assert_eq!(bench.record("web").host_config.network_mode.container(), Some("nope"));
    let error = bench.start("web").await.unwrap_err();
    assert_eq!(error.message(), "joining network namespace of container: No such container: nope");
}

#[tokio::test]
async fn links_lead_to_the_one_that_they_were_made_for() {
    let bench = Bench::new().await;
    bench.create("db", "sleep 100", HostConfig::default()).await.unwrap();
    let linking = HostConfig { links: Some(vec!["db:data".to_owned()]), ..HostConfig::default() };
    bench.create("web", "sleep 100", linking).await.unwrap();
    bench.start("db").await.unwrap();
    bench.replace("db").await;
    let shown = || bench.engine.shown_links(&bench.record("web"));
    assert_eq!(shown(), ["/renamed:/web/data"]);
    // The other one under the old name does not run.
    bench.start("web").await.unwrap();
    // A record of an older daemon has names alone.
    let web = bench.engine.containers.get(bench.scope.tenant(), "web").unwrap();
    web.turn().await.unwrap().update(|record| record.networking.linked.clear());
    assert_eq!(shown(), ["/db:/web/data"]);
}

#[tokio::test]
async fn a_link_to_what_is_gone_is_refused_at_the_start() {
    let bench = Bench::new().await;
    bench.create("db", "true", HostConfig::default()).await.unwrap();
    let linking = HostConfig { links: Some(vec!["db:data".to_owned()]), ..HostConfig::default() };
    bench.create("web", "true", linking).await.unwrap();
    bench.engine.container_delete(&bench.scope, "db", super::DeleteOptions::default()).await.unwrap();
    let error = bench.start("web").await.unwrap_err();
    assert!(error.message().contains("Cannot link to a non running container: /db AS /web/data"), "{error}");
}

#[tokio::test]
async fn a_link_is_removed_by_its_alias() {
    let bench = Bench::new().await;
    let first = bench.create("db", "sleep 100", HostConfig::default()).await.unwrap();
    let second = bench.create("cache", "sleep 100", HostConfig::default()).await.unwrap();
    let links = ["db:al", "cache:bl", "db:cl"].map(str::to_owned).to_vec();
    let linked = HostConfig { links: Some(links), ..HostConfig::default() };
    bench.create("web", "sleep 100", linked).await.unwrap();
    let remove = async |link: &str| bench.engine.container_delete_link(&bench.scope, link).await;
    let refusal = async |link: &str| remove(link).await.unwrap_err().message().to_owned();
    let own_name = "Conflict, cannot remove the default link name of the container";
    assert_eq!(refusal("web").await, own_name);
    assert_eq!(refusal("/web").await, own_name);
    for missing in ["nope", "nope/al", "web/none", "db/al"] {
        assert_eq!(refusal(missing).await, format!("No such container: {missing}"));
    }
    remove("web/al").await.unwrap();
    assert_eq!(refusal("web/al").await, "No such container: web/al");
    let record = bench.record("web");
    assert_eq!(record.host_config.links, Some(vec!["cache:bl".to_owned(), "db:cl".to_owned()]));
    assert_eq!(record.networking.linked, [second, first]);
    remove("web/bl").await.unwrap();
    remove("/web/cl").await.unwrap();
    assert_eq!(bench.record("web").host_config.links, None);
}
