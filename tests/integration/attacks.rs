//! What somebody with a job's socket tries against the machine. Each row first succeeds in a job under `trusted`, which is dockerd without a
//! wall, and is refused in one under `ci`, before anything is made.

mod archives;
mod floods;
mod hoards;
mod holdings;
mod images;
mod others;

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    jobs::Job,
    support::daemon::{Daemon, http::Client},
};

/// What no job may read.
const SECRET: &str = "a secret of the machine";

struct Attack {
    /// The rule that must stop it.
    rule: &'static str,
    /// Beside image and command.
    request: Value,
    /// What the container does.
    script: String,
    /// What it prints when it has succeeded.
    loot: &'static str,
}

fn attack(rule: &'static str, host_config: Value, script: &str, loot: &'static str) -> Attack {
    Attack { rule, request: json!({ "HostConfig": host_config }), script: script.to_owned(), loot }
}

/// Two jobs on one daemon, and a file of the machine.
struct Field {
    daemon: Daemon,
    naive: Job,
    walled: Job,
    machine: tempfile::TempDir,
}

impl Field {
    async fn new() -> Self {
        let daemon = Daemon::start().await;
        let naive = Job::with_box(&daemon, &["--name", "naive", "--policy", "trusted"]).await;
        let walled = Job::with_box(&daemon, &["--name", "walled"]).await;
        let machine = tempfile::tempdir().unwrap();
        fs::write(machine.path().join("secret"), SECRET).unwrap();
        Self { daemon, naive, walled, machine }
    }

    fn machine(&self) -> &str {
        self.machine.path().to_str().unwrap()
    }

    async fn check(&self, attack: Attack) {
        let Attack { rule, request, script, loot } = attack;
        let label = format!("{rule}: {request}");
        let (_, output) = self.naive.client.run("naive", &script, request.clone()).await;
        self.naive.client.remove("naive").await;
        assert!(output.contains(loot), "{label} must succeed where there is no wall: {output}\n{}", self.daemon.log());
        let mut body = request;
        body["Image"] = json!("box");
        body["Cmd"] = json!(["sh", "-c", script]);
        refused(&self.walled.client, rule, "/containers/create", body).await;
    }

    async fn end(self) {
        for job in [&self.naive, &self.walled] {
            job.remove(&self.daemon);
        }
    }
}

async fn refused(client: &Client, rule: &str, path: &str, body: Value) {
    let answer = client.post(path, body).await;
    let expected = format!("refused by the policy ci, rule {rule}: ");
    assert!(
        answer.status == 403 && answer.message().starts_with(&expected),
        "{rule}: {} {}",
        answer.status,
        answer.text()
    );
}

async fn count(client: &Client, path: &str, key: &str) -> usize {
    let listed = client.get(path).await.json();
    let list = if key.is_empty() { listed.as_array().cloned() } else { listed[key].as_array().cloned() };
    list.unwrap_or_default().len()
}

