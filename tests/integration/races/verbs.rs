//! Every verb at every moment of a container: what is answered is what dockerd 28 answers, and what comes of it fits
//! the answers.
//!
//! With `RINGER_TEST_VERBS_ON=/path/docker.sock` the same is asked of the daemon there, which has `busybox:latest`,
//! and its answers are printed: so the table was made.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::{
    boxes::IMAGE,
    daemon::{Daemon, http::Client},
};

/// How long after the beginning of a moment a verb comes, in milliseconds.
const DELAYS: [u64; 8] = [0, 3, 10, 25, 45, 70, 105, 150];

/// Rounds of each pair; `RINGER_TEST_RUSH` is a factor to it.
const ROUNDS: usize = 2;

/// Containers at a time.
const AT_ONCE: usize = 6;

/// More than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is under way when a verb comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Start,
    Stop,
    /// The wait for the next start by the restart policy, and that start.
    Restarting,
    Removal,
    Pause,
    /// The end of the process by itself.
    Exit,
}

/// Statuses that dockerd 28.5 gave to each verb in the moments, in their order, in eight rounds each.
const TABLE: &[(&str, [&[u16]; 6])] = &[
    ("start", [&[304], &[304], &[304], &[304, 409], &[409], &[204, 304]]),
    ("stop", [&[204, 304], &[204], &[204], &[204, 304], &[204], &[204, 304]]),
    ("restart", [&[204], &[204], &[204], &[500], &[204], &[204]]),
    ("kill", [&[204, 409], &[204], &[204], &[204, 409], &[204], &[204, 409]]),
    ("signal", [&[204, 409], &[204], &[204], &[204], &[204], &[204, 409]]),
    ("pause", [&[204, 409], &[204, 500], &[500], &[409, 500], &[409], &[204, 409, 500]]),
    ("unpause", [&[500], &[500], &[500], &[500], &[204, 500], &[500]]),
    ("exec", [&[200], &[200, 409, 500], &[409], &[409, 500], &[409], &[409, 500]]),
    ("rm", [&[204, 409], &[409], &[409], &[409], &[409], &[204, 409]]),
    ("rm -f", [&[204], &[204], &[204], &[204, 409], &[204], &[204]]),
    ("rename", [&[204], &[204], &[204], &[204], &[204], &[204]]),
    ("update", [&[200], &[200, 500], &[500], &[200, 500], &[200], &[200, 500]]),
    ("attach", [&[200], &[200], &[200], &[200], &[200, 409], &[200]]),
    ("wait", [&[200], &[200], &[200], &[200], &[200], &[200]]),
    ("archive", [&[200], &[200], &[200], &[200], &[200], &[200]]),
    ("commit", [&[201], &[201], &[201], &[201, 409], &[201], &[201]]),
    ("export", [&[200], &[200], &[200], &[409], &[200], &[200]]),
    ("top", [&[200, 409], &[200], &[200], &[200, 409], &[200], &[200, 409]]),
    ("resize", [&[200], &[200], &[200], &[200, 409], &[200], &[200, 409]]),
    ("connect", [&[200], &[200], &[200], &[200, 500], &[200], &[200]]),
    ("disconnect", [&[200], &[200], &[200], &[200, 500], &[200], &[200]]),
    ("logs", [&[200], &[200], &[200], &[200, 409], &[200], &[200]]),
];

/// Whom the verbs are sent to.
struct World {
    client: Client,
    image: &'static str,
    /// A dockerd, whose answers are printed.
    asked: bool,
    /// Status and words of all refusals, without the names of containers.
    refusals: Mutex<BTreeSet<(u16, String)>>,
    _daemon: Option<Daemon>,
}

impl World {
    async fn new() -> Self {
        let world = match std::env::var_os("RINGER_TEST_VERBS_ON") {
            Some(socket) => Self {
                client: Client::new(socket.into()),
                image: "busybox:latest",
                asked: true,
                refusals: Mutex::default(),
                _daemon: None,
            },
            None => {
                let daemon = Daemon::with_box().await;
                Self {
                    client: daemon.client().clone(),
                    image: IMAGE,
                    asked: false,
                    refusals: Mutex::default(),
                    _daemon: Some(daemon),
                }
            }
        };
        world.status(Method::POST, "/networks/create", json!({"Name": "verbs-net"})).await;
        world
    }

