//! The containers in which buildkitd runs a build's steps: whatever it was told, they are put where the tenant's containers belong.

use std::{fs, path::PathBuf};

use containerd_client::services::v1::{Container, container::Runtime};
use prost_types::Any;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    around::{self, Names},
    check,
    steps::Connected,
};
use crate::{
    backend::builds::{Around, BuildPlace},
    model::{
        Error, Result,
        container::{HostConfig, NetworkMode, Ulimit},
        error::Context,
        id::ContainerId,
    },
};

/// The namespace of a specification that is a network's.
const NETWORK: &str = "network";

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Open files that every step may have.
const NOFILE: i64 = 1024;

/// Where containers of a tenant belong.
pub(super) struct Walls {
    runtime: Runtime,
    cgroup: Box<dyn Fn(&ContainerId) -> String + Send + Sync>,
    /// Folders of the builder itself, of which its containers may have something: its cache, and where it runs.
    folders: [PathBuf; 2],
    oom_score_adj: i32,
}

impl Walls {
    /// Under the default runtime of a place; `cgroup` says where a container's is.
    pub(super) fn new(
        place: &BuildPlace,
        folders: [PathBuf; 2],
        cgroup: impl Fn(&ContainerId) -> String + Send + Sync + 'static,
    ) -> Self {
        let options = place.shim_options.clone().map(|(type_url, value)| Any { type_url, value });
        Self {
            runtime: Runtime { name: place.shim.clone(), options },
            cgroup: Box::new(cgroup),
            folders,
            oom_score_adj: place.oom_score_adj,
        }
    }

    /// Where a container finds the names that its tenant knows.
    fn names(&self, id: &str) -> Names<'_> {
        let [root, run] = &self.folders;
        Names { root, file: run.join(format!("hosts.{}", name_of(id))) }
    }

    /// Takes away what a container had of us.
    pub(super) fn forget(&self, id: &str) {
        let _it_had_none = fs::remove_file(self.names(id).file);
    }
}

/// Which network a step asks for, as buildkitd says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A namespace that a network plugin was asked to wire.
    Tenants,
    /// A namespace with nothing in it: `--network=none`.
    None,
    /// No namespace of its own: `--network=host`.
    Host,
}

/// Which one it gets.
pub(super) enum Network {
    Step(Connected),
    None,
    /// At a path, if that is not the machine's.
    Host(Option<PathBuf>),
}

