//! Questions that are not for us go on as they came, and the answers come back as they are: EDNS, flags and
//! record types we have never heard of included.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tracing::debug;

use super::{Upstream, message};

/// Clients give up after five seconds, so a dead first server must not use them up.
const FIRST_LIMIT: Duration = Duration::from_secs(2);
const LAST_LIMIT: Duration = Duration::from_secs(4);
const DATAGRAM: usize = 64 * 1024;

/// How the client asked; the upstream is asked the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream, since the answer is long.
    Tcp,
}

/// Asks the upstreams one after the other. A refusal is handed on only when nobody says better.
pub async fn relay(packet: &[u8], upstreams: &[Upstream], transport: Transport) -> Option<Vec<u8>> {
    let mut refusal = None;
    for (position, upstream) in upstreams.iter().enumerate() {
        let limit = if position + 1 == upstreams.len() { LAST_LIMIT } else { FIRST_LIMIT };
        let address = upstream.address;
        match timeout(limit, ask(packet, upstream, transport)).await {
            Ok(Ok(answer)) if message::is_failure(&answer) => refusal = Some(answer),
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => debug!(upstream = %address, %error, "asking {address}: {error}"),
            Err(_) => debug!(upstream = %address, "{address} did not answer"),
        }
    }
    refusal
}

async fn ask(packet: &[u8], upstream: &Upstream, transport: Transport) -> io::Result<Vec<u8>> {
    match transport {
        Transport::Udp => ask_udp(packet, upstream).await,
        Transport::Tcp => ask_tcp(packet, upstream).await,
    }
}

/// A socket of its own per question: its random port is what makes forged answers hard.
async fn ask_udp(packet: &[u8], upstream: &Upstream) -> io::Result<Vec<u8>> {
    let socket = upstream.sockets.connect_udp(upstream.address).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0u8; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if message::answers(&buffer[..length], packet) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(packet: &[u8], upstream: &Upstream) -> io::Result<Vec<u8>> {
    let mut stream = upstream.sockets.connect_tcp(upstream.address).await?;
    write_framed(&mut stream, packet).await?;
    let answer = read_framed(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if message::answers(&answer, packet) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// One message from a stream; `None` at its end.
pub async fn read_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut packet = vec![0u8; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(Some(packet))
}

/// One message to a stream.
pub async fn write_framed(stream: &mut TcpStream, packet: &[u8]) -> io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let framed = [&length.to_be_bytes()[..], packet].concat();
    stream.write_all(&framed).await
}
