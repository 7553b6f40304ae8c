//! `POST /build`: the classic builder. A `RUN` is a container of the tenant, made, started and removed by the engine's own
//! verbs, so that scope, networks and limits hold for it as for all others; what it changed becomes a layer.
//!
//! `request` is what is asked for, `context` the files it comes with, `builder` goes through the stages, `stage` knows
//! where one stands, `source` its base image; `run` and `copy` (of `sources`) make layers (`pad` is a layer to copy onto), `commit` makes images of them, `cache` finds
//! what was built before, `message` is what the client sees. Steps that only change the configuration print a
//! container's id as dockerd does, but need none.

mod beside;
mod builder;
mod cache;
mod commit;
mod context;
mod copy;
mod files;
mod message;
mod pad;
mod prune;
mod remote;
mod request;
mod run;
mod source;
mod sources;
mod stage;
mod step;
#[cfg(test)]
mod tests;

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

pub use self::{
    message::BuildMessage,
    prune::{BuildPruned, PruneRequest},
    request::{BuildLimits, BuildRequest},
};
pub(crate) use context::tidy;

use self::{builder::Builder, message::Output};
use super::images::new_name;
use crate::{
    engine::{Engine, images::Body, tenants::Scope},
    model::{Error, Result, reference::Reference},
    policy::Asked,
    work::{Carried, Stop, Why},
};

/// What a client sees of a build. A failure after the first message is a message too.
pub type BuildStream = Pin<Box<dyn Stream<Item = Result<BuildMessage>> + Send>>;

impl Engine {
    /// Builds an image of the context in `body`. What fails before the first message is the answer's status, as dockerd
    /// has it. A client that leaves ends the build.
    pub async fn image_build(&self, scope: &Scope, request: BuildRequest, body: Body) -> Result<BuildStream> {
        let mut names: Vec<Reference> = Vec::new();
        for name in &request.tags {
            let name = new_name(name, "")?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        scope.permit(Asked::Build(&request.limits.host_config()))?;
        let (sender, mut receiver) = mpsc::channel(64);
        let (engine, scope) = (self.clone(), scope.clone());
        // What it holds of documents and users' files it holds to its end.
        let carried = Carried::here();
        self.spawn(
            "image_build",
            carried.during(async move {
                let output = Output::new(sender.clone(), request.quiet);
                let cancelled = CancellationToken::new();
                let stopping = engine.stopping();
                // The build is told and ends by itself, since what it has made must be taken away.
                let watch = async {
                    tokio::select! {
                        () = sender.closed() => {}
                        () = stopping.cancelled() => {}
                    }
                    cancelled.cancel();
                    std::future::pending().await
                };
                let built = tokio::select! {
                    () = watch => return,
                    built = engine.build(&scope, &request, &names, body, &output, &cancelled) => built,
                };
                output.finish(built).await;
            }),
        );
        match receiver.recv().await {
            Some(Err(error)) => Err(error),
            first => {
                let first = futures_util::stream::iter(first);
                Ok(Box::pin(first.chain(ReceiverStream::new(receiver))))
            }
        }
    }

    async fn build(
        &self,
        scope: &Scope,
        request: &BuildRequest,
        names: &[Reference],
        body: Body,
        output: &Output,
        cancelled: &CancellationToken,
    ) -> Result<String> {
        let (context, dockerfile) = tokio::select! {
            () = cancelled.cancelled() => return Err(cancelled_error()),
            read = self.build_context(scope, request, body, output, stop_of(cancelled)) => read?,
        };
        let lease = self.images.backend.lease().await?;
        let mut builder = Builder::new(self, scope, request, &lease, output, cancelled, context.as_ref()).await?;
        let built = builder.build(dockerfile, names).await;
        if let Some(context) = context {
            context.remove().await;
        }
        self.images.backend.release(lease).await?;
        if built.is_err() {
            self.collect_garbage_soon();
        }
        built
    }
}

/// What ends the long steps of a build.
fn stop_of(cancelled: &CancellationToken) -> Stop {
    Stop::when([(cancelled.clone(), Why::ClientGone)])
}

fn cancelled_error() -> Error {
    Error::system("build cancelled")
}
