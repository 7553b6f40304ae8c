//! Names of images, normalised as Docker does (`distribution/reference`).

use std::{fmt, str::FromStr};

use super::{Error, Result};

/// The registry that a name without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A content digest, `sha256:` and 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hex digits.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(format!("sha256:{}", hex(&sha2::Sha256::digest(bytes))))
    }

    /// From the 32 bytes of a finished SHA-256.
    pub fn from_sha256(sum: &[u8]) -> Self {
        Self(format!("sha256:{}", hex(sum)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_hex = |hex: &str| hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        match text.split_once(':') {
            Some(("sha256", hex)) if hex.len() == 64 && is_hex(hex) => Ok(Self(text.to_owned())),
            Some(("sha512", hex)) if hex.len() == 128 && is_hex(hex) => Ok(Self(text.to_owned())),
            _ => Err(Error::invalid("invalid checksum digest format")),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A normalised name with its tag or digest: `docker.io/library/alpine:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and normalises a name as a client writes it. A name that is 64 hex digits is refused, since it
    /// would be taken for an id.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::invalid("invalid reference format");
        if text.is_empty() {
            return Err(invalid());
        }
        if text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)) {
            return Err(Error::invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| invalid())?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid());
        }
        let (registry, repository) = split_registry(name);
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(Error::invalid(format!(
                "invalid reference format: repository name ({repository}) must be lowercase"
            )));
        }
        if !is_registry(&registry) || !repository.split('/').all(is_path_component) {
            return Err(invalid());
        }
        if repository.len() > 255 {
            return Err(Error::invalid("repository name must not be more than 255 characters"));
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }

    /// Adds `latest` where there is neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same name with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::invalid("invalid tag format"));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same name with a digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// `docker.io`, `localhost:5000` …
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry, `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository, `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as Docker shows it, without the default registry and `library/`: `alpine`.
    pub fn familiar_name(&self) -> String {
        match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DEFAULT_REGISTRY, Some(short)) if !short.contains('/') => short.to_owned(),
            (DEFAULT_REGISTRY, _) => self.repository.clone(),
            _ => self.name(),
        }
    }

    /// The whole reference as Docker shows it: `alpine:3.20`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name(), self.suffix())
    }
}

/// The first part is a registry if it looks like a host: a dot, a port, `localhost`, or an upper-case letter.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':']) || host == "localhost" || host.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (host, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        return (registry.to_owned(), format!("library/{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

fn is_registry(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(_) => return host.contains(']'),
        None => host.split_once(':').unwrap_or((host, "0")),
    };
    let label = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.split('.').all(label) && !port.is_empty() && port.chars().all(|c| c.is_ascii_digit())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !part.starts_with(alnum) || !part.ends_with(alnum) {
        return false;
    }
    part.split(alnum)
        .filter(|between| !between.is_empty())
        .all(|between| matches!(between, "." | "_" | "__") || between.chars().all(|c| c == '-'))
}

/// `[\w][\w.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&tag.len()) && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_mean_docker_hub() {
        let reference = Reference::parse("alpine").unwrap().or_latest();
        assert_eq!(reference.to_string(), "docker.io/library/alpine:latest");
        assert_eq!(reference.familiar(), "alpine:latest");
    }

    #[test]
    fn hosts_are_told_from_users() {
        assert_eq!(Reference::parse("a/b").unwrap().to_string(), "docker.io/a/b");
        assert_eq!(Reference::parse("localhost/b").unwrap().to_string(), "localhost/b");
        assert_eq!(Reference::parse("h:5000/b:1").unwrap().to_string(), "h:5000/b:1");
        assert_eq!(Reference::parse("docker.io/a/b").unwrap().familiar(), "a/b");
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "Alpine", "a//b", "a:b:c", "a@sha256:1", "-a", "a..b", "a___b", "a: b", &"f".repeat(64)] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_are_kept() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference = Reference::parse(&format!("alpine@{digest}")).unwrap().or_latest();
        assert_eq!(reference.digest().unwrap().as_str(), digest);
        assert_eq!(reference.tag(), None);
    }

    /// What is read is read the same again.
    #[test]
    fn no_bytes_make_it_panic() {
        let digest = Digest::of(b"a").to_string();
        let long = format!("reg.test:5000/a/b-c__d:tag@{digest}");
        crate::model::fuzz::each(&[b"alpine", b"ghcr.io/org/tool:1.2", b"[::1]:5000/x", long.as_bytes()], |input| {
            if let Ok(reference) = Reference::parse(&String::from_utf8_lossy(input)) {
                assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
                assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        });
    }
}
