//! Why a process could not be started, in the terms clients know: the exit code and the status of the answer.

use crate::model::{Error, ErrorKind};

/// The command was not found.
const NOT_FOUND: i64 = 127;

/// The command was found and cannot be run.
const NOT_EXECUTABLE: i64 = 126;

/// Anything else.
const OTHER: i64 = 128;

/// What a runtime's refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartFailure {
    /// Exit code of the process that never was; `docker run` ends with it.
    pub exit_code: i64,
    /// Whether the request is to blame (400) and not we (500).
    invalid_request: bool,
}

impl StartFailure {
    /// What failed before the runtime was asked is no matter of the command, whatever its text.
    pub(crate) const BEFORE_TASK: Self = Self { exit_code: OTHER, invalid_request: false };

    /// Reads the runtime's text, as dockerd and the CLI do.
    pub(crate) fn of(error: &Error) -> Self {
        let text = error.chain().to_lowercase();
        let any = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if any(&["executable file not found", "no such file or directory", "system cannot find the file specified"]) {
            return Self { exit_code: NOT_FOUND, invalid_request: true };
        }
        if any(&["permission denied", "is a directory", "not a directory", "exec format error"]) {
            return Self { exit_code: NOT_EXECUTABLE, invalid_request: true };
        }
        Self { exit_code: OTHER, invalid_request: error.kind() == ErrorKind::InvalidParameter }
    }

    /// The error with the kind that this failure has. Kinds that say more than "it failed" are kept.
    pub(crate) fn into_error(self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::System | ErrorKind::InvalidParameter if self.invalid_request => {
                Error::new(ErrorKind::InvalidParameter, error.message().to_owned()).with_source(error)
            }
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_127_and_a_bad_request() {
        let error = Error::system("exec: \"nope\": executable file not found in $PATH");
        let failure = StartFailure::of(&error);
        assert_eq!(failure.exit_code, 127);
        assert_eq!(failure.into_error(error).kind(), ErrorKind::InvalidParameter);
    }

    #[test]
    fn directory_is_126() {
        assert_eq!(StartFailure::of(&Error::system("exec: \"/etc\": permission denied")).exit_code, 126);
    }

    #[test]
    fn conflicts_stay_conflicts() {
        let error = Error::conflict("x");
        assert_eq!(StartFailure::of(&error).into_error(error).kind(), ErrorKind::Conflict);
    }
}
