//! What a client in a container may do with what it binds: what it may itself.

use serde_json::json;

use super::client::Caller;
use crate::support::daemon::Daemon;

/// Tries to write at each place, and tells where that went.
const TRY: &str = "for at in /s /s/sub /s/sub/more; do touch $at/x 2>/dev/null && echo $at; done; true";

#[tokio::test]
async fn what_the_caller_sees_read_only_stays_so_as_deep_as_it_goes() {
    let daemon = Daemon::with_box().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("sub/more")).unwrap();
    let path = folder.path().display();
    // Mounts below the folder, which the bind takes with it.
    for part in ["sub", "sub/more"] {
        rustix::mount::mount("none", folder.path().join(part), "tmpfs", rustix::mount::MountFlags::empty(), None)
            .unwrap();
        std::fs::create_dir_all(folder.path().join("sub/more")).unwrap();
    }
    let binds = [format!("{path}:/ro:ro"), format!("{path}:/rw"), "vol:/vol:ro".to_owned()];
    let binds: Vec<&str> = binds.iter().map(String::as_str).collect();
    let caller = Caller::start(&daemon, "caller", &binds, json!({})).await;
    let writable = |seen: String| seen.lines().map(str::to_owned).collect::<Vec<_>>();
    let everywhere = ["/s", "/s/sub", "/s/sub/more"];
    assert_eq!(writable(caller.see("/rw:/s", TRY).await), everywhere);
    // How deep that goes is up to the runtime: crun has no recursive read-only mounts here.
    let bind = json!({"HostConfig": {"Binds": [format!("{path}:/s:ro")]}});
    let below = writable(daemon.run("reference", TRY, bind).await.1);
    assert_eq!(writable(caller.see("/rw:/s:ro", TRY).await), below);
    for from in ["/ro", "/ro/"] {
        assert_eq!(writable(caller.see(&format!("{from}:/s"), TRY).await), below, "{from}");
        assert_eq!(writable(caller.see(&format!("{from}:/s:rw"), TRY).await), below, "{from}");
    }
    let sub = writable(caller.see("/ro/sub:/s", "touch /s/x 2>/dev/null && echo /s/sub; true").await);
    assert_eq!(sub, below[..below.len().min(1)]);
    assert_eq!(writable(caller.see("/vol:/s", TRY).await), [""; 0]);
    // Of the root, each mount as the caller has it.
    let all = "for at in /s/ro /s/rw /s/rw/sub /s/vol /s/work; do touch $at/x 2>/dev/null && echo $at; done; true";
    assert_eq!(writable(caller.see("/:/s", all).await), ["/s/rw", "/s/rw/sub", "/s/work"]);
    // Also of one that gets it from another.
    let made = caller.create("made", "sleep 1000", json!({"Binds": ["/ro:/s"]})).await;
    assert_eq!(made.status, 201);
    daemon.launch("made").await;
    let (_, seen) = daemon.run("heir", TRY, json!({"HostConfig": {"VolumesFrom": ["made"]}})).await;
    assert_eq!(writable(seen), below);
    for part in ["sub/more", "sub"] {
        let _gone_already = rustix::mount::unmount(folder.path().join(part), rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn caller_with_a_read_only_root_binds_what_it_may_write() {
    let daemon = Daemon::with_box().await;
    let extra = json!({"ReadonlyRootfs": true, "Tmpfs": {"/work": ""}});
    let caller = Caller::start(&daemon, "caller", &["vol:/vol"], extra).await;
    let script = "for at in /s /s/vol /s/work; do touch $at/x 2>/dev/null && echo $at; done; true";
    assert_eq!(caller.see("/:/s", script).await, "/s/vol\n/s/work\n");
    let made = caller.create("made", "true", json!({"Binds": ["/none:/s"]})).await;
    assert_eq!(made.status, 201);
    let started = caller.ask("POST", "/containers/made/start", serde_json::Value::Null).await;
    assert_eq!(started.status, 500);
    assert!(started.message().starts_with("error while creating mount source path '/none'"), "{started:?}");
}
