//! Clients for whom there is no descriptor or no place left are told so, instead of waiting without a word.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

use super::hangup::Socket;

/// How long a client may take to send its request and read that nothing comes of it.
const LIMIT: Duration = Duration::from_secs(5);
/// So many are told at once, of the descriptors that are kept for that; further ones are hung up on.
const AT_ONCE: usize = 16;
/// The answer comes after the request's head, which need not be whole.
const HEAD: usize = 16 << 10;

/// What there is too little of.
#[derive(Clone, Copy, Debug)]
pub enum Scarce {
    /// Of the whole daemon.
    Descriptors,
    /// Of the listener, which serves only so many at once.
    Places,
}

impl Scarce {
    fn answer(self) -> String {
        let why = match self {
            Self::Descriptors => "the daemon has hardly any file descriptors left",
            Self::Places => "this socket serves no more at once",
        };
        let body = format!("{{\"message\":\"too many connections: {why}\"}}\n");
        format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Who refuses.
#[derive(Clone)]
pub struct Refusals(Arc<Semaphore>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Refusals {
    /// Answers 503 and hangs up. With TLS there is no answer without a handshake, so there it hangs up at once.
    pub fn refuse(&self, mut socket: Socket, has_tls: bool, scarce: Scarce) {
        let Ok(place) = self.0.clone().try_acquire_owned() else { return };
        if has_tls {
            return;
        }
        tokio::spawn(async move {
            let answer = async {
                let _whatever_it_asks = socket.read(&mut [0; HEAD]).await;
                let _it_may_be_gone = socket.write_all(scarce.answer().as_bytes()).await;
                let _it_may_be_gone = socket.shutdown().await;
            };
            let _in_time = tokio::time::timeout(LIMIT, answer).await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use tokio_util::either::Either;

    use super::*;

    #[tokio::test]
    async fn refusal_is_a_whole_answer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"GET /_ping HTTP/1.1\r\n\r\n").await.unwrap();
        Refusals::default().refuse(Either::Left(ours), false, Scarce::Descriptors);
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 503 ") && head.contains(&format!("Content-Length: {}", body.len())),
            "{answer}"
        );
    }
}
