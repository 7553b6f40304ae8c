//! The streams of a run, between the task and whoever reads and writes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, task::JoinHandle};
use tracing::warn;

use crate::{
    backend::runtime::{OutputPipe, TaskIo},
    engine::{
        Engine,
        container::{
            Container,
            console::{Console, StdinPort},
        },
    },
    logs::Writer,
    model::output::OutputStream,
};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Takes the streams of a run: output to the log and to who is attached, input from the console.
pub(crate) fn pump(engine: &Engine, container: &Arc<Container>, io: TaskIo, log: Writer) -> JoinHandle<()> {
    if let Some(stdin) = io.stdin {
        container.console.open_stdin(Arc::new(StdinPort::new(stdin)));
    }
    let container = container.clone();
    engine.spawn_joined("output", async move {
        copy_output(io.stdout, io.stderr, log, &container.console).await;
    })
}

async fn copy_output(stdout: OutputPipe, stderr: Option<OutputPipe>, mut log: Writer, console: &Console) {
    let mut stdout = Some(stdout);
    let mut stderr = stderr;
    let mut out_buffer = BytesMut::with_capacity(CHUNK);
    let mut err_buffer = BytesMut::with_capacity(CHUNK);
    while stdout.is_some() || stderr.is_some() {
        let (stream, chunk) = tokio::select! {
            chunk = next_chunk(&mut stdout, &mut out_buffer) => (OutputStream::Stdout, chunk),
            chunk = next_chunk(&mut stderr, &mut err_buffer) => (OutputStream::Stderr, chunk),
        };
        if !chunk.is_empty() {
            log.write(stream, &chunk);
            if console.has_clients() {
                console.broadcast(stream, &chunk).await;
            }
        }
    }
    log.finish();
}

/// The next piece; empty when the pipe has just ended. Never answers for a pipe that ended before.
async fn next_chunk(pipe: &mut Option<OutputPipe>, buffer: &mut BytesMut) -> Bytes {
    let Some(open) = pipe else { return std::future::pending().await };
    buffer.reserve(CHUNK);
    match open.read_buf(buffer).await {
        Ok(0) => *pipe = None,
        Ok(_) => {}
        Err(error) => {
            warn!("reading a container's output: {error}");
            *pipe = None;
        }
    }
    buffer.split().freeze()
}
