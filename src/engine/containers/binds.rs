//! Binds: whose path the source is, and that it is there.

use std::path::Path;

use crate::{
    engine::{Engine, containers::seat::Seat, runs::seen_path, tenants::Scope},
    model::{
        Error, Result,
        container::{MountPoint, SourceRoot},
        id::ContainerId,
        policy::Key,
    },
    policy,
    work::blocking,
};

impl Engine {
    /// A bind that a client asks for, whose paths are those of its `seat`.
    pub(super) async fn resolve_bind(&self, scope: &Scope, seat: &Seat, point: &mut MountPoint) -> Result<()> {
        if self.is_own_socket(scope, seat, point).await? {
            point.root = SourceRoot::Socket;
            return Ok(());
        }
        match seat {
            // Whether a path is there is no business of a client that may not bind it.
            Seat::Machine if !policy::allows_all(&scope.policy(), Key::Binds) => {
                point.root = SourceRoot::Exact;
                // Making a folder is writing to the one above it.
                point.create_source &= policy::allows_writing(&scope.policy(), &point.source);
                spare_daemon_mounts(point, &self.config.data_root)
            }
            Seat::Machine => self.resolve_bind_of_machine(point),
            Seat::Container(container) => {
                point.root = SourceRoot::Container(container.clone());
                self.follow_daemon_mounts(container, point);
                if point.create_source { Ok(()) } else { self.check_path_in(container, point).await }
            }
        }
    }

    /// A bind on the machine's path.
    pub(super) fn resolve_bind_of_machine(&self, point: &mut MountPoint) -> Result<()> {
        if !point.create_source && !Path::new(&point.source).exists() {
            return Err(Error::bind_source_missing(&point.source));
        }
        spare_daemon_mounts(point, &self.config.data_root)
    }

    /// Errors are those of the start, which looks again.
    async fn check_path_in(&self, container: &ContainerId, point: &MountPoint) -> Result<()> {
        let (engine, container, path) = (self.clone(), container.clone(), seen_path(point));
        blocking(move || {
            let gone = || Error::bind_source_gone(&path.path, &container);
            path.open(&engine.first_process(&container).ok_or_else(gone)?).map(drop)
        })
        .await
    }

    /// What a container sees of the daemon's folders follows their mounts (see [`spare_daemon_mounts`]); so does what another one
    /// gets of it.
    fn follow_daemon_mounts(&self, container: &ContainerId, point: &mut MountPoint) {
        let follows = |point: &MountPoint| matches!(point.propagation.as_str(), "rslave" | "rshared");
        let is_possible =
            self.containers.find(container).is_some_and(|other| other.record().mounts.iter().any(follows));
        if is_possible && !point.propagation_given {
            "rslave".clone_into(&mut point.propagation);
        }
    }
}

/// A bind that holds the daemon's own folders, or lies in them, must not keep the mounts there: what is unmounted here goes there too.
/// 400 if a client wants it otherwise.
fn spare_daemon_mounts(point: &mut MountPoint, data_root: &Path) -> Result<()> {
    let source = Path::new(&point.source);
    if !source.starts_with(data_root) && !data_root.starts_with(source) {
        return Ok(());
    }
    match point.propagation.as_str() {
        "rslave" | "rshared" => Ok(()),
        propagation if point.propagation_given => {
            Err(Error::propagation_in_daemon_root(&data_root.to_string_lossy(), &point.source, propagation))
        }
        _ => {
            "rslave".clone_into(&mut point.propagation);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::MountKind;

    fn spared(source: &str, given: Option<&str>) -> Result<String> {
        let mut point = MountPoint {
            kind: MountKind::Bind,
            source: source.to_owned(),
            propagation: given.unwrap_or("rprivate").to_owned(),
            propagation_given: given.is_some(),
            ..MountPoint::default()
        };
        spare_daemon_mounts(&mut point, Path::new("/var/lib/ringer")).map(|()| point.propagation)
    }

    #[test]
    fn binds_around_the_daemons_folders_follow_their_mounts() {
        for source in ["/", "/var", "/var/lib/ringer", "/var/lib/ringer/volumes"] {
            assert_eq!(spared(source, None).unwrap(), "rslave");
            assert_eq!(spared(source, Some("rshared")).unwrap(), "rshared");
            for word in ["private", "rprivate", "slave", "shared"] {
                assert_eq!(
                    spared(source, Some(word)).unwrap_err().message(),
                    format!(
                        "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is \
                         within the daemon root, daemon root: \"/var/lib/ringer\", bind mount source: \"{source}\", \
                         propagation: \"{word}\""
                    )
                );
            }
        }
        assert_eq!(spared("/var/lib/ringer-too", None).unwrap(), "rprivate");
        assert_eq!(spared("/etc", Some("private")).unwrap(), "private");
    }
}
