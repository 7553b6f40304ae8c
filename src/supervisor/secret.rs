//! What nobody may read: tokens, passwords.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text that no log and no error shows. It is stored only where its owner has to be known again after a restart, in files of root.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes it. Line ends of files it was kept in are no part of it.
    pub fn new(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The text, for where it has to go.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_it() {
        let secret = Secret::new("s3cr3t\n");
        assert_eq!(secret.reveal(), "s3cr3t");
        assert!(!format!("{secret:?}").contains("s3cr3t"));
    }
}
