//! Identifiers of what clients name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// What the owner of a tenant's builds' steps is called beside it.
const OF_BUILDS: &str = ".build";

const OF_RUNNER: &str = ".runner";

/// The scope behind one socket. Everything a client makes belongs to one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(String);

impl TenantId {
    /// The tenant of a plain `ringer serve`.
    pub fn default_tenant() -> Self {
        Self("default".to_owned())
    }

    /// The owner of the steps of this tenant's builds: images that nobody sees in a list. No tenant can have such a name.
    pub fn of_builds(&self) -> Self {
        Self(format!("{}{OF_BUILDS}", self.0))
    }

    /// Whether it is such an owner.
    pub fn is_of_builds(&self) -> bool {
        self.0.ends_with(OF_BUILDS)
    }

    /// Whether what it has is the operator's: the default tenant's, or kept for jobs to come.
    pub fn is_operators(&self) -> bool {
        let default = Self::default_tenant();
        [default.of_builds(), Self::of_cache(), default].contains(self)
    }

    /// The owner of images that are kept for jobs to come. No tenant can have such a name.
    pub fn of_cache() -> Self {
        Self("cache.images".to_owned())
    }

    /// The owner of a cache of builds that outlives jobs: a new one. No tenant can have such a name.
    pub fn of_build_cache() -> Self {
        Self(format!("cache.{}", &ContainerId::random().as_str()[..24]))
    }

    /// The owner of what serves this tenant from beside it: the runner of a job, which no call through the job's socket sees.
    /// It is in the same network host and cgroup. No tenant can have such a name.
    pub fn of_runner(&self) -> Self {
        Self(format!("{}{OF_RUNNER}", self.0))
    }

    /// The tenant that this one serves, if it is one of a runner.
    pub fn served(&self) -> Option<Self> {
        self.0.strip_suffix(OF_RUNNER).map(|served| Self(served.to_owned()))
    }

    /// A tenant that somebody called so, or the runner of one.
    pub fn from_stored(name: &str) -> Result<Self> {
        match name.strip_suffix(OF_RUNNER) {
            Some(served) => Ok(served.parse::<Self>()?.of_runner()),
            None => name.parse(),
        }
    }

    /// The name as it stands in labels and record names.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
            return Err(Error::invalid(format!("invalid tenant name {name:?}: only [a-z0-9-], at most 63")));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes an id that was made before and stored.
            pub fn from_stored(id: impl Into<String>) -> Self {
                Self(id.into())
            }

            /// A new random id: 64 lower-case hex digits, never all decimal in its short form, since
            /// a short id that is a number would be taken for a port or a pid by some programs.
            pub fn random() -> Self {
                loop {
                    let mut bytes = [0u8; 32];
                    getrandom::fill(&mut bytes).expect("the kernel's random source is always there");
                    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    if id[..12].contains(|c: char| c.is_ascii_alphabetic()) {
                        return Self(id);
                    }
                }
            }

            /// All 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits, as the CLI prints them.
            pub fn short(&self) -> &str {
                &self.0[..self.0.len().min(12)]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

hex_id!(
    /// A container's id.
    ContainerId
);
hex_id!(
    /// An exec's id.
    ExecId
);
hex_id!(
    /// A network's id.
    NetworkId
);
hex_id!(
    /// The id of a container's attachment to a network.
    EndpointId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_64_hex_digits() {
        let id = ContainerId::random();
        assert_eq!(id.as_str().len(), 64);
        assert!(id.as_str().chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(id, ContainerId::random());
    }

    #[test]
    fn tenant_names_are_checked() {
        assert!("job-17".parse::<TenantId>().is_ok());
        assert!("a/b".parse::<TenantId>().is_err());
    }
}
