//! Clients that hold a connection and do nothing, and work that nobody waits for any more.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::support::{boxes, daemon::Daemon};

/// For everything that must happen at all.
const LIMIT: Duration = Duration::from_secs(90);

/// More than the runtime has blocking threads.
const HOLDERS: usize = 600;

/// Sends the head of a request and whatever comes with it; reads nothing.
async fn send(daemon: &Daemon, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.folder().join("docker.sock")).await.expect("the daemon listens");
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.expect("the daemon reads heads");
    stream
}

/// A request whose body begins and does not go on.
fn begun(request: &str) -> String {
    format!("{request} HTTP/1.1\nHost: docker\nContent-Type: application/x-tar\nTransfer-Encoding: chunked\n\n1\nx\n")
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Threads of the daemon that do long work of this name.
fn threads(daemon: &Daemon, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).into_iter().flatten().flatten();
    let comm = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
    tasks.map(comm).filter(|comm| comm.trim() == name).count()
}

/// A tar with one file of which all but the end is a hole, as GNU tar writes it.
fn sparse_tar(name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(512);
    {
        let gnu = header.as_gnu_mut().unwrap();
        let number = |field: &mut [u8; 12], number: u64| {
            field[..4].copy_from_slice(&[0x80, 0, 0, 0]);
            field[4..].copy_from_slice(&number.to_be_bytes());
        };
        number(&mut gnu.realsize, size);
        number(&mut gnu.sparse[0].offset, size - 512);
        number(&mut gnu.sparse[0].numbytes, 512);
    }
    header.set_cksum();
    [header.as_bytes().as_slice(), &[1; 512], &[0; 1024]].concat()
}

/// Puts it into a container on a connection of its own.
async fn put(daemon: &Daemon, id: &str, tar: &[u8]) -> UnixStream {
    let head =
        format!("PUT /containers/{id}/archive?path=/tmp HTTP/1.1\nHost: docker\nContent-Length: {}\n\n", tar.len());
    let mut stream = send(daemon, &head).await;
    stream.write_all(tar).await.unwrap();
    stream
}

#[tokio::test]
async fn uploads_that_do_not_go_on_stop_nobody_else() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("target", "sleep 1000", Value::Null).await;
    daemon.launch(&id).await;
    let mut holders = Vec::new();
    for number in 0..HOLDERS {
        let request = match number % 3 {
            0 => format!("PUT /containers/{id}/archive?path=/tmp"),
            1 => "POST /build?version=1".to_owned(),
            _ => "POST /images/load".to_owned(),
        };
        holders.push(send(&daemon, &begun(&request)).await);
    }
    until("the uploads begin", async || threads(&daemon, "unpack") > 0).await;
    let (code, output) = in_time("a run", daemon.run("other", "echo fine", Value::Null)).await;
    assert_eq!((code, output.as_str()), (0, "fine\n"));
    let (code, _) = in_time("an exec", daemon.exec(&id, &["true"])).await;
    assert_eq!(code, 0);
    drop(holders);
    until("threads end with their clients", async || {
        ["unpack", "context", "load"].iter().all(|name| threads(&daemon, name) == 0)
    })
    .await;
    in_time("the removal", daemon.remove(&id)).await;
}

#[tokio::test]
async fn no_socket_holds_a_container() {
    let daemon = Daemon::with_box().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\nHost: docker\n\n");
    for (name, request) in [
        ("get", get("/containers/get/archive?path=/bin")),
        ("export", get("/containers/export/export")),
        ("put", begun("PUT /containers/put/archive?path=/tmp")),
        ("logs", get("/containers/logs/logs?follow=1&stdout=1")),
        (
            "attach",
            "POST /containers/attach/attach?stream=1&stdout=1 HTTP/1.1\nHost: docker\nContent-Length: 0\n\n".into(),
        ),
    ] {
        let id = daemon.create(name, "yes | head -c 20000000; sleep 1000", Value::Null).await;
        let mut holder = send(&daemon, &request).await;
        if name != "put" {
            in_time("the answer begins", holder.read_u8()).await.unwrap();
        }
        in_time(&format!("start beside {name}"), daemon.launch(&id)).await;
        // The same once more, of a container that runs.
        let mut again = send(&daemon, &request).await;
        if name != "put" {
            in_time("the answer begins", again.read_u8()).await.unwrap();
        }
        in_time(&format!("rm -f beside {name}"), daemon.remove(&id)).await;
        until(&format!("work of {name} ends with its container"), async || {
            ["archive", "export", "unpack", "receive"].iter().all(|name| threads(&daemon, name) == 0)
        })
        .await;
        drop((holder, again));
    }
}

