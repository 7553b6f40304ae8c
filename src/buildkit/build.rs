//! Builds of clients that do not speak gRPC (docker CLI up to 22): we ask buildkitd in their place and pass on what it tells.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    BuildKit,
    front::lock,
    grpc::{self, Body, CONTENT_TYPE, Frames, boxed, framed},
    proxy::Upstream,
    results::Results,
    served::Served,
    solve,
    uploads::Upload,
    wire,
};
use crate::{
    backend::builds::BuildTenant,
    model::{
        Error, Result,
        id::{ContainerId, TenantId},
    },
};

/// How long what a failed build has still to tell may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Messages that wait for a slow client.
const WAITING: usize = 16;

/// A kind of exporter with its attributes.
pub type Exporter = (String, Vec<(String, String)>);

/// What is to be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// The session in which the client serves its context.
    pub session: String,
    /// Options of the Dockerfile frontend.
    pub options: Vec<(String, String)>,
    /// Where the result goes.
    pub exporters: Vec<Exporter>,
    /// What the build is to be given beyond what all have.
    pub entitlements: Vec<String>,
    /// Images that may hold what was built before.
    pub cache_from: Vec<String>,
    /// Whether the result says how it can be used so.
    pub inline_cache: bool,
    /// By which its client may cancel it; empty for none.
    pub name: String,
}

/// How a build ends that its client has cancelled, in dockerd's words.
const CANCELLED: &str = "context canceled";

/// Whose build it is, and what its client calls it.
pub(super) type Name = (TenantId, String);

/// Builds that can be cancelled.
#[derive(Default)]
pub(super) struct Named(Mutex<HashMap<Name, Vec<Arc<CancellationToken>>>>);

impl Named {
    fn add(&self, tenant: &TenantId, name: &str) -> HasName<'_> {
        let (key, cancelled) = ((tenant.clone(), name.to_owned()), Arc::new(CancellationToken::new()));
        if !name.is_empty() {
            lock(&self.0).entry(key.clone()).or_default().push(cancelled.clone());
        }
        HasName { of: self, key, cancelled }
    }

    /// Clients may give a name twice: all that have it are meant.
    fn cancel(&self, tenant: &TenantId, name: &str) {
        let named = lock(&self.0);
        named.get(&(tenant.clone(), name.to_owned())).into_iter().flatten().for_each(|build| build.cancel());
    }
}

/// A build that can be cancelled by its name.
struct HasName<'n> {
    of: &'n Named,
    key: Name,
    cancelled: Arc<CancellationToken>,
}

impl Drop for HasName<'_> {
    fn drop(&mut self) {
        let mut named = lock(&self.of.0);
        let Some(builds) = named.get_mut(&self.key) else { return };
        builds.retain(|build| !Arc::ptr_eq(build, &self.cancelled));
        if builds.is_empty() {
            named.remove(&self.key);
        }
    }
}

/// What is told of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildNews {
    /// How it goes: BuildKit's `StatusResponse` as it is on the wire.
    Trace(Bytes),
    /// The id of the image that was built.
    Image(String),
}

impl BuildOptions {
    /// As a `moby.buildkit.v1.SolveRequest`.
    fn message(&self, build: &str) -> Vec<u8> {
        let mut message = Vec::new();
        wire::put(&mut message, solve::REF, build.as_bytes());
        wire::put(&mut message, solve::SESSION, self.session.as_bytes());
        wire::put(&mut message, solve::FRONTEND, b"dockerfile.v0");
        for (key, value) in &self.options {
            wire::put_entry(&mut message, solve::FRONTEND_ATTRIBUTES, key, value);
        }
        let mut cache = Vec::new();
        if self.inline_cache {
            wire::put(&mut cache, solve::CACHE_EXPORTS, &solve::typed("inline", []));
        }
        for image in &self.cache_from {
            wire::put(&mut cache, solve::CACHE_IMPORTS, &solve::typed("registry", [("ref", image.as_str())]));
        }
        wire::put(&mut message, solve::CACHE, &cache);
        for name in &self.entitlements {
            wire::put(&mut message, solve::ENTITLEMENTS, name.as_bytes());
        }
        for (kind, attributes) in &self.exporters {
            let attributes = attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            wire::put(&mut message, solve::EXPORTERS, &solve::typed(kind, attributes));
        }
        message
    }
}

impl BuildKit {
    /// Builds, and tells how it goes. The build ends with the stream. `upload` is its context, if the client has sent that.
    pub fn build(
        self: &Arc<Self>,
        tenant: &TenantId,
        of: Arc<dyn BuildTenant>,
        mut options: BuildOptions,
        upload: Option<Upload>,
    ) -> impl Stream<Item = Result<BuildNews>> + Send + use<> {
        let (news, stream) = mpsc::channel(WAITING);
        let (builder, tenant) = (self.clone(), tenant.clone());
        let building = AbortOnDropHandle::new(tokio::spawn(async move {
            let named = builder.named.add(&tenant, &options.name);
            let built = async {
                let rules = of.clone();
                let slot = builder.slot(&tenant, of)?;
                let (upstream, _used) = slot.connect().await?;
                let served = match upload {
                    Some(upload) => Some(Served::at(slot.network().await?, upload).await?),
                    None => None,
                };
                options.options.extend(served.iter().map(|served| ("context".to_owned(), served.url.clone())));
                run(&upstream, &options, rules.as_ref(), &slot.known.results, &news).await
            };
            let built = named.cancelled.run_until_cancelled(built);
            if let Err(error) = built.await.unwrap_or_else(|| Err(Error::system(CANCELLED))) {
                let _client_left = news.send(Err(error)).await;
            }
        }));
        ReceiverStream::new(stream).map(move |item| {
            // Held as long as somebody listens.
            let _ = &building;
            item
        })
    }

