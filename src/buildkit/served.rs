//! An upload where buildkitd fetches it: at a URL of the loopback that it sees, which is read once and cannot be guessed. moby hands
//! its own BuildKit such contexts by URLs too, within the process.

use std::{
    convert::Infallible,
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener as StdListener},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{
    front::lock,
    grpc::{Body, boxed},
    uploads::Upload,
};
use crate::{
    model::{Result, error::Context, id::ContainerId},
    processes,
};

/// Connections at once: whoever shares that loopback may come.
const CONNECTIONS: usize = 64;

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one may take to say what it wants.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Served until it is dropped.
pub(super) struct Served {
    pub(super) url: String,
    _serving: AbortOnDropHandle<()>,
}

/// What is served, until it is asked for.
struct Once {
    path: String,
    upload: Mutex<Option<Upload>>,
}

impl Served {
    /// In a network namespace, or where we are.
    pub(super) async fn at(network: Option<File>, upload: Upload) -> Result<Self> {
        let listener = listen(network).await.context("serving an uploaded context")?;
        let address = listener.local_addr().context("serving an uploaded context")?;
        let path = format!("/{}", ContainerId::random());
        let url = format!("http://{address}{path}");
        let once = Arc::new(Once { path, upload: Mutex::new(Some(upload)) });
        Ok(Self { url, _serving: AbortOnDropHandle::new(tokio::spawn(serve(listener, once))) })
    }
}

async fn listen(network: Option<File>) -> io::Result<TcpListener> {
    let (told, listening) = oneshot::channel();
    let bind = move || {
        if let Some(network) = network {
            processes::enter_network(&network)?;
        }
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    };
    // A thread that ends with it, since it is elsewhere afterwards.
    thread::Builder::new().name("listen".to_owned()).spawn(move || {
        let _nobody_waits_any_more = told.send(bind());
    })?;
    TcpListener::from_std(listening.await.map_err(io::Error::other)??)
}

async fn serve(listener: TcpListener, once: Arc<Once>) {
    // Who is being answered ends with us.
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if answering.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let once = once.clone();
                    answering.spawn(async move { answer(stream, &once).await });
                }
                Err(error) => {
                    debug!(%error, "accepting who fetches an uploaded context: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = answering.join_next() => {}
        }
    }
}

async fn answer(stream: TcpStream, once: &Once) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = once.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).keep_alive(false);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "serving an uploaded context: {error}");
    }
}

impl Once {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let is_it = request.method() == Method::GET && request.uri().path() == self.path;
        let upload = if is_it { lock(&self.upload).take() } else { None };
        match upload {
            Some(upload) => Response::new(upload.into_body()),
            None => {
                let mut response = Response::new(boxed(Empty::new()));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}
