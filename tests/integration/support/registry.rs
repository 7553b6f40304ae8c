//! A registry on loopback that does what a test tells it: breaks off, holds back, refuses, asks for passwords.
//! Hand-written HTTP, so that it can misbehave.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

/// Something that can be fetched.
#[derive(Clone)]
struct Page {
    kind: String,
    body: Vec<u8>,
    digest: String,
}

/// How the registry wants to be spoken to.
#[derive(Clone, Default)]
#[allow(dead_code, reason = "each test file uses what it needs")]
pub enum Guard {
    /// Everybody may read.
    #[default]
    Open,
    /// `user:password` in base64.
    Basic(String),
    /// Tokens, for this `user:password` in base64 (empty: for everybody) or this refresh token.
    Bearer {
        /// Who gets a token.
        pair: String,
        /// Also gets one.
        refresh: String,
    },
    /// Tokens that somebody else gives, at this address.
    Elsewhere(String),
}

#[derive(Default)]
struct State {
    pages: HashMap<String, Page>,
    /// After how many bytes the next answers of a path break off.
    breaks: HashMap<String, Vec<usize>>,
    /// Status and body instead of the page, so many times.
    failures: HashMap<String, Vec<(u16, String)>>,
    gates: HashMap<String, Arc<Semaphore>>,
    /// Where a path is to be asked for instead.
    moved: HashMap<String, String>,
    guard: Guard,
    ranges: bool,
    log: Vec<String>,
}

/// It ends with its guard.
pub struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[allow(dead_code, reason = "each test file uses what it needs")]
impl Registry {
    /// Starts an empty one.
    pub async fn start() -> Self {
        Self::serve_at(TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback"))
    }

    /// Starts one on a port that is open already.
    pub fn serve_at(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a bound socket");
        let state = Arc::new(Mutex::new(State { ranges: true, ..State::default() }));
        let shared = state.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move {
                    // A client that breaks off is no concern of ours.
                    let _broken = serve(stream, address, state).await;
                });
            }
        });
        Self { address, state, server }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Offers a manifest or index under a tag and its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, kind: &str, digest: &str, body: &[u8]) {
        let page = Page { kind: kind.to_owned(), body: body.to_vec(), digest: digest.to_owned() };
        for name in [tag, digest] {
            self.state().pages.insert(format!("/v2/{repository}/manifests/{name}"), page.clone());
        }
    }

    /// Offers a blob.
    pub fn put_blob(&self, repository: &str, digest: &str, body: &[u8]) {
        let kind = "application/octet-stream".to_owned();
        let page = Page { kind, body: body.to_vec(), digest: digest.to_owned() };
        self.state().pages.insert(blob_path(repository, digest), page);
    }

    /// Offers something else.
    pub fn put_page(&self, path: &str, kind: &str, body: &[u8]) {
        let page = Page { kind: kind.to_owned(), body: body.to_vec(), digest: String::new() };
        self.state().pages.insert(path.to_owned(), page);
    }

    /// Breaks the next answers with this blob off after so many bytes each.
    pub fn break_blob(&self, repository: &str, digest: &str, after: &[usize]) {
        self.state().breaks.insert(blob_path(repository, digest), after.to_vec());
    }

    /// Answers the next requests of a path so.
    pub fn fail(&self, path: &str, answers: &[(u16, &str)]) {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        self.state().failures.insert(path.to_owned(), answers);
    }

    /// Holds a blob back until a permit is added.
    pub fn hold_blob(&self, repository: &str, digest: &str) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.state().gates.insert(blob_path(repository, digest), gate.clone());
        gate
    }

    /// Sends whoever asks for a blob to another address.
    pub fn move_blob(&self, repository: &str, digest: &str, address: &str) {
        self.state().moved.insert(blob_path(repository, digest), address.to_owned());
    }

    /// What was put under a path.
    pub fn page(&self, path: &str) -> Option<Vec<u8>> {
        self.state().pages.get(path).map(|page| page.body.clone())
    }

    /// Asks for passwords from now on.
    pub fn guard(&self, guard: Guard) {
        self.state().guard = guard;
    }

    /// Answers every request with the whole from now on.
    pub fn forget_ranges(&self) {
        self.state().ranges = false;
    }

    /// `METHOD path range` of all requests.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// How many requests began so.
    pub fn count(&self, start: &str) -> usize {
        self.log().iter().filter(|line| line.starts_with(start)).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn blob_path(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

fn digest_of(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    // TLS begins with 0x16: there is none here.
    if stream.fill_buf().await?.first().is_none_or(|first| !first.is_ascii_uppercase()) {
        return Ok(None);
    }
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines[0].split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: HashMap<String, String> = lines[1..].iter().filter_map(header).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { method, path, headers, body }))
}

