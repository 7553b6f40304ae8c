//! Leases: what is made under one is safe from containerd's garbage collector until something refers to it.

use std::{collections::HashMap, time::Duration};

use containerd_client::services::v1::{CreateRequest, DeleteRequest, ListRequest};
use tracing::{debug, info, warn};

use super::{Client, from_status};
use crate::model::{ErrorKind, Result, time::Timestamp};

/// How the names of our leases begin.
const PREFIX: &str = "ringer-";

/// Starts a lease that ends by itself after `lifetime`, in case we do not come to end it.
pub(super) async fn create(client: &Client, lifetime: Duration) -> Result<String> {
    let end = Timestamp::from(std::time::SystemTime::now() + lifetime).to_string();
    let id = format!("{PREFIX}{}", crate::model::id::ContainerId::random().short());
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

/// Ends the leases of a daemon that was killed in the middle of something: what it had stored so far would stay until
/// they expire. To be called before we have leases of our own, since a containerd namespace has one daemon. Those that
/// are there are found at once and ended behind the caller's back.
pub(super) async fn end_those_of_the_dead(client: &Client) -> Result<()> {
    let answer = client.leases().list(ListRequest { filters: Vec::new() }).await.map_err(from_status)?;
    let leases = answer.into_inner().leases.into_iter().map(|lease| lease.id);
    let found: Vec<String> = leases.filter(|id| id.starts_with(PREFIX)).collect();
    let client = client.clone();
    tokio::spawn(async move {
        let count = found.len();
        for (n, id) in found.into_iter().enumerate() {
            // The last one waits for the collector, which begins only if somebody waits for it.
            let request = DeleteRequest { id: id.clone(), sync: n + 1 == count };
            match client.leases().delete(request).await.map_err(from_status) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    warn!("ending lease {id} of an earlier daemon: {}", error.chain());
                }
                _ => {}
            }
        }
        if count > 0 {
            info!("ended {count} leases of an earlier daemon");
        }
    });
    Ok(())
}
