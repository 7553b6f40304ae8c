//! Clients in containers that name the machine's files, or would be taken for others.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{client::Caller, paths::none_is_held};
use crate::support::daemon::Daemon;

/// A file of the machine that no container has.
fn secret(daemon: &Daemon) -> String {
    let path = daemon.folder().join("secret");
    std::fs::write(&path, "of the machine\n").unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn no_link_leads_out_of_the_callers_root() {
    let daemon = Daemon::with_box().await;
    let secret = secret(&daemon);
    let folder = daemon.folder().display().to_string();
    let caller = Caller::start(&daemon, "caller", &[], json!({})).await;
    caller.shell(&format!("mkdir -p /work/in && echo in > /work/in/file; ln -s /work/in /link; ln -s {folder} /out; ln -s ../../../../../.. /up; ln -s /proc/1/root /magic; ln -s loop /loop")).await;
    assert_eq!(caller.see("/link:/s", "cat /s/file").await, "in\n");
    assert_eq!(caller.see("/up/work/in:/s", "cat /s/file").await, "in\n");
    assert_eq!(caller.see("/../../../work/in:/s", "cat /s/file").await, "in\n");
    // The folder of the machine is one of its own, which is made.
    assert_eq!(caller.see("/out:/s", "ls /s").await, "");
    assert_eq!(caller.see(&format!("{secret}:/s"), "ls /s").await, "");
    for source in [
        "/proc/1/root",
        "/proc/1/root/work",
        "/proc/1/cwd",
        "/magic",
        "/proc/self/root",
        "/loop",
        "/proc/thread-self/fd/0",
    ] {
        let made = caller.create("magic", "ls /s", json!({"Binds": [format!("{source}:/s")]})).await;
        assert_eq!(made.status, 201);
        let started = caller.ask("POST", "/containers/magic/start", Value::Null).await;
        assert!([400, 500].contains(&started.status), "{source}: {started:?}");
        daemon.remove("magic").await;
        let mount = json!({"Mounts": [{"Type": "bind", "Source": source, "Target": "/s"}]});
        let refused = caller.create("magic", "true", mount).await;
        assert_eq!(refused.status, 400, "{source}");
    }
    none_is_held(&daemon).await;
}

#[tokio::test]
async fn link_that_is_swapped_meanwhile_never_shows_the_machine() {
    let daemon = Daemon::with_box().await;
    let folder = daemon.folder().display().to_string();
    secret(&daemon);
    let caller = Caller::start(&daemon, "caller", &[], json!({})).await;
    caller.shell(&format!("mkdir -p /work/a /work/b {folder}; echo a > /work/a/secret; echo own > {folder}/secret; ln -s /work/a /work/way")).await;
    let swap = format!(
        "cd /work; while :; do ln -sfn {folder} way; ln -sfn /proc/1/root{folder} way; ln -sfn ../../../../../../..{folder} way; ln -sfn a way; rm way; ln -s /work/a way; done"
    );
    let body = json!({"Cmd": ["sh", "-c", swap]});
    let exec = daemon.client().post(&format!("/containers/{}/exec", caller.id), body).await.json()["Id"].clone();
    let begun = daemon.client().post(&format!("/exec/{}/start", exec.as_str().unwrap()), json!({"Detach": true})).await;
    assert_eq!(begun.status, 200);
    let mut seen = 0;
    let deadline = Instant::now() + Duration::from_secs(120);
    for round in 0.. {
        if round >= 30 && (seen > 0 || Instant::now() > deadline) {
            break;
        }
        // Not one of `Binds`, which would put a folder in the link's place.
        let mount = json!({"Mounts": [{"Type": "bind", "Source": "/work/way", "Target": "/s"}]});
        let made = caller.create("victim", "cat /s/secret", mount).await;
        if made.status != 201 {
            assert_eq!(made.status, 400, "{made:?}");
            continue;
        }
        let started = daemon.client().post("/containers/victim/start", Value::Null).await;
        if started.status == 204 {
            daemon.exit_code("victim").await;
            let output = daemon.output("victim").await;
            assert!(!output.contains("of the machine"), "{output}");
            seen += usize::from(output == "a\n" || output == "own\n");
        } else {
            assert!([400, 500].contains(&started.status), "{}: {}", started.status, started.message());
        }
        daemon.remove("victim").await;
    }
    assert!(seen > 0, "the way led somewhere now and then");
    none_is_held(&daemon).await;
}

#[tokio::test]
async fn one_that_sees_other_files_than_its_container_is_refused() {
    let daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &["/usr/sbin:/usr/sbin:ro"], json!({"Privileged": true})).await;
    let body = json!({"Image": "box", "Cmd": ["true"], "HostConfig": {"Binds": ["/work:/s"], "NetworkMode": "none"}})
        .to_string();
    let ask = "/usr/bin/curl --silent --unix-socket /sock/docker.sock --header content-type:application/json";
    let words = "sees other files than that";
    for (way, what) in [
        ("mounts of its own", "/usr/bin/unshare --mount"),
        ("mounts and processes of its own", "/usr/bin/unshare --mount --pid --fork"),
        ("a root of its own", "/usr/sbin/chroot /deep"),
    ] {
        let deep = "mkdir -p /deep && for at in usr/bin usr/lib lib lib64 sock; do mkdir -p /deep/$at; done; \
                    mount -o bind /usr/bin /deep/usr/bin; mount -o bind /usr/lib /deep/usr/lib; mount -o bind /usr/lib /deep/lib; \
                    mount -o bind /lib64 /deep/lib64; mount -o rbind /sock /deep/sock";
        caller.shell(&format!("test -d /deep || {{ {deep}; }}")).await;
        let answer = caller.shell(&format!("{what} {ask} --data '{body}' http://d/containers/create")).await;
        assert!(answer.contains(words), "{way}: {answer}");
    }
    none_is_held(&daemon).await;
}

