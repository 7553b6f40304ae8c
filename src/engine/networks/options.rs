//! `Options` of a network: what the bridge driver is told.

use std::net::IpAddr;

use indexmap::IndexMap;

use crate::model::{Error, Result};

const NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// Longest name of a link.
const LINK_NAME: usize = 15;

/// Options of a bridge network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Name of the bridge link, if the client wants one.
    pub link: Option<String>,
    /// Whether containers reach each other.
    pub icc: bool,
    /// Whether source addresses are rewritten on the way out.
    pub masquerade: bool,
    /// Where ports are published when no host address is given.
    pub default_host_ip: Option<IpAddr>,
    /// Bytes; `None` is the uplink's.
    pub mtu: Option<u32>,
    /// What we do not carry out.
    pub unknown: Vec<String>,
}

impl BridgeOptions {
    /// Reads options; the ones that dockerd knows must have values that it takes.
    pub fn read(options: &IndexMap<String, String>) -> Result<Self> {
        let known =
            [NAME, ICC, MASQUERADE, HOST_BINDING, MTU, INTERFACE_PREFIX, DEFAULT_BRIDGE, ENABLE_IPV4, ENABLE_IPV6];
        Ok(Self {
            link: options.get(NAME).filter(|name| !name.is_empty()).map(|name| checked_link(name)).transpose()?,
            icc: truth(options, ICC)?.unwrap_or(true),
            masquerade: truth(options, MASQUERADE)?.unwrap_or(true),
            default_host_ip: host_binding(options)?,
            mtu: mtu(options)?,
            unknown: options.keys().filter(|key| !known.contains(&key.as_str())).cloned().collect(),
        })
    }
}

/// What links inside containers are called, before their number.
pub fn interface_prefix(options: &IndexMap<String, String>) -> &str {
    options.get(INTERFACE_PREFIX).filter(|prefix| !prefix.is_empty()).map_or("eth", String::as_str)
}

/// The options that the default bridge shows.
pub fn of_default_bridge(link: &str, mtu: u32) -> IndexMap<String, String> {
    let pairs = [
        (DEFAULT_BRIDGE, "true".to_owned()),
        (ICC, "true".to_owned()),
        (MASQUERADE, "true".to_owned()),
        (HOST_BINDING, "0.0.0.0".to_owned()),
        (NAME, link.to_owned()),
        (MTU, mtu.to_string()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn refused(key: &str, value: &str, reason: &str) -> Error {
    Error::invalid(format!("failed to parse {key} value: {value} ({reason})"))
}

/// Whether IPv4 and IPv6 are asked for: clients may say so here too.
pub fn families(options: &IndexMap<String, String>) -> Result<(Option<bool>, Option<bool>)> {
    let read = |key: &str| {
        let Some(value) = options.get(key) else { return Ok(None) };
        let wanted = go_bool(value).ok_or_else(|| Error::invalid(format!("driver-opt {key:?} is not a valid bool")));
        wanted.map(Some)
    };
    Ok((read(ENABLE_IPV4)?, read(ENABLE_IPV6)?))
}

fn truth(options: &IndexMap<String, String>, key: &str) -> Result<Option<bool>> {
    let Some(value) = options.get(key) else { return Ok(None) };
    let invalid = || refused(key, value, &format!("strconv.ParseBool: parsing {value:?}: invalid syntax"));
    go_bool(value).ok_or_else(invalid).map(Some)
}

/// Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn mtu(options: &IndexMap<String, String>) -> Result<Option<u32>> {
    let Some(value) = options.get(MTU) else { return Ok(None) };
    match value.parse::<i64>() {
        Ok(0) => Ok(None),
        Ok(number @ 68..=65535) => Ok(u32::try_from(number).ok()),
        Ok(number) => Err(Error::invalid(format!("invalid MTU number: {number}"))),
        Err(_) => Err(refused(MTU, value, &format!("strconv.Atoi: parsing {value:?}: invalid syntax"))),
    }
}

/// All addresses of IPv4 is what no option means too, but then IPv6 ones as well.
fn host_binding(options: &IndexMap<String, String>) -> Result<Option<IpAddr>> {
    let Some(value) = options.get(HOST_BINDING).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Ok(None),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(refused(HOST_BINDING, value, "nil ip")),
    }
}

/// What the kernel refuses as a link's name, in the words in which dockerd passes the kernel's on. `%` is more than
/// dockerd refuses: the kernel would put a number there, and the link would have another name than its network says.
fn checked_link(name: &str) -> Result<String> {
    if name.len() > LINK_NAME {
        return Err(Error::system("numerical result out of range"));
    }
    // 0xa0 is a space to the kernel, whatever character it is a part of.
    let fits = |byte: &u8| !byte.is_ascii_whitespace() && !byte.is_ascii_control() && !b"/:%\xa0".contains(byte);
    if !name.as_bytes().iter().all(fits) || matches!(name, "." | ".." | "all" | "default") {
        return Err(Error::system("invalid argument"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    fn read(key: &str, value: &str) -> Result<BridgeOptions> {
        BridgeOptions::read(&IndexMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn values_are_refused_in_dockerds_words() {
        assert_eq!(
            read(MTU, "abc").unwrap_err().message(),
            "failed to parse com.docker.network.driver.mtu value: abc (strconv.Atoi: parsing \"abc\": invalid syntax)"
        );
        assert!(read(ICC, "maybe").unwrap_err().message().contains("strconv.ParseBool"));
    }

    /// Answers of dockerd 28.5, which come from the kernel. It takes `a%d`, makes `a0`, and loses it.
    #[test]
    fn names_that_no_link_can_have_are_refused() {
        for name in [
            "a/b", "a b", "a\nb", "a\tb", "a\u{b}b", "a:b", ".", "..", "all", "default", "lo ", "a\u{a0}b", "a\0b",
            "a%d",
        ] {
            let error = read(NAME, name).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::System, "invalid argument"), "{name:?}");
        }
        assert_eq!(read(NAME, "abcdefghijklmnop").unwrap_err().message(), "numerical result out of range");
        for name in ["abcdefghijklmno", "ü", "-x", "a.b"] {
            assert_eq!(read(NAME, name).unwrap().link.as_deref(), Some(name));
        }
    }

    #[test]
    fn options_we_do_not_know_are_named() {
        assert_eq!(read("com.example", "1").unwrap().unknown, ["com.example"]);
        assert!(!read(ICC, "false").unwrap().icc);
        assert_eq!(read(MTU, "1300").unwrap().mtu, Some(1300));
    }
}
