//! Containers for real: our daemon, containerd, runc and Debian's busybox.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{boxes::unframed, daemon::Daemon};

/// Asks until the condition holds.
async fn eventually<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn run_ends_with_exit_code_and_log() {
    let daemon = Daemon::with_box().await;
    let (code, output) = daemon.run("one", "echo out; echo err >&2; exit 3", Value::Null).await;
    assert_eq!((code, output.contains("out\n"), output.contains("err\n")), (3, true, true));
    let state = &daemon.inspect("one").await["State"];
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(3)));
    let again = daemon.client().post("/containers/one/stop", Value::Null).await;
    assert_eq!(again.status, 304, "stop of an ended container");
    daemon.remove("one").await;
    assert_eq!(daemon.client().get("/containers/one/json").await.status, 404);
}

#[tokio::test]
async fn attach_before_start_serves_every_run() {
    let daemon = Daemon::with_box().await;
    let extra = json!({"OpenStdin": true, "StdinOnce": true, "AttachStdin": true});
    let id = daemon.create("again", "cat; exit 4", extra).await;
    // gitlab-runner starts one container again for each stage of a job, with a script on its input.
    for stage in ["first\n", "second\n"] {
        let path = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
        let (_, mut stream) = daemon.client().hijack(&path, Value::Null).await;
        daemon.launch(&id).await;
        stream.write_all(stage.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(unframed(&bytes), stage);
        assert_eq!(daemon.inspect(&id).await["State"]["Running"], false, "the exit is recorded when the stream ends");
        assert_eq!(daemon.exit_code(&id).await, 4);
    }
}

#[tokio::test]
async fn head_of_wait_comes_before_the_start() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("waited", "exit 5", json!({"HostConfig": {"AutoRemove": true}})).await;
    let request = http::Request::post(format!("/containers/{id}/wait?condition=removed"))
        .body(http_body_util::Full::default())
        .unwrap();
    let opened = tokio::time::timeout(Duration::from_secs(10), daemon.client().open(request)).await;
    let response = opened.expect("a head before the container has started");
    daemon.launch(&id).await;
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["StatusCode"], 5);
    assert_eq!(daemon.client().get(&format!("/containers/{id}/json")).await.status, 404, "removed means gone");
    assert_eq!(daemon.exit_code(&id).await, 5, "its end can still be asked for");
    daemon.create("waited", "true", Value::Null).await;
}

