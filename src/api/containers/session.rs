//! An attached client: copies output to its connection and its input to the process, until one of them ends.

use std::io::IoSlice;

use futures_util::StreamExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::mpsc,
};
use tracing::debug;

use crate::{
    api::stream::{Output, frame, frame_head},
    edge::takeover::Connection,
    engine::{
        container::console,
        containers::session::{Session, SessionStdin},
    },
    model::output::OutputStream,
};

/// Bytes of input that are read at once.
const CHUNK: usize = 32 * 1024;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The process has ended, or the client has left.
    Over,
    /// The client pressed its detach keys.
    Detached,
}

/// Serves a client until its session is over. Dropping the connection at the end tells the client.
pub async fn serve<S>(connection: S, session: Session) -> SessionEnd
where
    S: AsyncRead + AsyncWrite,
{
    let (reader, mut writer) = split(connection);
    let Session { tty, framed, past, output, stdin, detach_keys } = session;
    if let Some(mut past) = past {
        while let Some(Ok(bytes)) = past.next().await {
            if writer.write_all(&bytes).await.is_err() {
                return SessionEnd::Over;
            }
        }
    }
    let keys = if tty { detach_keys } else { Vec::new() };
    let end = {
        let output = copy_output(&mut writer, output, framed);
        let input = copy_input(reader, stdin, &keys);
        tokio::pin!(output, input);
        tokio::select! {
            () = &mut output => SessionEnd::Over,
            end = &mut input => match end {
                InputEnd::HalfClosed => {
                    // The client sends no more and still listens.
                    output.await;
                    SessionEnd::Over
                }
                InputEnd::SessionOver => SessionEnd::Over,
                InputEnd::Detached => SessionEnd::Detached,
            },
        }
    };
    let _client_left = writer.shutdown().await;
    end
}

/// Sends `text` as an error of the daemon, where dockerd sends it: on standard output, after the connection was taken over.
pub async fn refuse(connection: &mut Connection, tty: bool, text: &str) {
    let line = format!("{text}\r\n");
    let bytes = if tty { line.into() } else { frame(Output::Stdout, line.as_bytes()) };
    let _client_left = connection.write_all(&bytes).await;
    let _client_left = connection.shutdown().await;
}

async fn copy_output<W>(writer: &mut WriteHalf<W>, mut output: mpsc::Receiver<console::Output>, framed: bool)
where
    W: AsyncWrite + AsyncRead,
{
    while let Some((stream, bytes)) = output.recv().await {
        if bytes.is_empty() {
            continue;
        }
        let sent = if framed { write_frame(writer, stream, &bytes).await } else { writer.write_all(&bytes).await };
        if sent.is_err() {
            return;
        }
    }
}

/// Head and payload in one system call where the kernel takes both.
async fn write_frame<W>(writer: &mut W, stream: OutputStream, bytes: &[u8]) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let output = match stream {
        OutputStream::Stdout => Output::Stdout,
        OutputStream::Stderr => Output::Stderr,
    };
    let head = frame_head(output, bytes.len());
    let mut written = 0;
    while written < head.len() {
        let parts = [IoSlice::new(&head[written..]), IoSlice::new(bytes)];
        match writer.write_vectored(&parts).await? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            length => written += length,
        }
    }
    writer.write_all(&bytes[written - head.len()..]).await
}

enum InputEnd {
    /// The client ended its input; output goes on.
    HalfClosed,
    /// The client ended its input, and with it the session.
    SessionOver,
    /// The client pressed its detach keys.
    Detached,
}

async fn copy_input<R>(mut reader: ReadHalf<R>, stdin: Option<SessionStdin>, detach_keys: &[u8]) -> InputEnd
where
    R: AsyncRead + AsyncWrite,
{
    let mut buffer = vec![0; CHUNK];
    let mut keys = DetachKeys { keys: detach_keys, matched: 0 };
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => length,
            // The client is gone; only its output side will notice.
            Err(_) => return InputEnd::SessionOver,
        };
        // Without input the bytes are read and forgotten: forgejo-runner sends a 0x03 when a step is cancelled.
        let Some(stdin) = &stdin else { continue };
        let (bytes, detached) = keys.filter(&buffer[..length]);
        if !bytes.is_empty()
            && let Err(error) = stdin.write(&bytes).await
        {
            debug!("passing input on: {error}");
        }
        if detached {
            return InputEnd::Detached;
        }
    }
    let Some(stdin) = stdin else { return InputEnd::HalfClosed };
    match stdin.finish().await {
        Ok(true) => InputEnd::HalfClosed,
        Ok(false) => InputEnd::SessionOver,
        Err(error) => {
            debug!("closing input: {error}");
            InputEnd::HalfClosed
        }
    }
}

/// Looks for the detach keys in input; keys that only began the sequence are passed on late.
struct DetachKeys<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl DetachKeys<'_> {
    fn filter<'i>(&mut self, input: &'i [u8]) -> (std::borrow::Cow<'i, [u8]>, bool) {
        if self.keys.is_empty() || (self.matched == 0 && !input.contains(&self.keys[0])) {
            return (input.into(), false);
        }
        let mut passed = Vec::with_capacity(input.len() + self.matched);
        for &byte in input {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed.into(), true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(byte == self.keys[0]);
            if self.matched == 0 {
                passed.push(byte);
            }
        }
        (passed.into(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads() {
        let mut keys = DetachKeys { keys: &[16, 17], matched: 0 };
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".as_slice().into(), false));
        assert!(keys.filter(b"\x11").1);
    }

    #[test]
    fn a_begun_sequence_is_passed_on_when_it_breaks_off() {
        let mut keys = DetachKeys { keys: &[16, 17], matched: 0 };
        assert_eq!(keys.filter(b"\x10x\x10").0.as_ref(), b"\x10x");
        assert_eq!(keys.filter(b"y").0.as_ref(), b"\x10y");
    }
}
