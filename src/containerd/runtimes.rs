//! The OCI runtimes that containers run under: which are here, which work, and how containerd is told.

mod probe;
mod program;
mod words;

use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::Any;
use tracing::{info, warn};

pub(super) use self::words::{as_of_runc, without_path};
use self::{
    probe::ReadOnly,
    program::{find, is_static, version_of},
};
use crate::{
    backend::runtime::RuntimeProgram,
    model::{Error, Result},
};

/// The shim that runs runc and all that have its command line.
const RUNC_SHIM: &str = "io.containerd.runc.v2";

/// Programs for `HostConfig.Init`. Docker's own first; the name is what clients see in `/info`.
const INITS: [&str; 3] = ["docker-init", "tini-static", "tini"];

/// `containerd.runc.v1.Options`, the part that we set. The client crate does not carry it.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    /// The OCI runtime's program.
    #[prost(string, tag = "6")]
    binary_name: String,
    /// Folder of its state. By default all containerds of a machine share one, and equal ids collide.
    #[prost(string, tag = "7")]
    root: String,
    #[prost(bool, tag = "9")]
    systemd_cgroup: bool,
}

/// What containerd is told about a container's runtime.
pub(super) struct Shim {
    /// `io.containerd.runc.v2`.
    pub(super) name: String,
    /// Options of that shim.
    pub(super) options: Option<Any>,
}

/// The runtimes of this machine.
pub(super) struct Runtimes {
    default: String,
    programs: Vec<RuntimeProgram>,
    init: Option<RuntimeProgram>,
    give_devices_away: bool,
    /// Where runc or crun keep the state of this instance's containers.
    state: PathBuf,
}

impl Runtimes {
    /// Finds runc and crun and tries whether crun works here. `wanted` is the default that was asked for.
    pub(super) async fn detect(exec_root: &Path, namespace: &str, wanted: Option<&str>) -> Result<Self> {
        let (runc, crun, init) =
            tokio::join!(tried_runc(exec_root, namespace), working_crun(exec_root, namespace), find_init());
        // The first is the default: crun runs an exec in a third of runc's time.
        let (crun, give_devices_away) = crun.unzip();
        let give_devices_away = give_devices_away.unwrap_or(false);
        let programs: Vec<_> = [crun, runc].into_iter().flatten().collect();
        let state = exec_root.join("oci");
        let mut runtimes = Self { default: String::new(), programs, init, give_devices_away, state };
        runtimes.default = match wanted {
            Some(name) => runtimes.resolve(name)?,
            None => runtimes.first()?,
        };
        info!(runtime = runtimes.default, "default runtime");
        Ok(runtimes)
    }

    fn first(&self) -> Result<String> {
        let none = || Error::unavailable("no OCI runtime found: install runc or crun");
        self.programs.first().map(|program| program.name.clone()).ok_or_else(none)
    }

    /// The name under which a runtime is stored with a container.
    pub(super) fn resolve(&self, name: &str) -> Result<String> {
        match name {
            "" => Ok(self.default.clone()),
            // Docker's name for the shim.
            RUNC_SHIM => self.resolve("runc"),
            _ if self.program(name).is_some() || shim_program(name).is_some() => Ok(name.to_owned()),
            _ => Err(Error::unknown_runtime(name)),
        }
    }

    /// What containerd is told for a stored name.
    pub(super) fn shim_of(&self, name: &str) -> Result<Shim> {
        let name = self.resolve(name)?;
        let Some(program) = self.program(&name) else { return Ok(Shim { name, options: None }) };
        let options = RuncOptions {
            binary_name: program.path.clone(),
            root: self.state.to_string_lossy().into_owned(),
            systemd_cgroup: false,
        };
        let options = Any { type_url: "containerd.runc.v1.Options".to_owned(), value: options.encode_to_vec() };
        Ok(Shim { name: RUNC_SHIM.to_owned(), options: Some(options) })
    }

    /// Whether one of them makes a container's user the owner of a device that it was given as input. `/dev/null` of the
    /// host must not be one then.
    pub(super) fn give_devices_away(&self) -> bool {
        self.give_devices_away
    }

    /// Where the OCI runtimes keep state.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Name of the default one.
    pub(super) fn default_name(&self) -> &str {
        &self.default
    }

    /// Those that work, the preferred first.
    pub(super) fn programs(&self) -> &[RuntimeProgram] {
        &self.programs
    }

