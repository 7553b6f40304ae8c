//! `/etc/resolv.conf` as dockerd makes it from the host's and from `Dns…` of a container.

use std::{fmt::Write, net::IpAddr, path::Path};

use super::lines::one_line;

/// Where systemd-resolved keeps the servers behind its own.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// What dockerd falls back to when the host has only servers that a container cannot reach.
const PUBLIC: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 4, 4))];
const NAME_SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));

/// What a resolver is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, in order.
    pub servers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
    others: Vec<String>,
    servers_are_chosen: bool,
}

/// What a container has instead of the host's settings; empty lists leave them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides<'a> {
    /// `--dns`.
    pub servers: &'a [IpAddr],
    /// `--dns-search`; a dot alone is "none".
    pub search: &'a [String],
    /// `--dns-option`.
    pub options: &'a [String],
}

impl ResolvConf {
    /// Reads the host's. With systemd-resolved, the servers behind it: a container cannot reach 127.0.0.53.
    pub fn of_host() -> Self {
        let own = Self::in_etc();
        let is_resolved = own.servers == [IpAddr::from([127, 0, 0, 53])];
        if is_resolved && Path::new(BEHIND_RESOLVED).exists() { Self::read(BEHIND_RESOLVED) } else { own }
    }

    /// As programs of the machine read it.
    pub fn in_etc() -> Self {
        Self::read("/etc/resolv.conf")
    }

    fn read(path: &str) -> Self {
        Self::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    /// Reads a file's text.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(without_zone)),
                // The last of them counts.
                Some("domain" | "search") => {
                    conf.search = words.filter(|word| *word != ".").map(str::to_owned).collect();
                }
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                Some(_) => conf.others.push(line.to_owned()),
                None => {}
            }
        }
        conf
    }

    /// Lays a container's own settings over.
    #[must_use]
    pub fn overridden(mut self, overrides: Overrides<'_>) -> Self {
        if !overrides.servers.is_empty() {
            self.servers = overrides.servers.to_vec();
            self.servers_are_chosen = true;
        }
        if !overrides.search.is_empty() {
            self.search = overrides.search.iter().filter(|domain| *domain != ".").cloned().collect();
        }
        if !overrides.options.is_empty() {
            self.options = overrides.options.to_vec();
        }
        self
    }

    /// For a container on the default bridge, which asks the servers itself.
    #[must_use]
    pub fn for_default_bridge(mut self, ipv6: bool) -> Self {
        if !self.servers_are_chosen {
            self.servers.retain(|server| !server.is_loopback() && (ipv6 || server.is_ipv4()));
            if self.servers.is_empty() {
                self.servers = PUBLIC.to_vec();
            }
        }
        self
    }

    /// For a container with a name server of ours, which asks the servers on its behalf.
    #[must_use]
    pub fn for_own_server(mut self) -> Self {
        self.servers = vec![NAME_SERVER];
        if !self.has_ndots() {
            self.options.retain(|option| !option.starts_with("ndots:"));
            self.options.push("ndots:0".to_owned());
        }
        self
    }

    /// Whether somebody chose a valid `ndots`.
    pub fn has_ndots(&self) -> bool {
        self.options
            .iter()
            .filter_map(|option| option.strip_prefix("ndots:"))
            .any(|number| number.parse::<u32>().is_ok())
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            writeln!(text, "nameserver {server}").expect("strings take everything");
        }
        for (key, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                writeln!(text, "{key} {}", one_line(&words.join(" "))).expect("strings take everything");
            }
        }
        for line in &self.others {
            writeln!(text, "{line}").expect("strings take everything");
        }
        text
    }
}

/// `fe80::1%eth0` means nothing in another network namespace.
fn without_zone(server: &str) -> Option<IpAddr> {
    server.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# comment\nnameserver 127.0.0.1\nnameserver 10.255.255.53\nnameserver fd00::53\nsearch a.example\noptions edns0\nsortlist x\n";

    fn text(conf: ResolvConf) -> String {
        conf.text()
    }

    #[test]
    fn a_server_of_ours_hides_the_hosts() {
        let conf = ResolvConf::parse(HOST);
        assert_eq!(conf.servers.len(), 3);
        assert_eq!(
            text(conf.for_own_server()),
            "nameserver 127.0.0.11\nsearch a.example\noptions edns0 ndots:0\nsortlist x\n"
        );
    }

    #[test]
    fn a_container_gets_only_servers_that_it_reaches() {
        let conf = ResolvConf::parse(HOST).for_default_bridge(false);
        assert_eq!(text(conf), "nameserver 10.255.255.53\nsearch a.example\noptions edns0\nsortlist x\n");
        let lonely = ResolvConf::parse("nameserver ::1\n").for_default_bridge(false);
        assert_eq!(text(lonely), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }

    /// As dockerd 28.5 writes it, but for its comments.
    #[test]
    fn the_containers_own_settings_win() {
        let search = ["corp.example".to_owned()];
        let overrides = Overrides { servers: &["9.9.9.9".parse().unwrap()], search: &search, options: &[] };
        let conf = ResolvConf::parse("nameserver 10.255.255.53\n").overridden(overrides);
        assert_eq!(
            text(conf.clone().for_own_server()),
            "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:0\n"
        );
        assert_eq!(text(conf.for_default_bridge(false)), "nameserver 9.9.9.9\nsearch corp.example\n");
        let none = [".".to_owned()];
        let without = ResolvConf::parse(HOST).overridden(Overrides { search: &none, ..Overrides::default() });
        assert!(!text(without).contains("search"));
    }

    #[test]
    fn no_word_makes_another_line() {
        let evil = ["a\nnameserver 6.6.6.6".to_owned()];
        let overrides = Overrides { servers: &[], search: &evil, options: &evil };
        let conf = ResolvConf::parse("nameserver 10.255.255.53\n").overridden(overrides);
        assert_eq!(text(conf).lines().filter(|line| line.starts_with("nameserver")).count(), 1);
    }

    #[test]
    fn a_chosen_ndots_stays() {
        let options = ["ndots:2".to_owned()];
        let conf = ResolvConf::parse(HOST).overridden(Overrides { options: &options, ..Overrides::default() });
        assert!(conf.has_ndots());
        assert!(text(conf.for_own_server()).contains("options ndots:2\n"));
    }
}
