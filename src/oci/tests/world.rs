//! The machine on which the golden answers were given, and how a request becomes a spec there.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use oci_spec::runtime::{Process, Spec};
use rustix::fs::{FileType, Mode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::normal::Answer;
use crate::{
    model::{
        Result,
        container::{
            Config, ContainerRecord, ContainerState, HostConfig, IpcMode, MountKind, MountPoint, NetworkMode,
            Networking, VersionDefaults,
            mount_spec::{VolumesFrom, wanted_mounts},
        },
        id::{ContainerId, TenantId},
        image::{Descriptor, ImageConfig, Platform},
        reference::Digest,
        time::Timestamp,
    },
    oci::{
        self, ExecInput, HostFacts, Joined, NetworkFiles, NetworkNamespace, ResolvedUser, SpecInput,
        host::{CgroupFeatures, CgroupVersion},
        user::{self, UserFiles},
    },
};

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nworker:x:1001:1002:Worker:/home/worker:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nworker:x:1002:\ncrew:x:1003:worker,other\nidle:x:1004:other\nwheel:x:10:root\n";
const MOUNTINFO: &str =
    "20 1 8:1 / / rw - ext4 /dev/vda rw\n30 20 0:5 / /oci-golden-shared rw shared:7 - tmpfs golden rw\n";

pub(super) struct World {
    host: HostFacts,
    devices: TempDir,
}

impl World {
    /// All limits but those that this kernel has not built in.
    pub(super) fn cgroup1() -> Self {
        let features =
            CgroupFeatures { blkio_weight: false, blkio_weight_device: false, ..HostFacts::capable().features };
        Self::new(CgroupVersion::V1, features)
    }

    /// An empty unified tree: no controller at all.
    pub(super) fn cgroup2() -> Self {
        Self::new(CgroupVersion::V2, CgroupFeatures::default())
    }

    fn new(cgroup: CgroupVersion, features: CgroupFeatures) -> Self {
        let devices = tempfile::tempdir().expect("a folder can be made");
        make_devices(devices.path());
        let host = HostFacts { cgroup, features, ..HostFacts::capable() };
        Self { host, devices }
    }

    /// What create and start answer.
    pub(super) fn answer(&self, request: &Value) -> Answer {
        self.make(request).unwrap_or_else(Answer::Refused)
    }

    fn make(&self, request: &Value) -> Result<Answer> {
        let mut request = request.clone();
        if request.get("Cmd").is_none() {
            request["Cmd"] = json!(["sleep", "100000"]);
        }
        let host_config = request["HostConfig"].take();
        let folder = self.devices.path().to_string_lossy();
        let text = host_config.to_string().replace("/oci-golden/link-to-null", &format!("{folder}/link-to-null"));
        let text = text.replace("/oci-golden-devices", &format!("{folder}/devices"));
        let host_config: Option<HostConfig> = serde_json::from_str(&text).expect("a host config");
        let mut host_config = host_config.unwrap_or_default();
        if host_config.network_mode.is_unset() {
            host_config.network_mode = NetworkMode::None;
        }
        let config: Config = serde_json::from_value(request).expect("a config");
        let config = config.lay_over(&ImageConfig::default())?;
        let warnings = oci::validate(&config, &mut host_config, &VersionDefaults::default(), &self.host)?;
        let record = record(config, host_config)?;
        let spec = self.spec(&record)?;
        Ok(Answer::Made { warnings, mounts: record.mounts, spec: Box::new(spec) })
    }

    /// The process of an exec with a user, a folder and variables of its own.
    pub(super) fn exec(&self, host_config: &Value, tty: bool, privileged: bool) -> Process {
        let config: Config =
            serde_json::from_value(json!({"Cmd": ["x"], "Env": ["A=1", "TERM=dumb"], "WorkingDir": "/w"}))
                .expect("a config");
        let host_config: HostConfig = serde_json::from_value(host_config.clone()).expect("a host config");
        let record = record(config, host_config).expect("a record");
        oci::exec_process(&ExecInput {
            record: &record,
            hostname: "box",
            user: &ResolvedUser { uid: 5, gid: 6, additional_gids: vec![6] },
            command: &["sh".to_owned()],
            env: &["A=2".to_owned(), "B=3".to_owned()],
            working_dir: "",
            tty,
            console_size: [30, 100],
            privileged,
            host: &self.host,
        })
        .expect("it can be run")
    }

    fn spec(&self, record: &ContainerRecord) -> Result<Spec> {
        let host_config = &record.host_config;
        let files = UserFiles { passwd: PASSWD, group: GROUP };
        let user = user::resolve(&record.config.user, host_config.group_add.as_deref().unwrap_or_default(), files)?;
        let shares_network = host_config.network_mode.container().is_some();
        let owner = if shares_network { "NEIGHBOUR" } else { "ID" };
        let file = |name: &str| Some(format!("DIR/data/containers/{owner}/{name}").into());
        let joins = |mode: Option<&str>, kind: &str| mode.map(|_| format!("/proc/NEIGHBOUR/ns/{kind}"));
        let hostname = match (record.config.hostname.as_str(), &host_config.network_mode) {
            ("", NetworkMode::Host) => "vm",
            ("", _) if shares_network => "NEIGHBOUR",
            ("", _) => "SHORT",
            (hostname, _) => hostname,
        };
        let shm = match &host_config.ipc_mode {
            IpcMode::Host => Some("/dev/shm"),
            IpcMode::Shareable => Some("DIR/data/containers/ID/mounts/shm"),
            IpcMode::Container(_) => Some("DIR/data/containers/NEIGHBOUR/mounts/shm"),
            _ => None,
        };
        let parent = if host_config.cgroup_parent.is_empty() { "/docker" } else { &host_config.cgroup_parent };
        oci::spec(&SpecInput {
            record,
            mounts: &record.mounts,
            user: &user,
            hostname,
            rootfs: Path::new("rootfs"),
            cgroups_path: &format!("{parent}/ID"),
            network: match &host_config.network_mode {
                NetworkMode::Host => NetworkNamespace::Host(None),
                _ if shares_network => NetworkNamespace::Path("/proc/NEIGHBOUR/ns/net"),
                _ => NetworkNamespace::New,
            },
            joined: &Joined {
                pid: joins(host_config.pid_mode.container(), "pid"),
                ipc: joins(host_config.ipc_mode.container(), "ipc"),
            },
            files: &NetworkFiles { resolv_conf: file("resolv.conf"), hostname: file("hostname"), hosts: file("hosts") },
            shm: shm.map(Path::new),
            init: host_config.init.filter(|init| *init).map(|_| Path::new("/usr/bin/docker-init")),
            mountinfo: MOUNTINFO,
            recursive_read_only: true,
            host: &self.host,
        })
    }
}

/// The devices that `golden/refresh` makes. Nodes need root; without it the folder's case finds none, and is left out.
fn make_devices(folder: &Path) {
    symlink("/dev/null", folder.join("link-to-null")).expect("a link can be made");
    std::fs::create_dir_all(folder.join("devices/sub")).expect("a folder can be made");
    std::fs::write(folder.join("devices/plain"), "").expect("a file can be written");
    for name in ["devices/one", "devices/sub/two"] {
        let device = rustix::fs::makedev(1, 7);
        let path = folder.join(name);
        let made =
            rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o640), device);
        if made.is_ok() {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("it is ours");
        }
    }
}

