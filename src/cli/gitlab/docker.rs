//! Docker's API on the socket of a job, as much of it as a job's containers need.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use hyper_util::rt::TokioIo;
use ringer::model::{Error, Result, error::Context, reference::Reference};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::cli::socket::{SocketClient, escaped};

/// The version that is spoken.
const VERSION: &str = "/v1.44";

/// Bytes of one message of a pull; they have some hundred.
const MESSAGE: usize = 1 << 20;

/// How long a script has from the TERM to its processes until a KILL.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// Bytes of a container's log that are shown where it did not start.
const LOG: usize = 16 << 10;

/// A job's engine.
pub struct Docker(SocketClient);

/// A container's state.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// Whether it runs.
    pub running: bool,
    /// Its first process, 0 if it does not run.
    pub pid: i32,
}

/// What is asked of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    /// How it is.
    pub state: State,
    /// What it was made of.
    pub config: Config,
}

/// What a container was made of.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// `80/tcp`
    #[serde(default, deserialize_with = "ringer::model::network::null_is_default")]
    pub exposed_ports: serde_json::Map<String, Value>,
    /// `NAME=value`
    #[serde(default, deserialize_with = "ringer::model::network::null_is_default")]
    pub env: Vec<String>,
}

impl Docker {
    /// At a job's socket.
    pub fn at(socket: &str) -> Self {
        Self(SocketClient::new(socket))
    }

    /// Whether the job has an image.
    pub async fn has_image(&self, image: &Reference) -> bool {
        self.ask::<()>(Method::GET, &format!("/images/{}/json", image.familiar()), None).await.is_ok()
    }

    /// Pulls one; `login` is the header for its registry.
    pub async fn pull(&self, image: &Reference, platform: &str, login: Option<String>) -> Result<()> {
        let path =
            format!("{VERSION}/images/create?fromImage={}&platform={}", escaped(&image.familiar()), escaped(platform));
        let told = format!("pulling {}", image.familiar());
        let mut headers = HeaderMap::new();
        if let Some(login) = login {
            let value = HeaderValue::try_from(login).map_err(|_| Error::invalid("credentials that are no header"))?;
            headers.insert(HeaderName::from_static("x-registry-auth"), value);
        }
        let answer = self.0.send_with(headers, Method::POST, &path, None::<&()>).await.context(&told)?;
        let mut messages = Messages::default();
        self.0.follow(answer, |piece| messages.take(piece)).await.context(&told)
    }

    /// Makes a network.
    pub async fn make_network(&self, name: &str) -> Result<()> {
        self.ask(Method::POST, "/networks/create", Some(&json!({"Name": name}))).await
    }

    /// Makes a container.
    pub async fn create(&self, name: &str, body: &Value) -> Result<()> {
        self.ask(Method::POST, &format!("/containers/create?name={name}"), Some(body)).await
    }

    /// Starts it.
    pub async fn start(&self, name: &str) -> Result<()> {
        self.ask::<()>(Method::POST, &format!("/containers/{name}/start"), None).await
    }

    /// Looks at it.
    pub async fn inspect(&self, name: &str) -> Result<Inspected> {
        self.0.call(Method::GET, &format!("{VERSION}/containers/{name}/json"), None::<&()>).await
    }

    /// Ends what a stage before has left running in it.
    pub async fn end_leftover(&self, name: &str) -> Result<()> {
        if self.inspect(name).await?.state.running {
            self.ask::<()>(Method::POST, &format!("/containers/{name}/stop?t=0"), None).await?;
        }
        Ok(())
    }

    /// Ends it: a TERM to all its processes, since a shell that waits for one of them hears none itself.
    pub async fn stop(&self, name: &str) -> Result<()> {
        let everyone = json!({"Cmd": ["sh", "-c", "kill -TERM -1"]});
        let made: Result<Value> =
            self.0.call(Method::POST, &format!("{VERSION}/containers/{name}/exec"), Some(&everyone)).await;
        if let Some(id) = made.ok().and_then(|made| made["Id"].as_str().map(escaped)) {
            // One without a shell gets the signal below alone.
            let _ended_already =
                self.ask(Method::POST, &format!("/exec/{id}/start"), Some(&json!({"Detach": true}))).await;
        }
        let path = format!("/containers/{name}/stop?t={}", GRACE.as_secs());
        self.ask::<()>(Method::POST, &path, None).await
    }

