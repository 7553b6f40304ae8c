//! What `ringer run` shows on `[http] listen`, and the webhooks that it takes there, of GitHub's fake and of the real Gitea.

mod made;

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    daemon::{Daemon, http::Client},
    forge::{Gitea, Images, LONG, WORKFLOW},
    github::{GitHub, NewJob, ORG, TOKEN},
    hooks::{self, Delivery},
    launches, place,
};

const SECRET: &str = "s3cr3t-of-a-test";

/// A daemon that looks at GitHub when a webhook tells it to, and else after ten minutes, which no test waits for.
struct Lab {
    daemon: Daemon,
    /// The registry ends with it.
    images: Images,
    github: GitHub,
    client: Client,
}

impl Lab {
    async fn start() -> Option<Self> {
        let github = GitHub::start();
        let images = Images::with_actions_runner(github.place()).await?;
        let (url, image, http) = (github.url(), images.actions_runner(), hooks::section());
        let text = format!(
            "{http}[github]\ninstance_url = '{url}'\norg = '{ORG}'\ntoken = '{TOKEN}'\njob_image = '{image}'\n\
             discovery = 'webhook'\npoll_interval = '600s'\nwebhook_secret = '{SECRET}'\n"
        );
        let daemon = Daemon::launching(github.place(), &text).await;
        let client = hooks::client(github.place());
        let lab = Self { daemon, images, github, client };
        // There are no repositories yet that the first look could see.
        lab.until_number("ringer_forge_up{forge=\"github\"}", 1.0).await;
        Some(lab)
    }

    fn queue(&self, job: NewJob) -> (i64, Delivery) {
        let id = self.github.push("hooked", vec![job])[0];
        (id, Delivery::of_job(&self.github.job(id), "acme/hooked", SECRET))
    }

