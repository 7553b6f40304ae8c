//! The listener of `[http]` and `--http-host`: page, numbers and webhooks. It goes where the configuration says, also when that is read again.

use std::sync::Arc;

use ringer::{
    edge::server::{Api, Listener, Listening, Server},
    model::{Error, Result},
};
use tracing::info;

use crate::config::Http;

/// What it serves, and where it is.
pub struct Pages {
    server: Arc<Server>,
    api: Arc<dyn Api>,
    group: String,
    at: Option<(Http, Vec<Listening>)>,
}

impl Pages {
    /// Nowhere yet.
    pub fn new(server: Arc<Server>, api: Arc<dyn Api>, group: &str) -> Self {
        Self { server, api, group: group.to_owned(), at: None }
    }

    /// Where it is.
    pub fn http(&self) -> Option<Http> {
        self.at.as_ref().map(|(http, _)| http.clone())
    }

    /// Listens there and nowhere else any more. If it cannot, it is where it was.
    pub async fn move_to(&mut self, http: Option<&Http>) -> Result<()> {
        let before = self.http();
        if before.as_ref() == http {
            return Ok(());
        }
        // Both may have a port in common.
        for listening in self.at.take().into_iter().flat_map(|(_, listening)| listening) {
            listening.cut_off().await;
        }
        let moved = self.listen_at(http);
        if moved.is_err() {
            self.listen_at(before.as_ref())?;
        }
        moved
    }

    fn listen_at(&mut self, http: Option<&Http>) -> Result<()> {
        self.at = http.map(|http| Ok::<_, Error>((http.clone(), self.listen(http)?))).transpose()?;
        Ok(())
    }

    fn listen(&self, http: &Http) -> Result<Vec<Listening>> {
        let names: Vec<String> = http.public_url.iter().filter_map(|url| authority_of(url)).collect();
        let listeners = Listener::open(&http.address, &self.group, None)?;
        let listen = |listener: Listener| {
            info!("webhooks, metrics and the page are at {}", listener.address());
            self.server.listen_for_pages(listener, self.api.clone(), &names)
        };
        Ok(listeners.into_iter().map(listen).collect())
    }
}

fn authority_of(url: &str) -> Option<String> {
    Some(url.parse::<http::Uri>().ok()?.authority()?.to_string())
}
