//! What programs that work for clients get of our environment: nothing that says who we are to anybody.

use std::{
    ffi::{OsStr, OsString},
    net::IpAddr,
};

const PLAIN: [&str; 5] = ["PATH", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"];
const PROXIES: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// The variables. In the host of a job a proxy at the machine's loopback would be whoever listens there, and get our credentials.
pub fn handed_on(in_job: bool) -> Vec<(&'static str, OsString)> {
    let set = |name: &'static str| Some((name, std::env::var_os(name)?));
    let proxies = PROXIES.into_iter().filter_map(set).filter(|(_, proxy)| !in_job || !is_at_loopback(proxy));
    PLAIN.into_iter().filter_map(set).chain(proxies).collect()
}

/// Whether a variable (`NAME=VALUE`) names a proxy, or what is reached without.
pub fn is_of_proxies(variable: &str) -> bool {
    let name = variable.split('=').next().unwrap_or_default();
    PROXIES.contains(&name) || name.eq_ignore_ascii_case("no_proxy")
}

/// Whether one of our proxies is at the machine's loopback.
pub fn has_proxy_at_loopback() -> bool {
    PROXIES.into_iter().filter_map(std::env::var_os).any(|proxy| is_at_loopback(&proxy))
}

fn is_at_loopback(proxy: &OsStr) -> bool {
    let text = proxy.to_string_lossy();
    let rest = text.split_once("://").map_or(&*text, |(_, rest)| rest);
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let host = match place.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => place.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_the_machine_alone_are_told() {
        for proxy in
            ["http://127.0.0.1:3128", "localhost:3128", "http://user:secret@127.1.2.3/", "http://[::1]:1", "Localhost"]
        {
            assert!(is_at_loopback(OsStr::new(proxy)), "{proxy}");
        }
        for proxy in ["http://10.0.0.1:3128", "http://localhost@proxy.test:1", "proxy.test", ""] {
            assert!(!is_at_loopback(OsStr::new(proxy)), "{proxy}");
        }
    }
}