    async fn until_number(&self, line: &str, wanted: f64) {
        let deadline = Instant::now() + launches::LIMIT;
        while hooks::number(&self.client, line).await != wanted {
            let text = self.client.get("/metrics").await.text();
            assert!(Instant::now() < deadline, "{line} does not become {wanted}: {text}\n{}", self.daemon.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test]
async fn a_delivery_launches_a_runner_at_once_and_numbers_tell_of_it() {
    let Some(lab) = Lab::start().await else { return };
    let (job, delivery) = lab.queue(NewJob::of("quick", &["docker network create one"]));
    assert_eq!(delivery.send(&lab.client).await.status, 202);
    lab.github.until_jobs(&[job], "success").await;
    let ended = launches::until_all_ended(&lab.daemon, 1).await;
    assert!(ended[0]["pulled"].as_u64().is_some_and(|bytes| bytes > 0), "{ended:#?}");
    launches::none_is_left(&lab.daemon);

    let number = async |line: &str| hooks::number(&lab.client, line).await;
    assert_eq!(number("ringer_hook_deliveries_total{forge=\"github\",verdict=\"taken\"}").await, 1.0);
    for part in ["discovery", "job", "pull", "mint", "start"] {
        let count = number(&format!("ringer_wait_seconds_count{{forge=\"github\",part=\"{part}\"}}")).await;
        assert_eq!(count, 1.0, "{part}");
    }
    assert_eq!(number("ringer_launches_ended_total{forge=\"github\",end=\"success\"}").await, 1.0);
    assert!(number("ringer_pulled_bytes_total").await > 0.0, "the runner's image was pulled");
    let made = "ringer_calls_total{api=\"job\",operation=\"NetworkCreate\",code=\"201\"}";
    assert_eq!(number(made).await, 1.0);
    let of_admin = Client::new(lab.daemon.folder().join("run/admin.sock")).get("/metrics").await;
    assert!(of_admin.status == 200 && of_admin.text().contains(made), "the same on the admin socket");

    let again = lab.github.push("hooked", vec![NewJob::of("again", &["true"])])[0];
    assert_eq!(delivery.send(&lab.client).await.status, 202, "one that has come before is no error");
    assert_eq!(number("ringer_hook_deliveries_total{forge=\"github\",verdict=\"known\"}").await, 1.0);
    assert_eq!(lab.github.job(again)["status"], "queued", "and makes us look at nothing");
    assert!(!lab.daemon.log().contains(SECRET), "the secret is in the log");
}

#[tokio::test]
async fn deliveries_of_strangers_launch_nothing() {
    let Some(lab) = Lab::start().await else { return };
    let (_, good) = lab.queue(NewJob::of("quick", &["true"]));
    let before = lab.github.model().log.len();
    let unsigned = Delivery { signature: None, ..good.clone() };
    let forged = good.clone().signed("another secret");
    let changed = Delivery { body: good.body.replace("hooked", "others"), ..good.clone() };
    for delivery in [&unsigned, &forged, &changed] {
        let answer = delivery.send(&lab.client).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    for body in ["{", "", "[1]", "{\"action\": \"queued\"}"] {
        let garbage = Delivery { body: body.to_owned(), ..good.clone() }.signed(SECRET);
        assert_eq!(garbage.send(&lab.client).await.status, 400, "{body}");
    }
    let ping = Delivery { event: "ping".to_owned(), ..good.clone() };
    assert_eq!(ping.send(&lab.client).await.status, 202, "and means nothing");
    let elsewhere = Delivery { forge: "gitlab".to_owned(), ..good.clone() };
    assert_eq!(elsewhere.send(&lab.client).await.status, 404);
    let number =
        hooks::number(&lab.client, "ringer_hook_deliveries_total{forge=\"github\",verdict=\"unsigned\"}").await;
    assert_eq!(number, 3.0);
    let log = lab.daemon.log();
    assert_eq!(log.matches("a delivery of a webhook is refused").count(), 1, "not once for each: {log}");
    assert_eq!(lab.github.model().log.len(), before, "GitHub was asked nothing");
    assert_eq!(launches::all(&lab.daemon), Vec::<Value>::new());
}

#[tokio::test]
async fn a_long_delivery_and_one_that_does_not_end_hurt_nobody() {
    let Some(lab) = Lab::start().await else { return };
    let (job, good) = lab.queue(NewJob::of("quick", &["true"]));
    let long = Delivery { body: "x".repeat(10 << 20), ..good.clone() }.signed(SECRET);
    let head =
        |more: &str| format!("POST /webhook/github HTTP/1.1\r\nHost: ci\r\nX-GitHub-Event: workflow_job\r\n{more}\r\n");
    let announced = says(&lab, &head(&format!("Content-Length: {}\r\n", long.body.len())), "");
    assert!(announced.starts_with("HTTP/1.1 413 "), "before any of it has come: {announced}");
    let chunks = format!("{:x}\r\n{}\r\n", long.body.len(), long.body);
    let unannounced = says(&lab, &head("Transfer-Encoding: chunked\r\n"), &chunks);
    assert!(unannounced.starts_with("HTTP/1.1 413 "), "{unannounced}");

    let half: Vec<_> = (0..3).map(|_| begin(&lab, &head("Content-Length: 100\r\n"), "{")).collect();
    assert_eq!(good.send(&lab.client).await.status, 202);
    assert_eq!(lab.client.get("/healthz").await.text(), "ok\n");
    lab.github.until_jobs(&[job], "success").await;
    for mut stream in half {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the daemon closes it");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

fn begin(lab: &Lab, head: &str, body: &str) -> std::net::TcpStream {
    let mut stream = place::connect(&lab.github.place().path(), hooks::address()).expect("it listens");
    stream.set_read_timeout(Some(launches::LIMIT)).expect("a socket");
    stream.write_all(head.as_bytes()).expect("it reads the head");
    // Who is refused need not be able to send all of it.
    let _refused = stream.write_all(body.as_bytes());
    stream
}

/// The beginning of what is answered.
fn says(lab: &Lab, head: &str, body: &str) -> String {
    let mut answer = [0; 64];
    let length = begin(lab, head, body).read(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn nothing_of_the_administrators_is_there() {
    let Some(lab) = Lab::start().await else { return };
    for path in
        ["/jobs", "/launches", "/drain", "/forges", "/_ping", "/v1.47/containers/json", "/webhook/", "/metrics/"]
    {
        assert_eq!(lab.client.get(path).await.status, 404, "{path}");
        assert_eq!(lab.client.post(path, json!({})).await.status, 404, "{path}");
    }
}

/// The real Gitea signs and sends it.
#[tokio::test]
async fn a_webhook_of_gitea_launches_a_runner_at_once() {
    let Some(gitea) = Gitea::start().await else { return };
    let Some(images) = Images::start(gitea.place()).await else { return };
    let (url, token, http) = (gitea.url(), gitea.token(), hooks::section());
    let text = format!(
        "{http}[gitea]\ninstance_url = '{url}'\ntoken = '{token}'\nlabels = ['lab']\nrunner_image = '{}'\njob_image = '{}'\n\
         poll_interval = '600s'\nwebhook_secret = '{SECRET}'\n",
        images.runner(),
        images.job()
    );
    let daemon = Daemon::launching(gitea.place(), &text).await;
    let client = hooks::client(gitea.place());
    launches::until_logged(&daemon, "is Gitea 1.26").await;
    gitea.empty_repository("hooked").await;
    gitea.add_webhook("hooked", &format!("http://{}/webhook/gitea", hooks::address()), SECRET).await;
    let quick = LONG.replace("sleep 1000", "true");
    let commit = gitea.commit("hooked", &[(WORKFLOW, &quick)]).await;
    gitea.until_jobs("hooked", &commit, 1, "success").await;
    launches::until_all_ended(&daemon, 1).await;
    let taken = hooks::number(&client, "ringer_hook_deliveries_total{forge=\"gitea\",verdict=\"taken\"}").await;
    assert!(taken >= 1.0, "{}", gitea.log());
    assert_eq!(hooks::number(&client, "ringer_hook_deliveries_total{forge=\"gitea\",verdict=\"unsigned\"}").await, 0.0);
}

#[tokio::test]
async fn the_page_tells_what_runs_and_what_was_refused() {
    let Some(lab) = Lab::start().await else { return };
    let privileged = format!("docker run --privileged {} true || true", lab.images.job());
    let (long, delivery) = lab.queue(NewJob::of("<b>long</b>", &[&privileged, "sleep 1000"]));
    lab.queue(NewJob::of("nobodys", &["true"]).labels(&["self-hosted", "windows"]));
    assert_eq!(delivery.send(&lab.client).await.status, 202);
    lab.github.until_jobs(&[long], "in_progress").await;
    let begun = Delivery::of_job(&lab.github.job(long), "acme/hooked", SECRET);
    assert_eq!(begun.send(&lab.client).await.status, 202);
    let deadline = Instant::now() + launches::LIMIT;
    let page = loop {
        let page = lab.client.get("/").await;
        let text = page.text();
        if text.contains(">running</span>")
            && text.contains("ContainerCreate")
            && text.contains("has the label windows")
        {
            break page;
        }
        assert!(Instant::now() < deadline, "{text}\n{}", lab.daemon.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let text = page.text();
    assert!(text.contains("&lt;b&gt;long&lt;/b&gt;") && !text.contains("<b>"), "{text}");
    assert!(!text.contains(TOKEN) && !text.contains(SECRET), "{text}");
    let policy = page.headers["content-security-policy"].to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let asked_as =
        |host: &str| says(&lab, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Mozilla/5.0\r\n\r\n"), "");
    assert!(asked_as("ci.example.org").starts_with("HTTP/1.1 200 "), "it is public_url's name");
    assert!(asked_as("evil.example").starts_with("HTTP/1.1 403 "), "anybody's name may lead here");
    in_a_browser(&lab);
}

/// A real one shows it as it is meant, and has nothing to complain of.
fn in_a_browser(lab: &Lab) {
    let folder = tempfile::Builder::new().prefix("browser-").tempdir().expect("a folder");
    let picture = std::env::var_os("RINGER_TEST_PICTURE").map_or_else(|| folder.path().join("page.png"), Into::into);
    let browse = |what: &str| {
        let mut command = lab.github.place().command("timeout");
        command
            .args(["100", "chromium"])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--enable-logging=stderr",
                "--window-size=1280,900",
                what,
            ])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .arg(format!("http://{}/", hooks::address()))
            .env("HOME", folder.path());
        let output = command.output().expect("nsenter is there");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("Security Policy"), "the browser complains: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let seen = browse("--dump-dom");
    assert!(seen.contains("&lt;b&gt;long&lt;/b&gt;") && seen.contains(">running</span>"), "{seen}");
    browse(&format!("--screenshot={}", picture.display()));
    let picture = std::fs::read(picture).expect("a picture");
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 20_000, "an empty page has {} bytes", picture.len());
}