    /// The program for `HostConfig.Init`.
    pub(super) fn init(&self) -> Option<&RuntimeProgram> {
        self.init.as_ref()
    }

    fn program(&self, name: &str) -> Option<&RuntimeProgram> {
        self.programs.iter().find(|program| program.name == name)
    }
}

async fn describe(name: &str) -> Option<RuntimeProgram> {
    let path = find(name)?;
    match version_of(&path).await {
        Ok((version, commit)) => {
            let path = path.to_string_lossy().into_owned();
            Some(RuntimeProgram { name: name.to_owned(), path, version, commit, recursive_read_only: false })
        }
        Err(error) => {
            warn!(%error, "{} does not tell its version and is left out", path.display());
            None
        }
    }
}

/// crun, if it can run a container on this machine: it refuses hybrid cgroups, for one. And whether it gives devices away.
async fn working_crun(exec_root: &Path, namespace: &str) -> Option<(RuntimeProgram, bool)> {
    let crun = describe("crun").await?;
    let recursion = probe::run(&crun, exec_root, namespace, ReadOnly::Recursive).await;
    if let Err(recursion) = &recursion {
        if let Err(error) = probe::run(&crun, exec_root, namespace, ReadOnly::Shallow).await {
            info!("crun is here but does not work: {}", error.chain());
            return None;
        }
        info!("crun does not make mounts read-only with all below them: {}", recursion.chain());
    }
    let gives_away = probe::gives_devices_away(&crun, exec_root, namespace).await.unwrap_or_else(|error| {
        warn!("whether crun gives devices away is not known, so it is given none: {}", error.chain());
        true
    });
    Some((RuntimeProgram { recursive_read_only: recursion.is_ok(), ..crun }, gives_away))
}

/// runc, which is the measure: if it does not work here, nothing does, and its own words will tell.
async fn tried_runc(exec_root: &Path, namespace: &str) -> Option<RuntimeProgram> {
    let runc = describe("runc").await?;
    let tried = probe::run(&runc, exec_root, namespace, ReadOnly::Recursive).await;
    if let Err(error) = &tried {
        info!("runc does not make mounts read-only with all below them: {}", error.chain());
    }
    Some(RuntimeProgram { recursive_read_only: tried.is_ok(), ..runc })
}

/// The first that needs no libraries, since it must run inside any image.
async fn find_init() -> Option<RuntimeProgram> {
    for name in INITS {
        if find(name).is_some_and(|path| is_static(&path))
            && let Some(program) = describe(name).await
        {
            return Some(program);
        }
    }
    None
}

/// Program of a shim by its full name: `io.containerd.runsc.v1` is `containerd-shim-runsc-v1`.
fn shim_program(name: &str) -> Option<PathBuf> {
    let (kind, version) = name.strip_prefix("io.containerd.")?.split_once('.')?;
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !plain(kind) || !plain(version) {
        return None;
    }
    find(&format!("containerd-shim-{kind}-{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    fn runtimes() -> Runtimes {
        let runc =
            RuntimeProgram { name: "runc".to_owned(), path: "/usr/sbin/runc".to_owned(), ..RuntimeProgram::default() };
        Runtimes {
            default: "runc".to_owned(),
            programs: vec![runc],
            init: None,
            give_devices_away: false,
            state: "/run/x/oci".into(),
        }
    }

    #[test]
    fn an_empty_name_is_the_default_and_an_unknown_one_is_refused() {
        assert_eq!(runtimes().resolve("").unwrap(), "runc");
        assert_eq!(runtimes().resolve("io.containerd.runc.v2").unwrap(), "runc");
        for name in ["crun", "io.containerd.nothing.v1", "../../bin/sh"] {
            let error = runtimes().resolve(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            assert_eq!(error.message(), format!("unknown or invalid runtime name: {name}"));
        }
    }

    #[test]
    fn options_name_the_program_and_a_state_folder_of_our_own() {
        let shim = runtimes().shim_of("runc").unwrap();
        assert_eq!(shim.name, "io.containerd.runc.v2");
        let options = RuncOptions::decode(shim.options.unwrap().value.as_slice()).unwrap();
        assert_eq!((options.binary_name.as_str(), options.root.as_str()), ("/usr/sbin/runc", "/run/x/oci"));
    }
}
