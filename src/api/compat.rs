//! What differs between versions of the API. Handlers ask here; they compare no version numbers themselves. Answers
//! are here, `requests` has what requests of old clients mean; `docs/api-versions.md` lists both.

mod requests;

use std::{convert::Infallible, fmt, str::FromStr};

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde_json::{Value, json};

use crate::model::{
    Error, Result as ModelResult,
    event::{Event, EventType},
    system::SystemInfo,
};

/// Version of the API that a request was written for. Without a prefix in the path it is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The newest we speak: that of the specification which our types (bollard-stubs) are made from.
    pub const NEWEST: Self = Self::v1(53);
    /// The oldest we speak: that of docker 1.12, as dockerd's own floor.
    pub const OLDEST: Self = Self::v1(24);

    /// Version 1.`minor`.
    pub const fn v1(minor: u16) -> Self {
        Self { major: 1, minor }
    }

    /// This version, or our newest. dockerd refuses newer ones; we do not turn an agent away for the number alone, since the
    /// newest client's requests differ from ours in optional fields only. `None` is too old, for us as for dockerd.
    pub fn spoken(self) -> Option<Self> {
        (self >= Self::OLDEST).then(|| self.min(Self::NEWEST))
    }

    /// Before 1.42 streams of attach and exec were always called raw, also the multiplexed ones.
    pub fn names_multiplexed_streams(self) -> bool {
        self >= Self::v1(42)
    }

    /// Before 1.28 a WebSocket carried text.
    pub fn has_binary_websockets(self) -> bool {
        self >= Self::v1(28)
    }

    /// Before 1.42 a WebSocket was attached to everything, whatever the client asked for.
    pub fn chooses_websocket_streams(self) -> bool {
        self >= Self::v1(42)
    }

    /// Before 1.25 security options were plain words, `seccomp` in place of `name=seccomp,profile=builtin`.
    pub fn has_structured_security_options(self) -> bool {
        self >= Self::v1(25)
    }

    /// Since 1.52 the stream of events is called `application/jsonl` unless the client accepts something else.
    pub fn calls_events_lines(self) -> bool {
        self >= Self::v1(52)
    }

    /// Since 1.52 events do not repeat `Action`, `Actor.ID` and the image as `status`, `id` and `from`.
    pub fn has_legacy_event_fields(self) -> bool {
        self < Self::v1(52)
    }
}

/// Images.
impl ApiVersion {
    /// Before 1.44 `VirtualSize` repeated `Size`.
    pub fn has_virtual_size(self) -> bool {
        self < Self::v1(44)
    }

    /// Before 1.43 images without names were listed as `<none>:<none>`.
    pub fn names_nameless_images(self) -> bool {
        self < Self::v1(43)
    }

    /// Since 1.52 several platforms of an image can be saved and loaded at once.
    pub fn has_several_platforms(self) -> bool {
        self >= Self::v1(52)
    }

    /// Since 1.48 images tell what their names point at.
    pub fn has_image_descriptor(self) -> bool {
        self >= Self::v1(48)
    }

    /// Before 1.45 images told of the container that they were committed from.
    pub fn has_image_container(self) -> bool {
        self < Self::v1(45)
    }

    /// Before 1.50 `Config` of an image had the fields of a container's that no image has.
    pub fn has_container_fields_in_image_config(self) -> bool {
        self < Self::v1(50)
    }
}

/// Disk usage.
impl ApiVersion {
    /// Before 1.42 the build cache had a size of its own in the answer, if there was any.
    pub fn has_builder_size(self) -> bool {
        self < Self::v1(42)
    }

    /// Since 1.42 it can be asked for some kinds of things alone.
    pub fn has_usage_types(self) -> bool {
        self >= Self::v1(42)
    }

    /// Since 1.52 there are sums in place of lists.
    pub fn has_usage_sums(self) -> bool {
        self >= Self::v1(52)
    }
}

/// Events.
impl ApiVersion {
    /// Since 1.46 images tell when they are made.
    pub fn has_event(self, event: &Event) -> bool {
        self >= Self::v1(46) || event.kind != EventType::Image || event.action != "create"
    }
}

