//! Container objects: our record in an extension, the spec, selectors in labels.

use std::{collections::HashMap, time::Duration};

use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
    UpdateContainerRequest, container::Runtime as ContainerRuntime,
};
use oci_spec::runtime::Spec;
use prost_types::{Any, FieldMask};

use super::{Client, Containerd, from_status, leases, snapshots, tasks};
use crate::{
    backend::runtime::{NewContainer, StoredContainer},
    model::{Error, ErrorKind, Result, error::Context, id::ContainerId},
};

/// Extension that holds the engine's record.
const RECORD: &str = "ringer.record";

const RECORD_TYPE: &str = "ringer/record.json";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// Longest time between a layer and the container that refers to it.
const LEASE: Duration = Duration::from_secs(600);

/// Makes the writable layer and the container; neither remains if one fails.
pub(super) async fn create(containerd: &Containerd, new: &NewContainer) -> Result<()> {
    let client = containerd.client();
    let lease = leases::create(client, LEASE).await?;
    let result = create_under(containerd, &client.with_lease(&lease)?, new).await;
    leases::delete_later(client, lease);
    result
}

async fn create_under(containerd: &Containerd, leased: &Client, new: &NewContainer) -> Result<()> {
    let key = new.id.as_str();
    snapshots::prepare(leased, containerd.snapshotter_name(), key, &new.parent).await?;
    let request = CreateContainerRequest { container: Some(object(containerd, new)?) };
    match leased.containers().create(request).await.map_err(from_status) {
        Ok(_) => Ok(()),
        Err(error) => {
            let undone = snapshots::remove(containerd, key).await;
            Err(with_undo(error, undone))
        }
    }
}

fn object(containerd: &Containerd, new: &NewContainer) -> Result<Container> {
    let runtime = containerd.runtimes().shim_of(&new.runtime)?;
    Ok(Container {
        id: new.id.to_string(),
        labels: new.labels.clone(),
        image: new.image.clone(),
        runtime: Some(ContainerRuntime { name: runtime.name, options: runtime.options }),
        // containerd wants one from the beginning; the true one comes with the task.
        spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value: b"{}".to_vec() }),
        snapshotter: containerd.snapshotter_name().to_owned(),
        snapshot_key: new.id.to_string(),
        extensions: record_extension(new.record.clone()),
        ..Container::default()
    })
}

fn record_extension(record: Vec<u8>) -> HashMap<String, Any> {
    HashMap::from([(RECORD.to_owned(), Any { type_url: RECORD_TYPE.to_owned(), value: record })])
}

/// The first error counts; a failed undo is named beside it.
fn with_undo(error: Error, undone: Result<()>) -> Error {
    match undone {
        Ok(()) => error,
        Err(undo) => {
            Error::new(error.kind(), format!("{} (and undoing it: {undo})", error.message())).with_source(error)
        }
    }
}

/// Replaces our record.
pub(super) async fn update_record(containerd: &Containerd, id: &ContainerId, record: Vec<u8>) -> Result<()> {
    let container = Container { id: id.to_string(), extensions: record_extension(record), ..Container::default() };
    update(containerd, container, &format!("extensions.{RECORD}")).await
}

/// Replaces the spec, which the next task is made from.
pub(super) async fn update_spec(containerd: &Containerd, id: &ContainerId, spec: &Spec) -> Result<()> {
    let value = serde_json::to_vec(spec).context("writing the container's spec")?;
    let spec = Any { type_url: SPEC_TYPE.to_owned(), value };
    update(containerd, Container { id: id.to_string(), spec: Some(spec), ..Container::default() }, "spec").await
}

/// Without a mask it would count as a full replacement, which containerd refuses.
async fn update(containerd: &Containerd, container: Container, path: &str) -> Result<()> {
    let update_mask = Some(FieldMask { paths: vec![path.to_owned()] });
    let request = UpdateContainerRequest { container: Some(container), update_mask };
    containerd.client().containers().update(request).await.map_err(from_status)?;
    Ok(())
}

/// Removes container and layer; what is gone already counts as removed.
pub(super) async fn delete(containerd: &Containerd, id: &ContainerId) -> Result<()> {
    let request = DeleteContainerRequest { id: id.to_string() };
    match containerd.client().containers().delete(request).await.map_err(from_status) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Of a start that a killed daemon did not finish.
    tasks::remove_pipes(containerd, id);
    tasks::remove_runtime_state(containerd, id);
    snapshots::remove(containerd, id.as_str()).await
}

/// All containers that carry a record of ours. Streamed, since one answer is limited to 16 MiB.
pub(super) async fn list(containerd: &Containerd) -> Result<Vec<StoredContainer>> {
    let mut containers = Vec::new();
    let mut client = containerd.client().containers();
    let mut stream = client.list_stream(ListContainersRequest::default()).await.map_err(from_status)?.into_inner();
    while let Some(message) = stream.message().await.map_err(from_status)? {
        containers.extend(message.container.and_then(to_stored));
    }
    Ok(containers)
}

fn to_stored(mut container: Container) -> Option<StoredContainer> {
    let record = container.extensions.remove(RECORD)?.value;
    Some(StoredContainer { id: ContainerId::from_stored(container.id), record })
}

/// The cgroup that the stored spec names.
pub(super) async fn stored_cgroup(containerd: &Containerd, id: &ContainerId) -> Result<Option<String>> {
    let request = GetContainerRequest { id: id.to_string() };
    let answer = containerd.client().containers().get(request).await.map_err(from_status)?;
    let bytes = answer.into_inner().container.and_then(|container| container.spec).unwrap_or_default().value;
    let spec: serde_json::Value = serde_json::from_slice(&bytes).context("reading the container's spec")?;
    Ok(spec["linux"]["cgroupsPath"].as_str().map(str::to_owned))
}
