//! What an image or a path says: neither brings more than a request may.

use std::path::Path;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{Field, SECRET};
use crate::support::{boxes, daemon::http::Client, images::wait_until};

/// The box with these instructions.
async fn import(client: &Client, name: &str, changes: &[&str]) {
    let changes: String = changes
        .iter()
        .map(|change| {
            format!("&changes={}", serde_urlencoded::to_string([("", change)]).unwrap().trim_start_matches('='))
        })
        .collect();
    let request = Request::post(format!("/images/create?fromSrc=-&repo={name}{changes}"));
    let answer = client.whole(request.body(Full::from(boxes::rootfs())).unwrap()).await;
    assert!(answer.status == 200 && !answer.text().contains("errorDetail"), "{}", answer.text());
}

async fn build(client: &Client, query: &str, file: &str) -> String {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(file.len() as u64);
    tar.append_data(&mut header, "Dockerfile", file.as_bytes()).unwrap();
    let request = Request::post(format!("/build?networkmode=none{query}")).header("content-type", "application/x-tar");
    client.whole(request.body(Full::from(tar.into_inner().unwrap())).unwrap()).await.text()
}

/// `VOLUME`, `HEALTHCHECK` and `ONBUILD` do what the container that they are of may do.
#[tokio::test]
async fn images_bring_no_more_than_requests_may() {
    let field = Field::new().await;
    let machine = field.machine().to_owned();
    let volume = format!("VOLUME {machine}");
    let health = "HEALTHCHECK --interval=100ms CMD mkdir -p /m && mount -t tmpfs x /m";
    let onbuild = "ONBUILD RUN mkdir -p /m && mount -t tmpfs x /m";
    for job in [&field.naive, &field.walled] {
        import(&job.client, "evil", &[&volume, health, onbuild]).await;
    }
    let look = format!("cat {machine}/secret; echo; sleep 1000");
    let naive = json!({"Image": "evil", "HostConfig": {"Binds": [format!("{machine}:{machine}")], "Privileged": true}});
    for (job, extra) in [(&field.naive, naive), (&field.walled, json!({"Image": "evil"}))] {
        let id = job.client.create("evil", &look, extra).await;
        job.client.launch(&id).await;
        let health = async || job.client.inspect(&id).await["State"]["Health"].clone();
        wait_until(async || health().await["Log"].as_array().is_some_and(|log| !log.is_empty())).await;
        let first = health().await["Log"][0].clone();
        wait_until(async || job.client.output(&id).await.ends_with('\n')).await;
        let output = job.client.output(&id).await;
        if job.id() == field.naive.id() {
            assert!(output.contains(SECRET) && first["ExitCode"] == 0, "must succeed without a wall: {output} {first}");
        } else {
            assert!(!output.contains(SECRET) && first["ExitCode"] != 0, "{output} {first}");
            let mounts = job.client.inspect(&id).await["Mounts"].clone();
            assert_eq!((&mounts[0]["Type"], &mounts[1]), (&json!("volume"), &Value::Null), "{mounts}");
        }
    }
    // A step is never privileged, whoever builds.
    let built = build(&field.walled.client, "", "FROM evil\n").await;
    assert!(built.contains("returned a non-zero code"), "{built}");
    // An image of another job is none, by a trigger too.
    import(&field.naive.client, "private", &[]).await;
    for (job, found) in [(&field.naive, true), (&field.walled, false)] {
        import(&job.client, "copier", &["ONBUILD COPY --from=private /data/seed /loot"]).await;
        let built = build(&job.client, "", "FROM copier\n").await;
        assert_eq!(built.contains("Successfully built"), found, "{built}");
    }
    field.end().await;
}

/// `..`, links and the magic ones of `/proc` in every field that is a path.
#[tokio::test]
async fn no_path_leads_out_of_a_container() {
    let field = Field::new().await;
    let machine = field.machine().to_owned();
    let secret = format!("{machine}/secret");
    let naive = json!({"HostConfig": {"Binds": ["/:/m"]}});
    let id = field.naive.client.create("naive", "sleep 1000", naive).await;
    field.naive.client.launch(&id).await;
    let answer = field.naive.client.get(&format!("/containers/naive/archive?path=/m{secret}")).await;
    assert!(answer.status == 200 && answer.text().contains(SECRET), "must succeed without a wall: {}", answer.status);

    let client = &field.walled.client;
    let script = "ln -s ../../../../../../.. /up; ln -s / /root; ln -s /proc/1/root /magic; ln -s /proc/self/cwd /cwd; echo ready; sleep 1000";
    let id = client.create("jail", script, json!({})).await;
    client.launch(&id).await;
    wait_until(async || client.output(&id).await == "ready\n").await;
    let up = "/..".repeat(12);
    for way in [
        "",
        &up,
        "/up",
        "/root",
        "/magic",
        "/cwd",
        "/proc/1/root",
        "/proc/self/root",
        "/proc/thread-self/cwd",
        "/tmp/../..",
    ] {
        let answer = client.get(&format!("/containers/jail/archive?path={way}{secret}")).await;
        assert!(!answer.text().contains(SECRET) && answer.status >= 400, "{way}: {}", answer.status);
        let put = Request::put(format!("/containers/jail/archive?path={way}{machine}"));
        let put = client.whole(put.body(Full::from(boxes::rootfs())).unwrap()).await;
        assert!(put.status >= 400, "{way}: {}", put.status);
    }
    for n in 0..10 {
        let magic = client.get(&format!("/containers/jail/archive?path=/proc/self/fd/{n}/..{secret}")).await;
        assert!(magic.status >= 400 && !magic.text().contains(SECRET));
    }
    let see = format!("cat .{secret} /x{secret} {secret} 2>/dev/null; echo looked");
    for (what, extra) in [
        ("WorkingDir", json!({"WorkingDir": up})),
        ("the target of a bind", json!({"HostConfig": {"Binds": [format!("v:/x{up}/y")]}})),
        ("Tmpfs", json!({"HostConfig": {"Tmpfs": {format!("/x{up}/z"): ""}}})),
        ("a volume's name", json!({"HostConfig": {"Binds": [format!("..{up}{machine}:/x")]}})),
        (
            "Subpath",
            json!({"HostConfig": {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": format!("..{up}")}}]}}),
        ),
        ("User", json!({"User": format!("..{up}{secret}")})),
        ("CgroupParent", json!({"HostConfig": {"CgroupParent": up}})),
    ] {
        let made = client.try_create("path", &see, extra).await;
        if made.status != 201 {
            assert!((400..500).contains(&made.status), "{what}: {}", made.text());
            continue;
        }
        let started = client.post("/containers/path/start", Value::Null).await;
        if started.status == 204 {
            client.exit_code("path").await;
            assert_eq!(client.output("path").await, "looked\n", "{what}");
        }
        client.remove("path").await;
    }
    for name in ["..", "../x", "a/../../x"] {
        let made = client.post("/volumes/create", json!({"Name": name})).await;
        assert_eq!(made.status, 400, "{name}: {}", made.text());
    }
    for path in [format!("../../../..{secret}"), secret.clone(), "/proc/self/environ".to_owned()] {
        let told = build(client, &format!("&dockerfile={path}"), "FROM box\n").await;
        assert!(!told.contains("Successfully") && !told.contains(SECRET), "{path}: {told}");
    }
    assert!(!Path::new(&machine).join("bin").exists());
    field.end().await;
}
