//! `/etc/hosts` as dockerd writes it.

use std::net::IpAddr;

use super::lines::one_line;
use crate::model::{Error, Result};

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// What a container's hosts file names, beside the local host.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// `--add-host` and links: address and names.
    pub extra: Vec<(IpAddr, String)>,
    /// The container's own addresses.
    pub own: Vec<IpAddr>,
    /// Its host name.
    pub hostname: String,
    /// Its domain name.
    pub domainname: String,
}

impl Hosts {
    /// The file.
    pub fn text(&self) -> String {
        let mut text = LOCAL.to_owned();
        for (address, names) in &self.extra {
            text.push_str(&line(*address, names));
        }
        for address in &self.own {
            text.push_str(&self.own_line(*address));
        }
        text
    }

    /// The line of one of the container's own addresses.
    pub fn own_line(&self, address: IpAddr) -> String {
        let hostname = one_line(&self.hostname);
        if self.domainname.is_empty() {
            format!("{address}\t{hostname}\n")
        } else {
            format!("{address}\t{hostname}.{} {hostname}\n", one_line(&self.domainname))
        }
    }
}

/// One line: an address and its names.
pub fn line(address: IpAddr, names: &str) -> String {
    format!("{address}\t{}\n", one_line(names))
}

/// Takes the lines of an address out.
pub fn without_address(text: &str, address: IpAddr) -> String {
    let is_other = |line: &&str| line.split_whitespace().next() != Some(address.to_string().as_str());
    text.split_inclusive('\n').filter(is_other).collect()
}

/// Gives the lines of a link its other container's new address. Only the address changes, as with dockerd.
pub fn with_address_of(text: &str, alias: &str, address: IpAddr) -> String {
    let moved = |line: &str| {
        let (old, names) = line.split_once('\t')?;
        let is_same_family = old.parse::<IpAddr>().is_ok_and(|old| old.is_ipv4() == address.is_ipv4());
        let is_of_link = is_same_family && names.split_whitespace().next() == Some(alias);
        is_of_link.then(|| format!("{address}\t{names}"))
    };
    text.split_inclusive('\n').map(|line| moved(line).unwrap_or_else(|| line.to_owned())).collect()
}

/// Takes the lines of a link out.
pub fn without_link(text: &str, alias: &str) -> String {
    let is_of_link = |line: &str| {
        let names = line.split_once('\t').map_or("", |(_, names)| names);
        names.split_whitespace().next() == Some(alias)
    };
    text.split_inclusive('\n').filter(|line| !is_of_link(line)).collect()
}

/// What create checks of an entry of `ExtraHosts`.
pub fn check_extra(entry: &str) -> Result<()> {
    // Whether there is a gateway turns out at start.
    parse_extra(entry, Some(std::net::Ipv4Addr::UNSPECIFIED.into())).map(drop)
}

/// An entry of `ExtraHosts`, `name:address`; `host-gateway` is the host as containers reach it.
pub fn parse_extra(entry: &str, host_gateway: Option<IpAddr>) -> Result<(IpAddr, String)> {
    let bad_format = || Error::invalid(format!("bad format for add-host: {entry:?}"));
    let (name, address) = entry.split_once(':').or_else(|| entry.split_once('=')).ok_or_else(bad_format)?;
    if name.is_empty() {
        return Err(bad_format());
    }
    if address == "host-gateway" {
        let gateway = host_gateway.ok_or_else(|| Error::invalid("unable to derive the IP value for host-gateway"))?;
        return Ok((gateway, name.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse() {
        Ok(address) => Ok((address, name.to_owned())),
        Err(_) => Err(Error::invalid(format!("invalid IP address in add-host: {address:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 28.5 writes it into a container.
    #[test]
    fn the_file_is_dockerds() {
        let gateway = Some("172.17.0.1".parse().unwrap());
        let hosts = Hosts {
            extra: vec![parse_extra("foo:1.2.3.4", gateway).unwrap(), parse_extra("hg:host-gateway", gateway).unwrap()],
            own: vec!["172.18.0.2".parse().unwrap()],
            hostname: "webhost".to_owned(),
            domainname: String::new(),
        };
        let expected = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n1.2.3.4\tfoo\n172.17.0.1\thg\n\
             172.18.0.2\twebhost\n";
        assert_eq!(hosts.text(), expected);
    }

    #[test]
    fn a_domain_makes_a_full_name() {
        let hosts = Hosts { hostname: "web".to_owned(), domainname: "dom.example".to_owned(), ..Hosts::default() };
        assert_eq!(hosts.own_line("172.17.0.3".parse().unwrap()), "172.17.0.3\tweb.dom.example web\n");
    }

    /// As a daemon before the check may have stored them.
    #[test]
    fn no_name_makes_another_line() {
        let evil = "a\n6.6.6.6 registry".to_owned();
        let hosts = Hosts {
            extra: vec![("172.17.0.2".parse().unwrap(), evil.clone())],
            own: vec!["172.17.0.3".parse().unwrap()],
            hostname: evil.clone(),
            domainname: evil,
        };
        let text = hosts.text();
        let own = "172.17.0.3\ta?6.6.6.6 registry.a?6.6.6.6 registry a?6.6.6.6 registry\n";
        assert_eq!(text.strip_prefix(LOCAL).unwrap(), format!("172.17.0.2\ta?6.6.6.6 registry\n{own}"));
    }

    #[test]
    fn an_address_is_taken_out_with_its_line() {
        let text = "10.0.0.1\ta\n10.0.0.10\tb\n";
        assert_eq!(without_address(text, "10.0.0.1".parse().unwrap()), "10.0.0.10\tb\n");
    }

    #[test]
    fn a_link_follows_its_container() {
        let text = "127.0.0.1\tlocalhost\n172.17.0.2\tdb 0a80b38217dd lka\n172.17.0.3\tlka\n172.17.0.9 db\n";
        let expected = "127.0.0.1\tlocalhost\n172.17.0.5\tdb 0a80b38217dd lka\n172.17.0.3\tlka\n172.17.0.9 db\n";
        assert_eq!(with_address_of(text, "db", "172.17.0.5".parse().unwrap()), expected);
        assert_eq!(with_address_of(text, "db", "fd00::5".parse().unwrap()), text);
    }

    #[test]
    fn bad_entries_are_told_in_dockerds_words() {
        assert_eq!(parse_extra("nocolon", None).unwrap_err().message(), "bad format for add-host: \"nocolon\"");
        assert_eq!(parse_extra("a:b", None).unwrap_err().message(), "invalid IP address in add-host: \"b\"");
        assert_eq!(parse_extra("six:[fd00::1]", None).unwrap(), ("fd00::1".parse().unwrap(), "six".to_owned()));
    }
}
