//! Listeners and connections: hyper over our own accept loop, since half-closed connections must go on and every
//! connection knows its listener's API and who is at its other end.

mod address;
mod browser;
mod hangup;
mod held;
mod listen;
mod peer;
mod preface;
mod refuse;
mod tls;
mod unread;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::{
    either::Either,
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::Instrument;

pub use self::{
    address::ListenAddress,
    held::Held,
    listen::{Access, DEFAULT_GROUP, Listener},
    tls::{Tls, TlsFiles},
};
use self::{
    browser::AllowedHosts,
    hangup::{Fate, Hangups, Socket, Watched},
    refuse::{Refusals, Scarce},
};
use super::{
    error,
    route::Answer,
    takeover::{self, Taken, Takeover},
};
use crate::{
    descriptors,
    model::{Result, caller::Caller, error::Context, limits},
};

/// A client must send the head of its request within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Where clients ask for HTTP/2.
const UPGRADE: &str = "/grpc";

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers the requests that come through a listener.
pub trait Api: Send + Sync + 'static {
    /// Answers a request; never fails.
    fn answer(&self, request: Request<Body>) -> Answer;
}

/// What the clients of a listener may have at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections.
    pub connections: usize,
    /// Bytes of answers that they have not read.
    pub answers: usize,
}

impl Bounds {
    /// As much as there is.
    pub const NONE: Self = Self { connections: Semaphore::MAX_PERMITS, answers: Semaphore::MAX_PERMITS };
}

/// Serves APIs on any number of listeners.
pub struct Server {
    hangups: Arc<Hangups>,
    allowed_hosts: Arc<AllowedHosts>,
    accepting: CancellationToken,
    connections: TaskTracker,
    refusals: Refusals,
    listeners: TaskTracker,
}

impl Server {
    /// A server without listeners.
    pub fn new() -> Result<Self> {
        Ok(Self {
            hangups: Hangups::start().context("watching connections")?,
            allowed_hosts: Arc::default(),
            accepting: CancellationToken::new(),
            connections: TaskTracker::new(),
            refusals: Refusals::default(),
            listeners: TaskTracker::new(),
        })
    }

    /// Lets pages in browsers reach listeners on plain tcp by these names too.
    #[must_use]
    pub fn allowing_hosts(mut self, names: &[String]) -> Self {
        self.allowed_hosts = Arc::new(AllowedHosts::new(names));
        self
    }

    /// Starts accepting; `api` answers what comes through this listener.
    pub fn listen(&self, listener: Listener, api: Arc<dyn Api>) -> Listening {
        self.listen_as(listener, api, self.allowed_hosts.clone(), Bounds::NONE)
    }

    /// The same within bounds; who comes beyond them is refused, and others' listeners notice nothing.
    pub fn listen_within(&self, listener: Listener, api: Arc<dyn Api>, bounds: Bounds) -> Listening {
        self.listen_as(listener, api, self.allowed_hosts.clone(), bounds)
    }

    /// The same for one that pages in browsers reach by these names, and by no others than everywhere, and people by links.
    pub fn listen_for_pages(&self, listener: Listener, api: Arc<dyn Api>, names: &[String]) -> Listening {
        let hosts = Arc::new(AllowedHosts::new(names).taking_visitors());
        self.listen_as(listener, api, hosts, Bounds::NONE)
    }

    fn listen_as(
        &self,
        listener: Listener,
        api: Arc<dyn Api>,
        allowed_hosts: Arc<AllowedHosts>,
        bounds: Bounds,
    ) -> Listening {
        // Of nobody's request: it goes on when that has been answered.
        let span = tracing::info_span!(parent: None, "listener", address = %listener.address());
        let stop = self.accepting.child_token();
        let served = TaskTracker::new();
        let worker = Worker {
            api,
            hangups: self.hangups.clone(),
            allowed_hosts,
            stop: stop.clone(),
            cut: CancellationToken::new(),
            connections: self.connections.clone(),
            served: served.clone(),
            refusals: self.refusals.clone(),
            places: Arc::new(Semaphore::new(bounds.connections)),
            held: Held::new(bounds.answers),
        };
        let cut = worker.cut.clone();
        self.listeners.spawn(served.track_future(worker.accept(listener).instrument(span)));
        Listening { stop: stop.drop_guard(), cut, served }
    }

