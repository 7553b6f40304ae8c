//! The daemon's id in `/info`: made once, kept in the data root.

use std::{fs, io, path::Path};

use crate::model::{Result, error::Context};

/// A UUID that stays the same over restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonId(String);

impl DaemonId {
    /// Reads the id from `engine-id` below the data root, where dockerd keeps its own, or makes one.
    pub fn load(data_root: &Path) -> Result<Self> {
        let path = data_root.join("engine-id");
        match fs::read_to_string(&path) {
            Ok(id) if !id.trim().is_empty() => return Ok(Self(id.trim().to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(format!("reading {}", path.display())),
        }
        let id = random_uuid();
        fs::create_dir_all(data_root).context(format!("making {}", data_root.display()))?;
        // By rename, so that a crash leaves no half id.
        let draft = data_root.join("engine-id.new");
        fs::write(&draft, &id).context(format!("writing {}", draft.display()))?;
        fs::rename(&draft, &path).context(format!("writing {}", path.display()))?;
        Ok(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Version 4 of RFC 9562.
fn random_uuid() -> String {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).expect("the kernel's random source is always there");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_stays_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let id = DaemonId::load(folder.path()).unwrap();
        assert_eq!(id.as_str().len(), 36);
        assert_eq!(DaemonId::load(folder.path()).unwrap(), id);
    }
}
