//! Daemons that are killed while execs begin.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::remains;
use crate::support::daemon::Daemon;

/// Execs that begin at once.
const EXECS: usize = 4;

/// A shim whose exec waits for its pipes would hold the API up for half a minute.
const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_daemon_that_died_during_execs_is_back_soon() {
    is_back_soon(Daemon::with_box().await).await;
}

#[tokio::test]
async fn so_it_is_where_containerd_outlives_it() {
    let daemon = Daemon::on_outer_containerd().await;
    daemon.import_box().await;
    is_back_soon(daemon).await;
}

async fn is_back_soon(mut daemon: Daemon) {
    for round in 0..3 {
        let name = format!("busy{round}");
        let id = daemon.create(&name, "sleep 1000", Value::Null).await;
        daemon.launch(&id).await;
        let mut running = Vec::new();
        for _ in 0..EXECS {
            let (client, id) = (daemon.client().clone(), id.clone());
            running.push(tokio::spawn(async move {
                loop {
                    let body = json!({"Cmd": ["true"], "AttachStdout": true, "AttachStderr": true});
                    let answer = client.post(&format!("/containers/{id}/exec"), body).await;
                    let exec = answer.json()["Id"].as_str().expect("an id").to_owned();
                    client.post(&format!("/exec/{exec}/start"), json!({"Detach": true})).await;
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(300 + 40 * round)).await;
        daemon.kill();
        // Their client meets a dead daemon.
        for task in running {
            task.abort();
            let _aborted = task.await;
        }
        let started = Instant::now();
        daemon.restart().await;
        let took = started.elapsed();
        assert!(took < LIMIT, "the API was away for {took:?}\n{}", daemon.log());
        let state = daemon.inspect(&id).await["State"].clone();
        assert_eq!(state["Running"], json!(false), "{state}");
        daemon.remove(&id).await;
    }
    remains::gone(&daemon).await;
}
