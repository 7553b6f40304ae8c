//! What a client sees of a build.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    engine::images::progress::Message,
    model::{Error, Result, output::OutputStream},
};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum BuildMessage {
    /// A line, or how far a pull or download is.
    Progress(Message),
    /// The id of an image that a stage has made.
    Aux {
        /// The id.
        aux: BuiltId,
    },
    /// How a build failed that had begun.
    Failed {
        /// What happened.
        #[serde(rename = "errorDetail")]
        detail: FailureDetail,
        /// Its text once more, for older clients.
        error: String,
    },
}

/// `{"ID":"sha256:…"}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BuiltId {
    /// The image's.
    #[serde(rename = "ID")]
    pub id: String,
}

/// A failure's exit code and text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureDetail {
    /// Of the container of a `RUN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// The text.
    pub message: String,
}

/// Where messages go. Of a quiet build they are held back: only a failure brings them out.
pub struct Output {
    sender: mpsc::Sender<Result<BuildMessage>>,
    held: Option<Mutex<Vec<BuildMessage>>>,
    has_spoken: AtomicBool,
    /// How the last `RUN` ended.
    exit_code: AtomicI64,
}

impl Output {
    pub fn new(sender: mpsc::Sender<Result<BuildMessage>>, quiet: bool) -> Self {
        let held = quiet.then(Mutex::default);
        Self { sender, held, has_spoken: AtomicBool::new(false), exit_code: AtomicI64::new(0) }
    }

    /// Text for the terminal, as it is.
    pub async fn say(&self, text: impl Into<String>) {
        self.send(BuildMessage::Progress(Message::stream(text))).await;
    }

    /// A container's output; dockerd shows errors in red.
    pub async fn say_output(&self, stream: OutputStream, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        match stream {
            OutputStream::Stdout => self.say(text).await,
            OutputStream::Stderr => self.say_error(&text).await,
        }
    }

    /// A warning, or a container's errors.
    pub async fn say_error(&self, text: &str) {
        self.say(format!("\u{1b}[91m{text}\u{1b}[0m")).await;
    }

    pub async fn say_id(&self, id: &str) {
        self.send(BuildMessage::Aux { aux: BuiltId { id: id.to_owned() } }).await;
    }

    pub async fn send(&self, message: BuildMessage) {
        match &self.held {
            Some(held) => held.lock().unwrap_or_else(PoisonError::into_inner).push(message),
            None => self.pass(message).await,
        }
    }

    async fn pass(&self, message: BuildMessage) {
        self.has_spoken.store(true, Ordering::Relaxed);
        let _client_left = self.sender.send(Ok(message)).await;
    }

    /// A step has failed by its exit code, which goes with the error.
    pub fn set_exit_code(&self, code: i64) {
        self.exit_code.store(code, Ordering::Relaxed);
    }

    /// The end: the id of a quiet build, or how it failed.
    pub async fn finish(&self, built: Result<String>) {
        match built {
            Ok(id) if self.held.is_some() => {
                self.pass(BuildMessage::Progress(Message::stream(format!("{id}\n")))).await
            }
            Ok(_) => {}
            Err(error) => self.fail(error).await,
        }
    }

    async fn fail(&self, error: Error) {
        let held =
            self.held.as_ref().map(|held| std::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner)));
        for message in held.into_iter().flatten() {
            self.pass(message).await;
        }
        if !self.has_spoken.load(Ordering::Relaxed) {
            let _client_left = self.sender.send(Err(error)).await;
            return;
        }
        let code = Some(self.exit_code.load(Ordering::Relaxed)).filter(|code| *code != 0);
        let message = error.chain();
        let detail = FailureDetail { code, message: message.clone() };
        self.pass(BuildMessage::Failed { detail, error: message }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn messages(quiet: bool, built: Result<String>) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(16);
        let output = Output::new(sender, quiet);
        output.say("a\n").await;
        output.set_exit_code(3);
        output.finish(built).await;
        drop(output);
        let mut messages = Vec::new();
        while let Some(message) = receiver.recv().await {
            messages.push(serde_json::to_string(&message.unwrap()).unwrap());
        }
        messages
    }

    #[tokio::test]
    async fn failure_has_the_code_of_the_command() {
        let failed = r#"{"errorDetail":{"code":3,"message":"no"},"error":"no"}"#;
        assert_eq!(messages(false, Err(Error::system("no"))).await, [r#"{"stream":"a\n"}"#, failed]);
        assert_eq!(messages(true, Err(Error::system("no"))).await, [r#"{"stream":"a\n"}"#, failed]);
    }

    #[tokio::test]
    async fn quiet_build_tells_the_id() {
        assert_eq!(messages(true, Ok("sha256:1".to_owned())).await, [r#"{"stream":"sha256:1\n"}"#]);
        assert_eq!(messages(false, Ok("sha256:1".to_owned())).await, [r#"{"stream":"a\n"}"#]);
    }
}
