//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container: made at start, changed in place while it
//! runs, since they are mounted into it.

use std::{
    fs,
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    backend::network::{AskedFrom, SandboxDns, Upstream},
    engine::{
        Engine,
        networks::{
            hosts::{self, Hosts, parse_extra},
            lines::one_line,
            links::Linked,
            resolv_conf::{Overrides, ResolvConf},
        },
    },
    model::{
        Error, Result,
        container::{ContainerRecord, NetworkMode},
        error::Context,
        id::TenantId,
        limits,
        network::Endpoint,
    },
    oci::NetworkFiles,
    work::blocking,
};

/// Where name servers listen.
pub const DNS_PORT: u16 = 53;

/// How a container's resolver is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// A name server of ours asks on its behalf.
    Own,
    /// It asks for itself, as on the default bridge.
    Itself,
    /// It is that of the tenant's host.
    Host,
}

impl Engine {
    /// Writes the files of a start.
    pub(super) async fn write_network_files(
        &self,
        record: &ContainerRecord,
        hostname: &str,
        resolver: Resolver,
        endpoints: &[Endpoint],
    ) -> Result<NetworkFiles> {
        let files = paths(&self.container_dir(&record.id));
        let hosts = self.hosts_text(record, hostname, endpoints)?;
        let resolv_conf = self.resolv_conf_text(record, resolver, endpoints.iter().any(|end| end.ipv6.is_some()))?;
        let hostname = format!("{}\n", one_line(hostname));
        let (folder, written) = (self.container_dir(&record.id), files.clone());
        blocking(move || {
            fs::create_dir_all(&folder).context(format!("making {}", folder.display()))?;
            for (path, text) in
                [(written.hosts, hosts), (written.resolv_conf, resolv_conf), (written.hostname, hostname)]
            {
                let path = path.expect("paths names all three");
                fs::write(&path, text).context(format!("writing {}", path.display()))?;
            }
            Ok(())
        })
        .await?;
        Ok(files)
    }

    /// The files of a container whose network another one shares.
    pub(super) fn shared_files(&self, owner: &ContainerRecord) -> NetworkFiles {
        paths(&self.container_dir(&owner.id))
    }

    /// Changes the text of a file that is mounted into a running container: it must stay the same file.
    pub(super) async fn edit_file(
        &self,
        record: &ContainerRecord,
        name: &'static str,
        edit: impl FnOnce(String) -> String + Send + 'static,
    ) -> Result<()> {
        let path = self.container_dir(&record.id).join(name);
        blocking(move || {
            let text = match read_small(&path) {
                // A file of the client's own is mounted in its place.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other.context(format!("reading {}", path.display()))?,
            };
            fs::write(&path, edit(text)).context(format!("writing {}", path.display()))
        })
        .await
    }

    fn hosts_text(&self, record: &ContainerRecord, hostname: &str, endpoints: &[Endpoint]) -> Result<String> {
        let extra_hosts = record.host_config.extra_hosts.as_deref().unwrap_or_default();
        let tenant = self.tenants.get(&record.tenant)?;
        if record.host_config.network_mode == NetworkMode::Host && extra_hosts.is_empty() {
            let mut text = fs::read_to_string("/etc/hosts").unwrap_or_else(|_| Hosts::default().text());
            text.extend(tenant.surroundings().hosts.iter().map(|(name, address)| hosts::line(*address, name)));
            return Ok(text);
        }
        let gateway = self.host_gateway(&record.tenant);
        let mut extra: Vec<(IpAddr, String)> =
            extra_hosts.iter().map(|entry| parse_extra(entry, gateway)).collect::<Result<_>>()?;
        extra.extend(tenant.surroundings().hosts.iter().map(|(name, address)| (*address, name.clone())));
        extra.extend(self.linked_hosts(record)?);
        let own = endpoints.iter().flat_map(own_addresses).collect();
        let domainname = record.config.domainname.clone();
        Ok(Hosts { extra, own, hostname: hostname.to_owned(), domainname }.text())
    }

    /// Names that a request tells a build of BuildKit's, as its frontend reads them: `NAME=ADDRESS`, without `host-gateway`.
    pub fn build_hosts(&self, tenant: &TenantId, entries: &[String]) -> Result<Vec<String>> {
        let gateway = self.host_gateway(tenant);
        let told = |entry: &String| parse_extra(entry, gateway).map(|(address, name)| format!("{name}={address}"));
        entries.iter().map(told).collect()
    }

