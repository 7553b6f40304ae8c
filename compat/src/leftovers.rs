//! Removes what a case left on a daemon: everything that was not there before it. A case need not tidy up after itself,
//! and one that fails half-way does not spoil the next.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::http::{Body, Client};

/// What a daemon holds at one moment.
#[derive(Debug, Default)]
pub struct Holdings {
    containers: BTreeSet<String>,
    networks: BTreeSet<String>,
    volumes: BTreeSet<String>,
    images: BTreeSet<String>,
}

/// What the daemon behind this socket holds now.
pub fn holdings(socket: &Path) -> anyhow::Result<Holdings> {
    let mut client = Client::new(socket);
    let mut list = |target| anyhow::Ok(client.request("GET", target, Body::Empty)?.success()?.json()?);
    Ok(Holdings {
        containers: strings(&list("/v1.41/containers/json?all=1")?, "Id"),
        // By id: a dockerd before 25 lets two have one name.
        networks: strings(&list("/v1.41/networks")?, "Id"),
        volumes: strings(&list("/v1.41/volumes")?["Volumes"], "Name"),
        images: names(&list("/v1.41/images/json")?),
    })
}

/// Removes everything that is there now and was not there `before`; gives the names of what was removed.
pub fn sweep(socket: &Path, before: &Holdings) -> anyhow::Result<Vec<String>> {
    let now = holdings(socket)?;
    let mut client = Client::new(socket);
    let mut removed = Vec::new();
    // Containers first: they hold the rest.
    for (kind, new, query) in [
        ("containers", now.containers.difference(&before.containers), "?force=1&v=1"),
        ("networks", now.networks.difference(&before.networks), ""),
        ("volumes", now.volumes.difference(&before.volumes), "?force=1"),
        ("images", now.images.difference(&before.images), "?force=1"),
    ] {
        for name in new {
            let answer = client.request("DELETE", &format!("/v1.41/{kind}/{name}{query}"), Body::Empty);
            // One that will not go is seen in the next listing; the run goes on. A digest may have gone with its tag.
            if !answer.is_ok_and(|answer| answer.status == 404) {
                removed.push(format!("{kind}/{name}"));
            }
        }
    }
    Ok(removed)
}

/// Whether an image that was there before has lost its name.
pub fn lost_images(socket: &Path, before: &Holdings) -> anyhow::Result<bool> {
    Ok(!before.images.is_subset(&holdings(socket)?.images))
}

fn strings(list: &Value, key: &str) -> BTreeSet<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|item| item[key].as_str()).map(str::to_owned).collect()
}

/// An image is known by its names, since removing an id would take those that were there before along.
fn names(list: &Value) -> BTreeSet<String> {
    let images = list.as_array().into_iter().flatten();
    let names = images.flat_map(|image| ["RepoTags", "RepoDigests"].map(|kind| &image[kind]));
    let names = names.flat_map(|names| names.as_array().into_iter().flatten()).filter_map(Value::as_str);
    names.filter(|name| !name.starts_with("<none>")).map(str::to_owned).collect()
}
