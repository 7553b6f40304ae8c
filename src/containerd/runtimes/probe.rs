//! A real container as the question whether a runtime works here, and how: one of the host's programs, with its folders
//! mounted read-only, in namespaces and a cgroup as our containers have them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    backend::runtime::RuntimeProgram,
    containerd::cgroups::Cgroups,
    model::{Error, Result, error::Context},
};

/// Who the exec runs as.
const NOBODY: u32 = 65534;

const LIMIT: Duration = Duration::from_secs(10);

/// Folders that a dynamically linked program may need.
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

/// Runs a container and cleans up behind it.
pub(super) async fn run(
    runtime: &RuntimeProgram,
    exec_root: &Path,
    namespace: &str,
    read_only: ReadOnly,
) -> Result<()> {
    let trial = Trial::new(runtime, exec_root, namespace);
    let result = trial.run(read_only).await;
    trial.end().await;
    result
}

/// Whether the user of an exec becomes the owner of a device that is its input. crun before 1.24 does that to whatever
/// it is given, and a shim gives `/dev/null` of the host.
pub(super) async fn gives_devices_away(runtime: &RuntimeProgram, exec_root: &Path, namespace: &str) -> Result<bool> {
    let trial = Trial::new(runtime, exec_root, namespace);
    let result = trial.exec_with_device().await;
    trial.end().await;
    result
}

/// One container of a runtime.
struct Trial {
    program: PathBuf,
    name: String,
    bundle: PathBuf,
    cgroup: String,
}

impl Trial {
    fn new(runtime: &RuntimeProgram, exec_root: &Path, namespace: &str) -> Self {
        let name = format!("probe-{}-{}", runtime.name, std::process::id());
        Self {
            program: PathBuf::from(&runtime.path),
            bundle: exec_root.join(&name),
            cgroup: format!("/{namespace}-{name}"),
            name,
        }
    }

    async fn run(&self, read_only: ReadOnly) -> Result<()> {
        self.make_bundle("true", read_only).context("making the probe's bundle")?;
        self.call(&["run", "--bundle", &self.bundle.to_string_lossy(), &self.name], Stdio::null()).await
    }

    async fn exec_with_device(&self) -> Result<bool> {
        self.make_bundle("sleep", ReadOnly::Shallow).context("making the probe's bundle")?;
        // The container keeps them, so they must not be pipes that somebody reads to their end.
        let mut run = self.command(&["run", "--detach", "--bundle", &self.bundle.to_string_lossy(), &self.name]);
        run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = tokio::time::timeout(LIMIT, run.status()).await.map_err(|_| hangs())?;
        if !status.context("starting the probe")?.success() {
            return Err(Error::system("the probe cannot be detached"));
        }
        let null = Null::make(&self.name).context("making the probe's input")?;
        let input = fs::File::open(&null.0).context("opening the probe's input")?;
        let user = format!("{NOBODY}:{NOBODY}");
        self.call(&["exec", "--user", &user, &self.name, "/bin/true"], input.into()).await?;
        Ok(fs::metadata(&null.0).context("looking at the probe's input")?.uid() == NOBODY)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.bundle.join("state")).args(arguments).kill_on_drop(true);
        crate::descriptors::give_back(command.as_std_mut());
        command
    }

    async fn call(&self, arguments: &[&str], input: Stdio) -> Result<()> {
        let output = self.command(arguments).stdin(input).output();
        let output = tokio::time::timeout(LIMIT, output).await.map_err(|_| hangs())?.context("starting the probe")?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::system(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    fn make_bundle(&self, program: &str, read_only: ReadOnly) -> std::io::Result<()> {
        let root = self.bundle.join("rootfs");
        for folder in ["proc", "dev", "sys"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let bind = |destination: &Path, source: &Path| {
            let options = ["rbind", read_only.option()];
            json!({"destination": destination, "type": "bind", "source": source, "options": options})
        };
        let file = self.bundle.join("file");
        fs::write(&file, "")?;
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            // Where the bundle is, devices may not be opened.
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}),
            bind(Path::new("/file"), &file),
        ];
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
        fs::write(self.bundle.join("config.json"), config(program, mounts, &self.cgroup).to_string())
    }

    /// Takes away what there is.
    async fn end(self) {
        // Usually there is nothing to delete any more.
        let _ = self.call(&["delete", "-f", &self.name], Stdio::null()).await;
        let cgroups = Cgroups::detect();
        // A runtime that fails half-way leaves the inner one too.
        for left in [format!("{}/probe", self.cgroup), self.cgroup] {
            cgroups.remove_if_empty(&left);
        }
        // What remains is a folder of ours under the exec root, which the next probe does not mind. Nothing of the
        // host is mounted in it outside the container's own mount namespace.
        let _ = fs::remove_dir_all(&self.bundle);
    }
}

fn hangs() -> Error {
    Error::system("it hangs")
}

/// A device of our own like `/dev/null`. Removed when dropped.
struct Null(PathBuf);

impl Null {
    /// Below `/dev`, since other places may not let devices be opened.
    fn make(name: &str) -> std::io::Result<Self> {
        let path = Path::new("/dev").join(format!("ringer-{name}"));
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(1, 3))?;
        Ok(Self(path))
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        // What remains is a device that does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

/// Of a container that runs `true` or, for a moment, `sleep`.
fn config(program: &str, mounts: Vec<Value>, cgroup: &str) -> Value {
    let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).into();
    json!({
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "args": [format!("/bin/{program}"), "20"], "user": {"uid": 0, "gid": 0}, "env": ["PATH=/usr/bin:/bin"]},
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("{cgroup}/probe"),
            // On the unified tree crun lifts its limit of locked memory for these, which takes CAP_SYS_RESOURCE.
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                // runc opens the container's own when it was given the host's.
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            ]},
        },
    })
}
