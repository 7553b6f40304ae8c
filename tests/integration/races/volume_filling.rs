//! Containers that begin at once on a volume that is new: one fills it, the others find it filled.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::support::daemon::Daemon;

/// Files that the image has at the volume's place: enough to be met in the middle.
const FILES: usize = 1000;

/// Containers that begin at once.
const CONTAINERS: usize = 6;

/// Volumes that are filled, if `RINGER_TEST_RUSH` does not say for how many seconds.
const ROUNDS: usize = 2;

/// An image with many files in a folder.
async fn import_files(daemon: &Daemon) {
    let mut tar = tar::Builder::new(Vec::new());
    for number in 0..FILES {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(1);
        tar.append_data(&mut header, format!("many/sub/{number}"), &b"x"[..]).unwrap();
    }
    let busybox = std::fs::read("/bin/busybox").expect("Debian's busybox-static is installed");
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    tar.append_data(&mut header, "bin/sh", busybox.as_slice()).unwrap();
    let request = Request::post("/images/create?fromSrc=-&repo=many&tag=latest")
        .header("content-type", "application/x-tar")
        .body(Full::from(Bytes::from(tar.into_inner().unwrap())))
        .unwrap();
    let answer = daemon.client().whole(request).await;
    assert!(answer.status == 200 && !answer.text().contains("errorDetail"), "{}", answer.text());
}

#[tokio::test]
async fn new_volume_is_filled_once_for_all_who_begin_with_it() {
    let daemon = Daemon::start().await;
    import_files(&daemon).await;
    let seconds = std::env::var("RINGER_TEST_RUSH").ok().and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut round = 0;
    while end.map_or(round < ROUNDS, |end| Instant::now() < end) {
        // Two volumes, which every second container names the other way round.
        let volumes = |n: usize| match n % 2 {
            0 => json!([format!("one{round}:/many"), format!("two{round}:/many/sub")]),
            _ => json!([format!("two{round}:/many/sub"), format!("one{round}:/many")]),
        };
        let made = join_all((0..CONTAINERS).map(|n| {
            let extra = json!({"Image": "many", "HostConfig": {"Binds": volumes(n)}});
            let daemon = &daemon;
            async move { daemon.try_create(&format!("r{round}-{n}"), "set -- /many/sub/*; echo $#", extra).await }
        }))
        .await;
        for answer in &made {
            assert_eq!(answer.status, 201, "round {round}: {}", answer.text());
        }
        let id = made[CONTAINERS - 1].json()["Id"].as_str().unwrap().to_owned();
        daemon.launch(&id).await;
        assert_eq!(daemon.exit_code(&id).await, 0, "{}", daemon.output(&id).await);
        assert_eq!(daemon.output(&id).await, format!("{FILES}\n"));
        for answer in made {
            daemon.remove(answer.json()["Id"].as_str().unwrap()).await;
        }
        round += 1;
    }
}
