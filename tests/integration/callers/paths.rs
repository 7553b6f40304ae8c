//! `docker run -v $PWD:/s` from inside a container.

use serde_json::{Value, json};

use super::client::Caller;
use crate::support::{boxes, daemon::Daemon};

fn none() -> Value {
    json!({})
}

/// Waits until no source of a bind is held any more: an end is answered before its mounts are released.
pub async fn none_is_held(daemon: &Daemon) {
    let needle = format!("{}/run/containers/", daemon.folder().display());
    boxes::until_unmounted(&[&needle, "/bind-"]).await;
}

#[tokio::test]
async fn folder_of_the_callers_root_is_bound() {
    let daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &[], none()).await;
    caller.shell("mkdir -p /work/src && echo mine > /work/src/file").await;
    assert_eq!(caller.see("/work/src:/s", "cat /s/file && echo new > /s/made").await, "mine\n");
    assert_eq!(caller.shell("cat /work/src/made").await, "new\n");
    assert_eq!(caller.see("/work/src/file:/f", "cat /f").await, "mine\n");
    assert_eq!(
        caller.see("/work/src/../src/./file:/f:ro", "cat /f; touch /f 2>/dev/null || echo ro").await,
        "mine\nro\n"
    );
    let mount = json!({"Mounts": [{"Type": "bind", "Source": "/work/src", "Target": "/m"}]});
    assert_eq!(caller.run("mount", "cat /m/file", mount).await, (0, "mine\n".to_owned()));
    let inspect = daemon.inspect("mount").await;
    assert_eq!(inspect["Mounts"][0]["Source"], "/work/src", "inspect says what the client asked for");
    none_is_held(&daemon).await;
}

#[tokio::test]
async fn missing_source_is_made_where_the_caller_sees_it() {
    let daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &[], none()).await;
    let absent = format!("/absent-{}", std::process::id());
    caller.see(&format!("{absent}/deep:/s"), "touch /s/file").await;
    assert_eq!(caller.shell(&format!("ls {absent}/deep")).await, "file\n");
    assert!(!std::path::Path::new(&absent).exists(), "nothing is made on the machine");
    let mount = json!({"Mounts": [{"Type": "bind", "Source": "/none", "Target": "/m"}]});
    let refused = caller.create("refused", "true", mount).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.message(), "invalid mount config for type \"bind\": bind source path does not exist: /none");
    // What is on the machine alone is not there for it.
    let machine = daemon.folder().join("data").display().to_string();
    let mount = json!({"Mounts": [{"Type": "bind", "Source": machine, "Target": "/m"}]});
    assert_eq!(caller.create("refused", "true", mount).await.status, 400);
}

#[tokio::test]
async fn volume_and_bind_and_memory_of_the_caller_are_found() {
    let daemon = Daemon::with_box().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/file"), "of the machine\n").unwrap();
    let bind = format!("{}:/bound", folder.path().display());
    let caller = Caller::start(&daemon, "caller", &["vol:/vol", &bind], json!({"Tmpfs": {"/memory": ""}})).await;
    caller.shell("mkdir /vol/sub && echo in volume > /vol/sub/file; echo in memory > /memory/file").await;
    assert_eq!(caller.see("/vol/sub:/s", "cat /s/file; echo more > /s/new").await, "in volume\n");
    assert_eq!(caller.see("/bound/sub:/s", "cat /s/file; echo more > /s/new").await, "of the machine\n");
    assert_eq!(caller.see("/memory:/s", "cat /s/file").await, "in memory\n");
    assert_eq!(
        caller.see("/:/s", "cat /s/vol/sub/new /s/bound/sub/new /s/memory/file").await,
        "more\nmore\nin memory\n"
    );
    let mount = json!({"Type": "bind", "Source": "/", "Target": "/s", "BindOptions": {"NonRecursive": true}});
    let (code, seen) = caller.run("flat", "ls /s/vol /s/bound /s/memory", json!({"Mounts": [mount]})).await;
    assert_eq!((code, seen.as_str()), (0, "/s/bound:\n\n/s/memory:\n\n/s/vol:\n"));
    assert_eq!(std::fs::read_to_string(folder.path().join("sub/new")).unwrap(), "more\n");
    let (_, seen) = daemon.run("other", "cat /v/sub/new", json!({"HostConfig": {"Binds": ["vol:/v"]}})).await;
    assert_eq!(seen, "more\n");
}