    async fn status(&self, method: Method, path: &str, body: Value) -> u16 {
        let answer = tokio::time::timeout(
            PATIENCE,
            self.client.send(method.clone(), path, Some(body).filter(|body| !body.is_null())),
        );
        let answer = answer.await.unwrap_or_else(|_| panic!("no answer to {method} {path}"));
        if answer.status >= 400 {
            let words = answer.json()["message"].as_str().unwrap_or_default().to_owned();
            self.refusals.lock().unwrap().insert((answer.status, without_names(&words)));
        }
        answer.status
    }

    /// The status alone, of an answer whose body may take its time.
    async fn head(&self, method: Method, path: &str) -> u16 {
        let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.client.open(request)).await;
        answer.unwrap_or_else(|_| panic!("no head of an answer to {path}")).status().as_u16()
    }

    async fn state(&self, name: &str) -> String {
        let answer = self.client.get(&format!("/containers/{name}/json")).await;
        match answer.status {
            200 => answer.json()["State"]["Status"].as_str().unwrap().to_owned(),
            status => status.to_string(),
        }
    }

    async fn until(&self, name: &str, fits: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state(name).await;
            if fits(&state) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} stays {state}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn create(&self, name: &str, script: &str, restart: &str) {
        let host = json!({"RestartPolicy": {"Name": restart}});
        let body = json!({"Image": self.image, "Cmd": ["sh", "-c", script], "HostConfig": host});
        let made = self.status(Method::POST, &format!("/containers/create?name={name}"), body).await;
        assert_eq!(made, 201, "{name}");
    }

    async fn remove(&self, name: &str) {
        for name in [name.to_owned(), format!("{name}-new")] {
            let gone = self.status(Method::DELETE, &format!("/containers/{name}?force=1&v=1"), Value::Null).await;
            assert!(matches!(gone, 204 | 404 | 409), "removing {name}: {gone}");
            self.until(&name, |state| state == "404").await;
        }
    }

    /// Brings a container to the beginning of a moment; what is to be sent then.
    async fn approach(&self, moment: Moment, name: &str) -> Option<(Method, String)> {
        let path = |verb: &str| Some((Method::POST, format!("/containers/{name}/{verb}")));
        let (script, restart, first) = match moment {
            Moment::Start => ("sleep 100", "no", path("start")),
            // It takes its time to end.
            Moment::Stop => ("trap 'sleep 0.1; exit 0' TERM; while :; do sleep 0.02; done", "no", path("stop?t=20")),
            Moment::Restarting => ("exit 1", "always", None),
            Moment::Removal => ("sleep 100", "no", Some((Method::DELETE, format!("/containers/{name}?force=1")))),
            Moment::Pause => ("sleep 100", "no", path("pause")),
            Moment::Exit => ("sleep 0.06; exit 3", "no", None),
        };
        self.create(name, script, restart).await;
        if moment != Moment::Start {
            assert_eq!(self.status(Method::POST, &format!("/containers/{name}/start"), Value::Null).await, 204);
        }
        if moment == Moment::Restarting {
            self.until(name, |state| state == "restarting").await;
        }
        first
    }

    /// Sends a verb; the status of its answer.
    async fn verb(&self, verb: &str, name: &str) -> u16 {
        let post = |path: String, body: Value| async move { self.status(Method::POST, &path, body).await };
        let at = |path: &str| format!("/containers/{name}/{path}");
        match verb {
            "stop" | "restart" => post(at(&format!("{verb}?t=0")), Value::Null).await,
            "start" | "kill" | "pause" | "unpause" => post(at(verb), Value::Null).await,
            "signal" => post(at("kill?signal=WINCH"), Value::Null).await,
            "exec" => self.exec(name).await,
            "rm" => self.status(Method::DELETE, &format!("/containers/{name}"), Value::Null).await,
            "rm -f" => self.status(Method::DELETE, &format!("/containers/{name}?force=1"), Value::Null).await,
            "rename" => post(at(&format!("rename?name={name}-new")), Value::Null).await,
            "update" => post(at("update"), json!({"CpuShares": 512})).await,
            "attach" => self.head(Method::POST, &at("attach?stream=1&stdout=1")).await,
            "wait" => self.head(Method::POST, &at("wait")).await,
            "archive" => self.status(Method::GET, &at("archive?path=/etc/passwd"), Value::Null).await,
            "commit" => post(format!("/commit?container={name}"), Value::Null).await,
            "export" => self.head(Method::GET, &at("export")).await,
            "top" => self.status(Method::GET, &at("top"), Value::Null).await,
            "resize" => post(at("resize?h=20&w=30"), Value::Null).await,
            "connect" => post("/networks/verbs-net/connect".to_owned(), json!({"Container": name})).await,
            "disconnect" => post("/networks/bridge/disconnect".to_owned(), json!({"Container": name})).await,
            "logs" => self.head(Method::GET, &at("logs?stdout=1")).await,
            other => panic!("no verb {other}"),
        }
    }

    async fn exec(&self, name: &str) -> u16 {
        let body = json!({"Cmd": ["true"], "AttachStdout": true});
        let made = self.client.post(&format!("/containers/{name}/exec"), body).await;
        if made.status != 201 {
            return made.status;
        }
        let id = made.json()["Id"].as_str().unwrap().to_owned();
        self.status(Method::POST, &format!("/exec/{id}/start"), json!({"Detach": true})).await
    }

    /// One verb at one moment.
    async fn round(&self, moment: Moment, verb: &str, name: &str, delay: u64) -> u16 {
        let first = self.approach(moment, name).await;
        let begun = async {
            match first {
                Some((method, path)) => self.status(method, &path, Value::Null).await,
                None => 0,
            }
        };
        let met = async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let status = self.verb(verb, name).await;
            (status, self.state(name).await)
        };
        let (begun, (status, then)) = tokio::join!(begun, met);
        let after = self.state(name).await;
        let said = format!("{verb} at {delay} ms of {moment:?}: {begun}, {status}, then {then}, in the end {after}");
        assert!(fits(moment, verb, status, &after), "{said}");
        self.remove(name).await;
        status
    }

    /// All verbs at one moment.
    async fn meet(&self, moment: Moment) {
        let factor = std::env::var("RINGER_TEST_RUSH").ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
        let rounds =
            (0..ROUNDS * factor.max(1)).flat_map(|round| TABLE.iter().enumerate().map(move |pair| (round, pair)));
        let seen: Vec<(&str, u16)> = stream::iter(rounds)
            .map(|(round, (index, (verb, _)))| async move {
                let delay = DELAYS[(round * (DELAYS.len() / 2 + 1) + index) % DELAYS.len()];
                let name = format!("verbs-{moment:?}-{index}-{round}").to_lowercase();
                (*verb, self.round(moment, verb, &name, delay).await)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut answers: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
        for (verb, status) in seen {
            answers.entry(verb).or_default().insert(status);
        }
        if self.asked {
            println!("{moment:?}: {answers:?}\n{:#?}", self.refusals.lock().unwrap());
            return;
        }
        for (verb, columns) in TABLE {
            let known = [columns[moment as usize], faster(moment, verb)].concat();
            let strange: Vec<_> = answers[verb].iter().filter(|status| !known.contains(status)).collect();
            assert!(strange.is_empty(), "{verb} at {moment:?} answers {strange:?}, dockerd {known:?}");
        }
        let refusals = self.refusals.lock().unwrap();
        let strange: Vec<_> = refusals.iter().filter(|(status, words)| !is_known(*status, words)).collect();
        assert!(strange.is_empty(), "at {moment:?} dockerd does not say {strange:#?}");
    }
}

/// What dockerd 28.5 says of removals, by how it begins.
const OF_REMOVALS: &[(u16, &str, &[&str])] = &[
    (409, "removal of container ", &["NAME is already in progress"]),
    (500, "Cannot restart container ", &["NAME: container is marked for removal and cannot be started"]),
    (409, "You cannot commit container ", &["ID which is being removed"]),
    (409, "container is marked ", &["for removal and cannot be started"]),
    (
        409,
        "cannot remove container ",
        &[
            "\"NAME\": container is paused and must be unpaused first",
            "\"NAME\": container is running: stop the container before removing or force remove",
            "\"NAME\": container is restarting: stop the container before removing or force remove",
        ],
    ),
];

/// Whether dockerd says it, if it is of a removal.
fn is_known(status: u16, words: &str) -> bool {
    let of_removal =
        OF_REMOVALS.iter().find_map(|(known, start, rests)| Some((known, rests, words.strip_prefix(start)?)));
    of_removal.is_none_or(|(known, rests, rest)| *known == status && rests.contains(&rest))
}

/// What is right as well, where dockerd takes longer: a verb comes before the moment or after it.
fn faster(moment: Moment, verb: &str) -> &'static [u16] {
    match (moment, verb) {
        (Moment::Removal, "exec") => &[200, 404],
        // An exec that waits for its start is forgotten with the run, as by dockerd.
        (Moment::Stop | Moment::Exit, "exec") => &[200, 404],
        // It comes first, or it is gone already, or does not run any more.
        (Moment::Removal, "commit" | "pause" | "export") => &[200, 201, 204, 404],
        (Moment::Removal, _) => &[304, 404, 409],
        (Moment::Stop, "start" | "rm") => &[204, 304, 409],
        (Moment::Stop | Moment::Exit, "stop" | "kill" | "signal" | "pause" | "top" | "resize") => &[204, 304, 409],
        // The verb comes first, and the moment's own pause is refused.
        (Moment::Pause, "pause") => &[204],
        // It is not paused yet.
        (Moment::Pause, "start") => &[304],
        (Moment::Pause, "exec" | "unpause" | "attach") => &[200, 409, 500],
        // Before the next start, or in the run between two of them.
        (Moment::Restarting, "start" | "pause" | "unpause" | "top" | "exec" | "resize" | "attach") => {
            &[200, 204, 304, 409, 500]
        }
        (Moment::Restarting, "update") => &[200],
        // A verb without delay may come first.
        (Moment::Start, "exec" | "resize" | "start") => &[200, 204, 304, 409],
        _ => &[],
    }
}

