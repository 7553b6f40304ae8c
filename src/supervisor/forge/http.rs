//! Calls of forges' APIs: JSON, bounded in time and length, with errors that say what was asked.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    model::{Error, ErrorKind, Result, error::Context},
    registry::Outlet,
    supervisor::{
        secret::Secret,
        settings::{Access, ForgeSettings, Proxies},
    },
};

/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
pub const LONGEST: usize = 16 << 20;

/// Of an answer that is no JSON, what is quoted.
const QUOTED: usize = 200;

/// A forge's API.
pub struct Api {
    client: Client,
    url: String,
    /// Sent with each call as `Authorization`, unless the call says who speaks.
    authorization: Option<Secret>,
    /// How long one call may take.
    limit: Duration,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// An answer that is an error.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP's status; `None` if there was no answer.
    pub status: Option<StatusCode>,
    /// There was one that was not read to its end.
    pub is_too_long: bool,
    error: Error,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.error.message())
    }
}

impl Api {
    /// Of the server that is configured. Its names are known as the jobs know them.
    pub fn new(settings: &ForgeSettings) -> Result<Self> {
        let token = match &settings.access {
            Access::Token(token) => Some(token.clone()),
            Access::App(_) => None,
        };
        let authorization = token.map(|token| Secret::new(format!("token {}", token.reveal())));
        Self::at(settings, settings.url.clone(), authorization)
    }

    /// The same for a server that takes tokens as bearers' alone.
    pub fn of_bearer(settings: &ForgeSettings, token: &Secret) -> Result<Self> {
        let authorization = Secret::new(format!("Bearer {}", token.reveal()));
        Self::at(settings, settings.url.clone(), Some(authorization))
    }

    /// The same at another address, for calls that may say themselves who speaks.
    pub fn at(settings: &ForgeSettings, url: String, authorization: Option<Secret>) -> Result<Self> {
        Self::with(Client::builder(), settings, url, authorization)
    }

    /// For calls of nobody in particular that go out from a job, on the runtime of its outlet: as programs in the job would send them.
    pub fn from_job(settings: &ForgeSettings, url: String, outlet: &Outlet) -> Result<Self> {
        // Proxies of the daemon's environment are none of the job's.
        Self::with(Client::builder().dns_resolver(outlet.names()).no_proxy(), settings, url, None)
    }

