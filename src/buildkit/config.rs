//! `buildkitd.toml` of one slot.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Options, cni, remains::Remains};
use crate::backend::builds::Around;

/// How much a slot's cache may take, what it may keep in any case, and what it leaves free on the disk. With a unit: a bare number is
/// bytes. In MB.
const MOST: u64 = 20_000;
const KEPT: u64 = 2_000;
const MB: u64 = 1_000_000;
const FREE: &str = "10%";

const HOST_GATEWAY: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";

/// For how long, and how many, builds of the past are remembered.
const HISTORY_SECONDS: u64 = 48 * 3600;
const HISTORY_ENTRIES: u64 = 50;

#[derive(Serialize)]
struct Config {
    root: String,
    /// What a client may be given, if it asks.
    #[serde(rename = "insecure-entitlements")]
    entitlements: Vec<&'static str>,
    grpc: Value,
    otel: Value,
    cdi: Value,
    history: Value,
    worker: Value,
    #[serde(skip_serializing_if = "Map::is_empty")]
    registry: Map<String, Value>,
}

/// How many bytes a cache may take.
pub(super) fn most(options: &Options) -> u64 {
    (MOST * MB).min(options.most_kept).max(MB)
}

/// The whole file.
pub(super) fn text(options: &Options, remains: &Remains, namespace: &str, around: &Around) -> String {
    let folders = &remains.folders;
    let most = most(options) / MB;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let config = Config {
        root: path(&folders.root),
        entitlements: vec!["network.host"],
        grpc: json!({"address": [format!("unix://{}", folders.socket().display())], "uid": 0, "gid": 0}),
        // By default all share one, which everybody may write to.
        otel: json!({"socketPath": path(&folders.traces())}),
        cdi: json!({"disabled": true}),
        history: json!({"maxAge": HISTORY_SECONDS, "maxEntries": HISTORY_ENTRIES}),
        worker: json!({
            "oci": {"enabled": false},
            "containerd": {
                "enabled": true,
                "address": path(&folders.facade()),
                "namespace": namespace,
                "snapshotter": options.place.snapshotter,
                "labels": labels(around),
                "gc": true,
                "reservedSpace": format!("{}MB", KEPT.min(most)),
                "maxUsedSpace": format!("{most}MB"),
                "minFreeSpace": FREE,
                "networkMode": "cni",
                "cniConfigPath": path(&folders.plugins().join(cni::CONFIGURATION)),
                "cniBinaryPath": path(&folders.plugins()),
            },
        }),
        registry: registries(&around.mirrors, &options.insecure),
    };
    let text = toml::to_string(&config).expect("texts, numbers and tables");
    format!("# Written by ringer at every start.\n{text}")
}

/// buildx reads there what `host-gateway` is, as of dockerd.
fn labels(around: &Around) -> Map<String, Value> {
    around.host_gateway.iter().map(|address| (HOST_GATEWAY.to_owned(), json!(address))).collect()
}

/// Mirrors of Docker Hub, and registries without TLS or with a certificate that nobody signed. Ranges of addresses cannot be said.
fn registries(mirrors: &[String], insecure: &[String]) -> Map<String, Value> {
    let mut registries = Map::new();
    let hosts: Vec<&str> = mirrors.iter().map(|url| host_of(url)).collect();
    if !hosts.is_empty() {
        registries.insert("docker.io".to_owned(), json!({"mirrors": hosts}));
    }
    for url in mirrors.iter().filter(|url| url.starts_with("http://")) {
        registries.insert(host_of(url).to_owned(), json!({"http": true}));
    }
    for registry in insecure.iter().filter(|registry| !registry.contains('/')) {
        registries.insert(registry.clone(), json!({"http": true, "insecure": true}));
    }
    registries
}

fn host_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        backend::{
            builds::BuildPlace,
            runtime::{Runtime, fake::FakeRuntime},
        },
        model::id::TenantId,
    };

    #[test]
    fn config_is_toml_with_our_folders() {
        let place = BuildPlace {
            address: "/run/c.sock".into(),
            namespace: "ringer".to_owned(),
            folders: Vec::new(),
            snapshotter: "native".to_owned(),
            shim: String::new(),
            shim_options: None,
            oom_score_adj: 0,
        };
        let options = Options {
            program: Some("/bin/buildkitd".into()),
            data_root: "/data".into(),
            exec_root: "/run/\"x\"".into(),
            place,
            insecure: vec!["10.0.0.0/8".to_owned(), "reg.test:5000".to_owned()],
            most_kept: 5_000_000_000,
            idle: std::time::Duration::ZERO,
        };
        let folder = tempfile::tempdir().unwrap();
        let (options, runtime): (_, Arc<dyn Runtime>) = (Arc::new(options), Arc::new(FakeRuntime::new(folder.path())));
        let default = TenantId::default_tenant();
        let written = |cache: &TenantId| -> toml::Table {
            let remains = Remains::of(&options, &runtime, &default, cache);
            let mirrors = ["http://mirror.test:5000/", "https://other.test"].map(str::to_owned);
            let host_gateway = Some("172.17.0.1".parse().unwrap());
            let around = Around { mirrors: mirrors.to_vec(), host_gateway, ..Around::default() };
            text(&options, &remains, &remains.namespace(), &around).parse().unwrap()
        };
        let table = written(&default);
        for cache in [&table, &written(&TenantId::of_build_cache())] {
            assert_eq!(cache["worker"]["containerd"]["maxUsedSpace"].as_str(), Some("5000MB"));
        }
        assert_eq!(table["root"].as_str(), Some("/data/buildkit/default"));
        let worker = &table["worker"]["containerd"];
        assert_eq!(worker["address"].as_str(), Some("/run/\"x\"/buildkit/default/containerd.sock"));
        assert_eq!(
            (worker["snapshotter"].as_str(), worker["namespace"].as_str()),
            (Some("native"), Some("ringer-build-default"))
        );
        assert_eq!(worker["labels"][HOST_GATEWAY].as_str(), Some("172.17.0.1"));
        assert_eq!(table["worker"]["oci"]["enabled"].as_bool(), Some(false));
        let registry = &table["registry"];
        assert_eq!(registry["docker.io"]["mirrors"].as_array().unwrap().len(), 2);
        assert_eq!(registry["mirror.test:5000"]["http"].as_bool(), Some(true));
        assert_eq!(registry["reg.test:5000"]["insecure"].as_bool(), Some(true));
        assert!(registry.get("10.0.0.0/8").is_none());
    }
}