/// A text with `NAME` for the names of our containers and `ID` for ids.
fn without_names(text: &str) -> String {
    let masked = |word: &str| {
        let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        match core {
            name if name.starts_with("verbs-") && name != "verbs-net" => word.replace(name, "NAME"),
            id if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => word.replace(id, "ID"),
            _ => word.to_owned(),
        }
    };
    text.split(' ').map(masked).collect::<Vec<_>>().join(" ")
}

/// Whether what is in the end fits what was said.
fn fits(moment: Moment, verb: &str, status: u16, after: &str) -> bool {
    match (verb, status) {
        ("rm" | "rm -f" | "rename", 204) => after == "404",
        ("stop" | "kill", 204) => !matches!(after, "running" | "paused" | "restarting"),
        ("start" | "restart", 204) if matches!(moment, Moment::Stop | Moment::Pause | Moment::Start) => {
            matches!(after, "running" | "paused") || moment == Moment::Stop
        }
        ("pause", 204) if moment == Moment::Start => after == "paused",
        _ => true,
    }
}

#[tokio::test]
async fn verbs_that_meet_a_start() {
    World::new().await.meet(Moment::Start).await;
}

#[tokio::test]
async fn verbs_that_meet_a_stop() {
    World::new().await.meet(Moment::Stop).await;
}

