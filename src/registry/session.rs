//! One repository at one endpoint: signed requests, manifests, small blobs.

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::sync::Mutex;

use crate::{
    model::{
        Error, Result,
        image::{
            Descriptor,
            documents::{media_type, sniff_media_type},
        },
        limits,
        reference::{Digest, Reference},
        registry_auth::RegistryAuth,
    },
    registry::{
        Registry,
        authenticate::{Authenticator, Scope},
        challenge::{Challenge, challenges},
        endpoint::Endpoint,
        failure::Failure,
        transport::HttpClient,
    },
    work::Carried,
};

/// Manifests and indexes larger than this are refused, as dockerd does.
const MANIFEST_LIMIT: usize = 4 << 20;

/// Error answers are read this far.
pub(super) const ERROR_LIMIT: usize = 64 << 10;

/// A manifest or index with its bytes, as the registry signed for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The document, byte for byte.
    pub bytes: Bytes,
}

/// A repository at the endpoint that answered.
pub struct Session {
    pub(super) client: HttpClient,
    pub(super) endpoint: Endpoint,
    pub(super) reference: Reference,
    pub(super) retry_delay: std::time::Duration,
    vouches: bool,
    authenticator: Mutex<Authenticator>,
}

impl Session {
    /// Connects and learns how the registry wants to be spoken to.
    pub(super) async fn open(
        registry: &Registry,
        endpoint: Endpoint,
        reference: &Reference,
        auth: &RegistryAuth,
    ) -> Result<Self, Failure> {
        let scope = Scope::Pull(reference.repository().to_owned());
        Self::open_for(registry, endpoint, reference, auth, scope).await
    }

    /// As [`Session::open`], for something else than pulling.
    pub(super) async fn open_for(
        registry: &Registry,
        endpoint: Endpoint,
        reference: &Reference,
        auth: &RegistryAuth,
        scope: Scope,
    ) -> Result<Self, Failure> {
        let client = registry.client(&endpoint).map_err(|error| Failure::Other(error.chain()))?;
        let session = Self {
            vouches: registry.vouches(&endpoint),
            authenticator: Mutex::new(Authenticator::new(client.clone(), auth.clone(), scope)),
            client,
            endpoint,
            reference: reference.clone(),
            retry_delay: registry.config.retry_delay,
        };
        session.ping().await?;
        Ok(session)
    }

    /// What it was opened for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Whether its word on what a repository has can be trusted: it is no registry that a job may have made itself.
    pub fn vouches(&self) -> bool {
        self.vouches
    }