    /// Breaks a build off by the name that its client gave it. One that is not there has ended.
    pub fn cancel(&self, tenant: &TenantId, name: &str) {
        self.named.cancel(tenant, name);
    }
}

async fn run(
    upstream: &Upstream,
    options: &BuildOptions,
    rules: &dyn BuildTenant,
    results: &Arc<Results>,
    news: &mpsc::Sender<Result<BuildNews>>,
) -> Result<()> {
    let build = ContainerId::random().to_string();
    let solve = solve::control(&options.message(&build), rules)?;
    // A `StatusRequest` has the same in the same place.
    let mut asked = Vec::new();
    wire::put(&mut asked, solve::REF, build.as_bytes());
    let _building = results.begin(None);
    let solving = async {
        let solved = grpc::unary(upstream.call(request("Solve", &solve)).await).await?;
        results.settle().await?;
        Ok(solved)
    };
    let tracing = async { trace(upstream.call(request("Status", &asked)).await.into_body(), news).await };
    let solved = together(solving, tracing, LAST_WORDS).await?;
    if let Some(digest) = image(&solved)? {
        let _client_left = news.send(Ok(BuildNews::Image(digest))).await;
    }
    Ok(())
}

/// Waits for both, but for the second one not long once the first has failed.
async fn together<T>(
    solving: impl Future<Output = Result<T>>,
    tracing: impl Future<Output = ()>,
    patience: Duration,
) -> Result<T> {
    let (mut solving, mut tracing) = (pin!(solving), pin!(tracing));
    tokio::select! {
        solved = &mut solving => {
            match &solved {
                Ok(_) => tracing.await,
                Err(_) => drop(tokio::time::timeout(patience, tracing).await),
            }
            solved
        }
        () = &mut tracing => solving.await,
    }
}

async fn trace(mut body: Body, news: &mpsc::Sender<Result<BuildNews>>) {
    let mut frames = Frames::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(bytes) = frame.data_ref() else { continue };
        frames.push(bytes);
        while let Ok(Some(message)) = frames.next() {
            if news.send(Ok(BuildNews::Trace(message))).await.is_err() {
                return;
            }
        }
    }
}

/// The id of what was built, as a `SolveResponse` says it.
fn image(answer: &[u8]) -> Result<Option<String>> {
    for field in wire::fields(answer) {
        let field = field?;
        if let (1, Some(content)) = (field.number, field.content)
            && let (key, value) = wire::entry(content)?
            && key == "containerimage.digest"
        {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

pub(super) fn request(method: &str, message: &[u8]) -> Request<Body> {
    Request::post(format!("/moby.buildkit.v1.Control/{method}"))
        .header(header::CONTENT_TYPE, CONTENT_TYPE)
        .header("te", "trailers")
        .body(boxed(Full::new(framed(message))))
        .expect("a path of ours")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::rules::Free;

    #[test]
    fn a_build_is_said_as_buildx_says_it() {
        let options = BuildOptions {
            session: "s".to_owned(),
            options: vec![("target".to_owned(), "last".to_owned())],
            exporters: vec![("moby".to_owned(), vec![("name".to_owned(), "x".to_owned())])],
            entitlements: vec!["network.host".to_owned()],
            ..BuildOptions::default()
        };
        let message = solve::control(&options.message("b"), &Free).unwrap();
        let texts = [1, 5, 6, 9].map(|number| wire::text_of(&message, number).unwrap());
        assert_eq!(texts, ["b", "s", "dockerfile.v0", "network.host"]);
        let refused = BuildOptions { entitlements: vec!["security.insecure".to_owned()], ..options };
        assert!(solve::control(&refused.message("b"), &Free).is_err());
    }

    #[test]
    fn builds_of_one_name_are_cancelled_until_the_last_has_ended() {
        let (named, tenant) = (Named::default(), TenantId::default_tenant());
        let (first, second) = (named.add(&tenant, "b"), named.add(&tenant, "b"));
        drop(first);
        named.cancel(&"other".parse().unwrap(), "b");
        assert!(!second.cancelled.is_cancelled());
        named.cancel(&tenant, "b");
        assert!(second.cancelled.is_cancelled());
        drop(second);
        assert!(lock(&named.0).is_empty());
    }

    #[test]
    fn the_image_is_found_in_the_answer() {
        let mut answer = Vec::new();
        wire::put_entry(&mut answer, 1, "image.name", "x");
        assert_eq!(image(&answer).unwrap(), None);
        wire::put_entry(&mut answer, 1, "containerimage.digest", "sha256:1");
        assert_eq!(image(&answer).unwrap().as_deref(), Some("sha256:1"));
    }

    #[tokio::test]
    async fn a_failure_does_not_wait_for_more_words_for_ever() {
        let failed =
            together(async { Err::<(), _>(Error::system("no")) }, std::future::pending(), Duration::ZERO).await;
        assert!(failed.is_err());
    }
}
