//! Which snapshotter works here.

use std::path::PathBuf;

use containerd_client::services::v1::{Plugin, PluginsRequest};
use tracing::warn;

use super::{Client, from_status};
use crate::model::{Error, Result};

/// In order of preference. `native` copies whole layers, but works on every file system, also where overlayfs
/// cannot be laid over what is an overlay already (a daemon in a container without a volume for its data).
const DEFAULTS: [&str; 2] = ["overlayfs", "native"];

/// Of it a new writable layer is empty; `native` has copied all below it.
const WITH_EMPTY_LAYERS: &str = DEFAULTS[0];

/// The one that was asked for, else the first that works; and where its layers are, if new ones are empty.
pub(super) async fn choose(client: &Client, wanted: Option<&str>) -> Result<(String, Option<PathBuf>)> {
    let request = PluginsRequest { filters: vec!["type==io.containerd.snapshotter.v1".to_owned()] };
    let plugins = client.introspection().plugins(request).await.map_err(from_status)?.into_inner().plugins;
    let name = match wanted {
        Some(name) => usable(&plugins, name).map_err(|error| error.context(format_args!("snapshotter {name}")))?,
        None => first_usable(&plugins)?,
    };
    let layers = empty_layers(&plugins, &name);
    Ok((name, layers))
}

fn empty_layers(plugins: &[Plugin], name: &str) -> Option<PathBuf> {
    let plugin = plugins.iter().find(|plugin| plugin.id == name && name == WITH_EMPTY_LAYERS)?;
    plugin.exports.get("root").map(PathBuf::from)
}

fn first_usable(plugins: &[Plugin]) -> Result<String> {
    let mut reasons = Vec::new();
    for name in DEFAULTS {
        match usable(plugins, name) {
            Ok(name) => return Ok(name),
            Err(error) => {
                warn!("snapshotter {name} does not work here: {error}");
                reasons.push(format!("{name}: {error}"));
            }
        }
    }
    Err(Error::unavailable(format!("containerd has no snapshotter that works here: {}", reasons.join("; "))))
}

fn usable(plugins: &[Plugin], name: &str) -> Result<String> {
    let plugin = plugins.iter().find(|plugin| plugin.id == name);
    let plugin = plugin.ok_or_else(|| Error::unavailable("containerd does not have it"))?;
    match &plugin.init_err {
        None => Ok(name.to_owned()),
        Some(status) => Err(Error::unavailable(status.message.clone())),
    }
}

#[cfg(test)]
mod tests {
    use containerd_client::google::rpc::Status;

    use super::*;

    fn plugin(id: &str, failure: Option<&str>) -> Plugin {
        let init_err = failure.map(|text| Status { message: text.to_owned(), ..Status::default() });
        Plugin { id: id.to_owned(), init_err, ..Plugin::default() }
    }

    #[test]
    fn native_steps_in_where_overlayfs_does_not_work() {
        let plugins = [plugin("native", None), plugin("overlayfs", Some("not supported on overlayfs"))];
        assert_eq!(first_usable(&plugins).unwrap(), "native");
        assert_eq!(first_usable(&[plugin("native", None), plugin("overlayfs", None)]).unwrap(), "overlayfs");
    }

    #[test]
    fn folder_of_empty_layers_is_that_of_overlayfs() {
        let with_root =
            |id: &str| Plugin { exports: [("root".to_owned(), format!("/c/{id}"))].into(), ..plugin(id, None) };
        let plugins = ["overlayfs", "native"].map(with_root);
        assert_eq!(empty_layers(&plugins, "overlayfs"), Some("/c/overlayfs".into()));
        assert_eq!(empty_layers(&plugins, "native"), None);
        assert_eq!(empty_layers(&[plugin("overlayfs", None)], "overlayfs"), None);
    }

    #[test]
    fn without_any_the_reasons_are_named() {
        let error = first_usable(&[plugin("overlayfs", Some("no such device"))]).unwrap_err();
        assert!(error.message().contains("overlayfs: no such device; native: containerd does not have it"), "{error}");
    }
}