#[tokio::test]
async fn stopped_container_is_read_with_its_volumes_while_it_starts() {
    let daemon = Daemon::with_box().await;
    let volumes = json!({"HostConfig": {"Binds": ["kept:/new/place", "/etc:/hosted:ro"]}});
    let id = daemon.create("mounted", "echo here > /new/place/file; echo own > /own", volumes).await;
    daemon.launch(&id).await;
    assert_eq!(daemon.exit_code(&id).await, 0);
    for path in ["/new/place/file", "/own", "/hosted/passwd", "/etc/hosts"] {
        let answer = daemon.client().get(&format!("/containers/{id}/archive?path={path}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    boxes::until_unmounted(&[&id]).await;
    // Larger than what is kept in memory, onto a container that does not run.
    let tar = sparse_tar("large", 4 << 20);
    let packed = [tar.as_slice(), &vec![0; 3 << 20]].concat();
    let mut answer = [0; 12];
    put(&daemon, &id, &packed).await.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let left = daemon.folder().join("data/tmp/uploads");
    assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
    daemon.remove(&id).await;
}

#[tokio::test]
async fn unpacking_ends_with_its_client() {
    let daemon = Daemon::with_box().await;
    let id = daemon.create("bombed", "sleep 1000", Value::Null).await;
    daemon.launch(&id).await;
    let bomb = PathBuf::from(format!("/proc/{}/root/tmp/bomb", daemon.inspect(&id).await["State"]["Pid"]));
    let size = || std::fs::metadata(&bomb).map_or(0, |data| data.len());
    let client = put(&daemon, &id, &sparse_tar("bomb", 1 << 50)).await;
    until("the file grows", async || size() > 0).await;
    drop(client);
    until("the thread ends", async || threads(&daemon, "unpack") == 0).await;
    let after = size();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(size(), after, "the file goes on growing");
    let (code, _) = daemon.exec(&id, &["sh", "-c", "echo > /tmp/bomb"]).await;
    assert_eq!(code, 0);

    let mut client = put(&daemon, &id, &sparse_tar("bomb", 1 << 50)).await;
    until("the file grows", async || size() > 1 << 20).await;
    in_time("rm -f", daemon.remove(&id)).await;
    until("the thread ends with the container", async || threads(&daemon, "unpack") == 0).await;
    let mut answer = String::new();
    let _may_be_reset = in_time("the answer", client.read_to_string(&mut answer)).await;
    assert!(answer.contains("removed meanwhile"), "{answer}");
}

#[tokio::test]
async fn load_ends_with_its_client() {
    let daemon = Daemon::with_box().await;
    let mut header = tar::Header::new_gnu();
    header.set_path("blobs/sha256/x").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let zeros = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 256 << 20), 1).unwrap();
    let bomb = [zstd::encode_all(header.as_bytes().as_slice(), 1).unwrap(), zeros.repeat(400)].concat();
    let head = format!("POST /images/load HTTP/1.1\nHost: docker\nContent-Length: {}\n\n", bomb.len());
    let mut client = send(&daemon, &head).await;
    let _it_stays_behind = tokio::time::timeout(Duration::from_secs(1), client.write_all(&bomb)).await;
    until("the load begins", async || threads(&daemon, "load") > 0).await;
    drop(client);
    until("the thread ends", async || threads(&daemon, "load") == 0).await;
}

#[tokio::test]
async fn request_leaves_room_on_the_disk() {
    const DISK: u64 = 512 << 20;
    let folder = Daemon::folder_of_its_own();
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "tmpfs"]).arg(&data).status();
    assert!(mounted.unwrap().success());
    let daemon = Daemon::start_in(folder, &[]).await;
    daemon.import_box().await;
    let id = daemon.create("filled", "sleep 1000", Value::Null).await;
    for state in ["created", "running"] {
        let mut client = put(&daemon, &id, &sparse_tar("bomb", 1 << 40)).await;
        let mut answer = vec![0; 4096];
        let read = in_time("the answer", client.read(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
        assert!(answer.contains("500") && answer.contains("no space left on device"), "{state}: {answer}");
        let stat = rustix::fs::statvfs(&data).unwrap();
        assert!(stat.f_bavail * stat.f_frsize > DISK / 128, "{state}: nothing is left of the disk");
        if state == "created" {
            in_time("a start on a disk that is nearly full", daemon.launch(&id)).await;
            let (code, _) = daemon.exec(&id, &["sh", "-c", "echo > /tmp/bomb"]).await;
            assert_eq!(code, 0);
        }
    }
}
