//! Daemons that are killed while containers start: nothing of these is left once the next one has settled.

use std::time::Duration;

use serde_json::{Value, json};

use super::remains;
use crate::support::daemon::Daemon;

/// Kills of one run; `RINGER_TEST_RUSH` multiplies them.
const KILLS: u64 = 6;

/// Containers that start at once.
const STARTS: usize = 3;

fn kills() -> u64 {
    let factor = std::env::var("RINGER_TEST_RUSH").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
    KILLS * factor.max(1)
}

async fn remove_all(daemon: &Daemon) {
    for container in daemon.client().get("/containers/json?all=1").await.json().as_array().expect("a list") {
        let id = container["Id"].as_str().expect("an id");
        let answer = daemon.client().delete(&format!("/containers/{id}?force=1&v=1")).await;
        assert!(matches!(answer.status, 204 | 404), "{}", answer.text());
    }
}

#[tokio::test]
async fn nothing_is_left_of_starts_that_a_death_interrupts() {
    nothing_is_left_of_starts(Daemon::with_box().await).await;
}

#[tokio::test]
async fn nor_is_it_where_containerd_goes_on_with_them() {
    let daemon = Daemon::on_outer_containerd().await;
    daemon.import_box().await;
    nothing_is_left_of_starts(daemon).await;
}

async fn nothing_is_left_of_starts(mut daemon: Daemon) {
    for round in 0..kills() {
        let mut starting = Vec::new();
        for n in 0..STARTS {
            let bridge = json!({"HostConfig": {"NetworkMode": "bridge"}});
            let id = daemon.create(&format!("box{n}"), "sleep 1000", bridge).await;
            let client = daemon.client().clone();
            starting
                .push(tokio::spawn(async move { client.post(&format!("/containers/{id}/start"), Value::Null).await }));
        }
        // Through all of a start, which takes 100 to 300 ms.
        tokio::time::sleep(Duration::from_millis(20 + (round * 67) % 400)).await;
        daemon.kill();
        for task in starting {
            task.abort();
            let _aborted = task.await;
        }
        daemon.restart().await;
        // Starts as if nothing had been, before all of it is taken away.
        daemon.launch("box0").await;
        assert_eq!(daemon.exec("box0", &["echo", "fine"]).await, (0, "fine\n".to_owned()), "round {round}");
        remove_all(&daemon).await;
        remains::gone(&daemon).await;
    }
}
