//! Names of volumes.

use crate::model::{Error, Result};

/// Checks a name that a client chose, in dockerd's words.
pub fn check(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid("volume name is too short, names should be at least two alphanumeric characters"));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    )))
}

/// A name for a volume that was given none: 64 hex digits.
pub fn random() -> String {
    crate::model::id::ContainerId::random().as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for name in ["ab", "A0_.-", &random()] {
            check(name).unwrap();
        }
        for name in ["a", "-x", "a/b", "..", "a b", ""] {
            check(name).unwrap_err();
        }
    }
}