#[tokio::test]
async fn client_on_the_machine_names_its_paths() {
    let daemon = Daemon::with_box().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "of the machine\n").unwrap();
    let binds = json!({"HostConfig": {"Binds": [format!("{}:/s", folder.path().display())]}});
    assert_eq!(daemon.run("host", "cat /s/file", binds).await, (0, "of the machine\n".to_owned()));
}

#[tokio::test]
async fn equal_paths_of_two_callers_are_each_ones_own() {
    let daemon = Daemon::with_box().await;
    let first = Caller::start(&daemon, "first", &[], none()).await;
    let second = Caller::start(&daemon, "second", &[], none()).await;
    first.shell("echo first > /work/who").await;
    second.shell("echo second > /work/who").await;
    assert_eq!(first.see("/work:/s", "cat /s/who").await, "first\n");
    assert_eq!(second.see("/work:/s", "cat /s/who").await, "second\n");
}

#[tokio::test]
async fn caller_that_a_caller_made_names_what_it_sees() {
    let daemon = Daemon::with_box().await;
    let outer = Caller::start(&daemon, "outer", &["vol:/vol"], none()).await;
    outer.shell("mkdir /work/deep && echo outer > /work/deep/file; echo volume > /vol/file").await;
    let inner = outer.start_caller("inner", &["/work:/given", "/vol:/store:ro"]).await;
    inner.shell("echo inner > /work/own").await;
    assert_eq!(inner.see("/given/deep:/s", "cat /s/file; echo new > /s/new").await, "outer\n");
    assert_eq!(outer.shell("cat /work/deep/new").await, "new\n");
    assert_eq!(inner.see("/work:/s", "cat /s/own").await, "inner\n");
    assert_eq!(inner.see("/store:/s", "cat /s/file; touch /s/x 2>/dev/null || echo ro").await, "volume\nro\n");
    let third = inner.start_caller("third", &["/given/deep:/third"]).await;
    assert_eq!(third.see("/third:/s", "cat /s/file").await, "outer\n");
}

#[tokio::test]
async fn program_that_a_container_starts_with_is_known_at_once() {
    let daemon = Daemon::with_box().await;
    let socket = daemon.folder().join("docker.sock").display().to_string();
    let body = json!({"Image": "box", "Cmd": ["sh", "-c", "cat /s/file"], "HostConfig": {"Binds": ["/work:/s"], "NetworkMode": "none"}});
    let ask = "/usr/bin/curl --silent --unix-socket /docker.sock --header content-type:application/json";
    let script = format!(
        "mkdir /work && echo early > /work/file && {ask} --data '{body}' http://d/containers/create?name=made && \
         {ask} --request POST http://d/containers/made/start && sleep 1000"
    );
    let binds = ["/usr/lib:/usr/lib", "/usr/lib:/lib", "/usr/lib64:/lib64", "/usr/bin:/usr/bin"].map(str::to_owned);
    let binds: Vec<String> = binds.into_iter().chain([format!("{socket}:/docker.sock")]).collect();
    let id = daemon.create("early", &script, json!({"HostConfig": {"Binds": binds}})).await;
    daemon.launch(&id).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while daemon.client().get("/containers/made/json").await.status != 200
        || daemon.inspect("made").await["State"]["Status"] == "created"
    {
        assert!(std::time::Instant::now() < deadline, "{}", daemon.output(&id).await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(daemon.exit_code("made").await, 0);
    assert_eq!(daemon.output("made").await, "early\n");
}

#[tokio::test]
async fn path_of_a_caller_that_has_ended_is_refused_in_clear_words() {
    let daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &["vol:/vol"], none()).await;
    caller.shell("echo here > /vol/file").await;
    let made = caller.create("made", "cat /s/file", json!({"Binds": ["/vol:/s"]})).await;
    assert_eq!(made.status, 201);
    let heir = json!({"HostConfig": {"VolumesFrom": ["made"]}});
    assert_eq!(daemon.run("heir", "cat /s/file", heir).await, (0, "here\n".to_owned()));
    daemon.remove(&caller.id).await;
    let started = daemon.client().post("/containers/made/start", Value::Null).await;
    assert_eq!(started.status, 400);
    assert_eq!(
        started.message(),
        format!(
            "invalid mount config for type \"bind\": /vol is a path in container {}, which is not running",
            &caller.id[..12]
        )
    );
    let file = daemon.client().get("/containers/made/archive?path=/bin").await;
    assert_eq!(file.status, 200, "its own files can still be copied");
    none_is_held(&daemon).await;
}