    /// Stops accepting, removes the sockets that we made, and waits until every request under way has ended. What
    /// has no end of its own (a stream of events) must be ended by the engine.
    pub async fn drain(&self) {
        self.accepting.cancel();
        self.listeners.close();
        self.connections.close();
        self.listeners.wait().await;
        self.connections.wait().await;
    }
}

/// A listener that is served. Dropping this takes it away: its socket is removed if we made it, nobody is accepted any
/// more, and connections end after the request that they are at.
#[must_use]
pub struct Listening {
    stop: DropGuard,
    cut: CancellationToken,
    served: TaskTracker,
}

impl Listening {
    /// Takes the listener away and waits until its socket is gone and every request that came through it has ended.
    pub async fn end(self) {
        drop(self.stop);
        self.served.close();
        self.served.wait().await;
    }

    /// Takes the listener away and cuts every connection off that came through it, as if its client had left. Returns when its socket is
    /// gone; what a request set about and must finish goes on.
    pub async fn cut_off(self) {
        self.cut.cancel();
        self.end().await;
    }
}

#[derive(Clone)]
struct Worker {
    api: Arc<dyn Api>,
    hangups: Arc<Hangups>,
    allowed_hosts: Arc<AllowedHosts>,
    stop: CancellationToken,
    /// Ends connections whatever they are at.
    cut: CancellationToken,
    connections: TaskTracker,
    /// Those of this listener.
    served: TaskTracker,
    refusals: Refusals,
    /// Of this listener's connections, also of those that were taken over.
    places: Arc<Semaphore>,
    held: Held,
}

impl Worker {
    async fn accept(self, listener: Listener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) if is_among_the_last(&socket) => {
                    tracing::warn!("hardly any descriptors left: a connection is refused");
                    self.refusals.refuse(socket, listener.tls().is_some(), Scarce::Descriptors);
                }
                Ok(socket) => match self.places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let tls = listener.tls().cloned();
                        let welcome = self.clone().welcome(socket, tls, place).in_current_span();
                        self.connections.spawn(self.served.track_future(welcome));
                    }
                    Err(_) => self.refusals.refuse(socket, listener.tls().is_some(), Scarce::Places),
                },
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn welcome(self, socket: Socket, tls: Option<Tls>, place: OwnedSemaphorePermit) {
        let caller = match peer::caller(&socket) {
            Ok(caller) => caller,
            // The client is gone already.
            Err(error) => return tracing::debug!(%error, "the other end is not known: {error}"),
        };
        let fate = Fate::default();
        let stream = match self.hangups.watch(socket, &fate) {
            Ok(stream) => stream.holding(place),
            Err(error) => return tracing::warn!(%error, "watching a connection: {error}"),
        };
        let (cut, gone) = (self.cut.clone(), fate.clone());
        tokio::select! {
            () = self.converse(stream, caller, fate, tls) => {}
            () = cut.cancelled() => gone.leave(),
        }
    }

    async fn converse(self, stream: Watched, caller: Caller, fate: Fate, tls: Option<Tls>) {
        // Pages in browsers reach no unix socket, and TLS asks for certificates.
        let pages = (caller.process().is_none() && tls.is_none()).then(|| self.allowed_hosts.clone());
        let tag = Tag { caller, fate, pages, held: self.held.clone() };
        let Some(tls) = tls else { return self.serve(stream, tag).await };
        let shaken = tokio::select! {
            shaken = tls.accept(stream) => shaken,
            () = self.stop.cancelled() => return,
        };
        match shaken {
            Ok(stream) => self.serve(stream, tag).await,
            Err(error) => tracing::info!(%error, "TLS handshake: {error}"),
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, tag: Tag) {
        let begun = tokio::select! {
            begun = tokio::time::timeout(HEAD_TIMEOUT, preface::begin(stream)) => begun,
            () = self.stop.cancelled() => return,
        };
        let Ok(Ok((stream, is_http2))) = begun else { return };
        let api = self.api;
        if is_http2 {
            return serve_http2(api.as_ref(), stream, &tag).await;
        }
        let (takes, mut taken) = mpsc::channel(1);
        let service = service_fn(move |request: Request<Incoming>| {
            let (api, takes) = (api.clone(), takes.clone());
            let (refusal, request) =
                (tag.refusal(request.method(), request.headers()), tag.put_on(unread::watch(request)));
            let held = tag.held.clone();
            async move {
                let answer = match refusal {
                    Some(refusal) => refusal,
                    None => held.carried().during(api.answer(request)).await,
                };
                match Taken::unless(answer) {
                    Ok(answer) => Ok::<_, Infallible>(held.until_read(answer).await),
                    Err(taken) => {
                        let _connection_ended = takes.send(taken).await;
                        // The connection is taken apart, and this with it.
                        std::future::pending().await
                    }
                }
            }
        });
        let mut connection = http1::Builder::new()
            .half_close(true)
            .title_case_headers(true)
            .max_buf_size(limits::HEAD)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut stopping = false;
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                Some(taken) = taken.recv() => {
                    let parts = connection.into_parts();
                    return taken.hand_over(parts.io.into_inner(), parts.read_buf).await;
                }
                () = self.stop.cancelled(), if !stopping => {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    stopping = true;
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended: {error}");
        }
    }
}

