//! A plain download by URL, in Go's words when it fails: sources and contexts of builds.

use reqwest::{Method, Response, StatusCode, Url};

use super::Registry;
use crate::model::{Error, Result, url::without_credentials};

/// A server's explanation is not read further than this.
const EXPLANATION: usize = 4096;

impl Registry {
    /// `GET`; an answer of 400 and more is an error.
    pub async fn fetch(&self, text: &str) -> Result<Response> {
        let shown = without_credentials(text);
        let url: Url =
            text.parse().map_err(|error| Error::invalid(format!("parse {shown:?}: {error}")).with_source(error))?;
        let client = self.plain_client()?;
        let sent = client.send(client.request(Method::GET, url.clone()), &Method::GET, &url).await;
        let response = sent.map_err(|failure| Error::system(failure.text()).as_news())?;
        let status = response.status();
        if status.as_u16() < 400 {
            return Ok(response);
        }
        let explanation = beginning(response).await;
        let explanation = String::from_utf8_lossy(&explanation);
        let words = format!("failed to GET {shown} with status {status}: {}", explanation.trim());
        Err(match status {
            StatusCode::NOT_FOUND => Error::not_found(words),
            StatusCode::BAD_REQUEST => Error::invalid(words),
            StatusCode::FORBIDDEN => Error::forbidden(words),
            _ => Error::system(words).as_news(),
        })
    }
}

/// The first bytes of an answer, which may have no end; what breaks off is as good.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < EXPLANATION
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk[..chunk.len().min(EXPLANATION - bytes.len())]);
    }
    bytes
}