#[tokio::test]
async fn the_machines_files_stay_its_own() {
    let field = Field::new().await;
    let machine = field.machine().to_owned();
    let link = format!("{machine}/link");
    std::os::unix::fs::symlink(&machine, &link).unwrap();
    let volume = json!({"Name": "local", "Options": {"type": "none", "o": "bind", "device": machine}});
    let rows = [
        attack("binds", json!({"Binds": ["/:/m"]}), &format!("cat /m{machine}/secret"), SECRET),
        attack("binds", json!({"Binds": [format!("{machine}:/m:ro")]}), "cat /m/secret", SECRET),
        attack("binds", json!({"Binds": [format!("{machine}/../{}:/m", name(&machine))]}), "cat /m/secret", SECRET),
        attack("binds", json!({"Binds": [format!("{link}:/m")]}), "cat /m/secret", SECRET),
        attack("binds", json!({"Binds": [format!("{machine}/new:/m")]}), "echo made >/m/x; cat /m/x", "made"),
        attack(
            "binds",
            json!({"Mounts": [{"Type": "bind", "Source": machine, "Target": "/m"}]}),
            "cat /m/secret",
            SECRET,
        ),
        attack(
            "volume-mounts",
            json!({"Mounts": [{"Type": "volume", "Target": "/m", "VolumeOptions": {"DriverConfig": volume}}]}),
            "cat /m/secret",
            SECRET,
        ),
    ];
    for row in rows {
        field.check(row).await;
    }
    let options = json!({"Name": "stolen", "DriverOpts": {"type": "none", "o": "bind", "device": machine}});
    assert_eq!(field.naive.client.post("/volumes/create", options.clone()).await.status, 201);
    let (_, output) =
        field.naive.client.run("loot", "cat /m/secret", json!({"HostConfig": {"Binds": ["stolen:/m"]}})).await;
    assert!(output.contains(SECRET), "{output}");
    refused(&field.walled.client, "volume-mounts", "/volumes/create", options).await;
    // Nothing was made for what was refused.
    assert_eq!(count(&field.walled.client, "/containers/json?all=1", "").await, 0);
    assert_eq!(count(&field.walled.client, "/volumes", "Volumes").await, 0);
    field.end().await;
}

fn name(path: &str) -> String {
    Path::new(path).file_name().unwrap().to_string_lossy().into_owned()
}

/// A block device of the test's own, which goes with its value.
struct LoopDevice(String);

