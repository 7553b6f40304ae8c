//! Files of a container that the daemon reads: as large as the container likes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bombs::fort::Fort;

#[tokio::test]
async fn large_files_of_a_container_are_not_read_whole() {
    let fort = Fort::build().await;
    let daemon = fort.daemon();
    let extra = json!({"HostConfig": {"NetworkMode": "bridge"}});
    // Sparse: 700 MiB, of which a MiB is written.
    let large = |path: &str| format!("dd if=/dev/zero of={path} bs=1048576 seek=700 count=1");
    let script = format!("{}; {}; {}; sleep 600", large("/etc/hosts"), large("/etc/passwd"), large("/etc/group"));
    let id = daemon.create("large", &script, extra).await;
    daemon.launch(&id).await;
    let network = daemon.client().post("/networks/create", json!({"Name": "other"})).await;
    assert_eq!(network.status, 201, "{}", network.text());
    // Nothing runs in there any more: the runtime reads its passwd too.
    let deadline = Instant::now() + Duration::from_secs(60);
    while daemon.output(&id).await.matches("1+0 records out").count() < 3 {
        assert!(Instant::now() < deadline, "the files are written: {}", daemon.output(&id).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = fort.log_length();
    let answer = daemon.client().post("/networks/other/connect", json!({"Container": id})).await;
    assert!(answer.text().contains("larger than 1 MiB"), "{} {}", answer.status, answer.text());
    fort.stands("hosts", log).await;
    let inspect = daemon.inspect(&id).await;
    assert!(inspect["NetworkSettings"]["Networks"].get("other").is_none(), "what failed is undone");
    let exec =
        daemon.client().post(&format!("/containers/{id}/exec"), json!({"Cmd": ["true"], "User": "nobody:any"})).await;
    assert!(exec.text().contains("no matching entries in passwd file"), "{} {}", exec.status, exec.text());
    fort.stands("passwd", log).await;
    daemon.remove("large").await;
    fort.runs_a_container().await;
}