    fn with(
        builder: ClientBuilder,
        settings: &ForgeSettings,
        url: String,
        authorization: Option<Secret>,
    ) -> Result<Self> {
        crate::registry::install_crypto();
        let mut builder = builder
            .user_agent(concat!("ringer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_LIMIT)
            .redirect(reqwest::redirect::Policy::none());
        for (name, address) in &settings.hosts {
            // The port is the URL's.
            builder = builder.resolve(name, SocketAddr::new(*address, 0));
        }
        if let Some(pem) = &settings.authorities {
            builder = builder.tls_certs_merge(Certificate::from_pem_bundle(pem.as_bytes()).context("reading ca_file")?);
        }
        let none = settings.proxies.none.as_deref().and_then(NoProxy::from_string);
        for proxy in proxies_of(&settings.proxies)? {
            builder = builder.proxy(proxy.no_proxy(none.clone()));
        }
        let client = builder.build().context("preparing TLS")?;
        Ok(Self { client, url, authorization, limit: LIMIT })
    }

    /// The same server, of which nobody in particular asks.
    pub fn anonymous(&self) -> Self {
        self.elsewhere(self.url.clone())
    }

    /// Another address that is reached in the same way, for calls that say themselves who speaks.
    pub fn elsewhere(&self, url: String) -> Self {
        Self { client: self.client.clone(), url, authorization: None, limit: self.limit }
    }

    /// With another limit of time for each call, for answers that a server holds back.
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// A call below the server's URL whose answer is `T`.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Refusal> {
        let bytes = self.send(&method, path, body, &[]).await?;
        self.read(&method, path, &bytes)
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What is in an answer. Nothing of it is quoted: what was made may be a secret, and so may be the addresses of others' webhooks.
    pub fn read<T: DeserializeOwned>(&self, method: &Method, path: &str, bytes: &[u8]) -> Result<T, Refusal> {
        serde_json::from_slice(bytes).map_err(|error| {
            let (kind, line, column) = (error.classify(), error.line(), error.column());
            let why = format!("the answer is not what was expected ({kind:?} error at line {line} column {column})");
            self.refused(method, path, None, &why)
        })
    }

    /// A `POST` with further headers.
    pub async fn post_with<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        headers: &[(&str, &str)],
    ) -> Result<T, Refusal> {
        let bytes = self.send(&Method::POST, path, Some(body), headers).await?;
        self.read(&Method::POST, path, &bytes)
    }

    /// A call without a body.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// The same with an answer of so many bytes at most.
    pub async fn get_within<T: DeserializeOwned>(&self, path: &str, longest: usize) -> Result<T, Refusal> {
        let answer = self.exchange_within(&Method::GET, path, None::<&()>, &[], longest).await?;
        self.read(&Method::GET, path, &self.accepted(&Method::GET, path, answer)?)
    }

    /// A call that removes something; it being gone is no error.
    pub async fn delete(&self, path: &str) -> Result<(), Refusal> {
        match self.send(&Method::DELETE, path, None::<&()>, &[]).await {
            Err(refusal) if refusal.status == Some(StatusCode::NOT_FOUND) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        headers: &[(&str, &str)],
    ) -> Result<Bytes, Refusal> {
        let answer = self.exchange(method, path, body, headers).await?;
        self.accepted(method, path, answer)
    }

    fn accepted(&self, method: &Method, path: &str, answer: Answer) -> Result<Bytes, Refusal> {
        if answer.status.is_success() { Ok(answer.body) } else { Err(self.refusal(method, path, &answer)) }
    }

    /// A call, whatever comes of it. Headers replace ours of the same name.
    pub async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Refusal> {
        self.exchange_within(method, path, body, headers, LONGEST).await
    }

    async fn exchange_within(
        &self,
        method: &Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        headers: &[(&str, &str)],
        longest: usize,
    ) -> Result<Answer, Refusal> {
        let mut request = self.client.request(method.clone(), format!("{}/{path}", self.url)).timeout(self.limit);
        let mut all = HeaderMap::new();
        all.insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
        let ours = self.authorization.iter().map(|value| ("authorization", value.reveal()));
        for (name, value) in ours.chain(headers.iter().copied()) {
            let unfit =
                || self.refused(method, path, None, &format!("the header {name} cannot be sent: is it one line?"));
            let value = header::HeaderValue::from_str(value).map_err(|_| unfit())?;
            all.insert(header::HeaderName::from_bytes(name.as_bytes()).expect("a name of ours"), value);
        }
        request = request.headers(all);
        if let Some(body) = body {
            request = request.json(body);
        }
        let failed = |error: reqwest::Error| self.refused(method, path, None, &self.cause(&error));
        let mut answer = request.send().await.map_err(failed)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + piece.len() > longest {
                let why = format!("the answer is longer than {longest} bytes");
                return Err(Refusal { is_too_long: true, ..self.refused(method, path, None, &why) });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Answer { status, headers, body: bytes.into() })
    }

    /// reqwest says little itself; the last cause is the one that tells.
    fn cause(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            return format!("no answer within {} s", self.limit.as_secs());
        }
        let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
        causes.last().map_or_else(|| error.to_string(), ToString::to_string)
    }

    /// An answer that is an error.
    pub fn refusal(&self, method: &Method, path: &str, answer: &Answer) -> Refusal {
        self.refused(method, path, Some(answer.status), &said(&answer.body))
    }

    fn refused(&self, method: &Method, path: &str, status: Option<StatusCode>, why: &str) -> Refusal {
        let path = path.split('?').next().unwrap_or_default();
        let status_text = status.map(|status| format!("{status}")).unwrap_or_default();
        let separator = if status.is_some() && !why.is_empty() { ": " } else { "" };
        let kind = match status {
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => ErrorKind::Forbidden,
            Some(StatusCode::NOT_FOUND) => ErrorKind::NotFound,
            Some(StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY) => ErrorKind::Conflict,
            _ => ErrorKind::Unavailable,
        };
        let message = format!("{method} {}/{path}: {status_text}{separator}{why}", self.url);
        Refusal { status, is_too_long: false, error: Error::new(kind, message) }
    }
}

/// An address may hold a password: what is wrong with it is not said.
fn proxies_of(proxies: &Proxies) -> Result<Vec<Proxy>> {
    let wrong = |_| Error::invalid("http_proxy or https_proxy is no address of a proxy");
    let http = proxies.http.as_ref().map(|url| Proxy::http(url.reveal()).map_err(wrong));
    let https = proxies.https.as_ref().map(|url| Proxy::https(url.reveal()).map_err(wrong));
    [http, https].into_iter().flatten().collect()
}

/// What the server says of an error.
fn said(bytes: &[u8]) -> String {
    let of_json = serde_json::from_slice::<Value>(bytes).ok();
    let message = of_json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), ToOwned::to_owned);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // It goes to logs and terminals.
    line.chars().filter(|c| !c.is_control()).take(QUOTED).collect()
}

/// A name, or several with slashes between them, as a part of a path.
pub fn segments(names: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/');
    let escaped =
        names.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    escaped.collect()
}

/// The first two numbers of a version such as `1.26.4+dev-12`.
pub fn version_number(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.trim_start_matches('v').split(['.', '+', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version_number("1.26.4"), Some((1, 26)));
        assert_eq!(version_number("v1.9.0+dev"), Some((1, 9)));
        assert!(version_number("1.9.0") < version_number("1.25.0"));
        assert_eq!(version_number("main"), None);
    }
}
