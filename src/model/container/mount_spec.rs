//! What a client wants mounted: `Binds`, `Mounts`, `Tmpfs`, `VolumesFrom` and the image's volumes, read into [`MountPoint`]s.
//!
//! Pure: whether a source is there, and which folder a volume has, is for the engine. Texts are dockerd's.

mod bind;
mod mode;
mod request;

use indexmap::IndexMap;

pub use self::mode::VolumesFrom;
use super::{Config, HostConfig, MountKind, MountPoint};
use crate::model::{Error, Result, path::clean_absolute};

/// A mount as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedMount {
    /// The mount. A volume has no source yet, an anonymous one no name.
    pub point: MountPoint,
    /// It is another container's (`VolumesFrom`), not the client's own wish.
    pub is_inherited: bool,
    /// The daemon mounts it for purposes of its own.
    pub is_own: bool,
    /// Labels of a volume that is made by the way.
    pub volume_labels: IndexMap<String, String>,
    /// Options of a volume that is made by the way.
    pub volume_options: IndexMap<String, String>,
}

impl From<MountPoint> for WantedMount {
    fn from(point: MountPoint) -> Self {
        Self { point, ..Self::default() }
    }
}

/// All that a container wants mounted, in the order of the request: `inherited` (see [`VolumesFrom`]) first, then binds,
/// mounts, tmpfs and the volumes of the config with the image's.
///
/// Later ones take the place of inherited ones; two of the request at one place are an error (400
/// `Duplicate mount point: /x`); a volume of the config yields to all others.
pub fn wanted_mounts(
    config: &Config,
    host_config: &HostConfig,
    inherited: Vec<MountPoint>,
) -> Result<Vec<WantedMount>> {
    let mut wanted = Wanted::default();
    for bind in host_config.binds.iter().flatten() {
        wanted.add(bind::parse(bind, &host_config.volume_driver)?, host_config)?;
    }
    for mount in host_config.mounts.iter().flatten() {
        wanted.add(request::parse(mount, &host_config.volume_driver)?, host_config)?;
    }
    for (destination, options) in host_config.tmpfs.iter().flatten() {
        wanted.list.push(tmpfs(destination, options)?.into());
    }
    let inherited = inherited.into_iter().filter(|point| !wanted.has(&point.destination));
    let inherited = inherited.map(|point| WantedMount { is_inherited: true, ..WantedMount::from(point) });
    wanted.list = inherited.collect::<Vec<_>>().into_iter().chain(wanted.list).collect();
    for destination in config.volumes.iter().flatten().map(|(destination, _)| destination) {
        if !wanted.has(&clean_absolute(destination)) {
            wanted.list.push(anonymous_volume(destination)?.into());
        }
    }
    Ok(wanted.list)
}

#[derive(Default)]
struct Wanted {
    list: Vec<WantedMount>,
}

impl Wanted {
    fn has(&self, destination: &str) -> bool {
        self.list.iter().any(|mount| mount.point.destination == destination)
    }

    fn add(&mut self, mount: WantedMount, host_config: &HostConfig) -> Result<()> {
        let destination = &mount.point.destination;
        if self.has(destination) || host_config.tmpfs.as_ref().is_some_and(|tmpfs| tmpfs.contains_key(destination)) {
            return Err(Error::duplicate_mount_point(destination));
        }
        self.list.push(mount);
        Ok(())
    }
}

/// `HostConfig.Tmpfs` entries are not listed by inspect.
fn tmpfs(destination: &str, options: &str) -> Result<MountPoint> {
    check_destination(destination)?;
    Ok(MountPoint {
        kind: MountKind::Tmpfs,
        destination: clean_absolute(destination),
        rw: true,
        tmpfs_options: options.to_owned(),
        hidden: true,
        ..MountPoint::default()
    })
}

/// Images may name a folder without the leading slash; it is meant from the root.
fn anonymous_volume(destination: &str) -> Result<MountPoint> {
    check_destination(&clean_absolute(destination))?;
    Ok(MountPoint {
        kind: MountKind::Volume,
        destination: clean_absolute(destination),
        driver: LOCAL_DRIVER.to_owned(),
        rw: true,
        anonymous: true,
        ..MountPoint::default()
    })
}

const LOCAL_DRIVER: &str = "local";

/// What every destination must be.
fn check_destination(destination: &str) -> Result<()> {
    if clean_absolute(destination) == "/" && destination.starts_with('/') {
        return Err(Error::invalid("invalid specification: destination can't be '/'"));
    }
    check_absolute(destination)
}

fn check_absolute(path: &str) -> Result<()> {
    if path.starts_with('/') {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(host_config: Value) -> Result<Vec<WantedMount>> {
        let host_config: HostConfig = serde_json::from_value(host_config).unwrap();
        let config = Config { volumes: Some(IndexMap::from([("/data".to_owned(), json!({}))])), ..Config::default() };
        wanted_mounts(&config, &host_config, Vec::new())
    }

    fn error(host_config: Value) -> String {
        wanted(host_config).unwrap_err().message().to_owned()
    }

    #[test]
    fn two_at_one_place_are_refused() {
        for twice in [
            json!({"Binds": ["/a:/y", "/b:/y/"]}),
            json!({"Binds": ["/a:/y"], "Mounts": [{"Type": "tmpfs", "Target": "/y"}]}),
            json!({"Binds": ["/a:/y"], "Tmpfs": {"/y": ""}}),
        ] {
            assert_eq!(error(twice), "Duplicate mount point: /y");
        }
    }

    #[test]
    fn volumes_of_the_image_yield() {
        let mounts = wanted(json!({"Binds": ["/a:/data"]})).unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].point.kind, MountKind::Bind);
        assert!(wanted(json!({})).unwrap()[0].point.anonymous);
    }

    #[test]
    fn inherited_mounts_yield_to_the_requests_own() {
        let inherited = |destination: &str| MountPoint { destination: destination.to_owned(), ..MountPoint::default() };
        let host_config = HostConfig { binds: Some(vec!["/a:/x".to_owned()]), ..HostConfig::default() };
        let mounts = wanted_mounts(&Config::default(), &host_config, vec![inherited("/x"), inherited("/z")]).unwrap();
        let destinations: Vec<_> = mounts.iter().map(|mount| mount.point.destination.as_str()).collect();
        assert_eq!(destinations, ["/z", "/x"]);
        assert_eq!(mounts[1].point.source, "/a");
    }

    #[test]
    fn memory_at_the_root_or_nowhere_is_refused() {
        assert_eq!(error(json!({"Tmpfs": {"/": ""}})), "invalid specification: destination can't be '/'");
        assert_eq!(error(json!({"Tmpfs": {"run": ""}})), "invalid mount path: 'run' mount path must be absolute");
    }
}
