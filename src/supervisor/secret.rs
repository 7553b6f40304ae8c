//! What nobody may read: tokens, passwords.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Visitor},
};

/// Text that no log and no error shows. It is stored only where its owner has to be known again after a restart, in files of root.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes it. Line ends of files it was kept in are no part of it.
    pub fn new(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// A new one: 256 bits of the kernel's random source, as hex digits.
    pub fn random() -> Self {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).expect("the kernel's random source is always there");
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_string(Text)
    }
}

/// serde's word on what is no text quotes it: a token or password of digits that somebody has left without quotes.
struct Text;

impl Visitor<'_> for Text {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
        Err(not_a_text("a number"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Secret, E> {
        Err(not_a_text("a number"))
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Secret, E> {
        Err(not_a_text("a number"))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Secret, E> {
        Err(not_a_text("a number"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
        Err(not_a_text("a number"))
    }
}

fn not_a_text<E: Error>(what: &str) -> E {
    E::custom(format!("invalid type: {what}, expected a text in quotes"))
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
