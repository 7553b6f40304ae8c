//! Contexts that clients send by a request of their own, beside the one that builds (`remote=upload-request`): docker CLI up to 22
//! does so with what it reads from its standard input. The two name each other by the build's name, as moby's `builder-next` pairs them.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    sync::Mutex,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use tokio::sync::{Notify, oneshot};

use super::{
    BuildKit,
    build::Name,
    front::lock,
    grpc::{Body, BodyError, boxed},
};
use crate::model::{Error, Result, id::TenantId};

/// How long the two may wait for each other, as in dockerd.
const PATIENCE: Duration = Duration::from_secs(5);

/// A context on its way, which is read once.
pub struct Upload {
    body: Body,
    /// Tells who brings it that it is wanted, and by its end that it is not any more.
    taken: Option<oneshot::Sender<()>>,
    read: oneshot::Sender<()>,
}

impl Upload {
    /// One that a client sends with the request that builds.
    pub fn of<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        Self { body: boxed(body), taken: None, read: oneshot::channel().0 }
    }

    /// Its bytes; who brings it goes when they are dropped.
    pub(super) fn into_body(self) -> Body {
        let read = self.read;
        boxed(self.body.map_frame(move |frame| {
            let _held_until_then = &read;
            frame
        }))
    }
}

/// Those that wait for their builds.
#[derive(Default)]
pub(super) struct Uploads {
    waiting: Mutex<HashMap<Name, Upload>>,
    arrived: Notify,
}

impl Uploads {
    /// Until the build has read it, or does not want it any more.
    async fn bring(&self, name: Name, body: Body) -> Result<()> {
        // Dropped after our end of the channel: what nobody brings any more is not there.
        let _swept = Swept(self);
        let (told, taken) = oneshot::channel();
        let (read, ended) = oneshot::channel();
        match lock(&self.waiting).entry(name) {
            Entry::Occupied(_) => return Err(Error::conflict("a context for this build is being uploaded already")),
            Entry::Vacant(place) => place.insert(Upload { body, taken: Some(told), read }),
        };
        self.arrived.notify_waiters();
        let _by_its_build = in_time(taken).await?;
        let _it_is_over = ended.await;
        Ok(())
    }

    async fn take(&self, name: &Name) -> Result<Upload> {
        in_time(async {
            loop {
                let mut arrived = std::pin::pin!(self.arrived.notified());
                arrived.as_mut().enable();
                if let Some(mut upload) = lock(&self.waiting).remove(name) {
                    if upload.taken.take().is_some_and(|told| told.send(()).is_ok()) {
                        return upload;
                    }
                    continue;
                }
                arrived.await;
            }
        })
        .await
    }
}

async fn in_time<T>(wait: impl Future<Output = T>) -> Result<T> {
    // A 500 with Go's words in dockerd.
    tokio::time::timeout(PATIENCE, wait).await.map_err(|_| Error::system("context deadline exceeded"))
}

struct Swept<'u>(&'u Uploads);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        lock(&self.0.waiting).retain(|_, upload| !upload.read.is_closed());
    }
}

impl BuildKit {
    /// Brings a context to the build of that name, until that has read it or does not want it any more.
    pub async fn upload<B>(&self, tenant: &TenantId, name: &str, body: B) -> Result<()>
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        self.uploads.bring((tenant.clone(), name.to_owned()), boxed(body)).await
    }

    /// The context that a client sends for the build of that name.
    pub async fn uploaded(&self, tenant: &TenantId, name: &str) -> Result<Upload> {
        self.uploads.take(&(tenant.clone(), name.to_owned())).await
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn name(of: &str) -> Name {
        (TenantId::default_tenant(), of.to_owned())
    }

    fn body(text: &'static str) -> Body {
        boxed(Full::new(Bytes::from(text)))
    }

    #[tokio::test]
    async fn whoever_comes_first_waits_for_the_other() {
        let uploads = Uploads::default();
        let build = async {
            let upload = uploads.take(&name("a")).await.unwrap();
            upload.into_body().collect().await.unwrap().to_bytes()
        };
        let bring = uploads.bring(name("a"), body("x"));
        let (read, brought) = tokio::join!(build, bring);
        assert_eq!((brought.is_ok(), read), (true, Bytes::from("x")));
        assert!(lock(&uploads.waiting).is_empty());
    }

    #[tokio::test]
    async fn it_is_its_builds_alone_and_goes_with_its_client() {
        let uploads = Uploads::default();
        let mut bringing = Box::pin(uploads.bring(name("a"), body("x")));
        assert!(futures_util::poll!(&mut bringing).is_pending());
        let other = ("other".parse().unwrap(), "a".to_owned());
        assert!(futures_util::poll!(Box::pin(uploads.take(&other))).is_pending());
        assert!(uploads.bring(name("a"), body("y")).await.is_err(), "there is one");
        drop(bringing);
        assert!(lock(&uploads.waiting).is_empty());
    }
}
