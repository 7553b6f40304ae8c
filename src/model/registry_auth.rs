//! Credentials for a registry as clients send them: `X-Registry-Auth` and the body of `POST /auth`.

use std::collections::BTreeMap;

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use indexmap::IndexMap;
use serde::Deserialize;

use super::{json, limits, network::null_is_default};

/// Padding may be there or not: Go clients send it, docker-java and others do not.
const URL_SAFE_LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client knows of itself at a registry. All fields may be empty.
#[derive(Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub struct RegistryAuth {
    /// User name.
    #[serde(deserialize_with = "null_is_default")]
    pub username: String,
    /// Password or personal token.
    #[serde(deserialize_with = "null_is_default")]
    pub password: String,
    /// `user:password` in base64, as it stands in `config.json`.
    #[serde(deserialize_with = "null_is_default")]
    pub auth: String,
    /// Which registry the credentials are for; empty for Docker Hub.
    #[serde(deserialize_with = "null_is_default")]
    pub serveraddress: String,
    /// A refresh token that is exchanged for access tokens.
    #[serde(deserialize_with = "null_is_default")]
    pub identitytoken: String,
    /// A bearer token that is sent as it is.
    #[serde(deserialize_with = "null_is_default")]
    pub registrytoken: String,
}

/// Credentials by the host of their registry.
pub type Logins = BTreeMap<String, RegistryAuth>;

impl RegistryAuth {
    /// Reads `X-Registry-Config`: credentials by registry, for builds. What cannot be read counts as none.
    pub fn all_from_header(value: &str) -> IndexMap<String, Self> {
        let url_safe = value.trim().replace('+', "-").replace('/', "_");
        let json = URL_SAFE_LENIENT.decode(url_safe).unwrap_or_default();
        if json::check(&json, limits::QUERY_VALUES).is_err() {
            return IndexMap::new();
        }
        let all: IndexMap<String, Self> = serde_json::from_slice(&json).unwrap_or_default();
        all.into_iter().map(|(registry, auth)| (registry, auth.with_auth_decoded())).collect()
    }

    /// The header.
    pub fn to_header(&self) -> String {
        let json = serde_json::json!({
            "username": self.username,
            "password": self.password,
            "auth": self.auth,
            "serveraddress": self.serveraddress,
            "identitytoken": self.identitytoken,
            "registrytoken": self.registrytoken,
        });
        URL_SAFE_LENIENT.encode(json.to_string())
    }

    /// Reads the header. What cannot be read counts as no credentials, as dockerd has it: a pull may well work without.
    pub fn from_header(value: &str) -> Self {
        let url_safe = value.trim().replace('+', "-").replace('/', "_");
        let json = URL_SAFE_LENIENT.decode(url_safe).unwrap_or_default();
        serde_json::from_slice::<Self>(&json).unwrap_or_default().with_auth_decoded()
    }

    /// Fills user and password from `auth`, where only that is given.
    #[must_use]
    pub fn with_auth_decoded(mut self) -> Self {
        if self.username.is_empty()
            && let Ok(pair) = STANDARD.decode(self.auth.trim())
            && let Ok(pair) = String::from_utf8(pair)
            && let Some((user, password)) = pair.split_once(':')
        {
            self.username = user.to_owned();
            self.password = password.trim_end_matches('\0').to_owned();
        }
        self
    }

    /// Whether nothing is known.
    pub fn is_anonymous(&self) -> bool {
        self.username.is_empty() && self.identitytoken.is_empty() && self.registrytoken.is_empty()
    }
}

impl std::fmt::Debug for RegistryAuth {
    /// Without secrets, since requests are logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_read_in_both_alphabets_and_without_padding() {
        let json = r#"{"username":"u??>","password":"p"}"#;
        for text in [STANDARD.encode(json), URL_SAFE_LENIENT.encode(json), STANDARD.encode(json).replace('=', "")] {
            assert_eq!(RegistryAuth::from_header(&text).username, "u??>", "{text}");
        }
        assert!(RegistryAuth::from_header("garbage!").is_anonymous());
        let whole = RegistryAuth { identitytoken: "i".to_owned(), ..RegistryAuth::from_header(&STANDARD.encode(json)) };
        assert!(RegistryAuth::from_header(&whole.to_header()) == whole);
    }

    #[test]
    fn pair_of_config_json_is_split() {
        let auth = RegistryAuth { auth: STANDARD.encode("a:b:c"), ..RegistryAuth::default() }.with_auth_decoded();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("a", "b:c"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let auth = RegistryAuth { password: "hunter2".into(), ..RegistryAuth::default() };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good: [&[u8]; 3] = [b"eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==", br#"{"auth":"dTpw"}"#, b"e30"];
        crate::model::fuzz::each(&good, |input| {
            let text = String::from_utf8_lossy(input);
            let _read = (RegistryAuth::from_header(&text).with_auth_decoded(), RegistryAuth::all_from_header(&text));
        });
    }
}