/// Reads what a container asks for.
pub(super) fn network(container: &Container) -> Result<Wanted> {
    let spec = parsed(container)?;
    let namespaces = spec["linux"]["namespaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let network = namespaces.iter().find(|namespace| namespace["type"] == NETWORK);
    Ok(match network.map(|network| network["path"].as_str().unwrap_or_default()) {
        None => Wanted::Host,
        Some("") => Wanted::None,
        Some(_) => Wanted::Tenants,
    })
}

/// What a container asks of its tenant's policy: the host's network, and limits of processes beyond what buildkitd sets for all.
pub(super) fn wish(container: &Container, network: Wanted) -> Result<HostConfig> {
    let spec = parsed(container)?;
    let limits = spec["process"]["rlimits"].as_array().into_iter().flatten();
    let limits = limits.map(|limit| {
        let value = |which: &str| limit[which].as_u64().and_then(|value| i64::try_from(value).ok()).unwrap_or(-1);
        let name = limit["type"].as_str().unwrap_or_default().trim_start_matches("RLIMIT_").to_lowercase();
        Ulimit { name, hard: value("hard"), soft: value("soft") }
    });
    let wanted: Vec<_> = limits.filter(|limit| limit.name != "nofile" || !(0..=NOFILE).contains(&limit.hard)).collect();
    let network_mode = if network == Wanted::Host { NetworkMode::Host } else { NetworkMode::default() };
    let ulimits = Some(wanted).filter(|wanted| !wanted.is_empty());
    Ok(HostConfig { network_mode, ulimits, ..HostConfig::default() })
}

/// Puts a container there before it is made.
pub(super) fn put_behind(walls: &Walls, container: &mut Container, network: &Network, around: &Around) -> Result<()> {
    let step = match network {
        Network::Step(step) => Some(step.network()),
        Network::None | Network::Host(_) => None,
    };
    container.runtime = Some(walls.runtime.clone());
    let mut spec = parsed(container)?;
    check::check(&spec, &walls.folders)?;
    // Else it would be that of the daemon, which may be spared.
    if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
        process.insert("oomScoreAdj".to_owned(), json!(walls.oom_score_adj));
    }
    let linux = spec.get_mut("linux").and_then(Value::as_object_mut);
    let linux = linux.ok_or_else(|| Error::invalid("a container of another system than Linux"))?;
    linux.insert("cgroupsPath".to_owned(), json!((walls.cgroup)(&name_of(&container.id))));
    let namespace = match network {
        Network::None => Some(json!({"type": NETWORK})),
        Network::Step(step) => Some(json!({"type": NETWORK, "path": step.network().namespace})),
        Network::Host(Some(path)) => Some(json!({"type": NETWORK, "path": path})),
        Network::Host(None) => None,
    };
    let namespaces = linux.entry("namespaces").or_insert_with(|| json!([]));
    let namespaces = namespaces.as_array_mut().ok_or_else(|| Error::invalid("namespaces that are no list"))?;
    namespaces.retain(|namespace| namespace["type"] != NETWORK);
    namespaces.extend(namespace);
    if let Some(step) = step {
        let mounts = spec["mounts"].as_array_mut().into_iter().flatten();
        for mount in mounts.filter(|mount| mount["destination"] == RESOLV_CONF) {
            mount["source"] = json!(step.resolv_conf);
        }
    }
    around::lay(&mut spec, around, &walls.names(&container.id))?;
    let value = serde_json::to_vec(&spec).expect("it was JSON before");
    container.spec.as_mut().expect("it was parsed").value = value;
    Ok(())
}

fn parsed(container: &Container) -> Result<Value> {
    let spec = container.spec.as_ref().ok_or_else(|| Error::invalid("a container without a specification"))?;
    serde_json::from_slice(&spec.value).context("reading a step's specification")
}

