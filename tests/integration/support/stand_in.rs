//! What stand-ins of forges have in common: their routes are served, what is asked is written down, and faults come when a test asks for them.

use std::future::Future;

use axum::Router;
use http::{Method, StatusCode};
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};

/// What was asked of one, and what it answers instead of the truth.
#[derive(Default)]
pub struct Calls {
    asked: Vec<String>,
    /// Part of a path, status, how often still.
    faults: Vec<(&'static str, u16, usize)>,
}

impl Calls {
    /// Writes a call down; the status that it is to be answered with, if a test has asked for one.
    pub fn ask(&mut self, method: &Method, path: &str) -> Option<StatusCode> {
        self.asked.push(format!("{method} {path}"));
        let (_, status, times) = self.faults.iter_mut().find(|(part, _, times)| path.contains(part) && *times > 0)?;
        *times -= 1;
        StatusCode::from_u16(*status).ok()
    }

    /// So many calls, whose path has this part, are to be answered with a status.
    pub fn fail(&mut self, part: &'static str, status: u16, times: usize) {
        self.faults.push((part, status, times));
    }

    /// Calls so far whose method and path have these words.
    pub fn count_of(&self, words: &str) -> usize {
        self.asked.iter().filter(|asked| asked.contains(words)).count()
    }
}

/// Serves routes until the task ends. A client that breaks off is no concern of ours.
pub async fn over_http1(listener: TcpListener, routes: Router) {
    each_connection(listener, |stream| {
        let service = TowerToHyperService::new(routes.clone());
        async move { drop(http1::Builder::new().serve_connection(stream, service).await) }
    })
    .await;
}

/// The same for clients that begin with HTTP/2.
pub async fn over_http2(listener: TcpListener, routes: Router) {
    each_connection(listener, |stream| {
        let service = TowerToHyperService::new(routes.clone());
        async move { drop(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await) }
    })
    .await;
}

/// Serves each connection on a task of its own.
pub async fn each_connection<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TokioIo<TcpStream>) -> F,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(TokioIo::new(stream)));
    }
}
