//! What somebody with a job's socket tries against another job. Each row first succeeds for the other job itself.

use http::Method;
use serde_json::{Value, json};

use crate::{
    jobs::Job,
    support::daemon::{Daemon, http::Client},
};

/// The owner's container `web` on its network `ci` serves a page and has a name.
async fn owner(daemon: &Daemon) -> (Job, String, String) {
    let job = Job::with_box(daemon, &["--name", "owner"]).await;
    let network = job.client.post("/networks/create", json!({"Name": "ci"})).await.json();
    let serve = "while true; do echo page | nc -l -p 80; done";
    let id = job.client.create("web", serve, json!({"HostConfig": {"NetworkMode": "ci"}})).await;
    job.client.launch(&id).await;
    (job, id, network["Id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_another_job_has_is_neither_named_nor_entered() {
    let daemon = Daemon::start().await;
    let (owner, id, network) = owner(&daemon).await;
    let stranger = Job::with_box(&daemon, &["--name", "stranger"]).await;
    let create = |host_config: Value| json!({"Image": "box", "Cmd": ["true"], "HostConfig": host_config});
    let exec = owner.client.post("/containers/web/exec", json!({"Cmd": ["true"]})).await.json();
    let exec = exec["Id"].as_str().unwrap();
    let short = &id[..12];
    let rows = [
        (Method::GET, format!("/containers/{id}/json"), Value::Null),
        (Method::GET, format!("/containers/{short}/logs?stdout=1"), Value::Null),
        (Method::GET, format!("/containers/{}/top", &id[..4]), Value::Null),
        (Method::GET, format!("/containers/{id}/archive?path=/data/seed"), Value::Null),
        (Method::GET, format!("/exec/{exec}/json"), Value::Null),
        (Method::POST, format!("/containers/{short}/exec"), json!({"Cmd": ["true"]})),
        (Method::POST, format!("/exec/{exec}/start"), json!({"Detach": true})),
        (Method::GET, format!("/networks/{network}"), Value::Null),
        (Method::GET, format!("/networks/{}", &network[..12]), Value::Null),
        (Method::POST, "/containers/create".to_owned(), create(json!({"PidMode": format!("container:{id}")}))),
        (Method::POST, "/containers/create".to_owned(), create(json!({"VolumesFrom": [id]}))),
    ];
    for (method, path, body) in rows {
        let ask = async |client: &Client| {
            client.send(method.clone(), &path, Some(body.clone()).filter(|body| !body.is_null())).await
        };
        let own = ask(&owner.client).await;
        assert!((200..300).contains(&own.status), "{method} {path} {body} must succeed for its owner: {}", own.text());
        let foreign = ask(&stranger.client).await;
        assert!([400, 404].contains(&foreign.status), "{method} {path} {body}: {} {}", foreign.status, foreign.text());
        assert!(
            foreign.message().to_lowercase().contains("no such") || foreign.message().contains("not found"),
            "{}",
            foreign.text()
        );
    }
    // Whose network is to be entered is found out at the start, as by dockerd.
    for mode in [network, format!("container:{short}")] {
        let inside = json!({"HostConfig": {"NetworkMode": mode}});
        let own = owner.client.create("inside", "true", inside.clone()).await;
        owner.client.launch(&own).await;
        owner.client.remove(&own).await;
        let made = stranger.client.try_create("inside", "true", inside).await;
        let refused = match made.status {
            201 => stranger.client.post("/containers/inside/start", Value::Null).await,
            _ => made.clone(),
        };
        let said = refused.message().to_lowercase();
        assert!(refused.status >= 400 && (said.contains("not found") || said.contains("no such")), "{mode}: {said}");
        if made.status == 201 {
            stranger.client.remove("inside").await;
        }
    }
    for job in [&owner, &stranger] {
        job.remove(&daemon);
    }
}

#[tokio::test]
async fn names_ports_and_events_of_another_job_are_its_own() {
    let daemon = Daemon::start().await;
    let (owner, id, _) = owner(&daemon).await;
    let stranger = Job::with_box(&daemon, &["--name", "stranger"]).await;
    // One of the same name, so that only the name of the container is missing.
    assert_eq!(stranger.client.post("/networks/create", json!({"Name": "ci"})).await.status, 201);
    let address = owner.client.inspect("web").await["NetworkSettings"]["Networks"]["ci"]["IPAddress"].clone();
    let address = address.as_str().unwrap();
    let on_ci = json!({"HostConfig": {"NetworkMode": "ci"}});
    for (what, script) in [
        ("name", "nslookup web >/dev/null 2>&1 && echo reached".to_owned()),
        ("short id", format!("nslookup {} >/dev/null 2>&1 && echo reached", &id[..12])),
        (
            "port",
            format!(
                "for n in 1 2 3; do test -n \"$(nc -w 1 {address} 80 </dev/null)\" && echo reached && exit; done 2>/dev/null"
            ),
        ),
    ] {
        let (_, own) = owner.client.run("probe", &script, on_ci.clone()).await;
        assert_eq!(own, "reached\n", "{what} must be reached by its owner");
        owner.client.remove("probe").await;
        let (_, foreign) = stranger.client.run("probe", &script, on_ci.clone()).await;
        assert_eq!(foreign, "", "{what}");
        stranger.client.remove("probe").await;
    }
    // The past, and a second of what comes.
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let path = format!("/events?since=1&until={until}");
    let act = async { drop(owner.client.post("/volumes/create", json!({"Name": "told"})).await) };
    let (heard, overheard, ()) = tokio::join!(owner.client.get(&path), stranger.client.get(&path), act);
    assert!(heard.text().contains(&id) && heard.text().contains("told"), "{}", heard.text());
    assert!(!overheard.text().contains(&id) && !overheard.text().contains("told"), "{}", overheard.text());
    for job in [&owner, &stranger] {
        job.remove(&daemon);
    }
}

/// A network more, also one with the addresses of somebody else's, leads to nobody else; the owner's container gets there by one.
#[tokio::test]
async fn a_second_network_leads_to_nobody_else() {
    let daemon = Daemon::start().await;
    let (owner, _, network) = owner(&daemon).await;
    let stranger = Job::with_box(&daemon, &["--name", "stranger"]).await;
    let subnet = owner.client.get(&format!("/networks/{network}")).await.json()["IPAM"]["Config"][0]["Subnet"].clone();
    let address = owner.client.inspect("web").await["NetworkSettings"]["Networks"]["ci"]["IPAddress"].clone();
    let address = address.as_str().unwrap();
    let same = json!({"Name": "same", "IPAM": {"Config": [{"Subnet": subnet}]}});
    assert_eq!(stranger.client.post("/networks/create", same).await.status, 201);
    let reach = format!(
        "for n in 1 2 3; do test -n \"$(nc -w 1 {address} 80 </dev/null)\" && echo reached && exit; done 2>/dev/null"
    );
    for (job, second, expected) in [(&owner, "ci", "reached\n"), (&stranger, "same", "")] {
        let id = job.client.create("probe", &reach, json!({"HostConfig": {"NetworkMode": "bridge"}})).await;
        let joined = job.client.post(&format!("/networks/{second}/connect"), json!({"Container": id})).await;
        assert_eq!(joined.status, 200, "{}", joined.text());
        job.client.launch(&id).await;
        job.client.exit_code(&id).await;
        assert_eq!(job.client.output(&id).await, expected, "{second}");
        job.client.remove(&id).await;
    }
    // By its id it is not there, and the second one is judged as the first.
    let id = stranger.client.create("joins", "sleep 1000", json!({"HostConfig": {"NetworkMode": "bridge"}})).await;
    let foreign = stranger.client.post(&format!("/networks/{network}/connect"), json!({"Container": id})).await;
    assert_eq!(foreign.status, 404, "{}", foreign.text());
    let named = json!({"com.docker.network.bridge.name": "mine0"});
    let joins = json!({"Container": id, "EndpointConfig": {"DriverOpts": named}});
    super::refused(&stranger.client, "network-options", "/networks/same/connect", joins).await;
    for job in [&owner, &stranger] {
        job.remove(&daemon);
    }
}

/// The admin socket is a file that only a bind of the machine's would show, and none of its calls is one of a job's socket.
#[tokio::test]
async fn the_admin_socket_is_not_seen_from_inside() {
    let field = super::Field::new().await;
    let run = field.daemon.folder().join("run").display().to_string();
    let bind = json!({"Binds": [format!("{run}:/m")]});
    field.check(super::attack("binds", bind, "test -S /m/admin.sock && echo there", "there")).await;
    let own = json!({"HostConfig": {"Binds": ["/var/run/docker.sock:/var/run/docker.sock"]}});
    let (_, output) = field.walled.client.run("look", "ls /var/run /run", own).await;
    assert!(output.contains("docker.sock") && !output.contains("admin.sock"), "{output}");
    let admin = Client::new(field.daemon.folder().join("run/admin.sock"));
    for (method, path, body) in [
        (Method::GET, "/jobs".to_owned(), None),
        (Method::GET, format!("/jobs/{}", field.walled.id()), None),
        (Method::GET, "/metrics".to_owned(), None),
        (Method::POST, format!("/jobs/{}/extend", field.walled.id()), Some(json!({"ttl": 60}))),
    ] {
        let allowed = admin.send(method.clone(), &path, body.clone()).await.status;
        assert_ne!(allowed, 404, "{path} must be a call of the admin socket");
        assert_eq!(field.walled.client.send(method, &path, body).await.status, 404, "{path}");
    }
    field.end().await;
}