#[tokio::test]
async fn verbs_that_meet_a_restart_policy() {
    World::new().await.meet(Moment::Restarting).await;
}

#[tokio::test]
async fn verbs_that_meet_a_removal() {
    World::new().await.meet(Moment::Removal).await;
}

#[tokio::test]
async fn verbs_that_meet_a_pause() {
    World::new().await.meet(Moment::Pause).await;
}

#[tokio::test]
async fn verbs_that_meet_an_end() {
    World::new().await.meet(Moment::Exit).await;
}

/// What `compose up --abort-on-container-exit --exit-code-from` does: it waits for containers that it starts, and
/// stops the others when one has ended.
#[tokio::test]
async fn a_wait_that_meets_a_start_answers_with_its_end() {
    let world = World::new().await;
    for (round, delay) in DELAYS.iter().enumerate() {
        let name = format!("verbs-code-{round}");
        world.create(&name, "sleep 0.1; exit 7", "no").await;
        let start = async {
            assert_eq!(world.status(Method::POST, &format!("/containers/{name}/start"), Value::Null).await, 204);
        };
        let wait = async {
            tokio::time::sleep(Duration::from_millis(*delay)).await;
            let before = world.state(&name).await;
            let waited = world.client.post(&format!("/containers/{name}/wait"), Value::Null).await;
            (before, waited.json()["StatusCode"].as_i64().unwrap())
        };
        let ((), (before, code)) = tokio::join!(start, wait);
        // Of one that was never started the wait ends at once, if it comes before the start.
        assert!(code == 7 || (code == 0 && *delay == 0), "a wait at {delay} ms, when it was {before}: {code}");
        world.remove(&name).await;
    }
}