/// Whether this process may make device nodes.
pub(super) fn has_devices(world: &World) -> bool {
    world.devices.path().join("devices/one").exists()
}

fn record(config: Config, host_config: HostConfig) -> Result<ContainerRecord> {
    let mut inherited = Vec::new();
    for text in host_config.volumes_from.iter().flatten() {
        inherited.extend(VolumesFrom::parse(text)?.inherit(&neighbours_mounts()));
    }
    let mounts = wanted_mounts(&config, &host_config, inherited)?.into_iter().map(|wanted| settle(wanted.point));
    let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse()?;
    let image_manifest = Descriptor {
        media_type: String::new(),
        digest: digest.clone(),
        size: 0,
        urls: Vec::new(),
        annotations: Default::default(),
        platform: None,
    };
    Ok(ContainerRecord {
        tenant: TenantId::default_tenant(),
        id: ContainerId::from_stored("ID"),
        name: "golden".to_owned(),
        created: Timestamp::now(),
        image_id: digest,
        image_manifest,
        platform: Platform::default(),
        command: config.command(),
        mounts: mounts.collect(),
        config,
        host_config,
        networking: Networking::default(),
        state: ContainerState::created(),
        health: None,
        restart_count: 0,
        has_been_manually_stopped: false,
        runtime: "runc".to_owned(),
    })
}

/// What the engine does with a volume: gives it a name and a folder.
fn settle(mut point: MountPoint) -> MountPoint {
    if point.kind == MountKind::Volume {
        if point.name.is_empty() {
            point.name = "ANONYMOUS".to_owned();
        }
        point.source = format!("DIR/data/volumes/{}/_data", point.name);
    }
    point
}

fn neighbours_mounts() -> [MountPoint; 2] {
    let bind = MountPoint {
        kind: MountKind::Bind,
        source: "/oci-golden/one".to_owned(),
        destination: "/from-neighbour".to_owned(),
        rw: true,
        propagation: "rprivate".to_owned(),
        ..MountPoint::default()
    };
    let volume = MountPoint {
        kind: MountKind::Volume,
        name: "ANONYMOUS".to_owned(),
        destination: "/shared".to_owned(),
        driver: "local".to_owned(),
        rw: true,
        ..MountPoint::default()
    };
    [bind, volume]
}
