//! Mount propagation: what a shared or slave bind asks of its source and of the container's root.

use std::path::Path;

use crate::model::{Error, Result, container::MountPoint};

/// What the root of the container must be so that its binds can be what they ask for.
pub(super) fn of_rootfs(mounts: &[MountPoint]) -> Option<String> {
    let asked = |words: [&str; 2]| mounts.iter().any(|mount| words.contains(&mount.propagation.as_str()));
    if asked(["shared", "rshared"]) {
        Some("shared".to_owned())
    } else {
        asked(["slave", "rslave"]).then(|| "rslave".to_owned())
    }
}

/// Refuses a shared bind of a source that is not on a shared mount, and a slave of one that is neither, as dockerd does.
pub(super) fn check_source(mount: &MountPoint, mountinfo: &str) -> Result<()> {
    let (is_enough, wanted): (fn(&str) -> bool, _) = match mount.propagation.as_str() {
        "shared" | "rshared" => (|fields| fields.contains("shared:"), "a shared mount"),
        "slave" | "rslave" => {
            (|fields| fields.contains("shared:") || fields.contains("master:"), "a shared or slave mount")
        }
        _ => return Ok(()),
    };
    let (mount_point, fields) = mount_of(&mount.source, mountinfo).unwrap_or(("/".to_owned(), String::new()));
    if is_enough(&fields) {
        return Ok(());
    }
    Err(Error::system(format!("path {} is mounted on {mount_point} but it is not {wanted}", mount.source)))
}

/// Makes private what nobody asked to be a slave, where its source is on a mount that can have none. dockerd does so too.
pub fn without_impossible_slaves(mounts: &mut [MountPoint], mountinfo: &str) {
    for mount in mounts.iter_mut().filter(|mount| mount.propagation == "rslave" && !mount.propagation_given) {
        if check_source(mount, mountinfo).is_err() {
            "rprivate".clone_into(&mut mount.propagation);
        }
    }
}

/// The mount that `path` lies on, the topmost if there are several, with its optional fields.
fn mount_of(path: &str, mountinfo: &str) -> Option<(String, String)> {
    let parse = |line: &str| {
        let (left, _) = line.split_once(" - ")?;
        let mut words = left.split(' ');
        let point = unescape(words.nth(4)?);
        let optional = words.skip(1).collect::<Vec<_>>().join(" ");
        Some((point, optional))
    };
    let candidates = mountinfo.lines().filter_map(parse).filter(|(point, _)| Path::new(path).starts_with(point));
    candidates.max_by_key(|(point, _)| point.len())
}

/// The kernel writes blanks and backslashes in octal.
fn unescape(word: &str) -> String {
    word.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::MountKind;

    const MOUNTINFO: &str = "20 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n\
        30 20 0:5 / /shared\\040one rw shared:7 - tmpfs x rw\n31 20 0:6 / /slave rw,relatime master:7 - tmpfs x rw\n";

    fn check(source: &str, propagation: &str) -> Result<()> {
        let mount = MountPoint {
            kind: MountKind::Bind,
            source: source.to_owned(),
            propagation: propagation.to_owned(),
            ..MountPoint::default()
        };
        check_source(&mount, MOUNTINFO)
    }

    #[test]
    fn sources_must_be_shared_as_far_as_asked() {
        assert!(check("/a", "rprivate").is_ok());
        assert!(check("/shared one/b", "rshared").is_ok());
        assert!(check("/slave", "rslave").is_ok());
        assert_eq!(
            check("/slave", "shared").unwrap_err().message(),
            "path /slave is mounted on /slave but it is not a shared mount"
        );
        let mut mounts = ["/a", "/slave"].map(|source| MountPoint {
            source: source.to_owned(),
            propagation: "rslave".to_owned(),
            ..MountPoint::default()
        });
        without_impossible_slaves(&mut mounts, MOUNTINFO);
        assert_eq!(mounts.map(|mount| mount.propagation), ["rprivate", "rslave"]);
        assert_eq!(
            check("/shared", "rslave").unwrap_err().message(),
            "path /shared is mounted on / but it is not a shared or slave mount"
        );
    }
}
