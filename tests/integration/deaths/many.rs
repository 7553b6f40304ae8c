//! A daemon that died with many containers, and is asked at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;

/// `RINGER_TEST_RUSH` multiplies it.
const CONTAINERS: usize = 24;

/// 200 containers took 2.6 and 4.0 s on two cores with loads of 15 and 21.
const LIMIT: Duration = Duration::from_secs(10);

const SETTLED: Duration = Duration::from_secs(120);

fn containers() -> usize {
    let factor = std::env::var("RINGER_TEST_RUSH").ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    CONTAINERS * factor.max(1)
}

#[tokio::test]
async fn a_daemon_with_many_containers_answers_soon_and_truly() {
    let mut daemon = Daemon::with_box().await;
    let mut ids = Vec::new();
    for n in 0..containers() {
        let policy = if n % 2 == 0 { "always" } else { "no" };
        let extra = json!({"HostConfig": {"RestartPolicy": {"Name": policy}}});
        let id = daemon.create(&format!("box{n}"), "sleep 1000", extra).await;
        daemon.launch(&id).await;
        ids.push(id);
    }
    daemon.kill();
    let started = Instant::now();
    daemon.restart().await;
    let took = started.elapsed();
    eprintln!("the API of {} containers answered after {took:?}", ids.len());
    assert!(took < LIMIT, "{took:?}\n{}", daemon.log());
    // Nothing is said to run that does not; what starts again counts as running from the beginning.
    for (n, id) in ids.iter().enumerate() {
        let state = daemon.inspect(id).await["State"].clone();
        let pid = state["Pid"].as_i64().unwrap_or(0);
        assert!(pid == 0 || std::path::Path::new(&format!("/proc/{pid}")).exists(), "{state}");
        let status = state["Status"].as_str().unwrap_or_default();
        match n % 2 {
            0 => assert!(["restarting", "running"].contains(&status), "{state}"),
            _ => assert_eq!((status, &state["ExitCode"]), ("exited", &json!(255)), "{state}"),
        }
    }
    // A client's word counts also before the policy's turn.
    let last = (ids.len() - 1) / 2 * 2;
    let answer = daemon.client().post(&format!("/containers/{}/stop?t=0", ids[last]), Value::Null).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let deadline = Instant::now() + SETTLED;
    loop {
        let mut running = 0;
        for id in &ids {
            running += usize::from(daemon.inspect(id).await["State"]["Status"] == json!("running"));
        }
        if running == ids.len().div_ceil(2) - 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{running} run\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(daemon.inspect(&ids[last]).await["State"]["Status"], json!("exited"));
}
