//! A container with the daemon's socket and with a client of it: curl, with the libraries of this machine.

use serde_json::{Value, json};

use crate::support::{
    boxes::IMAGE,
    daemon::{Daemon, http::Client},
};

/// Where the socket is in it.
pub const SOCKET: &str = "/sock/docker.sock";

/// A container in which a client runs.
pub struct Caller<'d> {
    /// The socket's own tenant, from outside.
    client: &'d Client,
    /// Its id.
    pub id: String,
    socket: String,
}

/// What a client in a container was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

/// What the client itself needs of the machine. `/lib` and `/lib64` lie in there on every machine with one tree of programs.
pub const PROGRAMS: [&str; 4] =
    ["/usr/lib:/usr/lib:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro", "/usr/bin:/usr/bin:ro"];

impl<'d> Caller<'d> {
    /// One that the test starts from outside, with further `binds`, and with `extra` in its `HostConfig`.
    pub async fn start(daemon: &'d Daemon, name: &str, binds: &[&str], extra: Value) -> Self {
        let socket = daemon.folder().join("docker.sock").display().to_string();
        Self::start_by(daemon.client(), &socket, name, binds, extra).await
    }

    /// The same by a client of any socket, which calls it `socket`.
    pub async fn start_by(client: &'d Client, socket: &str, name: &str, binds: &[&str], extra: Value) -> Self {
        let own = format!("{socket}:{SOCKET}");
        let binds: Vec<&str> = PROGRAMS.into_iter().chain([own.as_str()]).chain(binds.iter().copied()).collect();
        let mut host_config = extra;
        host_config["Binds"] = json!(binds);
        let id = client.create(name, "mkdir -p /work; sleep 1000", json!({"HostConfig": host_config})).await;
        client.launch(&id).await;
        Self { client, id, socket: SOCKET.to_owned() }
    }

    /// Runs a script in it, which must succeed.
    pub async fn shell(&self, script: &str) -> String {
        let (code, output) = self.client.exec(&self.id, &["sh", "-c", script]).await;
        assert_eq!(code, 0, "{script}: {output}");
        output
    }

    /// A request of a client in it.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        let (url, body) = (format!("http://docker{path}"), body.to_string());
        let mut command =
            vec!["/usr/bin/curl", "--silent", "--show-error", "--unix-socket", &self.socket, "--request", method];
        command.extend(["--write-out", "\n%{http_code}", "--header", "content-type: application/json"]);
        if body != "null" {
            command.extend(["--data", &body]);
        }
        command.push(&url);
        let (code, output) = self.client.exec(&self.id, &command).await;
        assert_eq!(code, 0, "{output}");
        let (text, status) = output.rsplit_once('\n').expect("curl writes the status last");
        let body = serde_json::from_str(text).unwrap_or(Value::String(text.to_owned()));
        Answer { status: status.parse().expect("a status"), body }
    }

    /// Makes a container that runs `script` as a client in this one; `host_config` is what it asks for.
    pub async fn create(&self, name: &str, script: &str, mut host_config: Value) -> Answer {
        host_config["NetworkMode"] = json!("none");
        let body = json!({"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": host_config});
        self.ask("POST", &format!("/containers/create?name={name}"), body).await
    }

    /// The same to its end: how it ended, and what it wrote.
    pub async fn run(&self, name: &str, script: &str, host_config: Value) -> (i64, String) {
        let made = self.create(name, script, host_config).await;
        assert_eq!(made.status, 201, "{made:?}");
        let started = self.ask("POST", &format!("/containers/{name}/start"), Value::Null).await;
        assert_eq!(started.status, 204, "{started:?}");
        (self.client.exit_code(name).await, self.client.output(name).await)
    }

    /// The same with binds only; returns what it wrote and takes it away.
    pub async fn see(&self, bind: &str, script: &str) -> String {
        let (code, output) = self.run("see", script, json!({"Binds": [bind]})).await;
        self.client.remove("see").await;
        assert_eq!(code, 0, "{bind}: {output}");
        output
    }

    /// Starts a caller as a client in this one: its binds are paths in this one, its socket is named as everybody does.
    pub async fn start_caller(&self, name: &str, binds: &[&str]) -> Caller<'d> {
        let own = ["/usr/lib:/usr/lib:ro", "/lib:/lib:ro", "/lib64:/lib64:ro", "/usr/bin:/usr/bin:ro"];
        let socket = "/var/run/docker.sock:/other/place.sock";
        let binds: Vec<&str> = own.into_iter().chain([socket]).chain(binds.iter().copied()).collect();
        let made = self.create(name, "mkdir -p /work; sleep 1000", json!({"Binds": binds})).await;
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.body["Id"].as_str().expect("an id").to_owned();
        self.client.launch(&id).await;
        Caller { client: self.client, id, socket: "/other/place.sock".to_owned() }
    }
}