/// A client that speaks HTTP/2 at once is where one that asks for it comes to by [`UPGRADE`].
async fn serve_http2(api: &dyn Api, stream: impl takeover::Stream + 'static, tag: &Tag) {
    let upgrade =
        Request::post(UPGRADE).header(header::UPGRADE, "h2c").body(Body::empty()).expect("a constant request");
    match Taken::unless(api.answer(tag.put_on(upgrade)).await) {
        Ok(answer) => tracing::debug!(status = %answer.status(), "a client speaks HTTP/2, which nothing here does"),
        Err(taken) => taken.pass_on(stream),
    }
}

/// What every request of a connection carries.
#[derive(Clone)]
struct Tag {
    caller: Caller,
    fate: Fate,
    /// Where pages in browsers come through, the names that they may use.
    pages: Option<Arc<AllowedHosts>>,
    held: Held,
}

impl Tag {
    /// The answer to a request that gets no further.
    fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        if headers.get_all(header::HOST).iter().count() > 1 {
            // As Go's server: whom such a request is meant for is seen differently by each who reads it.
            let plain = [
                (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
                (header::CONNECTION, HeaderValue::from_static("close")),
            ];
            return Some((StatusCode::BAD_REQUEST, plain, "400 Bad Request").into_response());
        }
        let why = self.pages.as_ref()?.refusal(method, headers)?;
        Some(error::message(StatusCode::FORBIDDEN, &format!("the request of a page in a browser is refused: {why}")))
    }

    fn put_on(&self, mut request: Request<Body>) -> Request<Body> {
        // A client whose connection is taken over may end its side and read on; others that are silent have left, as for
        // dockerd.
        let gone = if self.caller.process().is_some() { &self.fate.gone } else { &self.fate.silent };
        let extensions = request.extensions_mut();
        extensions.insert(self.caller.clone());
        extensions.insert(gone.clone());
        extensions.insert(Takeover::new(self.fate.gone.clone()));
        request
    }
}

/// Whether hardly any descriptors are left.
fn is_among_the_last(socket: &Socket) -> bool {
    match socket {
        Either::Left(unix) => descriptors::are_scarce(unix),
        Either::Right(tcp) => descriptors::are_scarce(tcp),
    }
}

#[cfg(test)]
mod fuzz;
