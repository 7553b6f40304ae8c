//! All containers of a job together stay within what the job was given, whatever they ask for themselves.

use std::{fs, path::PathBuf};

use serde_json::json;

use super::{Job, remains};
use crate::support::daemon::Daemon;

/// The folders of a process's cgroups, each with the controllers of its hierarchy.
fn cgroups(pid: u64) -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("our mounts");
    let place = |controllers: &str| {
        let is_it = |line: &&str| match controllers {
            "" => line.contains(" - cgroup2 "),
            named => {
                line.contains(" - cgroup ") && line.rsplit(' ').next().is_some_and(|options| options.contains(named))
            }
        };
        mounts.lines().find(is_it).and_then(|line| line.split(' ').nth(4)).map(PathBuf::from)
    };
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        Some((controllers.to_owned(), place(controllers)?.join(path.trim_start_matches('/'))))
    });
    lines.collect()
}

/// Who has no job goes where he says, as with dockerd.
async fn leads_out_on_the_default_socket(daemon: &Daemon) {
    let parent = format!("leads-out-{}", std::process::id());
    let extra = json!({"HostConfig": {"CgroupParent": format!("/{parent}")}});
    let id = daemon.create("out", "sleep 1000", extra).await;
    daemon.launch(&id).await;
    let pid = daemon.inspect(&id).await["State"]["Pid"].as_u64().unwrap();
    let named = |folder: &PathBuf| folder.ancestors().find(|folder| folder.ends_with(&parent)).map(PathBuf::from);
    let parents: Vec<PathBuf> = cgroups(pid).iter().filter_map(|(_, folder)| named(folder)).collect();
    daemon.remove(&id).await;
    for parent in &parents {
        let _shared_hierarchies_are_named_twice = fs::remove_dir(parent);
    }
    assert!(!parents.is_empty(), "what is refused in a job leads somewhere");
}

#[tokio::test]
async fn no_parent_that_a_client_names_leads_out_of_the_jobs_cgroup() {
    let daemon = Daemon::with_box().await;
    leads_out_on_the_default_socket(&daemon).await;
    let job = Job::with_box(&daemon, &["--pids", "40", "--memory", "200m", "--cpus", "0.5"]).await;
    let parents = ["", "/", "/x", "x", "../..", "/../../x", "/ringer"];
    for (n, parent) in parents.iter().enumerate() {
        let extra = json!({"HostConfig": {"CgroupParent": parent, "PidsLimit": 1_000_000}});
        let id = job.client.create(&format!("c{n}"), "sleep 1000", extra).await;
        job.client.launch(&id).await;
        let pid = job.client.inspect(&id).await["State"]["Pid"].as_u64().unwrap();
        for (controllers, folder) in cgroups(pid) {
            let below = folder.ancestors().find(|folder| folder.file_name().is_some_and(|name| *name == *job.id()));
            let below = below.unwrap_or_else(|| panic!("{parent:?}: {controllers} is {}", folder.display()));
            if controllers == "pids" {
                assert_eq!(fs::read_to_string(below.join("pids.max")).unwrap(), "40\n");
            }
            if controllers == "memory" {
                assert_eq!(fs::read_to_string(below.join("memory.limit_in_bytes")).unwrap(), "209715200\n");
            }
            if controllers.contains("cpu,") {
                assert_eq!(fs::read_to_string(below.join("cpu.cfs_quota_us")).unwrap(), "50000\n");
            }
        }
    }
    // Seven sleepers are in it: what forks without end meets the job's limit, not its own.
    let bomb = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; echo all";
    let (code, output) = job.client.run("bomb", bomb, json!({"HostConfig": {"PidsLimit": 1_000_000}})).await;
    assert!(code != 0 && !output.contains("all"), "{code}: {output}");
    job.remove(&daemon);
    remains::gone_of(&daemon, job.id()).await;
}