/// Its cgroup is called as any container's, by which a later daemon knows what a killed one left.
pub(super) fn name_of(id: &str) -> ContainerId {
    ContainerId::from_stored(Sha256::digest(id).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    fn walls() -> Walls {
        let place = BuildPlace {
            address: "/run/c.sock".into(),
            namespace: "ringer".to_owned(),
            folders: Vec::new(),
            snapshotter: "overlayfs".to_owned(),
            shim: "io.containerd.runc.v2".to_owned(),
            shim_options: Some(("options".to_owned(), b"ours".to_vec())),
            oom_score_adj: 0,
        };
        Walls::new(&place, ["/root", "/run"].map(PathBuf::from), |id| format!("/ringer/job/{id}"))
    }

    /// A plain step with what is laid over it.
    fn step(over: &Value) -> Container {
        let mut spec = json!({"linux": {"seccomp": {}, "namespaces": [
            {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
        ]}});
        for (name, value) in over.as_object().unwrap() {
            match (name.as_str(), value.as_object()) {
                ("linux", Some(linux)) => linux.iter().for_each(|(name, value)| spec["linux"][name] = value.clone()),
                _ => spec[name] = value.clone(),
            }
        }
        let spec = Any { type_url: "spec".to_owned(), value: spec.to_string().into_bytes() };
        let elsewhere = Runtime { name: "elsewhere".to_owned(), options: None };
        Container { id: "step".to_owned(), spec: Some(spec), runtime: Some(elsewhere), ..Container::default() }
    }

    #[test]
    fn cgroup_and_runtime_are_ours_whatever_was_asked() {
        let mut container =
            step(&json!({"process": {"args": ["true"]}, "linux": {"cgroupsPath": "/buildkit/step", "x": 1}}));
        put_behind(&walls(), &mut container, &Network::None, &Around::default()).unwrap();
        let runtime = container.runtime.unwrap();
        assert_eq!(
            (runtime.name.as_str(), runtime.options.unwrap().value),
            ("io.containerd.runc.v2", b"ours".to_vec())
        );
        let spec: Value = serde_json::from_slice(&container.spec.unwrap().value).unwrap();
        let cgroup = spec["linux"]["cgroupsPath"].as_str().unwrap();
        assert_eq!(cgroup.strip_prefix("/ringer/job/").map(str::len), Some(64));
        assert_eq!((&spec["linux"]["x"], &spec["process"]["args"]), (&json!(1), &json!(["true"])));
        assert_eq!(spec["process"]["oomScoreAdj"], 0, "the daemon may be spared, steps are not");
    }

    #[tokio::test]
    async fn a_step_is_in_the_network_that_it_was_given() {
        let asked = |network: Value| {
            let own = ["pid", "ipc", "uts", "mount"].map(|name| json!({"type": name}));
            let namespaces = own.into_iter().chain([network]).filter(|namespace| !namespace.is_null());
            let mounts = json!([{"destination": "/etc/resolv.conf", "source": "/theirs"}, {"destination": "/x", "source": "/y"}]);
            step(&json!({"linux": {"namespaces": namespaces.collect::<Vec<_>>()}, "mounts": mounts}))
        };
        let plugins = || asked(json!({"type": "network", "path": "/run/netns/1"}));
        assert_eq!(network(&plugins()).unwrap(), Wanted::Tenants);
        assert_eq!(network(&asked(json!({"type": "network"}))).unwrap(), Wanted::None);
        assert_eq!(network(&asked(Value::Null)).unwrap(), Wanted::Host);
        let put = |given: Network| {
            let mut container = plugins();
            put_behind(&walls(), &mut container, &given, &Around::default()).unwrap();
            parsed(&container).unwrap()
        };
        let ours = put(Network::Step(Connected::for_test("/ours", "/resolv")));
        assert_eq!(ours["linux"]["namespaces"][4], json!({"type": "network", "path": "/ours"}));
        assert_eq!((&ours["mounts"][0]["source"], &ours["mounts"][1]["source"]), (&json!("/resolv"), &json!("/y")));
        assert_eq!(put(Network::None)["linux"]["namespaces"][4], json!({"type": "network"}));
        assert_eq!(put(Network::Host(Some("/job".into())))["linux"]["namespaces"][4]["path"], "/job");
        assert_eq!(put(Network::Host(None))["linux"]["namespaces"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn limits_beyond_what_all_have_are_asked_for() {
        let asked =
            |limits: Value| wish(&step(&json!({"process": {"rlimits": limits}})), Wanted::None).unwrap().ulimits;
        assert_eq!(asked(json!([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}])), None);
        assert_eq!(asked(Value::Null), None);
        let limits = json!([{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1}, {"type": "RLIMIT_CORE", "hard": u64::MAX, "soft": 0}]);
        let limit = |name: &str, hard, soft| Ulimit { name: name.to_owned(), hard, soft };
        assert_eq!(asked(limits), Some(vec![limit("nofile", 4096, 1), limit("core", -1, 0)]));
    }

    #[test]
    fn a_step_that_is_more_than_a_plain_one_is_not_put_there() {
        let mut container = step(&json!({"process": {"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}}}));
        let refused = put_behind(&walls(), &mut container, &Network::None, &Around::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
    }

    #[test]
    fn what_is_no_specification_is_refused() {
        let spec = |value: &[u8]| Some(Any { type_url: "spec".to_owned(), value: value.to_vec() });
        for value in [&b"{}"[..], b"[]", b"no JSON"] {
            let mut container = Container { spec: spec(value), ..Container::default() };
            assert!(put_behind(&walls(), &mut container, &Network::None, &Around::default()).is_err());
        }
        assert!(put_behind(&walls(), &mut Container::default(), &Network::None, &Around::default()).is_err());
    }
}
