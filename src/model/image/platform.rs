//! Which image runs where: parsing and matching of platforms, as containerd's platforms package does.

use std::{fmt, str::FromStr};

use super::{Descriptor, Platform};
use crate::model::{Error, Result};

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), ..Self::default() }
    }

    /// Whether an image for `self` is what a client means that asks for `wanted`.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let (have, wanted) = (self.normalized(), wanted.normalized());
        have.os == wanted.os && have.architecture == wanted.architecture && have.variant == wanted.variant
    }

    /// The best of an index's entries for `wanted`. Without a wish, this machine's platform; entries that hold
    /// attestations instead of images are passed over.
    pub fn choose<'a>(wanted: &Self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let images = || manifests.iter().filter(|entry| !entry.is_attestation());
        let exact = images().find(|entry| entry.platform.as_ref().is_some_and(|have| have.satisfies(wanted)));
        // An arm that asks for v7 runs v6 and v5 as well.
        let older = || {
            let wanted = wanted.normalized();
            if wanted.architecture != "arm" {
                return None;
            }
            ["v7", "v6", "v5"].into_iter().filter(|variant| *variant < wanted.variant.as_str()).find_map(|variant| {
                let older = Self { variant: variant.to_owned(), ..wanted.clone() };
                images().find(|entry| entry.platform.as_ref().is_some_and(|have| have.satisfies(&older)))
            })
        };
        exact.or_else(older)
    }

    /// With one spelling for each architecture: `aarch64` is `arm64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let os = match self.os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            "" => "linux".to_owned(),
            os => os.to_owned(),
        };
        let (architecture, variant) = match (self.architecture.to_lowercase().as_str(), self.variant.to_lowercase()) {
            ("x86_64" | "x86-64" | "amd64", variant) => {
                ("amd64", if variant == "v1" { String::new() } else { variant })
            }
            ("i386" | "386", _) => ("386", String::new()),
            ("aarch64" | "arm64", variant) if variant == "8" || variant == "v8" => ("arm64", String::new()),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7".to_owned()),
            ("armel", _) => ("arm", "v6".to_owned()),
            ("arm", variant) => match variant.trim_start_matches('v') {
                "" => ("arm", "v7".to_owned()),
                digits => ("arm", format!("v{digits}")),
            },
            (other, variant) => {
                return Self { os, architecture: other.to_owned(), variant, os_version: self.os_version.clone() };
            }
        };
        Self { os, architecture: architecture.to_owned(), variant, os_version: self.os_version.clone() }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `linux`, `amd64`, `linux/amd64`, `linux/arm/v7`.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::invalid(format!("\"{text}\": cannot parse platform specifier: invalid argument"));
        let parts: Vec<&str> = text.split('/').collect();
        let fits = |part: &&str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
        };
        if !parts.iter().all(fits) {
            return Err(invalid());
        }
        let host = Self::host();
        let platform = match *parts {
            [one] if is_os(one) => Self { os: one.to_owned(), ..host },
            [one] if is_architecture(one) => Self { architecture: one.to_owned(), ..host },
            [one] => {
                return Err(Error::invalid(format!(
                    "\"{one}\": unknown operating system or architecture: invalid argument"
                )));
            }
            [os, architecture] => Self { os: os.to_owned(), architecture: architecture.to_owned(), ..Self::default() },
            [os, architecture, variant] => Self {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: variant.to_owned(),
                ..Self::default()
            },
            _ => return Err(invalid()),
        };
        Ok(platform.normalized())
    }
}

fn is_os(word: &str) -> bool {
    matches!(word.to_lowercase().as_str(), "linux" | "windows" | "darwin" | "macos" | "freebsd")
}

fn is_architecture(word: &str) -> bool {
    matches!(
        word.to_lowercase().as_str(),
        "amd64"
            | "x86_64"
            | "x86-64"
            | "arm64"
            | "aarch64"
            | "arm"
            | "armhf"
            | "armel"
            | "386"
            | "i386"
            | "ppc64le"
            | "s390x"
            | "riscv64"
            | "mips64le"
            | "loong64"
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

impl Descriptor {
    /// A pointer at bytes that we have.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: crate::model::reference::Digest::of(bytes),
            size: bytes.len() as u64,
            urls: Vec::new(),
            annotations: indexmap::IndexMap::new(),
            platform: None,
        }
    }

    /// Whether an index's entry is BuildKit's attestation of another entry, not an image.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_architecture_are_equal() {
        assert_eq!(platform("linux/aarch64").to_string(), "linux/arm64");
        assert_eq!(platform("linux/arm64/v8"), platform("arm64"));
        assert_eq!(platform("linux/x86_64"), platform("amd64"));
        assert_eq!(platform("linux/arm").variant, "v7");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "linux/", "linux/arm/v/3", "toaster", "a b/c"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn attestations_are_not_chosen() {
        let entry = |text: &str| Descriptor { platform: Some(platform(text)), ..Descriptor::of("m", text.as_bytes()) };
        let mut attestation = entry("linux/amd64");
        attestation.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        let entries = [attestation, entry("linux/arm64"), entry("linux/amd64")];
        assert_eq!(Platform::choose(&platform("linux/amd64"), &entries), Some(&entries[2]));
        assert_eq!(Platform::choose(&platform("linux/s390x"), &entries), None);
    }

    #[test]
    fn older_arm_is_taken_where_the_wanted_one_is_missing() {
        let entry = |text: &str| Descriptor { platform: Some(platform(text)), ..Descriptor::of("m", text.as_bytes()) };
        let entries = [entry("linux/arm/v5"), entry("linux/arm/v6")];
        assert_eq!(Platform::choose(&platform("linux/arm/v7"), &entries), Some(&entries[1]));
        assert_eq!(Platform::choose(&platform("linux/arm/v5"), &entries), Some(&entries[0]));
    }
}