    /// What `host-gateway` means: the host as the default bridge sees it.
    pub(crate) fn host_gateway(&self, tenant: &TenantId) -> Option<IpAddr> {
        let bridge = self.networks.get(tenant, "bridge").ok()?;
        bridge.bridge.as_ref()?.ipv4.map(|net| IpAddr::V4(net.addr()))
    }

    /// Legacy links on the default bridge are lines of the hosts file.
    fn linked_hosts(&self, record: &ContainerRecord) -> Result<Vec<(IpAddr, String)>> {
        let mut hosts = Vec::new();
        for Linked { alias, record: other, addresses } in self.linked(record)? {
            let mut names = format!("{alias} {}", other.config.hostname);
            if alias != other.name {
                names = format!("{names} {}", other.name);
            }
            hosts.extend(addresses.into_iter().map(|address| (address, names.clone())));
        }
        Ok(hosts)
    }

    fn resolv_conf(&self, record: &ContainerRecord) -> Result<ResolvConf> {
        let config = &record.host_config;
        let mut servers = Vec::new();
        for text in config.dns.as_deref().unwrap_or_default() {
            let server = text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
            servers.push(server);
        }
        if servers.is_empty() {
            servers.clone_from(&self.config.dns);
        }
        Ok(ResolvConf::of_host().overridden(Overrides {
            servers: &servers,
            search: config.dns_search.as_deref().unwrap_or_default(),
            options: config.dns_options.as_deref().unwrap_or_default(),
        }))
    }

    /// Name servers of the machine's loopback that a container is told of, in whose host they are not.
    pub(super) fn loopback_servers(&self, record: &ContainerRecord) -> Result<Vec<IpAddr>> {
        let conf = self.resolv_conf(record)?;
        let is_chosen = record.host_config.dns.iter().flatten().next().is_some();
        Ok(conf.servers.into_iter().filter(|server| server.is_loopback() && !is_chosen).collect())
    }

    /// Whether a container of a job must have a name server of ours although its networks have no names: the machine's
    /// are at its loopback alone, and the way out may not lead to others.
    pub(super) fn needs_relay(&self, record: &ContainerRecord) -> Result<bool> {
        let is_of_job = self.network_of(&record.tenant)?.namespace().is_some();
        let servers = self.resolv_conf(record)?.servers;
        Ok(is_of_job && !servers.is_empty() && servers == self.loopback_servers(record)?)
    }

    pub(super) fn resolv_conf_text(&self, record: &ContainerRecord, resolver: Resolver, ipv6: bool) -> Result<String> {
        let conf = self.resolv_conf(record)?;
        let conf = match resolver {
            Resolver::Own => conf.for_own_server(),
            Resolver::Itself => conf.for_default_bridge(ipv6),
            Resolver::Host => conf,
        };
        Ok(conf.text())
    }

    /// How the name server in a container's sandbox answers. A container without a way out gets no answers from
    /// outside either.
    pub(super) fn sandbox_dns(&self, record: &ContainerRecord, has_way_out: bool) -> Result<SandboxDns> {
        let conf = self.resolv_conf(record)?;
        let own = IpAddr::from([127, 0, 0, 11]);
        let servers = conf.servers.iter().filter(|server| has_way_out && **server != own);
        let is_chosen = record.host_config.dns.iter().flatten().next().is_some();
        let from = if is_chosen { AskedFrom::Host } else { AskedFrom::Machine };
        Ok(SandboxDns {
            upstreams: servers.map(|server| Upstream { address: SocketAddr::new(*server, DNS_PORT), from }).collect(),
            keep_single_labels: conf.has_ndots(),
        })
    }
}

fn paths(folder: &Path) -> NetworkFiles {
    let file = |name: &str| -> Option<PathBuf> { Some(folder.join(name)) };
    NetworkFiles { hosts: file("hosts"), resolv_conf: file("resolv.conf"), hostname: file("hostname") }
}

/// The addresses of an endpoint, IPv4 first.
pub fn own_addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    let four = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let six = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    four.into_iter().chain(six).collect()
}
/// A file that the container may have written, which may be as large as its disk.
fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(limits::SMALL_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::SMALL_FILE {
        return Err(io::Error::other(format!("the container has made it larger than {}", limits::mib(text.len()))));
    }
    Ok(text)
}