impl LoopDevice {
    fn of(file: &Path) -> Self {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().expect("mount is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(String::from_utf8(made.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _gone_already = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// A disk is read by its device, whatever its files allow.
#[tokio::test]
async fn the_machines_disks_stay_closed() {
    let field = Field::new().await;
    let image = field.machine.path().join("disk");
    fs::write(&image, format!("{SECRET:\0<4096}")).unwrap();
    let disk = LoopDevice::of(&image);
    let minor = disk.0.trim_start_matches("/dev/loop");
    let device = json!([{"PathOnHost": disk.0, "PathInContainer": "/dev/k", "CgroupPermissions": "r"}]);
    let made = format!("mknod /k b 7 {minor} && head -c 64 /k");
    for row in [
        attack("devices", json!({"Devices": device}), "head -c 64 /dev/k", SECRET),
        attack("device-rules", json!({"DeviceCgroupRules": [format!("b 7:{minor} r")]}), &made, SECRET),
        attack("privileged", json!({"Privileged": true}), &made, SECRET),
        attack(
            "binds",
            json!({"Binds": ["/dev:/d"], "Privileged": false}),
            &format!("test -b /d/loop{minor} && echo {SECRET}"),
            SECRET,
        ),
    ] {
        field.check(row).await;
    }
    // Without asking for anything: the device can be made, and not opened.
    let (_, output) = field.walled.client.run("maker", &format!("{made}; echo tried"), json!({})).await;
    assert!(output.contains("tried") && !output.contains(SECRET), "{output}");
    field.end().await;
}

#[tokio::test]
async fn the_machines_kernel_and_processes_stay_out_of_reach() {
    let field = Field::new().await;
    let own = std::process::id();
    let sees_us = format!("test -d /proc/{own} && echo seen");
    let namespace = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_string_lossy().into_owned();
    let rows = [
        attack("privileged", json!({"Privileged": true}), "mkdir /m; mount -t tmpfs x /m && echo mounted", "mounted"),
        attack(
            "capabilities",
            json!({"CapAdd": ["SYS_ADMIN"], "SecurityOpt": ["apparmor=unconfined"]}),
            "mkdir /m; mount -t tmpfs x /m && echo mounted",
            "mounted",
        ),
        attack(
            "devices",
            json!({"Devices": [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/k", "CgroupPermissions": "r"}]}),
            "test -c /dev/k && echo there",
            "there",
        ),
        attack(
            "device-rules",
            json!({"DeviceCgroupRules": ["c 1:11 rwm"]}),
            "mknod /k c 1 11 && head -c 1 </k >/dev/null 2>&1; test -c /k && echo there",
            "there",
        ),
        attack("namespaces", json!({"PidMode": "host"}), &sees_us, "seen"),
        attack("namespaces", json!({"IpcMode": "host"}), "readlink /proc/self/ns/ipc", leak(namespace("ipc"))),
        attack("namespaces", json!({"UTSMode": "host"}), "readlink /proc/self/ns/uts", leak(namespace("uts"))),
        attack(
            "namespaces",
            json!({"CgroupnsMode": "host"}),
            "readlink /proc/self/ns/cgroup",
            leak(namespace("cgroup")),
        ),
        attack(
            "security-opt",
            json!({"SecurityOpt": ["seccomp=unconfined"]}),
            "grep ^Seccomp: /proc/self/status",
            "\t0",
        ),
        attack("runtimes", json!({"Runtime": "io.containerd.runc.v1"}), "echo ran", "ran"),
        attack(
            "system-paths",
            json!({"MaskedPaths": [], "ReadonlyPaths": []}),
            "test -w /proc/sys/kernel/hostname -o -w /proc/sysrq-trigger && echo writable",
            "writable",
        ),
    ];
    for row in rows {
        field.check(row).await;
    }
    assert_eq!(count(&field.walled.client, "/containers/json?all=1", "").await, 0);
    field.end().await;
}

/// Rows compare with texts that live as long as the test program.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// What could be changed after the create, made beside it, or brought by an image.
#[tokio::test]
async fn no_way_around_create_leads_further() {
    let field = Field::new().await;
    for job in [&field.naive, &field.walled] {
        let limited = json!({"HostConfig": {"Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 20}});
        let id = job.client.create("web", "sleep 1000", limited).await;
        job.client.launch(&id).await;
    }
    let rows = [
        ("update", "/containers/web/update", json!({"Memory": 1u64 << 32, "MemorySwap": -1})),
        ("update", "/containers/web/update", json!({"PidsLimit": -1})),
        ("exec-privileged", "/containers/web/exec", json!({"Cmd": ["true"], "Privileged": true})),
        (
            "network-options",
            "/networks/create",
            json!({"Name": "n", "Options": {"com.docker.network.bridge.name": "mine0"}}),
        ),
    ];
    for (rule, path, body) in rows {
        let naive = field.naive.client.post(path, body.clone()).await;
        assert!((200..300).contains(&naive.status), "{rule} must succeed where there is no wall: {}", naive.text());
        refused(&field.walled.client, rule, path, body).await;
    }
    let kept = &field.walled.client.inspect("web").await["HostConfig"];
    assert_eq!((&kept["Memory"], &kept["PidsLimit"]), (&json!(64 << 20), &json!(20)));
    refused(&field.walled.client, "build-host-network", "/build?networkmode=host", Value::Null).await;
    refused(
        &field.walled.client,
        "privileged",
        "/v1.24/containers/create",
        json!({"Image": "box", "Cmd": ["true"], "HostConfig": {"privileged": true}}),
    )
    .await;
    field.end().await;
}

/// No driver of a vendor's is here: what no policy stops comes as far as the start, and fails there as in dockerd.
#[tokio::test]
async fn devices_of_vendors_are_asked_for_in_vain() {
    let field = Field::new().await;
    // An image comes by a load, which is the one thing more.
    let file = field.machine.path().join("strict-but-load.toml");
    fs::write(&file, "base = \"strict\"\nload = true\n").unwrap();
    let strict = Job::with_box(&field.daemon, &["--policy", file.to_str().unwrap()]).await;
    for (request, value) in [
        (json!({"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}), "nvidia"),
        (json!({"Driver": "cdi", "DeviceIDs": ["vendor.test/device=all"]}), "cdi"),
        (json!({"Count": 1, "Capabilities": [["gpu", "compute"]]}), "gpu,compute"),
    ] {
        let body = json!({"Image": "box", "Cmd": ["true"], "HostConfig": {"DeviceRequests": [request]}});
        let made = field.naive.client.post("/containers/create", body.clone()).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let start = format!("/containers/{}/start", made.json()["Id"].as_str().unwrap());
        let started = field.naive.client.post(&start, Value::Null).await;
        assert_eq!(started.status, 500);
        assert!(started.message().contains("could not select device driver"), "{}", started.text());
        for (job, policy) in [(&field.walled, "ci"), (&strict, "strict-but-load")] {
            let refused = job.client.post("/containers/create", body.clone()).await;
            let sentence = format!("refused by the policy {policy}, rule device-requests: {value}");
            assert!(refused.status == 403 && refused.message().starts_with(&sentence), "{}", refused.text());
        }
    }
    strict.remove(&field.daemon);
    field.end().await;
}

/// The cgroup namespace of what asks for nothing is its own, also for the oldest clients: the machine's tree is not shown.
#[tokio::test]
async fn the_tree_of_cgroups_is_not_shown() {
    let field = Field::new().await;
    let show = "cat /proc/self/cgroup";
    for version in ["", "/v1.24", "/v1.40", "/v1.41"] {
        let body = json!({"Image": "box", "Cmd": ["sh", "-c", show], "HostConfig": {}});
        let made = field.walled.client.post(&format!("{version}/containers/create"), body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let id = made.json()["Id"].as_str().unwrap().to_owned();
        assert_eq!(field.walled.client.inspect(&id).await["HostConfig"]["CgroupnsMode"], "private");
        let (code, output) = field.walled.client.run("see", show, json!({})).await;
        field.walled.client.remove("see").await;
        assert!(code == 0 && !output.contains(field.walled.id()), "{output}");
    }
    let (_, output) = field.naive.client.run("see", show, json!({"HostConfig": {"CgroupnsMode": "host"}})).await;
    assert!(output.contains(field.naive.id()), "{output}");
    field.end().await;
}

/// A job keeps the policy that it was made with.
#[tokio::test]
async fn neither_an_edited_file_nor_a_restart_changes_a_jobs_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.toml");
    fs::write(&file, "base = \"ci\"\ncapabilities = [\"SYS_PTRACE\"]\n").unwrap();
    let mut daemon =
        Daemon::start_with(&["--policy-dir", folder.path().to_str().unwrap(), "--job-policy", "own"]).await;
    let job = Job::with_box(&daemon, &[]).await;
    assert_eq!(job.answer["policy"], "own");
    fs::write(&file, "privileged = true\n").unwrap();
    for _ in 0..2 {
        let ask = async |host_config: Value| {
            let body = json!({"Image": "box", "Cmd": ["true"], "HostConfig": host_config});
            job.client.post("/containers/create", body).await
        };
        assert_eq!(ask(json!({"CapAdd": ["SYS_PTRACE"]})).await.status, 201);
        let answer = ask(json!({"Privileged": true})).await;
        assert!(
            answer.status == 403 && answer.message().contains("the policy own, rule privileged"),
            "{}",
            answer.text()
        );
        daemon.restart().await;
    }
    let later = Job::with_box(&daemon, &[]).await;
    let made = later
        .client
        .post("/containers/create", json!({"Image": "box", "HostConfig": {"Privileged": true}, "Cmd": ["true"]}))
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    let of_file = Job::with_box(&daemon, &["--policy", file.to_str().unwrap()]).await;
    assert_eq!(of_file.answer["policy"], "own");
    let wrong = daemon.ringer(&["job", "create", "--policy", "nosuch"]).output().unwrap();
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("no such policy: nosuch"));
    for job in [&job, &later, &of_file] {
        job.remove(&daemon);
    }
}

/// Who may bind a folder of the machine may put links into it; they lead nowhere, also if they come between create and start.
#[tokio::test]
async fn a_link_below_an_allowed_folder_leads_nowhere() {
    let field = Field::new().await;
    let allowed = tempfile::tempdir().unwrap();
    let folder = allowed.path().canonicalize().unwrap();
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    fs::create_dir(path("sub")).unwrap();
    fs::write(path("sub/file"), "allowed").unwrap();
    std::os::unix::fs::symlink(field.machine(), path("out")).unwrap();
    let policy = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(policy.path(), format!("binds = [{:?}]\n", folder.to_str().unwrap())).unwrap();
    let job = Job::with_box(&field.daemon, &["--policy", policy.path().to_str().unwrap()]).await;
    let bind = |source: &str| json!({"HostConfig": {"Binds": [format!("{source}:/m")]}});

    let (code, output) = job.client.run("allowed", "cat /m/file; echo new >/m/new", bind(&path("sub"))).await;
    assert_eq!((code, output.as_str()), (0, "allowed"));
    assert_eq!(fs::read_to_string(path("sub/new")).unwrap(), "new\n");

    let (_, output) = field.naive.client.run("naive", "cat /m/secret", bind(&path("out"))).await;
    assert!(output.contains(SECRET), "{output}");
    let mut body = bind(&path("out"));
    body["Image"] = json!("box");
    body["Cmd"] = json!(["true"]);
    let answer = job.client.post("/containers/create", body.clone()).await;
    assert!(answer.status == 400 && answer.message().contains("has a link on its way"), "{}", answer.text());
    // What is not allowed is not said to be there or not.
    for source in [path("../none"), field.machine().to_owned()] {
        body["HostConfig"] = json!({"Mounts": [{"Type": "bind", "Source": source, "Target": "/m"}]});
        let answer = job.client.post("/containers/create", body.clone()).await;
        assert!(answer.status == 403 && answer.message().contains("rule binds"), "{}", answer.text());
    }

    let swapped = job.client.create("swapped", "cat /m/secret", bind(&path("sub"))).await;
    fs::rename(path("sub"), path("was")).unwrap();
    std::os::unix::fs::symlink(field.machine(), path("sub")).unwrap();
    let started = job.client.post(&format!("/containers/{swapped}/start"), Value::Null).await;
    assert!(started.status == 400 && started.message().contains("has a link on its way"), "{}", started.text());
    job.remove(&field.daemon);
    field.end().await;
}

/// `ringer policy` without a daemon.
#[test]
fn policies_are_checked_shown_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.toml");
    fs::write(&file, "privileged = true\nprivilegd = true\n").unwrap();
    let ringer = |arguments: &[&str], input: &str| {
        use std::{
            io::Write,
            process::{Command, Stdio},
        };
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringer"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code().unwrap(), text)
    };
    let path = file.to_str().unwrap();
    let (code, text) = ringer(&["policy", "check", path], "");
    assert!(code == 1 && text.contains("policy own: line 2: unknown key privilegd"), "{text}");
    fs::write(&file, "privileged = true\n").unwrap();
    assert_eq!(ringer(&["policy", "check", path], "").0, 0);
    let (_, shown) = ringer(&["policy", "show", path], "");
    assert!(shown.contains("privileged = true\n") && shown.contains("devices = false\n"), "{shown}");
    let (_, shown) = ringer(&["policy", "show", "strict"], "");
    assert!(shown.starts_with("# Containers that compute"), "{shown}");
    let create = r#"{"Image":"x","HostConfig":{"Privileged":true,"Binds":["/etc:/etc","/var/run/docker.sock:/s"],"CapAdd":["ALL"]}}"#;
    let (code, text) = ringer(&["policy", "explain"], create);
    let rules: Vec<_> = text.lines().filter_map(|line| line.split("rule ").nth(1)?.split(':').next()).collect();
    assert_eq!((code, rules), (1, vec!["privileged", "capabilities", "binds"]), "{text}");
    let (code, text) = ringer(&["policy", "explain", "--policy", "trusted", "--api-version", "1.24"], create);
    assert_eq!((code, text.as_str()), (0, "the policy trusted lets it pass\n"));
}
