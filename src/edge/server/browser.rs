//! Browsers on plain tcp: any page that is open in one can send requests to it, and by a name that it lets point here
//! (DNS rebinding) read the answers. A page of our own address is let in, others are not. Programs are not asked.

use http::{HeaderMap, Method, header};

/// What every browser sends and few programs do. The first two only tell where a page comes from, and are not always there:
/// a page without TLS reads from its own address without them.
const OF_BROWSERS: [&str; 4] = ["origin", "sec-fetch-site", "referer", "accept-language"];

/// Names under which a page may reach us, besides those that nobody else can give to an address of his.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts {
    names: Vec<String>,
    takes_visitors: bool,
}

impl AllowedHosts {
    /// Of `--allowed-host`: names, with or without ports.
    pub fn new(names: &[String]) -> Self {
        let names = names.iter().map(|name| host_name(name).to_ascii_lowercase()).collect();
        Self { names, takes_visitors: false }
    }

    /// Lets people come by links of other sites, whose pages read nothing of what they see then.
    #[must_use]
    pub fn taking_visitors(self) -> Self {
        Self { takes_visitors: true, ..self }
    }

    /// Why a request is refused, if it is one of a page that may not.
    pub fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<String> {
        if !is_of_a_browser(headers) {
            return None;
        }
        let text = |name: &str| headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let is_visit = self.takes_visitors && method == Method::GET && text("sec-fetch-mode").eq(["navigate"]);
        let mut sites = text("sec-fetch-site").filter(|_| !is_visit);
        if let Some(site) = sites.find(|site| site != "same-origin" && site != "none") {
            return Some(format!("it comes from another site (Sec-Fetch-Site: {site})"));
        }
        let host = text(header::HOST.as_str()).next().unwrap_or_default();
        if let Some(origin) = text(header::ORIGIN.as_str()).find(|origin| !is_origin(origin, &host)) {
            return Some(format!("its origin {origin} is not {host}"));
        }
        (!self.knows(&host))
            .then(|| format!("{host} is a name that anybody may give to this address; see --allowed-host"))
    }

    fn knows(&self, host: &str) -> bool {
        let name = host_name(host).to_ascii_lowercase();
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        let is_of_this_network = name == "localhost" || name.ends_with(".localhost") || !name.contains('.');
        !name.is_empty() && (is_address || is_of_this_network || self.names.contains(&name))
    }
}

fn is_of_a_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
    agent || OF_BROWSERS.iter().any(|name| headers.contains_key(*name))
}

/// Whether an `Origin` is the page of a `Host`. Scheme and port of its default are not compared: here is no TLS.
fn is_origin(origin: &str, host: &str) -> bool {
    let bare = |authority: &str| authority.strip_suffix(":80").unwrap_or(authority).to_ascii_lowercase();
    origin.split_once("://").is_some_and(|(_, authority)| bare(authority) == bare(host))
}

/// Without port and brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map_or(bracketed, |(address, _)| address),
        None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn refusal(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        let headers =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        AllowedHosts::new(&["Docker.example.com:2375".to_owned()]).refusal(&Method::GET, &headers.collect())
    }

    #[test]
    fn people_may_come_by_a_link_to_pages_that_are_meant_for_them() {
        let link = |host: &'static str, mode: &'static str| {
            [("host", host), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode)]
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        };
        let hosts = AllowedHosts::new(&["ci.example.com".to_owned()]);
        let for_people = hosts.clone().taking_visitors();
        let of = |hosts: &AllowedHosts, method, headers| hosts.refusal(&method, &HeaderMap::from_iter(headers));
        assert_eq!(of(&for_people, Method::GET, link("ci.example.com", "navigate")), None);
        assert!(of(&hosts, Method::GET, link("ci.example.com", "navigate")).is_some(), "the API has no visitors");
        assert!(of(&for_people, Method::POST, link("ci.example.com", "navigate")).is_some(), "a form");
        assert!(of(&for_people, Method::GET, link("ci.example.com", "no-cors")).is_some(), "a picture");
        assert!(of(&for_people, Method::GET, link("evil.example", "navigate")).is_some(), "a name of theirs");
    }

    #[test]
    fn programs_are_let_in_by_any_name() {
        for host in ["evil.example:2375", "docker", "", "127.0.0.1:2375"] {
            assert_eq!(refusal(&[("host", host), ("user-agent", "docker/28")]), None, "{host}");
        }
    }

    #[test]
    fn pages_of_our_own_address_are_let_in() {
        for (host, origin) in [
            ("127.0.0.1:2375", "http://127.0.0.1:2375"),
            ("[::1]:2375", "http://[::1]:2375"),
            ("localhost", "http://localhost"),
            ("docker:80", "http://docker"),
            ("api.moby.localhost", "http://api.moby.localhost"),
            ("docker.example.com:2375", "http://docker.example.com:2375"),
            // As WebSocket clients say it.
            ("10.0.0.1:2375", "ws://10.0.0.1:2375"),
        ] {
            assert_eq!(
                refusal(&[("host", host), ("origin", origin), ("sec-fetch-site", "same-origin")]),
                None,
                "{host}"
            );
        }
        assert_eq!(
            refusal(&[("host", "localhost:2375"), ("sec-fetch-site", "none"), ("user-agent", "Mozilla/5.0")]),
            None
        );
    }

    #[test]
    fn pages_of_others_are_not() {
        for pairs in [
            [("host", "127.0.0.1:2375"), ("origin", "http://evil.example")],
            [("host", "127.0.0.1:2375"), ("origin", "null")],
            [("host", "127.0.0.1:2375"), ("origin", "http://127.0.0.1:3000")],
            [("host", "127.0.0.1:2375"), ("sec-fetch-site", "cross-site")],
            [("host", "127.0.0.1:2375"), ("sec-fetch-site", "same-site")],
            // A name of theirs that leads here.
            [("host", "evil.example:2375"), ("origin", "http://evil.example:2375")],
            [("host", "evil.example:2375"), ("sec-fetch-site", "same-origin")],
            [("host", "evil.example:2375"), ("accept-language", "en")],
            [("host", "evil.example:2375"), ("referer", "http://evil.example:2375/")],
            [("host", "evil.example:2375"), ("user-agent", "Mozilla/5.0 (X11)")],
            [("host", ""), ("origin", "http://")],
        ] {
            assert!(refusal(&pairs).is_some(), "{pairs:?}");
        }
    }
}
