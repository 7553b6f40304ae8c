//! What a job would write beyond its disk is refused where the file system can. That is so in the virtual machine of `scripts/quota`; other
//! machines may have no such file system.

use std::path::Path;

use ringer::{
    backend::projects::{Projects, Room, contract},
    model::job::ProjectId,
    rootfs::LinuxProjects,
};
use serde_json::{Value, json};

use super::{Job, cli, remains, until_only};
use crate::support::{daemon::Daemon, images::wait_until};

/// `EXT4_SUPER_MAGIC`.
const EXT4: rustix::fs::FsWord = 0xef53;

/// A folder for a daemon on such a file system.
fn folder() -> Option<tempfile::TempDir> {
    let folder = Daemon::folder_of_its_own();
    if LinuxProjects.are_limited(folder.path()) {
        return Some(folder);
    }
    assert!(std::env::var_os("RINGER_TEST_QUOTA").is_none(), "{} limits no projects", folder.path().display());
    eprintln!("absent: a file system with project quota, which `make quota` has");
    None
}

#[test]
fn the_kernel_keeps_the_contract() {
    let Some(folder) = folder() else { return };
    contract::limits_are_set_and_taken_away(&LinuxProjects, folder.path());
}

/// Writes 60 MB; ends as `dd` does.
async fn write(job: &Job, name: &str, into: &str, binds: &[&str]) -> (i64, String) {
    let script = format!("dd if=/dev/zero of={into}/file bs=1M count=60 2>&1");
    job.client.run(name, &script, json!({"HostConfig": {"Binds": binds}})).await
}

/// In the words of the file system.
fn assert_refused(daemon: &Daemon, (code, said): &(i64, String)) {
    let is_ext4 = rustix::fs::statfs(daemon.folder()).unwrap().f_type == EXT4;
    let words = if is_ext4 { "Disk quota exceeded" } else { "No space left on device" };
    assert!(*code == 1 && said.contains(words), "{code}: {said}");
}

/// The number of a job's project, of which nobody but its record tells.
fn project_of(daemon: &Daemon, job: &Job) -> ProjectId {
    let path = daemon.folder().join("data/jobs").join(format!("{}.json", job.id()));
    let record: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    serde_json::from_value(record["project"].clone()).unwrap()
}

fn room_of(data: &Path, project: ProjectId) -> Room {
    LinuxProjects.room(data, project).unwrap()
}

#[tokio::test]
async fn what_is_more_than_a_jobs_disk_is_not_written_and_the_job_goes_on() {
    let Some(folder) = folder() else { return };
    let mut daemon = Daemon::start_in(folder, &[]).await;
    let data = daemon.folder().join("data");
    let job = Job::with_box(&daemon, &["--name", "small", "--disk", "40m"]).await;
    let other = Job::with_box(&daemon, &["--name", "large", "--disk", "400m"]).await;
    assert_eq!(job.answer["disk_quota"], json!(["layers", "volumes"]));
    let [project, of_other] = [&job, &other].map(|job| project_of(&daemon, job));
    assert_ne!(project, of_other);

    let layer = write(&job, "layer", "/tmp", &[]).await;
    assert_refused(&daemon, &layer);
    let room = room_of(&data, project);
    assert_eq!(room.most, Some(40 << 20));
    assert!((36 << 20..=40 << 20).contains(&room.taken), "{room:?}");
    job.client.remove("layer").await;
    // XFS counts what was removed for a moment longer.
    wait_until(async || room_of(&data, project).taken < 1 << 20).await;
    let volume = write(&job, "volume", "/kept", &["kept:/kept"]).await;
    assert_refused(&daemon, &volume);
    assert!(room_of(&data, project).taken > 36 << 20, "{volume:?}");
    let beside = write(&other, "beside", "/tmp", &[]).await;
    assert_eq!(beside.0, 0, "{beside:?}");
    assert!(room_of(&data, of_other).taken >= 60 << 20);

    daemon.kill();
    daemon.restart().await;
    let full = job.client.try_create("full", "true", json!({})).await;
    assert_eq!(full.status, 500, "{}", full.text());
    job.client.remove("volume").await;
    assert_eq!(job.client.delete("/volumes/kept").await.status, 204);
    wait_until(async || room_of(&data, project).taken < 1 << 20).await;
    let later = write(&job, "later", "/tmp", &[]).await;
    assert_refused(&daemon, &later);
    for job in [job, other] {
        job.remove(&daemon);
        remains::gone_of(&daemon, job.id()).await;
    }
    wait_until(async || [project, of_other].map(|project| room_of(&data, project)) == [Room::default(); 2]).await;
}

#[tokio::test]
async fn what_a_quota_does_not_see_ends_the_job() {
    let Some(folder) = folder() else { return };
    let daemon = Daemon::start_in(folder, &[]).await;
    let job = Job::with_box(&daemon, &["--name", "logs", "--disk", "10m"]).await;
    let flood = "dd if=/dev/zero bs=1M count=20 2>/dev/null; sleep 1000";
    let id = job.client.create("flood", flood, json!({"Tty": false})).await;
    job.client.launch(&id).await;
    until_only(&daemon, &[]).await;
    let gone = daemon.ringer(&["job", "inspect", "logs"]).output().unwrap();
    assert!(cli::stderr(&gone).contains("it took more of the disk than it may"), "{}", daemon.log());
}
