//! What the `--tls*` flags mean together, as for dockerd.

use std::{env, path::PathBuf};

use ringer::{
    edge::server::{ListenAddress, TlsFiles},
    engine::config::OpenHost,
};

use super::ServeOptions;

/// Without any `--host`, TLS means this one and no unix socket.
pub const DEFAULT_HOST: (&str, u16) = ("localhost", 2376);

/// The files to use, if TLS is on. `--tlsverify` turns it on whatever its value; only its `false` lets clients without
/// certificates in.
pub fn files(options: &ServeOptions) -> Option<TlsFiles> {
    if !options.tls.unwrap_or(false) && options.tlsverify.is_none() {
        return None;
    }
    let or_default = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| default_folder().join(name));
    Some(TlsFiles {
        certificate: or_default(&options.tlscert, "cert.pem"),
        key: or_default(&options.tlskey, "key.pem"),
        client_ca: options.tlsverify.unwrap_or(true).then(|| or_default(&options.tlscacert, "ca.pem")),
    })
}

/// The tcp hosts that let everybody in.
pub fn open_hosts(hosts: &[ListenAddress], files: Option<&TlsFiles>) -> Vec<OpenHost> {
    if files.is_some_and(|files| files.client_ca.is_some()) {
        return Vec::new();
    }
    let open = |address| OpenHost { address, is_encrypted: files.is_some() };
    hosts.iter().filter_map(ListenAddress::authority).map(open).collect()
}

/// For the log.
pub fn warning(host: &OpenHost) -> String {
    format!("tcp://{}: who can connect is root on this machine; use --tlsverify", host.address)
}

/// Where dockerd looks: the client's folder.
fn default_folder() -> PathBuf {
    let from = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || from("HOME").unwrap_or_else(|| "/root".into()).join(".docker");
    from("DOCKER_CERT_PATH").or_else(|| from("DOCKER_CONFIG")).unwrap_or_else(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_need_certificates_unless_told_otherwise() {
        let options = |tls, tlsverify| ServeOptions { tls, tlsverify, ..ServeOptions::default() };
        let verifies = |tls, tlsverify| files(&options(tls, tlsverify)).map(|files| files.client_ca.is_some());
        assert_eq!(verifies(None, None), None);
        assert_eq!(verifies(Some(false), None), None);
        assert_eq!(verifies(Some(true), None), Some(true));
        assert_eq!(verifies(None, Some(true)), Some(true));
        assert_eq!(verifies(None, Some(false)), Some(false));
    }

    #[test]
    fn only_tcp_hosts_without_client_certificates_are_open() {
        let hosts = ["unix:///a".parse().unwrap(), "tcp://:1".parse().unwrap()];
        let with = |client_ca| TlsFiles { certificate: "c".into(), key: "k".into(), client_ca };
        assert_eq!(open_hosts(&hosts, Some(&with(Some("ca".into())))), []);
        let half = OpenHost { address: "localhost:1".into(), is_encrypted: true };
        assert_eq!(open_hosts(&hosts, Some(&with(None))), std::slice::from_ref(&half));
        assert_eq!(open_hosts(&hosts, None), [OpenHost { is_encrypted: false, ..half }]);
    }
}
