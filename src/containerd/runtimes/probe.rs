//! A real container as the question whether a runtime works here: the host's `true` with the host's programs
//! mounted read-only, in namespaces and a cgroup as our containers have them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    backend::runtime::RuntimeProgram,
    containerd::cgroups::Cgroups,
    model::{Error, Result, error::Context},
};

const LIMIT: Duration = Duration::from_secs(10);

/// Folders that a dynamically linked `true` may need.
const HOST_FOLDERS: [&str; 5] = ["bin", "lib", "lib32", "lib64", "usr"];

/// How deep the probe's read-only mounts are so.
#[derive(Clone, Copy)]
pub(super) enum ReadOnly {
    /// `ro`.
    Shallow,
    /// `rro`: with all below them. One of the mounts is a file's, which crun before 1.14.4 takes for a folder.
    Recursive,
}

impl ReadOnly {
    fn option(self) -> &'static str {
        match self {
            ReadOnly::Shallow => "ro",
            ReadOnly::Recursive => "rro",
        }
    }
}

/// Runs the container and cleans up behind it.
pub(super) async fn run(
    runtime: &RuntimeProgram,
    exec_root: &Path,
    namespace: &str,
    read_only: ReadOnly,
) -> Result<()> {
    let name = format!("probe-{}-{}", runtime.name, std::process::id());
    let bundle = Bundle(exec_root.join(&name));
    let cgroup = format!("/{namespace}-{name}");
    make_bundle(&bundle.0, &cgroup, read_only).context("making the probe's bundle")?;
    let result = run_bundle(Path::new(&runtime.path), &bundle.0, &name).await;
    let cgroups = Cgroups::detect();
    // A runtime that fails half-way leaves the inner one too.
    for left in [format!("{cgroup}/probe"), cgroup] {
        cgroups.remove_if_empty(&left);
    }
    result
}

/// Removed when dropped. Nothing of the host is mounted in it outside the container's own mount namespace.
struct Bundle(PathBuf);

impl Drop for Bundle {
    fn drop(&mut self) {
        // What remains is a folder of ours under the exec root, which the next probe does not mind.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn run_bundle(program: &Path, bundle: &Path, name: &str) -> Result<()> {
    let state = bundle.join("state");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.arg("--root").arg(&state).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    let run = command(&["run", "--bundle", &bundle.to_string_lossy(), name]).output();
    let failure = match tokio::time::timeout(LIMIT, run).await {
        Ok(output) => {
            let output = output.context("starting the probe")?;
            if output.status.success() {
                return Ok(());
            }
            String::from_utf8_lossy(&output.stderr).trim().to_owned()
        }
        Err(_) => "it hangs".to_owned(),
    };
    // Usually there is nothing to delete any more.
    let _ = command(&["delete", "-f", name]).output().await;
    Err(Error::system(failure))
}

fn make_bundle(bundle: &Path, cgroup: &str, read_only: ReadOnly) -> std::io::Result<()> {
    let root = bundle.join("rootfs");
    for folder in ["proc", "dev", "sys"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let bind = |destination: &Path, source: &Path| {
        let options = ["rbind", read_only.option()];
        json!({"destination": destination, "type": "bind", "source": source, "options": options})
    };
    let file = bundle.join("file");
    fs::write(&file, "")?;
    let mut mounts =
        vec![json!({"destination": "/proc", "type": "proc", "source": "proc"}), bind(Path::new("/file"), &file)];
    for name in HOST_FOLDERS {
        let host = Path::new("/").join(name);
        match fs::read_link(&host) {
            // A merged /usr: `bin` is a link to `usr/bin`.
            Ok(target) => symlink(target, root.join(name))?,
            Err(_) if host.is_dir() => {
                fs::create_dir(root.join(name))?;
                mounts.push(bind(&host, &host));
            }
            Err(_) => {}
        }
    }
    fs::write(bundle.join("config.json"), config(mounts, cgroup).to_string())
}

fn config(mounts: Vec<Value>, cgroup: &str) -> Value {
    let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).into();
    json!({
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 0, "gid": 0}, "env": ["PATH=/usr/bin:/bin"]},
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("{cgroup}/probe"),
            // On the unified tree crun lifts its limit of locked memory for these, which takes CAP_SYS_RESOURCE.
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}
