//! Pushing: what the registry has already, mounts from its other repositories, uploads, manifests.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use tracing::debug;

use crate::{
    model::{
        Error, Result,
        image::Descriptor,
        reference::{Digest, Reference},
        registry_auth::RegistryAuth,
    },
    registry::{
        Registry,
        authenticate::Scope,
        challenge::{Challenge, challenges},
        endpoint::login_endpoints,
        failure::Failure,
        resolve::more_telling,
        session::{ERROR_LIMIT, Session, read_limited},
    },
};

/// Failures after which an upload is given up; dockerd's number.
const ATTEMPTS: u32 = 5;

/// A blob's bytes from the beginning; asked for again when an upload is tried again.
pub type OpenBlob<'a> = &'a (dyn Fn() -> BoxStream<'static, std::io::Result<Bytes>> + Send + Sync);

/// How a blob came to the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted(String),
    /// It was sent.
    Uploaded,
}

enum Begun {
    Mounted,
    At(Url),
}

impl Registry {
    /// Opens a repository for writing. Mirrors are no place for that. `mounts` are repositories of the registry
    /// that blobs may be taken from.
    pub async fn open_for_push(
        &self,
        reference: &Reference,
        auth: &RegistryAuth,
        mounts: &[String],
    ) -> Result<Session> {
        let mut last = Failure::Other(format!("no endpoint for {}", reference.familiar_name()));
        for endpoint in login_endpoints(reference.registry(), &self.config).await {
            let from = if self.vouches(&endpoint) { mounts.to_vec() } else { Vec::new() };
            let scope = Scope::Push { to: reference.repository().to_owned(), from };
            match Session::open_for(self, endpoint, reference, auth, scope).await {
                Ok(session) => return Ok(session),
                Err(failure) => last = more_telling(last, failure),
            }
        }
        Err(last.of_push())
    }
}

impl Session {
    /// Sees to it that the repository has a blob. Of `mounts` the first that the registry accepts is taken.
    pub async fn push_blob(
        &self,
        blob: &Descriptor,
        mounts: &[String],
        open: OpenBlob<'_>,
        retrying: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed> {
        let mut failures = 0;
        loop {
            let failure = match self.try_push(blob, mounts, open).await {
                Ok(pushed) => return Ok(pushed),
                Err(failure) => failure,
            };
            debug!(blob.digest = %blob.digest, "pushing {} broke: {}", blob.digest, failure.text());
            failures += 1;
            if !failure.is_passing() || failures >= ATTEMPTS {
                return Err(failure.of_push());
            }
            let mut left = self.retry_delay * failures;
            while !left.is_zero() {
                retrying(left.as_secs().max(1));
                let step = left.min(Duration::from_secs(1));
                tokio::time::sleep(step).await;
                left -= step;
            }
        }
    }

    async fn try_push(&self, blob: &Descriptor, mounts: &[String], open: OpenBlob<'_>) -> Result<Pushed, Failure> {
        if self.has_blob(blob).await? {
            return Ok(Pushed::Existed);
        }
        let mut begun = None;
        for from in mounts {
            match self.begin_upload(Some((blob, from))).await {
                Ok(Begun::Mounted) => return Ok(Pushed::Mounted(from.clone())),
                Ok(Begun::At(place)) => begun = Some(place),
                // Some registries refuse to mount from what this user may not read.
                Err(Failure::Refused(..)) => {}
                Err(failure) => return Err(failure),
            }
        }
        let place = match begun {
            Some(place) => place,
            None => match self.begin_upload(None).await? {
                Begun::At(place) => place,
                Begun::Mounted => return Ok(Pushed::Existed),
            },
        };
        self.upload(blob, place, open).await?;
        Ok(Pushed::Uploaded)
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, Failure> {
        let url = self.url(&self.blob_path(blob))?;
        let (answer, found) = self.exchange(&Method::HEAD, &url, &|request| request).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(Failure::from_answer(status, &found, b"")),
        }
    }

    async fn begin_upload(&self, mount: Option<(&Descriptor, &str)>) -> Result<Begun, Failure> {
        let mut url = self.url(&format!("/v2/{}/blobs/uploads/", self.reference.repository()))?;
        if let Some((blob, from)) = mount {
            url.query_pairs_mut().append_pair("mount", blob.digest.as_str()).append_pair("from", from);
        }
        let empty = |request: RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let answer = self.expect(&Method::POST, &url, &empty).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        location(&url, &answer).map(Begun::At)
    }

    /// One request for all of it; the place may carry a query of its own.
    async fn upload(&self, blob: &Descriptor, mut place: Url, open: OpenBlob<'_>) -> Result<(), Failure> {
        place.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let build = |request: RequestBuilder| {
            request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, blob.size)
                .body(Body::wrap_stream(open()))
        };
        self.expect(&Method::PUT, &place, &build).await.map(drop)
    }

    /// Stores a manifest or index under a tag or its digest.
    pub async fn put_manifest(&self, name: &str, kind: &str, bytes: Vec<u8>) -> Result<()> {
        let url = self.url(&self.manifest_path(name)).map_err(|failure| failure.of_push())?;
        let bytes = Bytes::from(bytes);
        let build = |request: RequestBuilder| request.header(CONTENT_TYPE, kind).body(bytes.clone());
        let answer = self.expect(&Method::PUT, &url, &build).await.map_err(|failure| failure.of_push())?;
        let stored = answer.headers().get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        match stored.and_then(|digest| digest.parse::<Digest>().ok()) {
            Some(stored) if stored != Digest::of(&bytes) => {
                Err(Error::system(format!("the registry stored {stored} in place of {}", Digest::of(&bytes))))
            }
            _ => Ok(()),
        }
    }

    async fn expect(
        &self,
        method: &Method,
        url: &Url,
        build: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, Failure> {
        let (answer, found) = self.exchange(method, url, build).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = read_limited(answer, method, url, ERROR_LIMIT).await.unwrap_or_default();
        Err(Failure::from_answer(status, &found, &body))
    }

    /// Sends, and once more if the registry then says who it wants us to be. Elsewhere than at the registry itself
    /// (a store to which it sent us) our credentials are not shown.
    async fn exchange(
        &self,
        method: &Method,
        url: &Url,
        build: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<(Response, Vec<Challenge>), Failure> {
        let own = self.url("/v2/")?.host_str() == url.host_str();
        let mut tried = false;
        loop {
            let mut request = build(self.client.request(method.clone(), url.clone()));
            if own {
                request = self.sign(request, method, url).await?;
            }
            let answer = self.send(request, method, url).await?;
            let found = challenges(answer.headers());
            if own && answer.status() == StatusCode::UNAUTHORIZED && !tried && self.learn(found.clone()).await {
                tried = true;
                continue;
            }
            return Ok((answer, found));
        }
    }
}

fn location(url: &Url, answer: &Response) -> Result<Url, Failure> {
    let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok()).unwrap_or_default();
    match url.join(place) {
        Ok(place_url) if !place.is_empty() => Ok(place_url),
        _ => Err(Failure::Other(format!("the registry began an upload at no valid place: {place:?}"))),
    }
}
