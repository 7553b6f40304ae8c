//! The real Gitea in a network namespace of its own, and the stand-in of its runner (`forges/`, built by `scripts/parts`). Everything
//! goes with the guards.

mod config;
mod images;
mod runner;
mod tls;

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, Request, header};
use serde_json::{Value, json};

pub use self::{
    images::Images,
    runner::Runner,
    tls::{NAME as TLS_NAME, PORT as TLS_PORT, Tls},
};
use super::{
    daemon::http::{Answer, Client},
    part,
    place::{self, Place},
};

/// Where its workflows are.
pub const WORKFLOW: &str = ".gitea/workflows/ci.yml";

/// One job that does not end by itself.
pub const LONG: &str = r#"
on: push
defaults: {run: {shell: sh}}
jobs:
  long:
    runs-on: lab
    steps:
      - run: echo begun; sleep 1000
"#;

/// Its port, at [`place::ADDRESS`].
pub const PORT: u16 = 3000;

/// Its administrator, who owns all repositories.
pub const USER: &str = "ci";
const PASSWORD: &str = "of-a-test-1";

/// For a start on a busy machine, and for jobs: what they wait for is asked often.
const LIMIT: Duration = Duration::from_secs(120);

/// A running Gitea.
pub struct Gitea {
    place: Place,
    folder: tempfile::TempDir,
    server: Child,
    client: Client,
    token: String,
}

impl Gitea {
    /// Starts an empty one; `None` where it is absent, which CI does not let pass.
    pub async fn start() -> Option<Self> {
        let part = part("RINGER_TEST_GITEA")?;
        let (place, folder) = (Place::start(), tempfile::Builder::new().prefix("gitea-").tempdir().expect("a folder"));
        fs::write(folder.path().join("app.ini"), config::text(folder.path(), &part)).expect("a file in our folder");
        let command = |arguments: &[&str]| {
            let mut command = program(&place, folder.path());
            command.args(arguments);
            command
        };
        run(&mut command(&["migrate"]));
        run(command(&["admin", "user", "create", "--admin", "--must-change-password=false", "--username", USER])
            .args(["--password", PASSWORD, "--email", "ci@localhost"]));
        let token = new_token(&place, folder.path(), "all");

        let mut client = Client::over_tcp(place.path(), address());
        client.always_send(header::AUTHORIZATION, &format!("token {token}"));
        let server = serve(&place, folder.path());
        let mut gitea = Self { place, folder, server, client, token };
        gitea.wait_until_it_answers().await;
        Some(gitea)
    }

    /// As `kill -9`, and a start on the same data, after `meanwhile`.
    pub async fn restart(&mut self, meanwhile: impl Future<Output = ()>) {
        self.end();
        meanwhile.await;
        self.server = serve(&self.place, self.folder.path());
        self.wait_until_it_answers().await;
    }

    /// Its network namespace, where daemons and runners on it have to be.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Puts TLS before it, at another port.
    pub fn behind_tls(&self) -> Tls {
        Tls::before(&self.place, address())
    }

