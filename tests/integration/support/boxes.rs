//! An image of Debian's static busybox, and short ways to run containers of it.

use std::path::Path;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{
    daemon::{
        Daemon,
        http::{Answer, Client},
    },
    images::wait_until,
};

/// The image's name on every test daemon.
pub const IMAGE: &str = "box:latest";

const APPLETS: &[&str] = &[
    "sh", "echo", "cat", "sleep", "true", "false", "id", "ls", "env", "hostname", "ps", "kill", "wc", "yes", "head",
    "dd", "mknod", "mkfifo", "rm", "touch", "ln", "mkdir", "nslookup", "wget", "nc", "ip", "mount", "seq",
];

/// A tar of a root file system with busybox.
pub fn rootfs() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            tar.append_data(&mut header, path, content).expect("writing to memory");
        } else {
            tar.append_link(&mut header, path, link).expect("writing to memory");
        }
    };
    for folder in ["bin/", "etc/", "tmp/", "data/", "run/", "var/"] {
        add(folder, tar::EntryType::Directory, if folder == "tmp/" { 0o1777 } else { 0o755 }, "", b"");
    }
    let busybox = std::fs::read("/bin/busybox").expect("Debian's busybox-static is installed");
    add("bin/busybox", tar::EntryType::Regular, 0o755, "", &busybox);
    for applet in APPLETS {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, "busybox", b"");
    }
    add("var/run", tar::EntryType::Symlink, 0o777, "/run", b"");
    add("etc/passwd", tar::EntryType::Regular, 0o644, "", b"root:x:0:0::/:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n");
    add("etc/group", tar::EntryType::Regular, 0o644, "", b"root:x:0:\nworker:x:1000:\nextra:x:2000:worker\n");
    add("data/seed", tar::EntryType::Regular, 0o640, "", b"from the image\n");
    tar.into_inner().expect("writing to memory")
}

impl Daemon {
    /// A daemon that has the image.
    pub async fn with_box() -> Self {
        let daemon = Self::start().await;
        daemon.import_box().await;
        daemon
    }
}

impl Client {
    /// Gives the daemon, or the job, behind it the image.
    pub async fn import_box(&self) {
        let request = Request::post("/images/create?fromSrc=-&repo=box&tag=latest")
            .header("content-type", "application/x-tar")
            .body(Full::from(Bytes::from(rootfs())))
            .expect("a constant request");
        let answer = self.whole(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!answer.text().contains("errorDetail"), "{}", answer.text());
    }

    /// Gives it an image of `images/make`, by the name of its file; false where that is absent, which CI does not let pass.
    pub async fn load_image(&self, name: &str) -> bool {
        let archive =
            std::env::var_os("RINGER_TEST_IMAGES").map(|folder| Path::new(&folder).join(format!("{name}.tar")));
        let Some(archive) = archive.filter(|archive| archive.exists()) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "absent in CI: RINGER_TEST_IMAGES names no folder with {name}.tar"
            );
            eprintln!("absent: RINGER_TEST_IMAGES names no folder with {name}.tar");
            return false;
        };
        let request = Request::post("/images/load?quiet=1")
            .header("content-type", "application/x-tar")
            .body(Full::from(std::fs::read(archive).expect("an archive")))
            .expect("a constant request");
        let answer = self.whole(request).await;
        assert!(answer.status == 200 && answer.text().contains("Loaded image"), "{}", answer.text());
        true
    }

    /// Makes a container that runs `script` in a shell; `extra` is laid over the body. Returns its id.
    pub async fn create(&self, name: &str, script: &str, extra: Value) -> String {
        let answer = self.try_create(name, script, extra).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["Id"].as_str().expect("an id").to_owned()
    }

    /// The same, with whatever the daemon says.
    pub async fn try_create(&self, name: &str, script: &str, extra: Value) -> Answer {
        let mut body = json!({"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}});
        merge(&mut body, extra);
        self.post(&format!("/containers/create?name={name}"), body).await
    }

    /// Starts a container.
    pub async fn launch(&self, id: &str) {
        let answer = self.post(&format!("/containers/{id}/start"), Value::Null).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Waits for its end.
    pub async fn exit_code(&self, id: &str) -> i64 {
        let answer = self.post(&format!("/containers/{id}/wait"), Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["StatusCode"].as_i64().expect("a number")
    }

    /// Makes, starts, waits; the exit code and what it wrote.
    pub async fn run(&self, name: &str, script: &str, extra: Value) -> (i64, String) {
        let id = self.create(name, script, extra).await;
        self.launch(&id).await;
        let code = self.exit_code(&id).await;
        (code, self.output(&id).await)
    }

    /// Everything in its log, without frames.
    pub async fn output(&self, id: &str) -> String {
        let answer = self.get(&format!("/containers/{id}/logs?stdout=1&stderr=1")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        unframed(&answer.body)
    }

    /// Runs a command in a container; the exit code and what it wrote.
    pub async fn exec(&self, id: &str, command: &[&str]) -> (i64, String) {
        let body = json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true});
        let answer = self.post(&format!("/containers/{id}/exec"), body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let exec = answer.json()["Id"].as_str().expect("an id").to_owned();
        let (_, mut stream) = self.hijack(&format!("/exec/{exec}/start"), json!({"Detach": false})).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("the stream ends");
        let inspect = self.get(&format!("/exec/{exec}/json")).await.json();
        (inspect["ExitCode"].as_i64().expect("the exit code is there when the stream ends"), unframed(&bytes))
    }

    /// `GET /containers/{id}/json`.
    pub async fn inspect(&self, id: &str) -> Value {
        let answer = self.get(&format!("/containers/{id}/json")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// `DELETE /containers/{id}?force=1&v=1`.
    pub async fn remove(&self, id: &str) {
        let answer = self.delete(&format!("/containers/{id}?force=1&v=1")).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
}

/// The payloads of a multiplexed stream.
pub fn unframed(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    while bytes.len() >= 8 {
        let length = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        assert!(matches!(bytes[0], 1 | 2), "a frame of a stream that there is not: {:?}", &bytes[..8]);
        text.extend_from_slice(&bytes[8..8 + length]);
        bytes = &bytes[8 + length..];
    }
    assert!(bytes.is_empty(), "half a frame");
    String::from_utf8_lossy(&text).into_owned()
}

/// Lays `over` over `base`, objects field by field.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, over) => *base = over,
    }
}

/// What is mounted in the namespace that daemons share with us, by words that its line has.
pub fn mounted(words: &[&str]) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("our own mounts");
    let names = |line: &&str| words.iter().all(|word| line.contains(word));
    mounts.lines().filter(names).map(str::to_owned).collect()
}

/// Waits until nothing of the kind is mounted: what an ended run had goes behind the first answers of its end.
pub async fn until_unmounted(words: &[&str]) {
    wait_until(async || mounted(words).is_empty()).await;
}
