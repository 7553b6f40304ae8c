//! Our specs and refusals beside those of a real dockerd: `golden/cases.json` are the requests, `golden/docker28-*.json`
//! the answers (`golden/refresh` asks for them anew).

mod normal;
mod world;

use serde_json::Value;

use self::world::World;

const CASES: &str = include_str!("golden/cases.json");
const CGROUP1: &str = include_str!("golden/docker28-cgroup1.json");
const CGROUP2: &str = include_str!("golden/docker28-cgroup2.json");

/// Cases whose refusal is another module's, which has its own tests: networks, logs, runtimes, volumes, look-ups of
/// other containers.
const OTHERS: [&str; 27] = [
    "bind_source_relative",
    "bind_volume_name_bad",
    "dns_bad",
    "exposed_port_bad",
    "extra_hosts_bad",
    "links_absent",
    "log_driver_bad",
    "log_option_bad",
    "mount_bind_absent",
    "mount_volume_driver",
    "mount_volume_name_bad",
    "network_bridge",
    "network_container_absent",
    "port_binding_bad",
    "port_unexposed_bad",
    "runtime_bad",
    "volume_driver",
    "volumes_from_absent",
    "hostname_long",
    // Limits that reach the kernel through the runtime.
    "blkio_devices",
    "cpu_realtime",
    "mount_tmpfs_negative",
    "nano_cpus_small",
    "ulimit_soft_above_hard",
    "ulimits_unlimited",
    // dockerd asks for permissions that its CLI always sends; ours means all of them.
    "devices",
    // Its source is a layer's folder of dockerd's graph driver; `tests/integration/image_mounts.rs` mounts for real.
    "mount_image",
];

/// Where we answer otherwise on purpose: case, part of our answer.
const DELIBERATE: [(&str, &str); 13] = [
    // dockerd mounts both, one above the other.
    ("mount_tmpfs_twice", "Duplicate mount point: /y"),
    // dockerd shows no name for the volume of a bind that is a mere destination.
    ("bind_one_part", "ANONYMOUS"),
    // dockerd names a group twice that is asked for twice, and crun takes it twice.
    ("user_groups", "\"additionalGids\":[1002,1003,777]"),
    // dockerd drops these without a word.
    ("kernel_memory", "Kernel memory limits are not carried out any more. KernelMemory discarded."),
    ("kernel_memory_small", "Kernel memory limits are not carried out any more. KernelMemory discarded."),
    ("kernel_memory_tcp", "Your kernel does not support kernel memory TCP limit capabilities"),
    ("network_container_mac", "conflicting options: mac-address and the network mode"),
    ("userns_bad", "invalid user namespace mode: blue"),
    ("windows_cpu_count", "linux does not support CPU count. Count discarded."),
    // Refused at create, where dockerd's start fails.
    ("ulimit_unknown", "invalid ulimit type: colour"),
    ("volume_entry_root", "invalid specification: destination can't be '/'"),
    // Inspect shows where it is.
    ("volume_entry_relative", "/blue"),
    // The JSON reader's own words at the end.
    ("seccomp_malformed", "Decoding seccomp profile failed: "),
];

fn check_all(answers: &str, world: &World) {
    let cases: Value = serde_json::from_str(CASES).expect("cases are JSON");
    let answers: Value = serde_json::from_str(answers).expect("answers are JSON");
    let plain = &answers["plain"];
    let mut wrong = Vec::new();
    for (name, request) in cases.as_object().expect("cases are an object") {
        let needs_nodes = name == "device_directory" && !world::has_devices(world);
        if OTHERS.contains(&name.as_str()) || needs_nodes {
            continue;
        }
        let expected = normal::expected(&answers[name], plain);
        let ours = normal::ours(world.answer(request));
        if let Some(difference) = normal::difference(&expected, &ours) {
            let deliberate = DELIBERATE.iter().find(|(case, _)| case == name);
            if deliberate.is_none_or(|(_, answer)| !ours.to_string().contains(answer)) {
                wrong.push(format!("{name}: {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases differ from dockerd:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn specs_and_refusals_are_dockerds_on_cgroup_v1() {
    check_all(CGROUP1, &World::cgroup1());
}

#[test]
fn specs_and_refusals_are_dockerds_on_cgroup_v2() {
    check_all(CGROUP2, &World::cgroup2());
}

#[test]
fn exec_has_the_containers_limits_and_its_own_variables() {
    let host_config = serde_json::json!({"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "OomScoreAdj": 7,
        "SecurityOpt": ["no-new-privileges"], "CapDrop": ["ALL"]});
    let process = serde_json::to_value(World::cgroup1().exec(&host_config, false, false)).expect("a process is JSON");
    let expected = serde_json::json!({
        "user": {"uid": 5, "gid": 6, "additionalGids": [6]},
        "args": ["sh"],
        "env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box", "A=2", "TERM=dumb", "B=3"
        ],
        "cwd": "/w",
        "capabilities": {},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2, "soft": 1}],
        "noNewPrivileges": true,
        "oomScoreAdj": 7,
    });
    assert_eq!(process, expected);
}

#[test]
fn privileged_exec_with_terminal_has_all_that_we_have() {
    let process = World::cgroup1().exec(&serde_json::json!({}), true, true);
    assert_eq!(process.terminal(), Some(true));
    assert_eq!(process.console_size().map(|size| (size.height(), size.width())), Some((30, 100)));
    let bounding = process.capabilities().as_ref().and_then(|sets| sets.bounding().clone()).expect("a set");
    assert_eq!(bounding.len(), 40);
}