async fn serve(stream: TcpStream, address: SocketAddr, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await? {
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        let range = request.headers.get("range").cloned().unwrap_or_default();
        lock(&state).log.push(format!("{} {} {range}", request.method, request.path).trim_end().to_owned());
        let gate = lock(&state).gates.get(&path).cloned();
        if let Some(gate) = gate {
            gate.acquire().await.expect("gates stay").forget();
        }
        let answer = answer(&request, &path, address, &mut lock(&state));
        let whole = answer.body.len();
        let sent = answer.breaks_after.unwrap_or(whole).min(whole);
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {whole}\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        if request.method != "HEAD" {
            stream.write_all(&answer.body[..sent]).await?;
        }
        stream.flush().await?;
        if sent < whole && request.method != "HEAD" {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Default)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    breaks_after: Option<usize>,
}

impl Answer {
    fn json(status: u16, body: &str) -> Self {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Self { status, headers, body: body.as_bytes().to_vec(), breaks_after: None }
    }
}

fn answer(request: &Request, path: &str, address: SocketAddr, state: &mut State) -> Answer {
    if path == "/token" {
        return token(request, state);
    }
    if let Some(challenge) = challenge(request, address, &state.guard) {
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;
        let mut answer = Answer::json(401, body);
        answer.headers.push(("WWW-Authenticate", challenge));
        return answer;
    }
    if let Some(failures) = state.failures.get_mut(path)
        && !failures.is_empty()
    {
        let (status, body) = failures.remove(0);
        return Answer::json(status, &body);
    }
    if path == "/v2/" {
        return Answer::json(200, "{}");
    }
    if let Some(address) = state.moved.get(path) {
        return Answer { status: 307, headers: vec![("Location", address.clone())], ..Answer::default() };
    }
    if let Some(answer) = write(request, path, state) {
        return answer;
    }
    let Some(page) = state.pages.get(path).cloned() else {
        let (code, message) = if path.contains("/manifests/") {
            ("MANIFEST_UNKNOWN", "manifest unknown")
        } else {
            ("BLOB_UNKNOWN", "blob unknown")
        };
        return Answer::json(
            404,
            &format!(r#"{{"errors":[{{"code":"{code}","message":"{message}","detail":{{}}}}]}}"#),
        );
    };
    let breaks = state.breaks.get_mut(path).filter(|breaks| !breaks.is_empty());
    let breaks_after = breaks.map(|breaks| breaks.remove(0));
    let mut headers = vec![("Content-Type", page.kind), ("Docker-Content-Digest", page.digest)];
    let start =
        request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match start {
        Some(start) if state.ranges && start < page.body.len() => {
            let size = page.body.len();
            headers.push(("Content-Range", format!("bytes {start}-{}/{size}", size - 1)));
            Answer { status: 206, headers, body: page.body[start..].to_vec(), breaks_after }
        }
        _ => Answer { status: 200, headers, body: page.body, breaks_after },
    }
}

/// Uploads, mounts and manifests that are put.
fn write(request: &Request, path: &str, state: &mut State) -> Option<Answer> {
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let value = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.map(|value| value.replace("%3A", ":").replace("%2F", "/"))
    };
    let done = |digest: &str| {
        let headers = vec![("Docker-Content-Digest", digest.to_owned())];
        Some(Answer { status: 201, headers, ..Answer::default() })
    };
    let (repository, _) =
        path.strip_prefix("/v2/")?.rsplit_once(if path.contains("/blobs/") { "/blobs/" } else { "/manifests/" })?;
    match request.method.as_str() {
        "POST" => {
            let mounted = value("mount").zip(value("from"));
            let page = mounted.and_then(|(digest, from)| state.pages.get(&blob_path(&from, &digest)).cloned());
            if let Some(page) = page {
                let digest = page.digest.clone();
                state.pages.insert(blob_path(repository, &digest), page);
                return done(&digest);
            }
            let headers = vec![("Location", format!("/v2/{repository}/blobs/uploads/1?_state=x"))];
            Some(Answer { status: 202, headers, ..Answer::default() })
        }
        "PUT" => {
            let kind = request.headers.get("content-type").cloned().unwrap_or_default();
            let digest = value("digest").unwrap_or_else(|| digest_of(&request.body));
            let page = Page { kind, body: request.body.clone(), digest: digest.clone() };
            if path.contains("/manifests/") {
                // Under its tag, and as what it is.
                state.pages.insert(path.to_owned(), page.clone());
                state.pages.insert(format!("/v2/{repository}/manifests/{digest}"), page);
            } else {
                state.pages.insert(blob_path(repository, &digest), page);
            }
            done(&digest)
        }
        _ => None,
    }
}

/// What is demanded of a request that does not say who it is.
fn challenge(request: &Request, address: SocketAddr, guard: &Guard) -> Option<String> {
    let said = request.headers.get("authorization").map(String::as_str);
    match guard {
        Guard::Open => None,
        Guard::Basic(pair) => {
            (said != Some(format!("Basic {pair}").as_str())).then(|| r#"Basic realm="fake""#.to_owned())
        }
        Guard::Bearer { .. } => bearer(said, &format!("http://{address}/token")),
        Guard::Elsewhere(realm) => bearer(said, realm),
    }
}

fn bearer(said: Option<&str>, realm: &str) -> Option<String> {
    let challenge = || format!(r#"Bearer realm="{realm}",service="fake service",scope="repository:x:pull""#);
    (said != Some("Bearer good")).then(challenge)
}

fn token(request: &Request, state: &State) -> Answer {
    let Guard::Bearer { pair, refresh } = &state.guard else { return Answer::json(404, "{}") };
    let said = request.headers.get("authorization").cloned().unwrap_or_default();
    let by_refresh = request.method == "POST"
        && String::from_utf8_lossy(&request.body).contains(&format!("refresh_token={refresh}"));
    if by_refresh || pair.is_empty() || said == format!("Basic {pair}") {
        let body = r#"{"token":"good","access_token":"good","refresh_token":"again","expires_in":300}"#;
        return Answer::json(200, body);
    }
    Answer::json(401, r#"{"details":"incorrect username or password"}"#)
}