/// By whichever runtime.
#[tokio::test]
async fn commands_that_cannot_run_say_why() {
    let daemon = Daemon::with_box().await;
    for (command, code, text) in [
        ("nope", 127, r#"exec: "nope": executable file not found in $PATH"#),
        ("/nope", 127, r#"exec: "/nope": stat /nope: no such file or directory"#),
        ("/etc", 126, r#"exec: "/etc": permission denied"#),
        ("/etc/hostname", 126, r#"exec: "/etc/hostname": permission denied"#),
        ("/etc/hostname/x", 127, "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?"),
    ] {
        let id = daemon.create("", "", json!({"Cmd": [command]})).await;
        let answer = daemon.client().post(&format!("/containers/{id}/start"), Value::Null).await;
        assert_eq!(answer.status, 400);
        let lead = "OCI runtime create failed: runc create failed: unable to start container process: ";
        assert!(answer.message().contains(lead) && answer.message().contains(text), "{}", answer.message());
        let state = &daemon.inspect(&id).await["State"];
        assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("created"), Some(code)));
    }
    let id = daemon.create("live", "sleep 100", Value::Null).await;
    daemon.launch(&id).await;
    for (command, wanted, text) in [
        ("nope", 127, r#"exec: "nope": executable file not found in $PATH"#),
        ("/etc", 126, r#"exec: "/etc": permission denied"#),
    ] {
        let (code, output) = daemon.exec(&id, &[command]).await;
        assert_eq!(code, wanted);
        let lead = "OCI runtime exec failed: exec failed: unable to start container process: ";
        assert!(output.contains(lead) && output.contains(text), "{output}");
    }
    daemon.remove(&id).await;
}

/// Of a container's own init some runtimes leave the cgroup when it fails.
#[tokio::test]
async fn a_start_that_fails_leaves_no_cgroup() {
    let daemon = Daemon::with_box().await;
    let limits = json!([{"Name": "nofile", "Soft": 99_999_999_999_u64, "Hard": 99_999_999_999_u64}]);
    let id = daemon.create("", "true", json!({"HostConfig": {"Ulimits": limits}})).await;
    let answer = daemon.client().post(&format!("/containers/{id}/start"), Value::Null).await;
    assert!(answer.status == 500 && answer.message().contains("operation not permitted"), "{}", answer.text());
    let left = std::process::Command::new("find").args(["/sys/fs/cgroup", "-name", &id]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

/// Some runtimes make the container's user the owner of its input, which must not be the host's `/dev/null` then.
#[tokio::test]
async fn the_hosts_devices_stay_the_hosts() {
    use std::os::unix::fs::MetadataExt;
    let owner = || std::fs::metadata("/dev/null").map(|null| (null.uid(), null.gid())).unwrap();
    let daemon = Daemon::with_box().await;
    let before = owner();
    let config = json!({"User": "65534:65534"});
    assert_eq!(daemon.run("nobody", "cat; id -u", config.clone()).await, (0, "65534\n".to_owned()));
    assert_eq!(owner(), before);
    let id = daemon.create("long", "sleep 100", config).await;
    daemon.launch(&id).await;
    assert_eq!(daemon.exec(&id, &["sh", "-c", "cat; id -u"]).await, (0, "65534\n".to_owned()));
    assert_eq!(owner(), before);
    daemon.remove(&id).await;
}

/// A runtime has to be asked for a folder's and for a file's in different ways.
#[tokio::test]
async fn read_only_is_kept_of_files_folders_and_roots() {
    let daemon = Daemon::with_box().await;
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("file"), "host").unwrap();
    let binds = [format!("{0}/file:/file:ro", host.path().display()), format!("{}:/folder:ro", host.path().display())];
    let script = "cat /file; for f in /file /folder/file /etc/resolv.conf /root-file; do echo x 2>/dev/null > $f && echo wrote $f; done; true";
    let config = json!({"HostConfig": {"Binds": binds, "ReadonlyRootfs": true}});
    assert_eq!(daemon.run("guarded", script, config).await, (0, "host".to_owned()));
}

#[tokio::test]
async fn exec_start_says_how() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("there", "sleep 1000", Value::Null).await;
    daemon.launch(&id).await;
    let make = async |body: Value| {
        let answer = daemon.client().post(&format!("/containers/{id}/exec"), body).await;
        answer.json()["Id"].as_str().expect("an id").to_owned()
    };
    let read = async |exec: &str, start: Value| {
        let (_, mut stream) = daemon.client().hijack(&format!("/exec/{exec}/start"), start).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    };
    // crun sets the size from outside, when the process may run already. And what a process on a terminal says at its very end was lost
    // once, on a machine with a load of ten, which is not what is asked here.
    let until_it_has_one = "until busybox stty size 2>/dev/null; do sleep 0.05; done; sleep 0.3";
    let size =
        json!({"Cmd": ["sh", "-c", until_it_has_one], "Tty": true, "AttachStdout": true, "ConsoleSize": [30, 100]});
    let exec = make(size.clone()).await;
    assert_eq!(read(&exec, json!({"Tty": true})).await, "30 100\r\n");
    let exec = make(size).await;
    assert_eq!(read(&exec, json!({"Tty": true, "ConsoleSize": [40, 120]})).await, "40 120\r\n");
    let exec = make(json!({"Cmd": ["busybox", "stty", "size"], "Tty": true, "AttachStdout": true})).await;
    let (_, mut stream) = daemon
        .client()
        .hijack(&format!("/v1.41/exec/{exec}/start"), json!({"Tty": true, "ConsoleSize": [40, 120]}))
        .await;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let told = String::from_utf8_lossy(&bytes);
    assert!(!told.contains("40 120"), "before 1.42 there was no size: {told}");
    let exec = make(json!({"Cmd": ["echo", "raw"], "AttachStdout": true})).await;
    assert_eq!(read(&exec, json!({"Tty": true})).await, "raw\n", "frames are left out when the start says so");
    let exec = make(json!({"Cmd": ["sleep", "1000"], "AttachStdout": true})).await;
    let detached = daemon.client().post(&format!("/exec/{exec}/start"), json!({"Detach": true})).await;
    assert_eq!((detached.status, detached.body.len()), (200, 0), "nobody waits for it");
    assert_eq!(daemon.client().get(&format!("/exec/{exec}/json")).await.json()["Running"], true);
}

#[tokio::test]
async fn exec_has_streams_user_folder_and_code() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("shell", "sleep 100", json!({"Env": ["A=container"]})).await;
    daemon.launch(&id).await;
    let body = json!({
        "Cmd": ["sh", "-c", "cat; echo $A; id -u; id -G; echo $PWD >&2; exit 9"], "Env": ["A=later"], "User": "worker",
        "WorkingDir": "/tmp", "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
    });
    let exec = daemon.client().post(&format!("/containers/{id}/exec"), body).await.json();
    let exec = exec["Id"].as_str().unwrap();
    let (head, mut stream) = daemon.client().hijack(&format!("/exec/{exec}/start"), json!({})).await;
    assert_eq!(head.headers()["content-type"], "application/vnd.docker.multiplexed-stream");
    let input = vec![b'x'; 300_000];
    stream.write_all(&input).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let output = unframed(&bytes);
    assert_eq!(output.matches('x').count(), input.len(), "all input came back after the half-close");
    for part in ["later\n", "1000\n", "1000 2000\n", "/tmp\n"] {
        assert!(output.contains(part), "{part:?}");
    }
    let inspect = daemon.client().get(&format!("/exec/{exec}/json")).await.json();
    assert_eq!((inspect["Running"].as_bool(), inspect["ExitCode"].as_i64()), (Some(false), Some(9)));
    let unknown = json!({"Cmd": ["true"], "User": "nobody-here"});
    let refused = daemon.client().post(&format!("/containers/{id}/exec"), unknown).await;
    assert_eq!(refused.status, 400);
    assert!(refused.message().contains("unable to find user nobody-here"), "{}", refused.message());
}

#[tokio::test]
async fn states_refuse_what_does_not_fit_them() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("state", "sleep 100", Value::Null).await;
    let post = async |verb: &str| daemon.client().post(&format!("/containers/state/{verb}"), Value::Null).await;
    let exec = daemon.client().post("/containers/state/exec", json!({"Cmd": ["true"]})).await;
    assert_eq!((exec.status, exec.message()), (409, format!("container {id} is not running")));
    let kill = post("kill").await;
    assert_eq!(
        (kill.status, kill.message()),
        (409, format!("cannot kill container: state: container {id} is not running"))
    );
    assert_eq!(post("pause").await.status, 409);
    daemon.launch(&id).await;
    assert_eq!(post("start").await.status, 304);
    assert_eq!(post("pause").await.status, 204);
    assert_eq!(daemon.inspect("state").await["State"]["Status"], "paused");
    let exec = daemon.client().post("/containers/state/exec", json!({"Cmd": ["true"]})).await;
    assert_eq!(exec.message(), "Container state is paused, unpause the container before exec");
    assert_eq!(post("unpause").await.status, 204);
    let remove = daemon.client().delete("/containers/state").await;
    assert_eq!((remove.status, remove.message().contains("container is running")), (409, true));
    let twin = daemon.try_create("state", "true", Value::Null).await;
    assert_eq!(twin.status, 409);
    assert!(twin.message().starts_with("Conflict. The container name \"/state\" is already in use by container"));
    assert_eq!(post("rename?name=other").await.status, 204);
    assert_eq!(daemon.inspect("other").await["Name"], "/other");
    assert_eq!(post("kill?signal=TERM").await.status, 404, "the old name is gone");
    daemon.remove("other").await;
}

#[tokio::test]
async fn stop_asks_first_and_then_kills() {
    let daemon = Daemon::with_box().await;
    let asked = daemon.create("polite", "trap 'exit 7' TERM; while :; do sleep 0.05; done", Value::Null).await;
    let deaf = daemon.create("deaf", "trap '' TERM; while :; do sleep 0.05; done", Value::Null).await;
    for (id, code) in [(asked, 7), (deaf, 137)] {
        daemon.launch(&id).await;
        eventually("the trap is set", async || daemon.exec(&id, &["ps"]).await.1.contains("sleep")).await;
        let stop = daemon.client().post(&format!("/containers/{id}/stop?t=1"), Value::Null).await;
        assert_eq!(stop.status, 204, "{}", stop.text());
        assert_eq!(daemon.inspect(&id).await["State"]["ExitCode"], code);
    }
}

#[tokio::test]
async fn restart_policy_counts_failures() {
    let daemon = Daemon::with_box().await;
    let policy = json!({"HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}});
    let id = daemon.create("again", "echo run; exit 1", policy).await;
    daemon.launch(&id).await;
    eventually("it gives up", async || daemon.inspect(&id).await["State"]["Status"] == "exited").await;
    assert_eq!(daemon.inspect(&id).await["RestartCount"], 2);
    assert_eq!(daemon.output(&id).await, "run\nrun\nrun\n");
}

#[tokio::test]
async fn health_is_watched_until_the_end() {
    let daemon = Daemon::with_box().await;
    let check = json!({"Healthcheck": {"Test": ["CMD-SHELL", "echo checked; test -e /tmp/ok"], "Interval": 50_000_000,
        "Timeout": 5_000_000_000_i64, "Retries": 2}});
    let id = daemon.create("patient", "sleep 100", check).await;
    daemon.launch(&id).await;
    let is = async |wanted: &str| daemon.inspect(&id).await["State"]["Health"]["Status"] == wanted;
    eventually("unhealthy", async || is("unhealthy").await).await;
    assert_eq!(daemon.exec(&id, &["sh", "-c", ": > /tmp/ok"]).await.0, 0);
    eventually("healthy", async || is("healthy").await).await;
    let log = daemon.inspect(&id).await["State"]["Health"]["Log"].clone();
    assert_eq!(log.as_array().unwrap().last().unwrap()["Output"], "checked\n");
    daemon.client().post(&format!("/containers/{id}/kill"), Value::Null).await;
    assert!(is("unhealthy").await, "an ended container is not healthy: forgejo-runner would wait for ever");
}

#[tokio::test]
async fn health_checks_that_time_out_are_forgotten() {
    let daemon = Daemon::with_box().await;
    let check = json!({"Healthcheck": {"Test": ["CMD-SHELL", "sleep 1000"], "Interval": 50_000_000, "Timeout": 100_000_000,
        "Retries": 1}});
    let id = daemon.create("hung", "sleep 1000", check).await;
    daemon.launch(&id).await;
    let ends = std::sync::Mutex::new(std::collections::BTreeSet::new());
    eventually("eight checks have timed out", async || {
        let log = daemon.inspect(&id).await["State"]["Health"]["Log"].clone();
        for probe in log.as_array().unwrap() {
            assert_eq!(
                (&probe["ExitCode"], probe["Output"].as_str().unwrap()),
                (&json!(-1), "Health check exceeded timeout (100ms)")
            );
            ends.lock().unwrap().insert(probe["End"].as_str().unwrap().to_owned());
        }
        ends.lock().unwrap().len() >= 8
    })
    .await;
    // Of the next one, and of one that is just being taken away.
    eventually("their execs are forgotten", async || {
        let execs = daemon.inspect(&id).await["ExecIDs"].as_array().map_or(0, Vec::len);
        let pipes = std::fs::read_dir(daemon.folder().join("run/io").join(&id)).unwrap().count();
        let top = daemon.client().get(&format!("/containers/{id}/top")).await.json();
        execs <= 1
            && pipes <= 2 + 2 * 2
            && top["Processes"].as_array().is_some_and(|processes| processes.len() <= 1 + 2 * 2)
    })
    .await;
    daemon.remove(&id).await;
}

#[tokio::test]
async fn volumes_are_filled_kept_and_taken_along() {
    let daemon = Daemon::with_box().await;
    let extra = json!({"Volumes": {"/tmp/anonymous": {}},
        "HostConfig": {"Binds": ["kept:/data"], "Tmpfs": {"/mem": "size=64k"}}});
    let (code, output) = daemon.run("first", "cat /data/seed && echo more > /data/more && mount", extra).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with("from the image\n") && output.contains(" /mem "), "{output}");
    daemon.remove("first").await;
    let volumes = daemon.client().get("/volumes").await.json();
    let names: Vec<_> = volumes["Volumes"].as_array().unwrap().iter().map(|volume| volume["Name"].clone()).collect();
    assert_eq!(names, ["kept"], "the anonymous volume went with v=1");
    let extra =
        json!({"HostConfig": {"Mounts": [{"Type": "volume", "Source": "kept", "Target": "/v", "ReadOnly": true}]}});
    let (code, output) = daemon.run("second", "cat /v/more; : > /v/no", extra).await;
    assert_eq!((code, output.contains("more\n")), (1, true), "{output}");
    let busy = daemon.client().delete("/volumes/kept").await;
    assert_eq!((busy.status, busy.message().contains("volume is in use")), (409, true));
    daemon.remove("second").await;
    assert_eq!(daemon.client().delete("/volumes/kept").await.status, 204);
}

#[tokio::test]
async fn killed_daemon_takes_its_containers_up_as_ended() {
    let mut daemon = Daemon::with_box().await;
    let id = daemon.create("orphan", "sleep 1000", Value::Null).await;
    daemon.launch(&id).await;
    let kept = daemon.create("kept", "echo kept", Value::Null).await;
    daemon.kill();
    daemon.restart().await;
    let state = daemon.inspect(&id).await["State"].clone();
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(255)));
    daemon.launch(&kept).await;
    assert_eq!(daemon.exit_code(&kept).await, 0);
    assert_eq!(daemon.output(&kept).await, "kept\n");
    daemon.launch(&id).await;
    daemon.remove(&id).await;
}

#[tokio::test]
async fn term_ends_containers_and_leaves_nothing() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("last", "trap 'exit 0' TERM; while :; do sleep 0.05; done", Value::Null).await;
    daemon.launch(&id).await;
    let folder = daemon.folder().to_owned();
    let needle = folder.to_string_lossy().into_owned();
    let (status, _) = daemon.stop();
    assert!(status.success(), "{status}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&needle), "{mounts}");
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(!cgroups.contains(&id));
}

#[tokio::test]
async fn sixteen_clients_at_once_all_pass_and_leave_nothing() {
    let daemon = std::sync::Arc::new(Daemon::with_box().await);
    let jobs: Vec<_> = (0..16)
        .map(|n| {
            let daemon = daemon.clone();
            tokio::spawn(async move {
                let name = format!("job-{n}");
                let id =
                    daemon.create(&name, "sleep 100", json!({"HostConfig": {"Binds": [format!("{name}:/v")]}})).await;
                daemon.launch(&id).await;
                let (code, output) = daemon.exec(&id, &["sh", "-c", &format!("echo {n} > /v/n; cat /v/n")]).await;
                assert_eq!((code, output), (0, format!("{n}\n")));
                daemon.remove(&id).await;
                assert_eq!(daemon.client().delete(&format!("/volumes/{name}")).await.status, 204);
            })
        })
        .collect();
    for job in jobs {
        job.await.unwrap();
    }
    assert_eq!(daemon.client().get("/containers/json?all=1").await.json(), json!([]));
    assert_eq!(daemon.client().get("/volumes").await.json()["Volumes"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn client_that_leaves_in_the_middle_harms_nobody() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("loud", "yes", Value::Null).await;
    let path = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1");
    let (_, mut stream) = daemon.client().hijack(&path, Value::Null).await;
    daemon.launch(&id).await;
    let mut some = [0; 4096];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    let (code, output) = daemon.exec(&id, &["echo", "alive"]).await;
    assert_eq!((code, output.as_str()), (0, "alive\n"));
    daemon.remove(&id).await;
    assert_eq!(daemon.run("after", "echo fine", Value::Null).await, (0, "fine\n".to_owned()));
}
