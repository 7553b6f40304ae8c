//! Whatever a server, or what stands before it, answers to any call: one line that says what was asked and what is wrong, no secret in it, and nothing that
//! would be taken for an answer.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{tests::settings, *};
use crate::{
    model::ErrorKind,
    supervisor::settings::{Access, Discovery, Github, Gitlab, Woodpecker},
};

/// An access token, as Gitea's and Forgejo's look.
const TOKEN: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

/// What must be in no error: it, that of GitLab's runner, and a runner's own.
const SECRETS: [&str; 3] = [TOKEN, "glrt-x", "of-a-runner"];

/// An answer: its status, and what comes with it.
type Answer = (u16, &'static str);

/// Errors of forges, of proxies before them, and of what has taken their place.
const REFUSALS: [Answer; 12] = [
    (401, r#"{"message": "Bad credentials"}"#),
    (403, r#"{"message": "Forbidden"}"#),
    (404, r#"{"message": "Not Found"}"#),
    (405, ""),
    (409, r#"{"message": "it is there"}"#),
    (422, r#"{"message": "Validation Failed", "errors": [{"resource": "Runner"}]}"#),
    (429, r#"{"message": "too many"}"#),
    (500, "<html>\n<h1>Internal\r\n\x1b[31mServer Error</h1>"),
    (502, "Bad Gateway\n"),
    (503, ""),
    (504, "\u{0}\u{1}"),
    (302, "to the page on which one logs in"),
];

/// What is no answer, although it says so. `[]` and `null` are not here: so servers written in Go say that there is none.
const GARBAGE: [Answer; 7] = [
    (200, r#"{"message": "it is not as you think"}"#),
    (200, "{}"),
    (200, "<html>log in</html>"),
    (200, ""),
    (200, "{"),
    (200, r#""text""#),
    (206, r#"{"message": [1]}"#),
];

/// A kind of forge, what it needs before its calls, and a runner's credential there.
struct Of {
    kind: Kind,
    needs: &'static [(&'static str, &'static str)],
    credential: &'static str,
    scope: &'static str,
}

/// Who the token belongs to, at Gitea and Forgejo.
const USER: (&str, &str) = ("/api/v1/user", r#"{"id": 1, "login": "ci", "is_admin": true}"#);

fn all(url: &str) -> [Of; 5] {
    [
        Of {
            kind: Kind::Gitea,
            needs: &[USER, ("/api/v1/version", r#"{"version": "1.26.4"}"#)],
            credential: r#"{"uuid": "u", "token": "of-a-runner"}"#,
            scope: "admin",
        },
        Of {
            kind: Kind::Forgejo,
            needs: &[
                USER,
                ("/api/v1/version", r#"{"version": "15.0.0+gitea-1.22.0"}"#),
                ("/api/forgejo/v1/version", r#"{"version": "15.0.0"}"#),
            ],
            credential: "u\nof-a-runner",
            scope: "admin",
        },
        Of {
            kind: Kind::Github(Github {
                api: url.to_owned(),
                group: None,
                discovery: Discovery::Poll,
                scale_sets: None,
            }),
            needs: &[],
            credential: "of-a-runner",
            scope: "orgs/acme",
        },
        Of {
            kind: Kind::Gitlab(Gitlab { runner: Secret::new("glrt-x") }),
            needs: &[
                ("/api/v4/version", r#"{"version": "17.5.1-ee"}"#),
                ("/api/v4/runners/verify", r#"{"id": 7}"#),
                (
                    "/api/v4/runners/7",
                    r#"{"id": 7, "paused": false, "runner_type": "project_type", "projects": [{"id": 1, "path_with_namespace": "a/b"}]}"#,
                ),
            ],
            credential: "of-a-runner",
            scope: "r_12345678_0",
        },
        Of {
            kind: Kind::Woodpecker(Woodpecker { address: "a:9000".to_owned(), secure: false }),
            needs: &[("/api/user", r#"{"login": "ci", "admin": true}"#), ("/version", r#"{"version": "3.17.0"}"#)],
            credential: "of-a-runner",
            scope: "agents",
        },
    ]
}

/// Answers what is needed well and all else in one way, until it is dropped.
struct Server(tokio::task::JoinHandle<()>);

impl Server {
    async fn start(needs: &'static [(&'static str, &'static str)], answer: Answer) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(reply(client, needs, answer));
            }
        });
        (Self(serving), url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn reply(mut client: TcpStream, needs: &[(&str, &str)], answer: Answer) {
    let mut asked = Vec::new();
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        if client.read_buf(&mut asked).await.unwrap_or_default() == 0 {
            return;
        }
    }
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let path = asked.split(' ').nth(1).unwrap_or_default();
    let needed = needs.iter().find(|(needed, _)| path == *needed || path.starts_with(&format!("{needed}?")));
    let (status, body) = needed.map_or(answer, |(_, body)| (200, body));
    let head = format!(
        "HTTP/1.1 {status} x\r\nlocation: /login\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _it_has_left = client.write_all(head.as_bytes()).await;
}

/// Calls whose answer decides what is launched: nothing but the forge's own answer is one.
const DECIDING: [&str; 4] = ["greet", "look", "registrations", "mint"];
const OTHERS: [&str; 8] =
    ["deregister", "work_of", "origin", "give_up", "conclusion", "keep_idle", "webhooks", "make a webhook"];

async fn call(forge: &dyn Forge, of: &Of, name: &str) -> Result<()> {
    let registration =
        Registration { id: 3, name: "ringer-12345678-lab-12345678".to_owned(), scope: of.scope.to_owned() };
    let class = Class { labels: ["lab".to_owned()].into(), ..Class::default() };
    let order = Order { name: &registration.name, class: &class, steps: Steps::In("image") };
    let job = ForgeJob {
        id: 1,
        run: Some(2),
        task: Some(3),
        is_heard: false,
        repository: "a/b".to_owned(),
        name: "build".to_owned(),
        url: String::new(),
    };
    match name {
        "greet" => forge.greet().await.map(drop),
        "look" => forge.look(std::slice::from_ref(&registration)).await.map(drop),
        "registrations" => forge.registrations("ringer-12345678-", None).await.map(drop),
        "mint" => forge.mint(&order).await.map(drop),
        "deregister" => forge.deregister(&registration).await,
        "work_of" => forge.work_of(&registration, Some(&job)).await.map(drop),
        "origin" => forge.origin(&job).await.map(drop),
        "give_up" => forge.give_up(&job, &Secret::new(of.credential), "it has ended").await,
        "conclusion" => forge.conclusion(&job).await.map(drop),
        "keep_idle" => forge.keep_idle(&registration).await,
        "webhooks" => match forge.webhooks().await? {
            Some(webhooks) => webhooks.list("admin").await.map(drop),
            None => Ok(()),
        },
        "make a webhook" => match forge.webhooks().await? {
            Some(webhooks) => webhooks.make("admin", "http://here", &Secret::new("of-a-runner")).await.map(drop),
            None => Ok(()),
        },
        other => panic!("no call {other}"),
    }
}

/// Whether a call decides, and asks for what is not answered as it should be.
fn is_deciding(of: &Of, name: &str, answer: Answer, has_needs: bool) -> bool {
    match (&of.kind, name) {
        // Slots are known here alone.
        (Kind::Gitlab(_), "registrations") => false,
        // It is asked for nothing but its status.
        (Kind::Github(_), "greet") => answer.0 >= 300,
        (_, "greet") => !has_needs,
        _ => DECIDING.contains(&name),
    }
}

/// What is wrong with how an answer is taken, if anything.
fn faults(answer: Answer, is_deciding: bool, came_to: &Result<()>) -> Vec<String> {
    let mut faults = Vec::new();
    let Err(error) = came_to else {
        if is_deciding {
            faults.push("it is taken for an answer".to_owned());
        }
        return faults;
    };
    let words = error.chain();
    if words.is_empty() || words.len() > 1000 || words.chars().any(char::is_control) {
        faults.push(format!("it is no line: {words:?}"));
    }
    if let Some(secret) = SECRETS.iter().find(|secret| words.contains(**secret)) {
        faults.push(format!("{secret} is told: {words}"));
    }
    let is_told = words.contains(&answer.0.to_string()) || (answer.0 == 429 && words.contains("come back later"));
    if is_deciding && answer.0 != 404 && answer.0 >= 400 && !is_told {
        faults.push(format!("the status is not told: {words}"));
    }
    if matches!(answer.0, 401 | 403) && is_deciding && error.kind() != ErrorKind::Forbidden {
        faults.push(format!("a refusal is {:?}: {words}", error.kind()));
    }
    faults
}

#[tokio::test]
async fn whatever_is_answered_to_any_call_is_one_line_without_a_secret_and_never_taken_for_an_answer() {
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for answer in REFUSALS.into_iter().chain(GARBAGE) {
        for number in 0..all("").len() {
            for has_needs in [true, false] {
                let needs = if has_needs { all("")[number].needs } else { &[] };
                let (_server, url) = Server::start(needs, answer).await;
                let of = all(&url).into_iter().nth(number).expect("it is one of them");
                let mut settings = settings(of.kind.clone(), url);
                settings.access = Access::Token(Secret::new(TOKEN));
                settings.owner = matches!(of.kind, Kind::Github(_)).then(|| "acme".to_owned());
                settings.public_url = Some("http://here".to_owned());
                let mut forge = connect(&settings, None, None).expect("it is configured");
                for name in DECIDING.into_iter().chain(OTHERS) {
                    // GitHub is asked nothing more after some.
                    if matches!((&of.kind, answer.0), (Kind::Github(_), 403 | 429)) {
                        forge = connect(&settings, None, None).expect("it is configured");
                    }
                    let came_to = timeout(Duration::from_secs(20), call(&*forge, &of, name)).await;
                    let came_to = came_to.unwrap_or_else(|_| panic!("{name} of {:?} hangs on {answer:?}", of.kind));
                    let found = faults(answer, is_deciding(&of, name, answer, has_needs), &came_to);
                    let of = format!("{}.{name}, {answer:?}, needs {has_needs}", of.kind.word());
                    wrong.extend(found.into_iter().map(|fault| format!("{of}: {fault}")));
                    asked += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {asked} calls:\n{}", wrong.join("\n"));
}
