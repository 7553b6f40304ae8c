//! Why a process could not be started, in the terms clients know: the exit code and the status of the answer.

use crate::model::{Error, ErrorKind};

/// What dockerd adds to a refusal over something that is no folder.
const WRONG_KIND: &str = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";

/// The command was not found.
const NOT_FOUND: i64 = 127;

/// The command was found and cannot be run.
const NOT_EXECUTABLE: i64 = 126;

/// Anything else.
const OTHER: i64 = 128;

/// A process that could not be started.
#[derive(Debug)]
pub(crate) struct StartFailure {
    /// Exit code of the process that never was; `docker run` ends with it.
    pub exit_code: i64,
    /// What the client is told.
    pub error: Error,
}

impl StartFailure {
    /// What failed before the runtime was asked is no matter of the command, whatever its text.
    pub(crate) fn before_task(error: Error) -> Self {
        Self { exit_code: OTHER, error }
    }

    /// Reads the runtime's refusal, and adds to it what dockerd adds (`setExitCodeFromError` in its daemon).
    pub(crate) fn of_task(error: Error) -> Self {
        let text = error.chain().to_lowercase();
        let any = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let (exit_code, more) = if any(&["permission denied"]) {
            (NOT_EXECUTABLE, "")
        } else if any(&["is a directory"]) {
            // So newer runc says of a command that is a folder. docker CLI searches for the other words.
            (NOT_EXECUTABLE, ": permission denied")
        } else if any(&["not a directory"]) {
            (NOT_FOUND, WRONG_KIND)
        } else if any(&[
            "executable file not found",
            "no such file or directory",
            "system cannot find the file specified",
        ]) {
            (NOT_FOUND, "")
        } else {
            return Self { exit_code: OTHER, error };
        };
        Self { exit_code, error: of_the_request(error, more) }
    }
}

/// The request is to blame (400) and not we (500). Kinds that say more than "it failed" are kept.
fn of_the_request(error: Error, more: &str) -> Error {
    match error.kind() {
        ErrorKind::System | ErrorKind::InvalidParameter => {
            Error::new(ErrorKind::InvalidParameter, format!("{}{more}", error.message()))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> (i64, ErrorKind, String) {
        let StartFailure { exit_code, error } = StartFailure::of_task(Error::system(text));
        (exit_code, error.kind(), error.message().to_owned())
    }

    #[test]
    fn a_command_that_cannot_run_is_a_bad_request() {
        let bad = ErrorKind::InvalidParameter;
        let missing = r#"exec: "nope": executable file not found in $PATH"#;
        assert_eq!(failure(missing), (127, bad, missing.to_owned()));
        let folder = r#"exec: "/etc": permission denied"#;
        assert_eq!(failure(folder), (126, bad, folder.to_owned()));
        assert_eq!(failure(r#"exec: "/": is a directory"#).2, r#"exec: "/": is a directory: permission denied"#);
        assert_eq!(
            failure("mount /a:/b: not a directory"),
            (127, bad, format!("mount /a:/b: not a directory{WRONG_KIND}"))
        );
    }

    #[test]
    fn anything_else_is_ours() {
        assert_eq!(failure("sethostname: invalid argument").0, 128);
        assert_eq!(failure("sethostname: invalid argument").1, ErrorKind::System);
    }

    #[test]
    fn conflicts_stay_conflicts() {
        assert_eq!(StartFailure::of_task(Error::conflict("x")).error.kind(), ErrorKind::Conflict);
    }
}
