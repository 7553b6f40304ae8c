//! Calls of GitHub's REST API: who speaks, what may be asked now, and what is known from the last time.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    super::http::{Answer, Api, Refusal},
    app::AppTokens,
    limits::{self, Limits},
};
use crate::{
    model::{Error, Result},
    supervisor::{
        secret::Secret,
        settings::{Access, ForgeSettings, Github},
    },
};

/// The version of the API whose answers are read.
pub const VERSION: &str = "2022-11-28";

/// Entries of a list that are asked for at once: GitHub gives no more.
pub const PAGE: usize = 100;

/// Pages that are read: of a longer queue the rest comes when its head is done.
const PAGES: usize = 20;

/// Of answers that are kept to be compared with, all bytes.
const KEPT: usize = 64 << 20;

/// The API.
pub struct Hub {
    api: Api,
    who: Who,
    /// What may be asked.
    pub limits: Limits,
    kept: Mutex<HashMap<String, Kept>>,
    /// Calls that counted.
    counted: AtomicU64,
}

enum Who {
    Token(Secret),
    App(Box<AppTokens>),
}

/// An answer that has a tag: what has not changed is not sent again, and does not count.
#[derive(Clone)]
struct Kept {
    tag: String,
    next: Option<String>,
    body: Bytes,
}

/// What comes of a call.
pub enum Failure {
    /// GitHub said no.
    Refused(Refusal),
    /// It could not be asked, or not now.
    Other(Error),
}

impl Failure {
    /// HTTP's status, if there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(refusal) => refusal.status,
            Self::Other(_) => None,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Other(error) => error,
        }
    }
}

/// The headers of a call.
pub fn headers_of<'h>(authorization: &'h str, version: &'h str) -> [(&'static str, &'h str); 3] {
    [("authorization", authorization), ("accept", "application/vnd.github+json"), ("x-github-api-version", version)]
}

impl Hub {
    /// That of the server that is configured. An App is installed at `place`.
    pub fn new(settings: &ForgeSettings, github: &Github, place: String) -> Result<Self> {
        let who = match &settings.access {
            Access::Token(token) => Who::Token(token.clone()),
            Access::App(app) => Who::App(Box::new(AppTokens::new(app, place)?)),
        };
        let api = Api::at(settings, github.api.clone(), None)?;
        Ok(Self { api, who, limits: Limits::default(), kept: Mutex::default(), counted: AtomicU64::new(0) })
    }

