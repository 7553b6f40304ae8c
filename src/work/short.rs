//! Short work that blocks: what starts, stops and creates containers asks of the kernel.

use crate::model::{Result, error::Context};

/// Does it on the runtime's blocking pool, in which no client's long work stands.
pub async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.context("running blocking work")?
}
