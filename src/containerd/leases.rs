//! Leases: what is made under one is safe from containerd's garbage collector until something refers to it.

use std::{collections::HashMap, time::Duration};

use containerd_client::services::v1::{CreateRequest, DeleteRequest};
use tracing::debug;

use super::{Client, from_status};
use crate::model::{ErrorKind, Result, time::Timestamp};

/// Starts a lease that ends by itself after `lifetime`, in case we do not come to end it.
pub(super) async fn create(client: &Client, lifetime: Duration) -> Result<String> {
    let end = Timestamp::from(std::time::SystemTime::now() + lifetime).to_string();
    let id = format!("ringer-{}", crate::model::id::ContainerId::random().short());
    let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), end)]);
    let request = CreateRequest { id: id.clone(), labels };
    client.leases().create(request).await.map_err(from_status)?;
    Ok(id)
}

/// Ends a lease without waiting for the collector. One that is gone already is success.
pub(super) async fn delete(client: &Client, id: &str) -> Result<()> {
    match client.leases().delete(DeleteRequest { id: id.to_owned(), sync: false }).await.map_err(from_status) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Ends a lease behind the caller's back: nobody needs to wait for it, and its expiry ends it in any case.
pub(super) fn delete_later(client: &Client, id: String) {
    let client = client.clone();
    tokio::spawn(async move {
        if let Err(error) = delete(&client, &id).await {
            debug!("lease {id} is left to its expiry: {}", error.chain());
        }
    });
}
