//! The containers in which buildkitd runs a build's steps: whatever it was told, they are put where the tenant's containers belong.

use containerd_client::services::v1::{Container, container::Runtime};
use prost_types::Any;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    backend::builds::BuildPlace,
    model::{Error, Result, error::Context, id::ContainerId},
};

/// Where containers of a tenant belong.
pub(super) struct Walls {
    runtime: Runtime,
    cgroup: Box<dyn Fn(&ContainerId) -> String + Send + Sync>,
}

impl Walls {
    /// Under the default runtime of a place; `cgroup` says where a container's is.
    pub(super) fn new(place: &BuildPlace, cgroup: impl Fn(&ContainerId) -> String + Send + Sync + 'static) -> Self {
        let options = place.shim_options.clone().map(|(type_url, value)| Any { type_url, value });
        Self { runtime: Runtime { name: place.shim.clone(), options }, cgroup: Box::new(cgroup) }
    }
}

/// Puts a container there before it is made.
pub(super) fn put_behind(walls: &Walls, container: &mut Container) -> Result<()> {
    container.runtime = Some(walls.runtime.clone());
    let spec = container.spec.as_mut().ok_or_else(|| Error::invalid("a container without a specification"))?;
    let mut parsed: Value = serde_json::from_slice(&spec.value).context("reading a step's specification")?;
    let linux = parsed.get_mut("linux").and_then(Value::as_object_mut);
    let linux = linux.ok_or_else(|| Error::invalid("a container of another system than Linux"))?;
    linux.insert("cgroupsPath".to_owned(), json!((walls.cgroup)(&name_of(&container.id))));
    spec.value = serde_json::to_vec(&parsed).expect("it was JSON before");
    Ok(())
}

/// Its cgroup is called as any container's, by which a later daemon knows what a killed one left.
fn name_of(id: &str) -> ContainerId {
    ContainerId::from_stored(Sha256::digest(id).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walls() -> Walls {
        let place = BuildPlace {
            address: "/run/c.sock".into(),
            namespace: "ringer".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            shim: "io.containerd.runc.v2".to_owned(),
            shim_options: Some(("options".to_owned(), b"ours".to_vec())),
        };
        Walls::new(&place, |id| format!("/ringer/job/{id}"))
    }

    fn step(spec: &Value) -> Container {
        let spec = Any { type_url: "spec".to_owned(), value: spec.to_string().into_bytes() };
        let elsewhere = Runtime { name: "elsewhere".to_owned(), options: None };
        Container { id: "step".to_owned(), spec: Some(spec), runtime: Some(elsewhere), ..Container::default() }
    }

    #[test]
    fn cgroup_and_runtime_are_ours_whatever_was_asked() {
        let mut container =
            step(&json!({"process": {"args": ["true"]}, "linux": {"cgroupsPath": "/buildkit/step", "x": 1}}));
        put_behind(&walls(), &mut container).unwrap();
        let runtime = container.runtime.unwrap();
        assert_eq!(
            (runtime.name.as_str(), runtime.options.unwrap().value),
            ("io.containerd.runc.v2", b"ours".to_vec())
        );
        let spec: Value = serde_json::from_slice(&container.spec.unwrap().value).unwrap();
        let cgroup = spec["linux"]["cgroupsPath"].as_str().unwrap();
        assert_eq!(cgroup.strip_prefix("/ringer/job/").map(str::len), Some(64));
        assert_eq!((&spec["linux"]["x"], &spec["process"]["args"]), (&json!(1), &json!(["true"])));
    }

    #[test]
    fn what_is_no_specification_is_refused() {
        assert!(put_behind(&walls(), &mut step(&json!({"windows": {}}))).is_err());
        assert!(put_behind(&walls(), &mut Container::default()).is_err());
    }
}