    async fn ping(&self) -> Result<(), Failure> {
        let url = self.url("/v2/")?;
        let answer = self.send(self.client.request(Method::GET, url.clone()), &Method::GET, &url).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.authenticator.lock().await.learn(challenges(answer.headers()));
        }
        Ok(())
    }

    /// The digest and kind of a tag without its bytes; `None` if the registry does not say.
    pub(super) async fn head_manifest(&self, wanted: &str) -> Result<Option<(Digest, String)>, Failure> {
        let answer = match self.request(Method::HEAD, &self.manifest_path(wanted), accept_manifests()).await {
            Ok(answer) => answer,
            // An answer to HEAD has no body and so no reason; GET tells it. But it does not change who we are.
            Err(failure @ (Failure::NoCredentials(_) | Failure::Transport(..))) => return Err(failure),
            Err(_) => return Ok(None),
        };
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let digest = header("docker-content-digest").and_then(|digest| digest.parse().ok());
        let kind = header("content-type").map(content_type);
        Ok(digest.zip(kind))
    }

    /// A manifest or index by tag or digest. Its bytes are checked against a digest that was asked for.
    pub(super) async fn get_manifest(&self, wanted: &str) -> Result<FetchedManifest, Failure> {
        let path = self.manifest_path(wanted);
        let answer = self.request(Method::GET, &path, accept_manifests()).await?;
        let declared = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(content_type);
        let bytes = read_limited(answer, &Method::GET, &self.url(&path)?, MANIFEST_LIMIT).await?;
        let digest = Digest::of(&bytes);
        if let Ok(wanted) = wanted.parse::<Digest>()
            && wanted.as_str().starts_with("sha256:")
            && wanted != digest
        {
            return Err(Failure::Other(format!("manifest verification failed for digest {wanted}")));
        }
        // Some registries and most static servers answer with a type that says nothing.
        let known = |kind: &String| {
            media_type::is_index(kind) || media_type::is_manifest(kind) || media_type::SCHEMA1.contains(&kind.as_str())
        };
        let kind = declared.filter(known).or_else(|| sniff_media_type(&bytes)).unwrap_or_default();
        Ok(FetchedManifest { descriptor: Descriptor::of(&kind, &bytes), bytes })
    }

    /// The manifest that an index's entry points at.
    pub async fn manifest(&self, entry: &Descriptor) -> Result<FetchedManifest> {
        let fetched = self.get_manifest(entry.digest.as_str()).await;
        let mut fetched = fetched.map_err(|failure| failure.of_pull(&self.reference))?;
        if fetched.descriptor.media_type.is_empty() {
            fetched.descriptor.media_type.clone_from(&entry.media_type);
        }
        Ok(fetched)
    }

    /// A blob that fits into memory: a configuration. It is checked against its digest.
    pub async fn small_blob(&self, blob: &Descriptor, limit: usize) -> Result<Bytes> {
        if blob.size > limit as u64 {
            return Err(Error::system(format!("blob {} is too large: {} bytes", blob.digest, blob.size)));
        }
        let bytes = self.read_small_blob(blob, limit).await.map_err(|failure| failure.of_pull(&self.reference))?;
        if Digest::of(&bytes) != blob.digest {
            return Err(Error::system(format!("image config verification failed for digest {}", blob.digest)));
        }
        Ok(bytes)
    }

    async fn read_small_blob(&self, blob: &Descriptor, limit: usize) -> Result<Bytes, Failure> {
        let path = self.blob_path(blob);
        let answer = self.request(Method::GET, &path, HeaderMap::new()).await?;
        read_limited(answer, &Method::GET, &self.url(&path)?, limit).await
    }

    /// Whether the repository says that it has a blob.
    pub async fn has(&self, blob: &Descriptor) -> bool {
        self.request(Method::HEAD, &self.blob_path(blob), HeaderMap::new()).await.is_ok()
    }

    /// Sends a signed request. When the registry refuses our token, or had not asked for one before, once more.
    pub(super) async fn request(&self, method: Method, path: &str, headers: HeaderMap) -> Result<Response, Failure> {
        let url = self.url(path)?;
        let mut tried = false;
        loop {
            let request = self.client.request(method.clone(), url.clone()).headers(headers.clone());
            let request = self.sign(request, &method, &url).await?;
            let answer = self.send(request, &method, &url).await?;
            let status = answer.status();
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(answer);
            }
            let found = challenges(answer.headers());
            if status == StatusCode::UNAUTHORIZED && !tried && self.learn(found.clone()).await {
                tried = true;
                continue;
            }
            let body = read_limited(answer, &method, &url, ERROR_LIMIT).await.unwrap_or_default();
            return Err(Failure::from_answer(status, &found, &body));
        }
    }

    pub(super) async fn send(&self, request: RequestBuilder, method: &Method, url: &Url) -> Result<Response, Failure> {
        self.client.send(request, method, url).await
    }

    pub(super) async fn sign(
        &self,
        request: RequestBuilder,
        method: &Method,
        url: &Url,
    ) -> Result<RequestBuilder, Failure> {
        self.authenticator.lock().await.sign(request, method, url.as_str()).await
    }

    /// Takes up what an answer demanded. Whether a second try may do better.
    pub(super) async fn learn(&self, found: Vec<Challenge>) -> bool {
        self.authenticator.lock().await.learn(found)
    }

    pub(super) fn url(&self, path: &str) -> Result<Url, Failure> {
        let text = if path.contains("://") { path.to_owned() } else { format!("{}{path}", self.endpoint.base) };
        Url::parse(&text).map_err(|error| Failure::Other(format!("invalid registry URL {text:?}: {error}")))
    }

    pub(super) fn manifest_path(&self, wanted: &str) -> String {
        format!("/v2/{}/manifests/{wanted}", self.reference.repository())
    }

    pub(super) fn blob_path(&self, blob: &Descriptor) -> String {
        format!("/v2/{}/blobs/{}", self.reference.repository(), blob.digest)
    }
}

/// Reads a body that must not be larger than `limit`; of more than a little only for a request that has a place, which it keeps.
pub(super) async fn read_limited(
    mut answer: Response,
    method: &Method,
    url: &Url,
    limit: usize,
) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > limit => {
                return Err(Failure::Other(format!("answer of {url} is larger than {limit} bytes")));
            }
            Ok(Some(chunk)) => {
                if bytes.len() + chunk.len() > limits::SMALL_HOLDING {
                    Carried::here().keep_place().await.map_err(|error| Failure::Other(error.chain()))?;
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(None) => return Ok(bytes.freeze()),
            Err(error) => return Err(Failure::transport(method, url, &error).await),
        }
    }
}

fn content_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

fn accept_manifests() -> HeaderMap {
    let kinds = [media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST, media_type::OCI_INDEX, media_type::OCI_MANIFEST];
    let all = kinds.into_iter().chain(media_type::SCHEMA1.into_iter().rev());
    all.map(|kind| (ACCEPT, HeaderValue::from_static(kind)))
        .collect::<Vec<(HeaderName, HeaderValue)>>()
        .into_iter()
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
}
