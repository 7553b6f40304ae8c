//! What can go wrong between us and a registry, and the words dockerd has for it.

use std::error::Error as _;

use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::{
    model::{Error, ErrorKind, reference::Reference, url::without_credentials},
    registry::{challenge::Challenge, insecure},
};

/// A request as Go names it in errors: `Get "https://…"`.
#[derive(Clone, Debug)]
pub struct RequestLine(String);

impl RequestLine {
    /// Of a method and a URL, whose password nobody is told.
    pub fn new(method: &Method, url: &str) -> Self {
        let mut name = method.as_str().to_lowercase();
        name[..1].make_ascii_uppercase();
        Self(format!("{name} \"{}\"", without_credentials(url)))
    }
}

/// One entry of a registry's `errors` list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ApiError {
    /// `MANIFEST_UNKNOWN`, `DENIED` …
    pub code: String,
    /// For humans.
    #[serde(default)]
    pub message: String,
}

impl ApiError {
    /// The registry's error with distribution's own message for its code.
    pub fn well_known(code: &str, message: &str) -> Self {
        Self { code: code.to_owned(), message: message.to_owned() }
    }

    fn text(&self) -> String {
        let code = self.code.to_lowercase().replace('_', " ");
        if self.message.is_empty() { code } else { format!("{code}: {}", self.message) }
    }
}

/// A failed exchange.
#[derive(Clone, Debug)]
pub enum Failure {
    /// No answer, or one that broke off.
    Transport(RequestLine, String),
    /// The registry wants to know who we are, and we do not know.
    NoCredentials(RequestLine),
    /// The registry's own words.
    Refused(StatusCode, Vec<ApiError>),
    /// An answer that makes no sense; trying again may help when the server is at fault.
    Unexpected(StatusCode, String),
    /// Everything else that is final.
    Other(String),
}

impl Failure {
    /// An exchange that broke.
    pub async fn transport(method: &Method, url: &Url, error: &reqwest::Error) -> Self {
        Self::Transport(RequestLine::new(method, url.as_str()), describe(url, error).await)
    }

