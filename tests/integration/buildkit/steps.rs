//! Where the steps of builds are: in the caller's network and cgroup, whatever their build says.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{
    Builder,
    deaths::{NAMESPACE, begun, kill_client, runs},
    until,
};
use crate::support::builder::processes_with;

/// Networks that steps have.
pub fn sandboxes(builder: &Builder) -> usize {
    fs::read_dir(builder.daemon.folder().join("run/netns")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_have_the_network_of_a_container() {
    let Some(builder) = Builder::start().await else { return };
    let dockerfile = "FROM box\n\
                      RUN ip -o addr > /own && cat /etc/resolv.conf > /resolv && cat /etc/hosts > /names\n\
                      RUN --network=none ip -o addr > /none\n\
                      RUN --network=host ip -o addr > /host\n";
    let names = ["--add-host=gate:host-gateway", "--add-host=named:192.0.2.7"];
    let build = builder.build(&[&["--allow", "network.host", "-t", "x"], &names[..]].concat(), dockerfile, &[]);
    assert!(build.succeeded, "{}", build.text);
    let read = |path: &str| builder.must(&["run", "--rm", "--network=none", "x", "cat", path]);
    let (own, none, host) = (read("/own"), read("/none"), read("/host"));
    assert!(own.contains("eth0") && own.contains(" 172.17.") && !own.contains(" 172.17.0.1/"), "{own}");
    assert!(!none.contains("eth0"), "{none}");
    assert!(host.contains(" 172.17.0.1/"), "{host}");
    assert!(
        ["172.17.0.1\tgate", "192.0.2.7\tnamed"].iter().all(|name| read("/names").contains(name)),
        "{}",
        read("/names")
    );
    assert_eq!(read("/resolv"), builder.must(&["run", "--rm", "box", "cat", "/etc/resolv.conf"]));
    until("all networks are given back", async || sandboxes(&builder) == 0).await;
    assert!(!builder.build(&[], "FROM box\nRUN --network=host true\n", &[]).succeeded, "it was not allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_under_the_daemons_runtime_in_its_cgroup_and_their_network_goes_with_them() {
    // Nobody but ringer takes a runtime of that name.
    let programs = tempfile::tempdir().unwrap();
    let (crun, calls) = (programs.path().join("crun"), programs.path().join("calls"));
    fs::write(&crun, format!("#!/bin/sh\necho \"$@\" >> {}\nexec runc \"$@\"\n", calls.display())).unwrap();
    fs::set_permissions(&crun, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let Some(builder) = Builder::start_under(&["env", &path]).await else { return };
    let build = begun(&builder, "05").await;
    let pid = processes_with("sleep 424205")[0];
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of_step = |line: &str| {
        let path = line.rsplit(':').next().unwrap_or_default();
        let mut parts = path.rsplit('/');
        parts.next().is_some_and(|name| name.len() == 64)
            && parts.next().is_some_and(|parent| parent.starts_with("ringer"))
    };
    assert!(cgroups.lines().any(of_step) && !cgroups.contains("buildkit"), "{cgroups}");
    let calls = fs::read_to_string(calls).unwrap();
    let made = |call: &str| call.contains(&format!("/{NAMESPACE} ")) && call.contains(" create ");
    assert!(calls.lines().any(made), "{calls}");
    assert_eq!(sandboxes(&builder), 1);
    kill_client(build);
    until("the step is gone", async || !runs("05")).await;
    until("its network is given back", async || sandboxes(&builder) == 0).await;
}
