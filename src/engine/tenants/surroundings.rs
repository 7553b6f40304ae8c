//! What containers of a job find around them: variables, and certificates of authorities that programs trust. Neither stands in their
//! records or images: whoever looks at a container or commits it sees what its makers said.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use sha2::{Digest, Sha256};

use crate::{
    backend::builds::{Around, AroundFile},
    engine::Engine,
    model::{
        Result,
        container::{ContainerRecord, MountKind, MountPoint},
        error::Context,
        id::TenantId,
        job::Surroundings,
    },
    processes::environment,
};

/// Where the certificates are in a container: `/dev` is no part of its image, so that nothing of it is left in a layer.
const AUTHORITIES: &str = "/dev/ringer-authorities.pem";

/// The variables by which programs are told of them: OpenSSL and Go, curl, git, Python's requests, node.
const READ_BY: [&str; 5] =
    ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];

/// Where machines keep the certificates of the authorities that they trust: Debian and Alpine, Fedora, SUSE.
const MACHINES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

fn naming(file: &str) -> [String; READ_BY.len()] {
    READ_BY.map(|name| format!("{name}={file}"))
}

impl Engine {
    /// Variables of a container's tenant, which its own go before.
    pub(crate) fn given_variables(&self, record: &ContainerRecord) -> Vec<String> {
        let Ok(tenant) = self.tenants.get(&record.tenant) else { return Vec::new() };
        let mut variables = tenant.surroundings().env.clone();
        if self.authorities_for(record).is_some() {
            variables.extend(naming(AUTHORITIES));
        }
        variables
    }

    /// What steps of a tenant's builds have of the same. The builder itself, which fetches, has the proxies, and knows the authorities and names.
    pub(crate) fn around_builds(&self, id: &TenantId) -> Around {
        let Ok(tenant) = self.tenants.get(id) else { return Around::default() };
        let given = tenant.surroundings();
        let source = given.authorities.as_ref().map(|pem| self.authorities_file(pem));
        let proxies = given.env.iter().filter(|variable| environment::is_of_proxies(variable)).cloned();
        let authorities = source.iter().flat_map(|file| naming(&file.display().to_string()));
        Around {
            env: given.env.clone(),
            hosts: given.hosts.clone(),
            builder_env: proxies.chain(authorities).collect(),
            mirrors: self.mirrors_of(&tenant),
            file: source.map(|source| AroundFile {
                source,
                destination: AUTHORITIES.to_owned(),
                env: naming(AUTHORITIES).to_vec(),
                machines: MACHINES.iter().map(PathBuf::from).find(|path| path.is_file()),
            }),
            host_gateway: self.host_gateway(id),
        }
    }

    /// What is mounted into a container beside what it asks for.
    pub(crate) fn given_mount(&self, record: &ContainerRecord) -> Option<MountPoint> {
        let source = self.authorities_for(record)?;
        Some(MountPoint {
            kind: MountKind::Bind,
            source: source.display().to_string(),
            destination: AUTHORITIES.to_owned(),
            propagation: "rprivate".to_owned(),
            ..MountPoint::default()
        })
    }

    /// The file with them. Into a `/dev` of the container's own nothing is put.
    fn authorities_for(&self, record: &ContainerRecord) -> Option<PathBuf> {
        let tenant = self.tenants.get(&record.tenant).ok()?;
        let pem = tenant.surroundings().authorities.as_ref()?;
        let is_covered = record.mounts.iter().any(|mount| mount.destination == "/dev");
        (!is_covered).then(|| self.authorities_file(pem))
    }

    fn authorities_file(&self, pem: &str) -> PathBuf {
        let digest: String = Sha256::digest(pem).iter().map(|byte| format!("{byte:02x}")).collect();
        self.config.data_root.join("authorities").join(format!("{digest}.pem"))
    }

    /// Writes that file, with the machine's authorities before: programs read one file alone.
    pub(crate) fn write_authorities(&self, surroundings: &Surroundings) -> Result<()> {
        let Some(pem) = &surroundings.authorities else { return Ok(()) };
        let path = self.authorities_file(pem);
        let machines = MACHINES.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        replace(&path, &format!("{}\n{pem}", machines.trim_end())).context(format!("writing {}", path.display()))
    }
}

/// Tells the halves of files apart that are written at once: each job of a forge writes the same file.
static HALVES: AtomicU64 = AtomicU64::new(0);

/// Whole or not at all; jobs that have the old one keep it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    let half = path.with_extension(format!("{}.part", HALVES.fetch_add(1, Ordering::Relaxed)));
    // An earlier life may have left one of that name.
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o644).open(&half)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::rename(&half, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_written_by_several_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorities").join("a.pem");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| replace(&path, "a certificate").unwrap()));
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "a certificate");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no half is left");
    }
}