/// `/info` as `version` has it, made from the newest form.
pub fn system_info(version: ApiVersion, info: &SystemInfo) -> ModelResult<Value> {
    let mut value = serde_json::to_value(info)
        .map_err(|error| Error::system("encoding the daemon's information").with_source(error))?;
    let Some(fields) = value.as_object_mut() else { return Ok(value) };
    if !version.has_structured_security_options() {
        fields["SecurityOptions"] = info.security_options.iter().map(|option| plain_option(option)).collect();
        fields.insert("ExecutionDriver".to_owned(), json!("<not supported>"));
    }
    if version < ApiVersion::v1(47) {
        fields["RegistryConfig"]["AllowNondistributableArtifactsCIDRs"] = Value::Null;
        fields["RegistryConfig"]["AllowNondistributableArtifactsHostnames"] = Value::Null;
    }
    if version < ApiVersion::v1(49) {
        fields.shift_remove("FirewallBackend");
        for commit in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            fields[commit]["Expected"] = fields[commit]["ID"].clone();
        }
    }
    if version < ApiVersion::v1(50) {
        fields.insert("BridgeNfIptables".to_owned(), json!(false));
        fields.insert("BridgeNfIp6tables".to_owned(), json!(false));
    }
    Ok(value)
}

/// `name=seccomp,profile=builtin` → `seccomp`.
fn plain_option(option: &str) -> &str {
    let first = option.split(',').next().unwrap_or_default();
    first.strip_prefix("name=").unwrap_or(first)
}

/// What differs in the answers on containers.
impl ApiVersion {
    /// Before 1.52 inspect repeats the default bridge's addresses at the top of `NetworkSettings`.
    pub fn has_legacy_network_settings(self) -> bool {
        self < Self::v1(52)
    }

    /// Since 1.48 a network can do without IPv4 and says whether it does.
    pub fn has_enable_ipv4(self) -> bool {
        self >= Self::v1(48)
    }

    /// Before 1.45 the short id is one of the `Aliases`; since then it stands in `DNSNames`.
    pub fn has_short_id_alias(self) -> bool {
        self < Self::v1(45)
    }

    /// Since 1.44 `MacAddress` is a wish of the client's and stands with the wishes; `DNSNames` are shown.
    pub fn has_endpoint_mac_first(self) -> bool {
        self >= Self::v1(44)
    }

    /// Before 1.52 inspect has `GraphDriver`, since then `Storage` for snapshotters.
    pub fn has_graph_driver(self) -> bool {
        self < Self::v1(52)
    }

    /// Since 1.48 containers show the manifest that was chosen from the image.
    pub fn has_manifest_descriptors(self) -> bool {
        self >= Self::v1(48)
    }

    /// Before 1.42 inspect always shows the kernel memory limits.
    pub fn has_kernel_memory(self) -> bool {
        self < Self::v1(42)
    }

    /// Before 1.44 the hardware address was part of `Config`.
    pub fn has_config_mac_address(self) -> bool {
        self < Self::v1(52)
    }

    /// Since 1.52 an empty `OnBuild` is left out.
    pub fn hides_empty_on_build(self) -> bool {
        self >= Self::v1(52)
    }

    /// Since 1.46 the list shows annotations.
    pub fn lists_annotations(self) -> bool {
        self >= Self::v1(46)
    }

    /// Since 1.52 the list shows health.
    pub fn lists_health(self) -> bool {
        self >= Self::v1(52)
    }

    /// Since 1.41 one reading can be asked for that is not compared with another.
    pub fn has_one_shot_stats(self) -> bool {
        self >= Self::v1(41)
    }

    /// Since 1.52 stats name the system they are of.
    pub fn has_stats_os_type(self) -> bool {
        self >= Self::v1(52)
    }
}

/// As dockerd reads a path: digits and dots in any order. `1.41.0` is a version too; what follows the minor number says nothing.
impl FromStr for ApiVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.is_empty() || text.contains(|c: char| !c.is_ascii_digit() && c != '.') {
            return Err(());
        }
        let mut numbers = text.split('.').map(|digits| match digits {
            "" => 0,
            digits => digits.parse().unwrap_or(u16::MAX),
        });
        let mut next = || numbers.next().unwrap_or(0);
        Ok(Self { major: next(), minor: next() })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl<S: Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::NEWEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        let old: ApiVersion = "1.9".parse().unwrap();
        assert!(old < ApiVersion::v1(41));
        assert_eq!(old.spoken(), None);
        assert_eq!("2.0".parse::<ApiVersion>().unwrap().spoken(), Some(ApiVersion::NEWEST));
        assert_eq!("1.99999999999999999999".parse::<ApiVersion>().unwrap().spoken(), Some(ApiVersion::NEWEST));
        assert_eq!("1.41".parse::<ApiVersion>().unwrap().spoken().unwrap().to_string(), "1.41");
        assert!("1.x".parse::<ApiVersion>().is_err());
    }
}
