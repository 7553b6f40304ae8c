//! Where the steps of builds are: in the caller's network and cgroup, whatever their build says.

use super::{
    Builder,
    deaths::{begun, kill_client, runs},
    until,
};
use crate::support::builder::processes_with;

fn sandboxes(builder: &Builder) -> usize {
    std::fs::read_dir(builder.daemon.folder().join("run/netns")).map_or(0, Iterator::count)
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
async fn steps_are_in_a_cgroup_of_the_daemon_and_their_network_goes_with_them() {
    let Some(builder) = Builder::start().await else { return };
    let build = begun(&builder, "05").await;
    let pid = processes_with("sleep 424205")[0];
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of_step = |line: &str| {
        let path = line.rsplit(':').next().unwrap_or_default();
        let mut parts = path.rsplit('/');
        parts.next().is_some_and(|name| name.len() == 64)
            && parts.next().is_some_and(|parent| parent.starts_with("ringer"))
    };
    assert!(cgroups.lines().any(of_step) && !cgroups.contains("buildkit"), "{cgroups}");
    assert_eq!(sandboxes(&builder), 1);
    kill_client(build);
    until("the step is gone", async || !runs("05")).await;
    until("its network is given back", async || sandboxes(&builder) == 0).await;
}
