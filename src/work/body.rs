//! A client's body for code that blocks.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};

use super::{Doing, Why};

/// Reads what comes. Ends with an error when the work is to end, or when nothing has come for too long.
pub struct BodyReader<S> {
    body: S,
    rest: Bytes,
    doing: Doing,
}

impl<S> BodyReader<S> {
    pub(super) fn new(rest: Bytes, body: S, doing: Doing) -> Self {
        Self { body, rest, doing }
    }
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> BodyReader<S> {
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let Self { body, doing: Doing { stop, patience, handle }, .. } = self;
        handle.block_on(async {
            tokio::select! {
                biased;
                why = stop.told() => Some(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.error()))),
                chunk = body.next() => chunk,
                () = patience.end() => {
                    stop.end(Why::Idle);
                    Some(Err(io::Error::new(io::ErrorKind::TimedOut, Why::Idle.error())))
                }
            }
        })
    }
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Read for BodyReader<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.next() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(into.len());
        self.rest.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