    /// The server, for calls that say themselves who speaks.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Calls that counted until now.
    pub fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// A call without a body; what has not changed since the last time is not sent again.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let page = self.page(path).await?;
        Ok(self.api.read(&Method::GET, path, &page.body)?)
    }

    /// All pages of a list.
    pub async fn pages<T: DeserializeOwned, I>(
        &self,
        path: &str,
        entries: impl Fn(T) -> Vec<I>,
    ) -> Result<Vec<I>, Failure> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut all, mut next) = (Vec::new(), Some(format!("{path}{separator}per_page={PAGE}")));
        for _ in 0..PAGES {
            let Some(path) = next else { break };
            let page = self.page(&path).await?;
            all.extend(entries(self.api.read(&Method::GET, &path, &page.body)?));
            next = page.next;
        }
        Ok(all)
    }

    /// The scopes of a classic token: what it may do; others do not say.
    pub async fn scopes(&self, path: &str) -> Result<Option<String>, Failure> {
        let answer = self.exchange(limits::CORE, &Method::GET, path, None::<&()>, None).await?;
        if !answer.status.is_success() {
            return Err(self.api.refusal(&Method::GET, path, &answer).into());
        }
        Ok(answer.headers.get("x-oauth-scopes").and_then(|scopes| scopes.to_str().ok()).map(ToOwned::to_owned))
    }

    /// A call that makes something.
    pub async fn post<T: DeserializeOwned>(
        &self,
        bucket: &str,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        self.post_if(bucket, path, Some(body)).await
    }

    /// The same without a body.
    pub async fn post_empty<T: DeserializeOwned>(&self, bucket: &str, path: &str) -> Result<T, Failure> {
        self.post_if(bucket, path, None::<&()>).await
    }

    async fn post_if<T: DeserializeOwned>(
        &self,
        bucket: &str,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Failure> {
        let answer = self.exchange(bucket, &Method::POST, path, body, None).await?;
        if !answer.status.is_success() {
            return Err(self.api.refusal(&Method::POST, path, &answer).into());
        }
        Ok(self.api.read(&Method::POST, path, &answer.body)?)
    }

    /// A call that removes something.
    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        let answer = self.exchange(limits::CORE, &Method::DELETE, path, None::<&()>, None).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.api.refusal(&Method::DELETE, path, &answer).into()) }
    }

    async fn page(&self, path: &str) -> Result<Kept, Failure> {
        let kept = self.kept().get(path).cloned();
        let tag = kept.as_ref().map(|kept| kept.tag.as_str());
        let answer = self.exchange(limits::CORE, &Method::GET, path, None::<&()>, tag).await?;
        match (answer.status, kept) {
            (StatusCode::NOT_MODIFIED, Some(kept)) => return Ok(kept),
            (status, _) if status.is_success() => {}
            _ => return Err(self.api.refusal(&Method::GET, path, &answer).into()),
        }
        let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let next = text(header::LINK).and_then(next_of).and_then(|url| self.below(url));
        let (tag, body) = (text(header::ETAG).unwrap_or_default().to_owned(), answer.body.clone());
        let page = Kept { tag, next, body };
        let mut all = self.kept();
        if !page.tag.is_empty() {
            if all.values().map(|kept| kept.body.len()).sum::<usize>() + page.body.len() > KEPT {
                all.clear();
            }
            all.insert(path.to_owned(), page.clone());
        }
        Ok(page)
    }

    /// The path of an address of ours: the token is shown to nobody else.
    fn below(&self, url: &str) -> Option<String> {
        url.strip_prefix(self.api.url())?.strip_prefix('/').map(ToOwned::to_owned)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call, unless a limit forbids it. A token that is not taken any more is renewed once.
    async fn exchange(
        &self,
        bucket: &str,
        method: &Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        tag: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut may_renew = true;
        loop {
            self.limits.check(bucket)?;
            let token = self.token().await?;
            let authorization = format!("Bearer {}", token.reveal());
            let mut headers = headers_of(&authorization, VERSION).to_vec();
            headers.extend(tag.filter(|tag| !tag.is_empty()).map(|tag| ("if-none-match", tag)));
            let answer = self.api.exchange(method, path, body, &headers).await?;
            if answer.status != StatusCode::NOT_MODIFIED {
                self.counted.fetch_add(1, Ordering::Relaxed);
            }
            self.limits.note(bucket, &answer)?;
            match &self.who {
                Who::App(app) if answer.status == StatusCode::UNAUTHORIZED && may_renew => {
                    app.forget(&token).await;
                    may_renew = false;
                }
                _ => return Ok(answer),
            }
        }
    }

    async fn token(&self) -> Result<Secret> {
        match &self.who {
            Who::Token(token) => Ok(token.clone()),
            Who::App(app) => app.token(&self.api).await,
        }
    }
}

/// The address of the next page.
fn next_of(link: &str) -> Option<&str> {
    link.split(',').find_map(|part| {
        let (url, relation) = part.trim().split_once(';')?;
        let is_next = relation.split(';').any(|word| word.trim() == "rel=\"next\"");
        is_next.then(|| url.trim().trim_start_matches('<').trim_end_matches('>'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_others() {
        let link = "<https://a/x?page=1>; rel=\"prev\", <https://a/x?page=3>; rel=\"next\", <https://a/x?page=9>; rel=\"last\"";
        assert_eq!(next_of(link), Some("https://a/x?page=3"));
        assert_eq!(next_of("<https://a/x?page=1>; rel=\"first\""), None);
    }
}
