//! The one place where a gRPC status becomes our error.

use std::error::Error as _;

use containerd_client::tonic::{Code, Status, transport};

use super::{limits::is_over_limit, runtimes::without_path};
use crate::model::{Error, ErrorKind};

/// Keeps containerd's text, since clients search in the OCI runtime's words that it passes on
/// ("executable file not found in $PATH", "no such file or directory").
pub(crate) fn from_status(status: Status) -> Error {
    if is_over_limit(&status) {
        return Error::containerd_is_silent();
    }
    let kind = kind_of(&status);
    let message = match kind {
        ErrorKind::Unavailable => format!("containerd is not available: {}", chain_of(&status)),
        // containerd ends its texts with the class of the error, which newer dockerds leave out.
        _ => without_path(status.message().strip_suffix(": unknown").unwrap_or(status.message())),
    };
    // The status says the same again in Rust's words, and clients see the chain at the end of a stream.
    Error::new(kind, message)
}

fn kind_of(status: &Status) -> ErrorKind {
    if is_lost_connection(status) {
        return ErrorKind::Unavailable;
    }
    match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => ErrorKind::Conflict,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidParameter,
        Code::PermissionDenied => ErrorKind::Forbidden,
        Code::Unauthenticated => ErrorKind::Unauthorized,
        Code::Unimplemented => ErrorKind::NotImplemented,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Internal
        | Code::DataLoss => ErrorKind::System,
    }
}

/// Whether containerd went away under the call. tonic reports that as `Unknown` or `Cancelled` when the
/// connection breaks in mid-call, and as `Unavailable` when it cannot be made.
pub(super) fn is_lost_connection(status: &Status) -> bool {
    if status.code() == Code::Unavailable {
        return true;
    }
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<transport::Error>() || error.is::<hyper::Error>() {
            return true;
        }
        cause = error.source();
    }
    // containerd ends its calls with this text when it is told to stop.
    matches!(status.code(), Code::Unknown | Code::Cancelled | Code::Internal)
        && ["transport error", "error reading a body", "connection error", "broken pipe", "h2 protocol error"]
            .iter()
            .any(|text| status.message().contains(text))
}

fn chain_of(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // tonic says the same in its own words around it.
        if !text.ends_with(&part) && part != "transport error" {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_codes() {
        let kind = |code| from_status(Status::new(code, "x")).kind();
        assert_eq!(kind(Code::NotFound), ErrorKind::NotFound);
        assert_eq!(kind(Code::AlreadyExists), ErrorKind::Conflict);
        assert_eq!(kind(Code::Unavailable), ErrorKind::Unavailable);
        assert_eq!(kind(Code::Unknown), ErrorKind::System);
    }

    #[test]
    fn a_broken_connection_is_unavailable_whatever_its_code() {
        let status = Status::new(Code::Unknown, "transport error");
        assert_eq!(from_status(status).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_call_over_its_limit_is_unavailable_in_gos_words() {
        let error = from_status(Status::new(Code::DeadlineExceeded, "Timeout expired"));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.message(), "containerd does not answer: context deadline exceeded");
    }

    #[test]
    fn texts_of_the_runtime_are_passed_on() {
        let text = "OCI runtime create failed: exec: \"x\": executable file not found in $PATH: unknown";
        assert_eq!(from_status(Status::new(Code::Unknown, text)).message(), text.trim_end_matches(": unknown"));
    }
}
