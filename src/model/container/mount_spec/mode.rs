//! The words after the last colon of a bind, `ro,z,rslave`, and of `VolumesFrom`.

use crate::model::{
    Error, Result,
    container::{MountKind, MountPoint},
};

const PROPAGATION: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];
const CONSISTENCY: [&str; 4] = ["consistent", "cached", "delegated", "default"];

/// What a mode says. One word of each kind at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) read_only: bool,
    pub(super) propagation: Option<String>,
    pub(super) no_copy: bool,
}

/// Whether a word can be the propagation of a bind.
pub(super) fn is_propagation(word: &str) -> bool {
    PROPAGATION.contains(&word)
}

impl Mode {
    /// Reads a mode; `None` if a word is unknown or one kind is there twice.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut mode = Self::default();
        let mut kinds = Vec::new();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let kind = match word {
                "rw" | "ro" => {
                    mode.read_only = word == "ro";
                    "access"
                }
                "z" | "Z" => "label",
                "nocopy" => {
                    mode.no_copy = true;
                    "copy"
                }
                word if is_propagation(word) => {
                    mode.propagation = Some(word.to_owned());
                    "propagation"
                }
                word if CONSISTENCY.contains(&word) => "consistency",
                _ => return None,
            };
            if kinds.contains(&kind) {
                return None;
            }
            kinds.push(kind);
        }
        Some(mode)
    }
}

/// 400 for a mode that cannot be read.
pub(super) fn invalid(mode: &str) -> Error {
    Error::invalid(format!("invalid mode: {mode}"))
}

/// One entry of `VolumesFrom`, `container[:ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumesFrom {
    /// The other container, as the client names it.
    pub container: String,
    read_only: bool,
}

impl VolumesFrom {
    /// Reads an entry; modes about propagation and copying are refused.
    pub fn parse(text: &str) -> Result<Self> {
        let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if text.is_empty() {
            return Err(Error::invalid("volumes-from specification cannot be an empty string"));
        }
        let read = Mode::parse(mode).filter(|mode| mode.propagation.is_none() && !mode.no_copy);
        let read_only = read.ok_or_else(|| invalid(mode))?.read_only;
        Ok(Self { container: container.to_owned(), read_only })
    }

    /// The other container's mounts as this one gets them: not its own to delete, nothing copied in.
    pub fn inherit(&self, mounts: &[MountPoint]) -> Vec<MountPoint> {
        let shared = mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs);
        let inherit = |mount: &MountPoint| MountPoint {
            rw: mount.rw && !self.read_only,
            mode: String::new(),
            anonymous: false,
            no_copy: true,
            ..mount.clone()
        };
        shared.map(inherit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        let mode = Mode::parse("ro,z,rslave,cached").unwrap();
        assert_eq!(mode, Mode { read_only: true, propagation: Some("rslave".to_owned()), no_copy: false });
        assert_eq!(Mode::parse("").unwrap(), Mode::default());
        assert!(Mode::parse("nocopy").unwrap().no_copy);
        for bad in ["blue", "ro,rw", "z,Z", "slave,shared", "ro,"] {
            assert_eq!(Mode::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn volumes_from_takes_access_and_label() {
        let volume = MountPoint { kind: MountKind::Volume, rw: true, anonymous: true, ..MountPoint::default() };
        let memory = MountPoint { kind: MountKind::Tmpfs, ..MountPoint::default() };
        let inherited = VolumesFrom::parse("box:ro").unwrap().inherit(&[volume, memory]);
        assert_eq!(inherited.len(), 1);
        assert!(!inherited[0].rw && !inherited[0].anonymous);
        for (text, mode) in [("box:blue", "blue"), ("box:rslave", "rslave"), ("box:nocopy", "nocopy")] {
            assert_eq!(VolumesFrom::parse(text).unwrap_err().message(), format!("invalid mode: {mode}"));
        }
    }
}