#[tokio::test]
async fn one_in_the_processes_of_the_machine_is_in_its_container_all_the_same() {
    let daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &[], json!({"PidMode": "host", "Privileged": true})).await;
    caller.shell("echo mine > /work/file").await;
    assert_eq!(caller.see("/work:/s", "cat /s/file").await, "mine\n");
    let body = json!({"Image": "box", "Cmd": ["true"], "HostConfig": {"Binds": ["/work:/s"], "NetworkMode": "none"}})
        .to_string();
    let ask = "/usr/bin/curl --silent --unix-socket /sock/docker.sock --header content-type:application/json";
    let answer =
        caller.shell(&format!("/usr/bin/unshare --mount {ask} --data '{body}' http://d/containers/create")).await;
    assert!(answer.contains("sees other files than that"), "{answer}");
}

/// A process connects, gives the connection to another and ends: who asks is no longer known, and is not taken for somebody on
/// the machine.
#[tokio::test]
async fn connection_of_one_that_has_ended_names_no_paths() {
    let daemon = Daemon::with_box().await;
    let caller = Caller::start(&daemon, "caller", &[], json!({})).await;
    let body = json!({"Image": "box", "Cmd": ["true"], "HostConfig": {"Binds": ["/work:/s"], "NetworkMode": "none"}})
        .to_string();
    let request = format!(
        "POST /containers/create HTTP/1.1\\r\\nHost: d\\r\\nConnection: close\\r\\nContent-Type: application/json\\r\\n\
         Content-Length: {}\\r\\n\\r\\n{body}",
        body.len()
    );
    let program = format!(
        "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un('/sock/docker.sock')) or die; \
         if (fork()) {{ exit 0 }} while (getppid() != 1 && getppid() != 0) {{ select(undef, undef, undef, 0.01) }} \
         syswrite(S, \"{}\"); print while <S>;",
        request.replace('"', "\\\"").replace('$', "\\$").replace('@', "\\@")
    );
    let (_, answer) = daemon.exec(&caller.id, &["/usr/bin/perl", "-e", &program]).await;
    assert!(answer.contains("the process that asks has ended"), "{answer}");
}
