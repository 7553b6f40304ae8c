//! Clients in containers of a job, under the policy that jobs have: the socket is the job's, their files are their own.

use serde_json::{Value, json};

use super::client::{Caller, PROGRAMS};
use crate::{
    jobs::{Job, page::COMPOSE, remains},
    support::{daemon::Daemon, images::wait_until, part},
};

/// A job that lets its clients have what they need of the machine.
async fn job(daemon: &Daemon, more: &[&str]) -> Job {
    let folders: Vec<String> =
        ["/usr/lib", "/usr/lib64", "/usr/bin"].iter().map(|path| format!("--bind={path}:ro")).collect();
    let flags: Vec<&str> = folders.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Job::with_box(daemon, &flags).await
}

/// Names of the containers that somebody is shown.
fn names(listed: &Value) -> Vec<&str> {
    listed.as_array().unwrap().iter().map(|one| one["Names"][0].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_usual_name_is_the_jobs_socket_as_deep_as_it_is_handed_on_and_after_a_restart() {
    let mut daemon = Daemon::with_box().await;
    daemon.create("of-nobody", "true", json!({})).await;
    let job = job(&daemon, &[]).await;
    let own = job.answer["socket"].as_str().unwrap();
    // As a client on the machine writes it.
    let sockets = ["/var/run/docker.sock:/a", "/run/docker.sock:/b", "/var/run/../../run/./docker.sock:/c"];
    let sockets = sockets.map(str::to_owned).into_iter().chain([format!("{own}:/d")]);
    let binds: Vec<String> = PROGRAMS.map(str::to_owned).into_iter().chain(sockets).collect();
    let mount = json!({"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/e"});
    let list = "for at in /a /b /c /d /e; do curl --silent --unix-socket $at 'http://d/containers/json?all=1'; done";
    let host_config = json!({"HostConfig": {"Binds": binds, "Mounts": [mount]}});
    let (code, output) = job.client.run("see", &format!("PATH=/usr/bin:/bin; {list}"), host_config).await;
    let listed: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect(&output)).collect();
    assert_eq!((code, listed.len()), (0, 5), "{output}");
    assert!(listed.iter().all(|listed| names(listed) == ["/see"]), "{output}");
    job.client.remove("see").await;

    // As a client in a container writes it, and one that this one has started, and one that that one has.
    let again = json!({"RestartPolicy": {"Name": "always"}});
    let outer = Caller::start_by(&job.client, "/var/run/docker.sock", "outer", &[], again).await;
    let inner = outer.start_caller("inner", &[]).await;
    let third = inner.start_caller("third", &[]).await;
    let seen = third.ask("GET", "/containers/json", Value::Null).await.body;
    assert_eq!(names(&seen), ["/third", "/inner", "/outer"]);

    daemon.kill();
    daemon.restart().await;
    wait_until(async || job.client.inspect("outer").await["State"]["Status"] == "running").await;
    assert_eq!(outer.ask("GET", "/_ping", Value::Null).await.body, "OK");
    job.remove(&daemon);
    remains::gone_of(&daemon, job.id()).await;
}

#[tokio::test]
async fn what_a_client_in_a_container_sees_is_bound_by_compose_too() {
    let Some(compose) = part("RINGER_TEST_COMPOSE") else { return };
    let plugins = compose.join("usr/libexec/docker/cli-plugins").canonicalize().unwrap().display().to_string();
    let daemon = Daemon::start().await;
    let job = job(&daemon, &[&format!("--bind={plugins}:ro")]).await;
    let plugins = format!("{plugins}:/compose:ro");
    let caller = Caller::start_by(&job.client, "/var/run/docker.sock", "caller", &[&plugins], json!({})).await;
    caller.shell("echo mine > /work/file").await;
    assert_eq!(caller.see("/work:/s", "cat /s/file; echo back > /s/new").await, "mine\n");
    assert_eq!(caller.shell("cat /work/new").await, "back\n");
    assert_eq!(caller.see("/usr/bin:/s:rw", "touch /s/new 2>/dev/null || echo kept").await, "kept\n");
    let up = "HOME=/work DOCKER_HOST=unix:///sock/docker.sock /compose/docker-compose up --exit-code-from tests";
    let said = caller
        .shell(&format!(
            "mkdir -p /work/app; cd /work/app; echo '{}' > compose.yaml; {up} 2>&1",
            COMPOSE.replace('\'', "\"")
        ))
        .await;
    assert!(said.contains("command: cat /app/compose.yaml"), "{said}");
    job.remove(&daemon);
    remains::gone_of(&daemon, job.id()).await;
}
