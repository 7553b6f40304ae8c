//! A small client of an API over a unix socket, or over TCP in a network namespace, one connection per request.

use std::{io, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
};
use hyperlocal::UnixConnector;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::support::place;

/// A client of one daemon, or of one forge.
#[derive(Clone, Debug)]
pub struct Client {
    server: Server,
    /// Sent with each request.
    headers: HeaderMap,
}

/// Where it listens.
#[derive(Clone, Debug)]
enum Server {
    Socket(PathBuf),
    Tcp { namespace: PathBuf, address: SocketAddr },
}

/// What a request goes over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Server {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp { namespace, address } => {
                let stream = place::connect(namespace, *address)?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(TcpStream::from_std(stream)?))
            }
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `message` of an error.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    /// A client of the daemon behind `socket`.
    pub fn new(socket: PathBuf) -> Self {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("docker"))]);
        Self { server: Server::Socket(socket), headers }
    }

    /// A client of the server at an address of a network namespace.
    pub fn over_tcp(namespace: PathBuf, address: SocketAddr) -> Self {
        let host = address.to_string().parse().expect("an address is a header's value");
        Self { server: Server::Tcp { namespace, address }, headers: HeaderMap::from_iter([(header::HOST, host)]) }
    }

    /// Sends a header with each request from now on.
    pub fn always_send(&mut self, name: HeaderName, value: &str) {
        self.headers.insert(name, value.parse().expect("a test's header"));
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// `GET`, or nothing if nobody listens.
    pub async fn try_get(&self, path: &str) -> Option<Answer> {
        self.server.connect().await.ok()?;
        Some(self.get(path).await)
    }

    /// `POST` with a JSON body, or none for `null`.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body).filter(|body| !body.is_null())).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// Any request with a JSON body or none.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        let body = body.map(|body| body.to_string());
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.whole(request.body(Full::from(body.unwrap_or_default())).expect("a test's path is a URI")).await
    }

    /// Sends a request of the test's own and reads the whole answer.
    pub async fn whole(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = body.collect().await.expect("the body does not break off").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Sends a request and returns at the head of its answer.
    pub async fn open(&self, mut request: Request<Full<Bytes>>) -> Response<Incoming> {
        request.headers_mut().extend(self.headers.clone());
        if let Server::Socket(path) = &self.server {
            *request.uri_mut() = hyperlocal::Uri::new(path, &request.uri().to_string()).into();
            let client = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(UnixConnector);
            return client.request(request).await.expect("the daemon answers");
        }
        let stream = self.server.connect().await.expect("the daemon listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake without a byte");
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.expect("the daemon answers")
    }

    /// Takes the connection over, as attach and exec do: the head of the answer and the raw stream.
    pub async fn hijack(&self, path: &str, body: Value) -> (Response<()>, TokioIo<Upgraded>) {
        self.upgrade(path, "tcp", body).await
    }

    /// The same for another protocol.
    pub async fn upgrade(&self, path: &str, protocol: &str, body: Value) -> (Response<()>, TokioIo<Upgraded>) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::post(path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, protocol)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .expect("a test's path is a URI");
        let mut response = self.open(request).await;
        assert_eq!(response.status(), 101, "no upgrade");
        let stream = hyper::upgrade::on(&mut response).await.expect("the connection is ours after 101");
        let (parts, _) = response.into_parts();
        (Response::from_parts(parts, ()), TokioIo::new(stream))
    }
}