    /// An answer that is no success.
    pub fn from_answer(status: StatusCode, challenges: &[Challenge], body: &[u8]) -> Self {
        if status.is_server_error() {
            return Self::Unexpected(status, format!("received unexpected HTTP status: {status}"));
        }
        let denied = challenges.iter().any(|challenge| challenge.parameter("error") == "insufficient_scope");
        if denied {
            let denied = ApiError::well_known("DENIED", "requested access to the resource is denied");
            return Self::Refused(status, vec![denied]);
        }
        match parse_errors(body) {
            Ok(errors) if !errors.is_empty() => Self::Refused(status, errors),
            _ if status == StatusCode::UNAUTHORIZED => {
                Self::Refused(status, vec![ApiError::well_known("UNAUTHORIZED", "authentication required")])
            }
            _ if status == StatusCode::TOO_MANY_REQUESTS => {
                let message = String::from_utf8_lossy(body).trim().to_owned();
                Self::Refused(status, vec![ApiError { code: "TOOMANYREQUESTS".to_owned(), message }])
            }
            Ok(_) => Self::Unexpected(status, format!("received unexpected HTTP status: {status}")),
            Err(error) => {
                let body = String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned();
                let code = status.as_u16();
                Self::Unexpected(status, format!("error parsing HTTP {code} response body: {error}: {body:?}"))
            }
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Transport(..) => true,
            Self::Unexpected(status, _) | Self::Refused(status, _) => {
                status.is_server_error()
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::NoCredentials(_) | Self::Other(_) => false,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Refused(_, errors) => errors.first().map_or("", |error| error.code.as_str()),
            _ => "",
        }
    }

    /// dockerd's sentence.
    pub fn text(&self) -> String {
        match self {
            Self::Transport(RequestLine(request), cause) => format!("{request}: {cause}"),
            Self::NoCredentials(RequestLine(request)) => format!("{request}: no basic auth credentials"),
            Self::Refused(_, errors) if errors.len() == 1 => errors[0].text(),
            Self::Refused(_, errors) => {
                let lines: String = errors.iter().map(|error| error.text() + "\n").collect();
                format!("errors:\n{lines}")
            }
            Self::Unexpected(_, text) | Self::Other(text) => text.clone(),
        }
    }

    /// As an answer to a pull of `reference`.
    pub fn of_pull(&self, reference: &Reference) -> Error {
        match self.code() {
            "DENIED" => Error::pull_access_denied(&reference.familiar_name(), &self.text()),
            "MANIFEST_UNKNOWN" => Error::manifest_not_found(&reference.familiar(), &self.text()),
            "NAME_UNKNOWN" => {
                Error::not_found(format!("repository {} not found: {}", reference.familiar_name(), self.text()))
            }
            _ => Error::system(self.text()).as_news(),
        }
    }

    /// As the end of a push.
    pub fn of_push(&self) -> Error {
        match self {
            Self::NoCredentials(_) => Error::system("no basic auth credentials").as_news(),
            _ => Error::system(self.text()).as_news(),
        }
    }

    /// As an answer to a question about a reference.
    pub fn of_inspect(&self) -> Error {
        match self.code() {
            "DENIED" => Error::forbidden(self.text()),
            "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" => Error::not_found(self.text()),
            "UNAUTHORIZED" => Error::new(ErrorKind::Unauthorized, self.text()),
            _ => Error::system(self.text()).as_news(),
        }
    }
}

#[derive(Deserialize)]
struct ErrorList {
    #[serde(default)]
    errors: Vec<ApiError>,
    /// Token servers answer `{"details": …}`.
    #[serde(default)]
    details: String,
}

fn parse_errors(body: &[u8]) -> Result<Vec<ApiError>, serde_json::Error> {
    let list: ErrorList = serde_json::from_slice(body)?;
    if list.errors.is_empty() && !list.details.is_empty() {
        return Ok(vec![ApiError { code: "UNAUTHORIZED".to_owned(), message: list.details }]);
    }
    Ok(list.errors)
}

/// Go's words for a broken exchange.
async fn describe(url: &Url, error: &reqwest::Error) -> String {
    let mut chain = error.to_string();
    let mut io = None;
    let mut cause = error.source();
    while let Some(inner) = cause {
        chain = format!("{chain}: {inner}");
        io = io.or_else(|| inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
        cause = inner.source();
    }
    let host = url.host_str().unwrap_or_default();
    if chain.contains("failed to lookup address") || chain.contains("dns error") {
        let why =
            if chain.contains("Temporary failure") { "temporary failure in name resolution" } else { "no such host" };
        return format!("dial tcp: lookup {host}: {why}");
    }
    if chain.contains("InvalidContentType") {
        return "http: server gave HTTP response to HTTPS client".to_owned();
    }
    if chain.contains("invalid peer certificate") {
        let why = chain.rsplit("invalid peer certificate: ").next().unwrap_or_default();
        let why = if why.contains("UnknownIssuer") { "certificate signed by unknown authority" } else { why };
        return format!("tls: failed to verify certificate: x509: {why}");
    }
    if error.is_connect() {
        let address = dialled_address(host, url.port_or_known_default().unwrap_or_default()).await;
        return match io {
            Some(std::io::ErrorKind::ConnectionRefused) => format!("dial tcp {address}: connect: connection refused"),
            Some(std::io::ErrorKind::NetworkUnreachable) => {
                format!("dial tcp {address}: connect: network is unreachable")
            }
            Some(std::io::ErrorKind::HostUnreachable) => format!("dial tcp {address}: connect: no route to host"),
            _ if error.is_timeout() => format!("dial tcp {address}: i/o timeout"),
            _ => chain,
        };
    }
    match io {
        _ if error.is_timeout() => {
            "net/http: request canceled (Client.Timeout exceeded while awaiting headers)".to_owned()
        }
        Some(std::io::ErrorKind::ConnectionReset) => "read: connection reset by peer".to_owned(),
        Some(std::io::ErrorKind::UnexpectedEof) => "unexpected EOF".to_owned(),
        _ if chain.contains("connection closed before message completed") => "EOF".to_owned(),
        _ => chain,
    }
}

async fn dialled_address(host: &str, port: u16) -> String {
    let found = insecure::addresses(host).await;
    match found.iter().find(|address| address.is_ipv4()).or(found.first()) {
        Some(address) => std::net::SocketAddr::new(*address, port).to_string(),
        None => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> Failure {
        Failure::from_answer(StatusCode::from_u16(status).unwrap(), &[], body.as_bytes())
    }

    fn reference() -> Reference {
        Reference::parse("localhost:5000/lib/x:nope").unwrap()
    }

    #[test]
    fn unknown_manifest_is_404_in_dockerds_words() {
        let failure =
            refused(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#);
        let error = failure.of_pull(&reference());
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.message(),
            "manifest for localhost:5000/lib/x:nope not found: manifest unknown: manifest unknown"
        );
    }

    #[test]
    fn denied_is_404_and_hints_at_login() {
        let failure =
            refused(403, r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#);
        let error = failure.of_pull(&Reference::parse("me/x").unwrap());
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.message(),
            "pull access denied for me/x, repository does not exist or may require 'docker login': denied: requested \
             access to the resource is denied"
        );
    }

    #[test]
    fn unauthorized_is_500_as_dockerd_has_it() {
        let error = refused(401, "").of_pull(&reference());
        assert_eq!((error.kind(), error.message()), (ErrorKind::System, "unauthorized: authentication required"));
    }

    #[test]
    fn server_errors_pass_and_others_stay() {
        assert!(refused(502, "<html>").is_passing());
        assert!(refused(429, "").is_passing());
        assert!(!refused(404, "<html>").is_passing());
        assert_eq!(refused(500, "").text(), "received unexpected HTTP status: 500 Internal Server Error");
    }
}
