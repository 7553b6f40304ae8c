//! Jobs: a socket each, equal names, and nothing left of one that has ended, however it ended.

mod acts;
mod builds;
mod caches;
mod cli;
mod deaths;
mod disk;
mod fetches;
mod limits;
mod noise;
mod overview;
pub mod page;
mod policies;
mod quota;
pub mod remains;
mod shared_network;
mod soak;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::daemon::{Daemon, http::Client};

/// For what a daemon does behind the back of its clients.
const LIMIT: Duration = Duration::from_secs(60);

/// What a single wait for a process that does not hear TERM would take: a job with ten containers is removed before.
const REMOVAL: Duration = Duration::from_secs(10);

/// A job of a test's daemon.
pub struct Job {
    /// What the admin API said when it was made.
    pub answer: Value,
    /// Its socket.
    pub client: Client,
}

impl Job {
    /// Makes one with flags of `ringer job create`.
    pub fn create(daemon: &Daemon, flags: &[&str]) -> Self {
        let output = daemon.ringer(&[&["job", "create"], flags].concat()).output().expect("ringer runs");
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), daemon.log());
        let answer: Value = serde_json::from_slice(&output.stdout).expect("a job as JSON");
        let client = Client::new(answer["socket"].as_str().expect("a socket").into());
        Self { answer, client }
    }

    /// The same, with the box image.
    pub async fn with_box(daemon: &Daemon, flags: &[&str]) -> Self {
        let job = Self::create(daemon, flags);
        job.client.import_box().await;
        job
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.answer["id"].as_str().expect("an id")
    }

    /// `DOCKER_HOST` for its clients.
    pub fn host(&self) -> String {
        self.answer["docker_host"].as_str().expect("an address").to_owned()
    }

    /// The network namespace of its host.
    pub fn namespace(&self, daemon: &Daemon) -> PathBuf {
        daemon.folder().join("run/hosts").join(self.id()).join("host")
    }

    /// Removes it and gives what ringer printed.
    pub fn remove(&self, daemon: &Daemon) -> String {
        let output = daemon.ringer(&["job", "rm", self.id()]).output().expect("ringer runs");
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), daemon.log());
        String::from_utf8(output.stdout).expect("text")
    }

    /// A container of every kind of thing that a job can have: a network, a volume, a published port, a health check, an exec.
    pub async fn fill(&self) {
        let client = &self.client;
        let network = client.post("/networks/create", serde_json::json!({"Name": "ci"})).await;
        assert_eq!(network.status, 201, "{}", network.text());
        let volume = client.post("/volumes/create", serde_json::json!({"Name": "cache"})).await;
        assert_eq!(volume.status, 201, "{}", volume.text());
        let web = serde_json::json!({
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {
                "NetworkMode": "ci",
                "Binds": ["cache:/cache"],
                "PortBindings": {"80/tcp": [{"HostPort": "5432"}]},
                "RestartPolicy": {"Name": "always"},
            },
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
        });
        let id =
            client.create("web", "dd if=/dev/zero of=/big bs=1024 count=512; echo x >/cache/x; sleep 1000", web).await;
        client.launch(&id).await;
        let (code, _) = client.exec("web", &["sh", "-c", "sleep 1000 & echo up"]).await;
        assert_eq!(code, 0);
        client.create("stopped", "true", serde_json::json!({})).await;
    }
}

/// Waits until these jobs are there, by their names, and no others.
pub async fn until_only(daemon: &Daemon, wanted: &[&str]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let output = daemon.ringer(&["job", "ls", "--json"]).output().expect("ringer runs");
        let listed: Value = serde_json::from_slice(&output.stdout).expect("jobs as JSON");
        let names: Vec<_> = listed.as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect();
        if names == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{names:?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Two jobs see nothing of each other, may use the same names and ports, and go one by one.
#[tokio::test]
async fn two_jobs_with_the_same_names_live_side_by_side() {
    let daemon = Daemon::with_box().await;
    let (first, second) = (Job::with_box(&daemon, &["--name", "first"]).await, Job::with_box(&daemon, &[]).await);
    first.fill().await;
    second.fill().await;
    daemon.create("web", "sleep 1000", serde_json::json!({})).await;

    let ids = |answer: Value| -> Vec<String> {
        answer.as_array().unwrap().iter().map(|one| one["Id"].as_str().unwrap().to_owned()).collect()
    };
    let of_first = ids(first.client.get("/containers/json?all=1").await.json());
    let of_second = ids(second.client.get("/containers/json?all=1").await.json());
    assert_eq!((of_first.len(), of_second.len()), (2, 2));
    assert_eq!(daemon.get("/containers/json?all=1").await.json().as_array().unwrap().len(), 1);
    for foreign in of_first.iter().chain([&of_first[0][..12].to_owned(), &of_first[0][..5].to_owned()]) {
        for (method, path) in [("GET", "json"), ("POST", "start"), ("POST", "kill"), ("GET", "logs?stdout=1")] {
            let path = format!("/containers/{foreign}/{path}");
            let answer = second.client.send(method.parse().unwrap(), &path, None).await;
            let said = answer.message();
            assert!(answer.status == 404 && said.ends_with(&format!("No such container: {foreign}")), "{path}: {said}");
        }
    }
    let info = second.client.get("/info").await.json();
    assert_eq!((&info["Containers"], &info["Images"]), (&serde_json::json!(2), &serde_json::json!(1)));

    let told = first.remove(&daemon);
    assert!(told.contains("removed 2 containers, 1 network, 1 volume, 1 image, "), "{told}");
    assert_eq!(second.client.inspect("web").await["State"]["Running"], true);
    assert!(second.client.get("/images/box/json").await.status == 200);
    remains::gone_of(&daemon, first.id()).await;
    // Nothing waits for a job of ten that run to end, though no first process of a container hears TERM that does not listen for it.
    for number in 2..=10 {
        let id = second.client.create(&format!("more{number}"), "exec sleep 1000", serde_json::json!({})).await;
        second.client.launch(&id).await;
    }
    let begun = Instant::now();
    let told = second.remove(&daemon);
    let taken = begun.elapsed();
    assert!(told.contains("removed 11 containers, 1 network, 1 volume, 1 image, "), "{told}");
    assert!(taken < REMOVAL, "{taken:?}\n{}", daemon.log());
    println!("a job of ten containers was removed in {taken:.1?}");
    remains::gone_of(&daemon, second.id()).await;
    daemon.remove("web").await;
    crate::deaths::remains_gone(&daemon).await;
}