    /// `http://…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}:{PORT}", place::ADDRESS)
    }

    /// A token of [`USER`] that may do everything.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The flag of `ringer serve` that lets jobs through to it.
    pub fn job_allow(&self) -> String {
        format!("--job-allow=tcp:{}:{PORT}", place::ADDRESS)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Makes a repository of [`USER`] whose first commit has these files; the commit.
    pub async fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        self.empty_repository(name).await;
        self.commit(name, files).await
    }

    /// Makes a repository in which nothing is to be done yet. Gitea looks at a push later, and then at what the branch has by then: of two
    /// in a row the second one is done twice.
    pub async fn empty_repository(&self, name: &str) {
        self.new_repository("/user/repos", name).await;
    }

    /// As [`Self::repository`]; one that is not shown to everybody.
    pub async fn private_repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        let body = json!({"name": name, "default_branch": "main", "auto_init": true, "private": true});
        self.post("/user/repos", body).await;
        self.commit(name, files).await
    }

    /// Commits these files, new or changed, to a repository of [`USER`]; the commit.
    pub async fn commit(&self, repository: &str, files: &[(&str, &str)]) -> String {
        self.commit_to(&format!("{USER}/{repository}"), files).await
    }

    /// Makes `uses: actions/checkout@v4` work, in images with git and node.
    pub async fn add_checkout(&self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("forges/checkout");
        let file = |name: &str| fs::read_to_string(folder.join(name)).expect("a file of this repository");
        self.post("/orgs", json!({"username": "actions"})).await;
        self.new_repository("/orgs/actions/repos", "checkout").await;
        let files = [("action.yml", file("action.yml")), ("index.js", file("index.js"))];
        self.commit_to("actions/checkout", &files.each_ref().map(|(path, text)| (*path, text.as_str()))).await;
        self.post("/repos/actions/checkout/tags", json!({"tag_name": "v4", "target": "main"})).await;
    }

    /// Has jobs of a repository of [`USER`] told to an address.
    pub async fn add_webhook(&self, repository: &str, url: &str, secret: &str) {
        let config = json!({"url": url, "content_type": "json", "secret": secret});
        self.make_webhook(&format!("/repos/{USER}/{repository}/hooks"), config).await;
    }

    /// Those of the whole server.
    pub async fn webhooks(&self) -> Vec<Value> {
        self.get("/admin/hooks").await.as_array().cloned().unwrap_or_default()
    }

    /// Has jobs of the whole server told to an address.
    pub async fn add_webhook_of_all(&self, url: &str, secret: &str) {
        let config = json!({"url": url, "content_type": "json", "secret": secret, "is_system_webhook": "true"});
        self.make_webhook("/admin/hooks", config).await;
    }

    async fn make_webhook(&self, path: &str, config: Value) {
        let hook = json!({"type": "gitea", "config": config, "events": ["workflow_job"], "active": true});
        self.post(path, hook).await;
    }

    /// Another token of [`USER`], with these scopes.
    pub fn new_token(&self, scopes: &str) -> String {
        new_token(&self.place, self.folder.path(), scopes)
    }

    /// Takes such a token back, which only somebody with a password may.
    pub async fn revoke_token(&self, scopes: &str) {
        let login = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let mut client = Client::over_tcp(self.place.path(), address());
        client.always_send(header::AUTHORIZATION, &format!("Basic {login}"));
        let answer = client.delete(&format!("/api/v1/users/{USER}/tokens/test-{scopes}")).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    async fn new_repository(&self, path: &str, name: &str) {
        self.post(path, json!({"name": name, "default_branch": "main", "auto_init": true})).await;
    }

    async fn commit_to(&self, repository: &str, files: &[(&str, &str)]) -> String {
        let mut changes = Vec::new();
        for (path, text) in files {
            let there = self.client.get(&format!("/api/v1/repos/{repository}/contents/{path}")).await;
            let mut change = json!({"path": path, "content": BASE64_STANDARD.encode(text), "operation": "create"});
            if there.status == 200 {
                change["operation"] = "update".into();
                change["sha"] = there.json()["sha"].clone();
            }
            changes.push(change);
        }
        let body = json!({"branch": "main", "message": "a change", "files": changes});
        let made = self.post(&format!("/repos/{repository}/contents"), body).await;
        made["commit"]["sha"].as_str().expect("a commit").to_owned()
    }

    /// The jobs of a commit, oldest first, as its API describes them.
    pub async fn jobs(&self, repository: &str, commit: &str) -> Vec<Value> {
        let answer = self.get(&format!("/repos/{USER}/{repository}/actions/jobs?limit=50")).await;
        let mut jobs: Vec<Value> = answer["jobs"].as_array().cloned().unwrap_or_default();
        jobs.retain(|job| job["head_sha"] == commit);
        jobs.sort_by_key(|job| job["id"].as_i64());
        jobs
    }

    /// Waits until a commit has so many jobs and all of them this status or conclusion; the jobs.
    pub async fn until_jobs(&self, repository: &str, commit: &str, count: usize, wanted: &str) -> Vec<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let jobs = self.jobs(repository, commit).await;
            if jobs.len() == count && jobs.iter().all(|job| job["status"] == wanted || job["conclusion"] == wanted) {
                return jobs;
            }
            assert!(Instant::now() < deadline, "not {count} times {wanted}: {jobs:#?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The log of a job, which is there once the job has begun.
    pub async fn job_log(&self, repository: &str, job: &Value) -> String {
        let path = format!("/api/v1/repos/{USER}/{repository}/actions/jobs/{}/logs", job["id"]);
        self.client.get(&path).await.text()
    }

    /// Cancels the run of a job, as a user does: there is no call for it in this version's API.
    pub async fn cancel(&self, repository: &str, job: &Value) {
        let login = self.form("/user/login", &format!("user_name={USER}&password={PASSWORD}"), "").await;
        // A login sets the session's cookie twice; the last one counts, as for a browser.
        let cookies = login.headers.get_all(header::SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
        let pairs = cookies.filter_map(|cookie| cookie.split(';').next());
        let last: BTreeMap<_, _> = pairs.filter_map(|pair| pair.split_once('=')).collect();
        let session: Vec<String> = last.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let path = format!("/{USER}/{repository}/actions/runs/{}/cancel", job["run_id"]);
        let answer = self.form(&path, "", &session.join("; ")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What a browser sends: without the token, with which nobody logs in.
    async fn form(&self, path: &str, body: &str, cookie: &str) -> Answer {
        let browser = Client::over_tcp(self.place.path(), address());
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::COOKIE, cookie)
            .body(body.to_owned().into())
            .expect("a test's request");
        browser.whole(request).await
    }

    /// All runners that it knows.
    pub async fn runners(&self) -> Vec<Value> {
        self.get("/admin/actions/runners").await["runners"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until it knows no runner any more.
    pub async fn until_no_runner(&self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let runners = self.runners().await;
            if runners.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "runners stay: {runners:#?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// With what a runner of `admin`, `user`, `repos/OWNER/NAME` or `orgs/NAME` registers.
    pub async fn registration_token(&self, scope: &str) -> String {
        let path = format!("/api/v1/{scope}/actions/runners/registration-token");
        let answer = self.client.post(&path, Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["token"].as_str().expect("a token").to_owned()
    }

    /// `GET` of its API, below `/api/v1`.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(&format!("/api/v1{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// `POST` that makes something, below `/api/v1`.
    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.client.post(&format!("/api/v1{path}"), body).await;
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
        answer.json()
    }

    async fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while self.client.try_get("/api/v1/version").await.is_none_or(|answer| answer.status != 200) {
            assert!(self.server.try_wait().is_ok_and(|ended| ended.is_none()), "Gitea ended at start:\n{}", self.log());
            assert!(Instant::now() < deadline, "Gitea does not answer:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn end(&mut self) {
        let _ended_already = self.server.kill();
        let _reaped_already = self.server.wait();
    }
}

impl Drop for Gitea {
    fn drop(&mut self) {
        self.end();
    }
}

fn address() -> SocketAddr {
    format!("{}:{PORT}", place::ADDRESS).parse().expect("a constant")
}

fn program(place: &Place, folder: &Path) -> Command {
    let part = env::var_os("RINGER_TEST_GITEA").map(PathBuf::from).expect("it was there before");
    let mut command = place.command(part.join("gitea"));
    // What it finds of a user's own git or Gitea is none of the test's.
    command.arg("--config").arg(folder.join("app.ini")).env("HOME", folder);
    command
}

fn new_token(place: &Place, folder: &Path, scopes: &str) -> String {
    let mut command = program(place, folder);
    command.args(["admin", "user", "generate-access-token", "--username", USER, "--raw"]);
    let made = run(command.args(["--token-name", &format!("test-{scopes}"), "--scopes", scopes]));
    // On a busy machine it also tells of slow queries.
    let is_token = |word: &&str| word.len() == 40 && word.chars().all(|c| c.is_ascii_hexdigit());
    made.split_whitespace().find(is_token).expect("a token").to_owned()
}

fn serve(place: &Place, folder: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
    let mut command = program(place, folder);
    command.arg("web").stdin(Stdio::null()).stdout(log.try_clone().expect("the log file again")).stderr(log);
    command.spawn().expect("nsenter is there")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("nsenter is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
