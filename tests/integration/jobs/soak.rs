//! Many short jobs, several at a time, which end in every way: what the daemon takes afterwards is what it took before.
//! `make soak` runs 500 of them.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{Job, remains, until_only};
use crate::support::{daemon::Daemon, memory_of};

/// Jobs at a time.
const AT_ONCE: usize = 8;

/// Jobs before the first look: what is made once is there then.
const FIRST: usize = 16;

/// For what goes behind the daemon's answers.
const LIMIT: Duration = Duration::from_secs(60);

/// Memory that may come and go with what the allocator keeps, in KiB.
const PLAY: u64 = 24 << 10;

/// What there is, by what it is.
type Counts = BTreeMap<&'static str, u64>;

fn lines_of(daemon: &Daemon, command: &[&str]) -> u64 {
    remains::within(daemon, command).lines().count() as u64
}

fn found(folder: &Path, words: &[&str]) -> u64 {
    let output = Command::new("find").arg(folder).args(words).output().expect("find is there");
    output.stdout.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// What must be as it was.
fn counts(daemon: &Daemon) -> Counts {
    let (folder, pid) = (daemon.folder(), daemon.pid());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let entries = |path: String| fs::read_dir(path).map_or(0, Iterator::count) as u64;
    let cgroups = format!("*/ringer-{}/*", daemon.instance());
    let shims = || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let words = processes.map(|process| fs::read(process.path().join("cmdline")).unwrap_or_default());
        let ours = folder.as_os_str().as_encoded_bytes();
        words.filter(|words| words.windows(ours.len()).any(|part| part == ours)).count() as u64
    };
    [
        ("processes that name the folder", shims()),
        ("mounts", mounts.lines().filter(|line| line.contains(&*folder.to_string_lossy())).count() as u64),
        ("links", lines_of(daemon, &["ip", "-o", "link"])),
        ("addresses and routes", lines_of(daemon, &["ip", "-o", "address"]) + lines_of(daemon, &["ip", "route"])),
        ("lines of nft rules", lines_of(daemon, &["nft", "list", "ruleset"])),
        ("cgroups", found(Path::new("/sys/fs/cgroup"), &["-type", "d", "-path", &cgroups])),
        ("files", found(folder, &[])),
        ("descriptors", entries(format!("/proc/{pid}/fd"))),
    ]
    .into()
}

/// The same, once it is as wanted: some of it goes behind answers.
async fn settled(daemon: &Daemon, wanted: &Counts) -> Counts {
    let deadline = Instant::now() + LIMIT;
    loop {
        let counts = counts(daemon);
        if counts == *wanted || Instant::now() > deadline {
            return counts;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// A job that is filled and ends: by a word, by its owner's death, by its time, while a client is in it.
async fn live_and_die(daemon: &Daemon, number: usize) {
    let mut owner = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let pid = owner.id().to_string();
    let job = Job::create(daemon, &["--owner-pid", &pid, "--ttl", "60"]);
    job.fill().await;
    match number % 4 {
        0 => drop(job.remove(daemon)),
        1 => {}
        2 => {
            let extended = daemon.ringer(&["job", "extend", job.id(), "--ttl", "1"]).output().unwrap();
            assert!(extended.status.success());
            let deadline = Instant::now() + LIMIT;
            while daemon.ringer(&["job", "inspect", job.id()]).output().unwrap().status.success() {
                assert!(Instant::now() < deadline, "{}", daemon.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        _ => {
            let body = serde_json::json!({"Cmd": ["sleep", "1000"], "AttachStdout": true});
            let exec = job.client.post("/containers/web/exec", body).await.json()["Id"].clone();
            let path = format!("/exec/{}/start", exec.as_str().expect("an id"));
            let _held = job.client.hijack(&path, serde_json::json!({"Detach": false})).await;
            job.remove(daemon);
        }
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
}

async fn run(daemon: &Daemon, number: usize) {
    stream::iter(0..number).for_each_concurrent(AT_ONCE, |number| live_and_die(daemon, number)).await;
    until_only(daemon, &[]).await;
    remains::gone_of(daemon, "job-").await;
}

#[tokio::test]
async fn what_the_daemon_takes_does_not_grow_with_jobs() {
    let number = std::env::var("RINGER_TEST_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let daemon = Daemon::start_with(&["--preload", "box"]).await;
    daemon.import_box().await;
    run(&daemon, FIRST).await;
    // Two looks that agree: what is given back late is back.
    let (mut before, deadline) = (counts(&daemon), Instant::now() + LIMIT);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = counts(&daemon);
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "it does not come to rest: {before:?} {now:?}");
        before = now;
    }
    let (memory, begun) = (memory_of(daemon.pid()), Instant::now());
    run(&daemon, number).await;
    let after = settled(&daemon, &before).await;
    let grown = memory_of(daemon.pid()).saturating_sub(memory);
    println!("{number} jobs in {:.1?}; memory {memory} KiB, grown by {grown} KiB; {after:?}", begun.elapsed());
    assert_eq!(before, after, "{}", daemon.log());
    assert!(grown < PLAY, "the daemon has grown by {grown} KiB from {memory} KiB");
}
