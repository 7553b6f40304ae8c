//! Files of a container that the daemon reads: as large as the container likes.

use serde_json::json;

use crate::fort::Fort;

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
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let sizes = daemon.exec(&id, &["ls", "-l", "/etc/hosts", "/etc/passwd", "/etc/group"]).await;
        if sizes.1.matches("735051776").count() == 3 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the files are written: {sizes:?} {}", daemon.output(&id).await);
    }
    let log = fort.log_length();
    let answer = daemon.client().post("/networks/other/connect", json!({"Container": id})).await;
    assert!(answer.text().contains("larger than 4 MiB"), "{} {}", answer.status, answer.text());
    fort.stands("hosts", log).await;
    let inspect = daemon.inspect(&id).await;
    assert!(inspect["NetworkSettings"]["Networks"].get("other").is_none(), "what failed is undone");
    let exec =
        daemon.client().post(&format!("/containers/{id}/exec"), json!({"Cmd": ["true"], "User": "nobody:any"})).await;
    assert_eq!(exec.status, 201, "{}", exec.text());
    let exec = exec.json()["Id"].as_str().unwrap().to_owned();
    let answer = daemon.client().post(&format!("/exec/{exec}/start"), json!({"Detach": true})).await;
    assert!(answer.text().contains("no matching entries in passwd file"), "{} {}", answer.status, answer.text());
    fort.stands("passwd", log).await;
    daemon.remove("large").await;
    fort.runs_a_container().await;
}
