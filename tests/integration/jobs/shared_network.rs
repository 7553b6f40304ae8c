//! `--network-from`: jobs in one network namespace, each with an end of its own.

use serde_json::{Value, json};

use super::{Job, remains, until_only};
use crate::support::daemon::Daemon;

/// A container that has the host's port 5432.
fn published() -> Value {
    let ports = json!({"80/tcp": [{"HostPort": "5432"}]});
    let host_config = json!({"NetworkMode": "bridge", "PortBindings": ports, "RestartPolicy": {"Name": "always"}});
    json!({"ExposedPorts": {"80/tcp": {}}, "HostConfig": host_config})
}

/// Serves its own name there.
async fn serve(job: &Job, name: &str) {
    let script = format!("while true; do echo {name} | nc -l -p 80; done");
    let id = job.client.create(name, &script, published()).await;
    job.client.launch(&id).await;
}

/// What a container of `--network host` gets from the port 5432 of its localhost within some seconds.
async fn at_localhost(job: &Job) -> String {
    at(job, "127.0.0.1", json!({"NetworkMode": "host"})).await
}

/// The same of an address, as a shell writes it, in such a container.
async fn at(job: &Job, address: &str, host_config: Value) -> String {
    let script = format!(
        "i=0; until nc {address} 5432 </dev/null | grep .; do i=$((i+1)); [ $i -lt 100 ] || exit 1; sleep 0.1; done"
    );
    let (_, output) = job.client.run("probe", &script, json!({ "HostConfig": host_config })).await;
    job.client.remove("probe").await;
    output.trim().to_owned()
}

#[tokio::test]
async fn a_job_in_the_network_of_another_one_meets_its_ports_and_keeps_them_apart() {
    let daemon = Daemon::start().await;
    let first = Job::with_box(&daemon, &["--name", "first"]).await;
    let second = Job::with_box(&daemon, &["--name", "second", "--network-from", "first"]).await;
    assert_eq!(second.answer["network_from"], first.answer["id"]);
    let other = daemon.ringer(&["job", "create", "--owner", "1000", "--network-from", "first"]).output().unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(said, "ringer: job first is of another user: its network is not given away\n");

    serve(&first, "web").await;
    assert_eq!(at_localhost(&second).await, "web", "{}", daemon.log());
    // By the name that Docker Desktop has for it, and where testcontainers looks: the gateway, which is third in the route.
    let named = json!({"NetworkMode": "bridge", "ExtraHosts": ["host.docker.internal:host-gateway"]});
    assert_eq!(at(&first, "host.docker.internal", named).await, "web");
    assert_eq!(
        at(&first, "$(set -- $(ip route show default); echo $3)", json!({"NetworkMode": "bridge"})).await,
        "web"
    );

    // Names stay each one's own; what is the host's is there once: a port, a subnet.
    let id = second.client.create("web", "sleep 1000", published()).await;
    let refused = second.client.post(&format!("/containers/{id}/start"), json!({})).await;
    assert!(refused.message().contains("port is already allocated"), "{}", refused.text());
    let subnet = |name: &str| json!({"Name": name, "IPAM": {"Config": [{"Subnet": "172.28.0.0/16"}]}});
    assert_eq!(first.client.post("/networks/create", subnet("ci")).await.status, 201);
    assert_eq!(second.client.post("/networks/create", json!({"Name": "ci"})).await.status, 201);
    let overlapping = second.client.post("/networks/create", subnet("other")).await;
    assert!(overlapping.message().contains("overlap"), "{}", overlapping.text());
    let reached =
        second.client.run("asks", "nslookup web 127.0.0.11", json!({"HostConfig": {"NetworkMode": "ci"}})).await;
    assert_ne!(reached.0, 0, "names are of networks, and these are others: {}", reached.1);
    first.remove(&daemon);
    second.remove(&daemon);
    remains::gone_of(&daemon, "job-").await;
}

/// Whoever ends first: the network is there as long as one of them, also in the next life of the daemon.
#[tokio::test]
async fn the_network_of_a_job_that_has_ended_stays_for_the_other() {
    let mut daemon = Daemon::start().await;
    let first = Job::with_box(&daemon, &["--name", "first"]).await;
    let second = Job::with_box(&daemon, &["--name", "second", "--network-from", "first"]).await;
    serve(&first, "old").await;
    assert_eq!(at_localhost(&second).await, "old");
    assert!(first.remove(&daemon).contains("removed 1 container, "));
    serve(&second, "web").await;
    assert_eq!(at_localhost(&second).await, "web", "{}", daemon.log());

    daemon.kill();
    daemon.restart().await;
    until_only(&daemon, &["second"]).await;
    let third = Job::with_box(&daemon, &["--name", "third", "--network-from", "second"]).await;
    assert_eq!(third.answer["network_from"], first.answer["id"]);
    assert_eq!(at_localhost(&third).await, "web", "{}", daemon.log());
    second.remove(&daemon);
    assert!(first.namespace(&daemon).exists());
    third.remove(&daemon);
    remains::gone_of(&daemon, "job-").await;
}