    /// The end of what it has written.
    pub async fn log(&self, name: &str) -> Result<Vec<u8>> {
        let path = format!("{VERSION}/containers/{name}/logs?stdout=1&stderr=1&tail=50");
        let answer = self.0.send(Method::GET, &path, None::<&()>).await?;
        let framed = self.0.read(answer).await?;
        let mut log = Vec::new();
        let mut frames = framed.as_ref();
        while let Some((_, size)) = next_frame(&mut frames).await? {
            (&mut frames).take(size).read_to_end(&mut log).await.context("reading a log")?;
        }
        Ok(log.split_off(log.len().saturating_sub(LOG)))
    }

    /// Starts it with a script as its input, shows what it says, and gives its exit code.
    pub async fn run(&self, name: &str, script: &[u8]) -> Result<i64> {
        let attach = format!("{VERSION}/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1");
        let stream = self.0.take_over(&attach).await?;
        let wait = format!("{VERSION}/containers/{name}/wait?condition=next-exit");
        let ended = self.0.send(Method::POST, &wait, None::<&()>).await?;
        self.start(name).await?;
        let (output, input) = tokio::io::split(TokioIo::new(stream));
        let ((), shown) = tokio::join!(feed(input, script), show(output));
        shown?;
        let ended: Ended = serde_json::from_slice(&self.0.read(ended).await?)
            .map_err(|error| Error::system(format!("waiting for {name}: {error}")))?;
        Ok(ended.status_code)
    }

    async fn ask<B: serde::Serialize>(&self, method: Method, path: &str, body: Option<&B>) -> Result<()> {
        let answer = self.0.send(method, &format!("{VERSION}{path}"), body).await?;
        self.0.read(answer).await.map(drop)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ended {
    status_code: i64,
}

/// A script may end before it has been read to its end.
async fn feed(mut input: impl AsyncWrite + Unpin, script: &[u8]) {
    let _ended_early = input.write_all(script).await;
    let _ended_early = input.shutdown().await;
}

/// Copies what a container says to where it belongs.
async fn show(mut output: impl AsyncRead + Unpin) -> Result<()> {
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some((kind, size)) = next_frame(&mut output).await? {
        let mut text = (&mut output).take(size);
        let copied = match kind {
            2 => tokio::io::copy(&mut text, &mut err).await,
            _ => tokio::io::copy(&mut text, &mut out).await,
        };
        copied.context("showing what the job says")?;
        out.flush().await.context("showing what the job says")?;
    }
    Ok(())
}

/// Which stream, and how many bytes of it follow.
async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<(u8, u64)>> {
    let mut head = [0; 8];
    match stream.read_exact(&mut head).await {
        Ok(_) => Ok(Some((head[0], u32::from_be_bytes([head[4], head[5], head[6], head[7]]).into()))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error).context("reading what a container says"),
    }
}

/// What a pull says: JSON, a line each. A failure is one of them.
#[derive(Default)]
struct Messages(Vec<u8>);

#[derive(Deserialize)]
struct Message {
    error: Option<String>,
}

impl Messages {
    fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.0.extend_from_slice(piece);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            if let Ok(Message { error: Some(error) }) = serde_json::from_slice(&line) {
                return Err(Error::system(error));
            }
        }
        if self.0.len() > MESSAGE {
            return Err(Error::system(format!("a message of more than {MESSAGE} bytes")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_of_the_messages_of_a_pull() {
        let mut messages = Messages::default();
        messages.take(b"{\"status\":\"Pulling\"}\r\n{\"err").unwrap();
        let error = messages.take(b"or\":\"no such image\"}\r\n").unwrap_err();
        assert_eq!(error.message(), "no such image");
        assert!(Messages::default().take(&vec![b'x'; MESSAGE + 1]).is_err());
    }
}
