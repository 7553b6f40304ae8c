//! Words of `HostConfig` that name a namespace, a network or a restart policy, each read once: where the request or the record is.
//!
//! A word that is none is kept as it is, since reading a body refuses no values: the checks of create do, in dockerd's words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An enum of words with nothing said as its default, and all other texts in its last variant.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident {
            $($(#[$says:meta])* $variant:ident = $word:literal,)*
        }
        $(containers $container:ident)?
        others $(#[$other_says:meta])* $other:ident
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            /// Nothing said.
            #[default]
            Unset,
            $($(#[$says])* $variant,)*
            $(
                /// Another container's, by its name or id.
                $container(String),
            )?
            $(#[$other_says])* $other(String),
        }

        impl $name {
            /// Whether nothing is said.
            pub fn is_unset(&self) -> bool {
                *self == Self::Unset
            }

            $(
                /// The container whose it is.
                pub fn container(&self) -> Option<&str> {
                    match self {
                        Self::$container(container) => Some(container),
                        _ => None,
                    }
                }

                /// The same, to name it otherwise.
                pub fn container_mut(&mut self) -> Option<&mut String> {
                    match self {
                        Self::$container(container) => Some(container),
                        _ => None,
                    }
                }
            )?
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $(
                    if let Some(container) = named_container(text) {
                        return Self::$container(container.to_owned());
                    }
                )?
                match text {
                    "" => Self::Unset,
                    $($word => Self::$variant,)*
                    other => Self::$other(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl From<$name> for String {
            fn from(mode: $name) -> Self {
                mode.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Unset => Ok(()),
                    $(Self::$variant => f.write_str($word),)*
                    $(Self::$container(container) => write!(f, "container:{container}"),)?
                    Self::$other(text) => f.write_str(text),
                }
            }
        }
    };
}

/// The container of `container:name`.
fn named_container(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:").filter(|container| !container.is_empty())
}

words! {
    /// `HostConfig.IpcMode`.
    IpcMode {
        /// Of its own, without `/dev/shm`.
        None = "none",
        /// Of its own.
        Private = "private",
        /// Of its own, and others may join it.
        Shareable = "shareable",
        /// The host's.
        Host = "host",
    }
    containers Container
    others
    /// None that there is.
    Unknown
}

words! {
    /// `HostConfig.PidMode`.
    PidMode {
        /// Of its own.
        Private = "private",
        /// The host's.
        Host = "host",
    }
    containers Container
    others
    /// None that there is.
    Unknown
}

words! {
    /// `HostConfig.NetworkMode`.
    NetworkMode {
        /// The default bridge.
        Default = "default",
        /// The host's own network.
        Host = "host",
        /// Only loopback.
        None = "none",
    }
    containers Container
    others
    /// A network, by its name or id.
    Network
}

words! {
    /// `HostConfig.UTSMode`.
    UtsMode {
        /// Of its own.
        Private = "private",
        /// The host's.
        Host = "host",
    }
    others
    /// None that there is.
    Unknown
}

words! {
    /// `HostConfig.UsernsMode`.
    UsernsMode {
        /// The host's.
        Host = "host",
    }
    others
    /// None that there is.
    Unknown
}

words! {
    /// `HostConfig.CgroupnsMode`.
    CgroupnsMode {
        /// Of its own.
        Private = "private",
        /// The host's.
        Host = "host",
    }
    others
    /// None that there is.
    Unknown
}

words! {
    /// `HostConfig.RestartPolicy.Name`.
    RestartMode {
        /// Never.
        No = "no",
        /// After each end.
        Always = "always",
        /// The same, but not with the daemon once a client has stopped it.
        UnlessStopped = "unless-stopped",
        /// After an end with an exit code.
        OnFailure = "on-failure",
    }
    others
    /// None that there is.
    Unknown
}

impl NetworkMode {
    /// The name of the default bridge.
    pub const BRIDGE: &str = "bridge";

    /// The network that the mode means; none for another container's.
    pub fn network(&self) -> Option<&str> {
        match self {
            Self::Unset | Self::Default => Some(Self::BRIDGE),
            Self::Host => Some("host"),
            Self::None => Some("none"),
            Self::Container(_) => None,
            Self::Network(name) => Some(name),
        }
    }
}

impl RestartMode {
    /// Whether it ever starts a container.
    pub fn restarts(&self) -> bool {
        !matches!(self, Self::Unset | Self::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_echoed() {
        for text in ["", "none", "private", "shareable", "host", "container:db", "container:", "blue", "Host"] {
            assert_eq!(IpcMode::from(text).to_string(), text);
            assert_eq!(NetworkMode::from(text).to_string(), text);
            assert_eq!(RestartMode::from(text).to_string(), text);
        }
        let json = r#"["","container:db","blue"]"#;
        let modes: Vec<PidMode> = serde_json::from_str(json).unwrap();
        assert_eq!(modes, [PidMode::Unset, PidMode::Container("db".to_owned()), PidMode::Unknown("blue".to_owned())]);
        assert_eq!(serde_json::to_string(&modes).unwrap(), json);
    }

    #[test]
    fn container_must_have_a_name() {
        assert_eq!(PidMode::from("container:"), PidMode::Unknown("container:".to_owned()));
        assert_eq!(NetworkMode::from("container"), NetworkMode::Network("container".to_owned()));
        assert_eq!(NetworkMode::from("container:db").container(), Some("db"));
    }

    #[test]
    fn nothing_said_is_the_default_bridge() {
        let networks = ["", "default", "bridge", "mine", "host", "container:db"].map(NetworkMode::from);
        let networks: Vec<_> = networks.iter().map(NetworkMode::network).collect();
        let expected = [Some("bridge"), Some("bridge"), Some("bridge"), Some("mine"), Some("host"), None];
        assert_eq!(networks, expected);
    }
}
