//! Options of the driver `local`: what is mounted over a volume's folder while a container uses it.

use std::{ffi::CString, io, path::Path};

use indexmap::IndexMap;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::model::{Error, Result};

/// File systems that need more than a mount call, which dockerd does for them.
const NETWORK_TYPES: [&str; 4] = ["nfs", "nfs4", "cifs", "smb3"];

/// Checks options at create, in dockerd's words.
pub fn check(options: &IndexMap<String, String>) -> Result<()> {
    if let Some(unknown) = options.keys().find(|key| !["type", "o", "device", "size"].contains(&key.as_str())) {
        return Err(Error::invalid(format!("invalid option: \"{unknown}\"")));
    }
    if options.contains_key("size") {
        return Err(Error::invalid("quota size requested but no quota support"));
    }
    if options.is_empty() {
        return Ok(());
    }
    if let Some(missing) = ["device", "type"].iter().find(|key| options.get(**key).is_none_or(String::is_empty)) {
        return Err(Error::invalid(format!("missing required option: \"{missing}\"")));
    }
    let kind = &options["type"];
    if NETWORK_TYPES.contains(&kind.as_str()) {
        return Err(Error::not_implemented(format!("volumes of type {kind} are not implemented by ringer")));
    }
    Ok(())
}

/// What a volume's options ask to mount; `None` for a plain folder.
pub fn mount_of(options: Option<&IndexMap<String, String>>) -> Option<LocalMount> {
    let options = options.filter(|options| !options.is_empty())?;
    let (flags, data) = parse_options(options.get("o").map_or("", String::as_str));
    Some(LocalMount { kind: options.get("type")?.clone(), device: options.get("device")?.clone(), flags, data })
}

/// A mount over a volume's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalMount {
    kind: String,
    device: String,
    flags: MountFlags,
    data: String,
}

impl LocalMount {
    /// Mounts it at `target`.
    pub fn mount(&self, target: &Path) -> Result<()> {
        self.try_mount(target).map_err(|error| {
            let (device, target) = (&self.device, target.display());
            // As Go prints it: flags and data only where there are any.
            let flags = if self.flags.is_empty() { String::new() } else { format!(", flags: {:#x}", self.flags.bits()) };
            let data = if self.data.is_empty() { String::new() } else { format!(", data: {}", self.data) };
            let cause = error.to_string();
            let cause = cause.split(" (os error").next().unwrap_or_default().to_lowercase();
            Error::system(format!(
                "error while mounting volume '{target}': failed to mount local volume: mount {device}:{target}{flags}{data}: {cause}"
            ))
            .with_source(error)
        })
    }

    fn try_mount(&self, target: &Path) -> io::Result<()> {
        if self.flags.contains(MountFlags::BIND) {
            rustix::mount::mount_bind_recursive(self.device.as_str(), target)?;
            let rest = self.flags - MountFlags::BIND - MountFlags::REC;
            if !rest.is_empty() {
                rustix::mount::mount_remount(target, rest | MountFlags::BIND, "")?;
            }
        } else {
            let data = CString::new(self.data.as_str())?;
            rustix::mount::mount(self.device.as_str(), target, self.kind.as_str(), self.flags, Some(data.as_c_str()))?;
        }
        Ok(rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
    }
}

/// Takes away what is mounted at `target`; nothing there is success.
pub fn unmount(target: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // There may be several, one over the other, after a daemon was killed.
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn parse_options(text: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "rw" | "defaults" | "suid" | "dev" | "exec" | "atime" | "async" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> IndexMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Texts as dockerd 28 answered them.
    #[test]
    fn wrong_options_are_refused_in_dockerds_words() {
        for (pairs, text) in [
            (vec![("type", "tmpfs")], "missing required option: \"device\""),
            (vec![("device", "/tmp")], "missing required option: \"type\""),
            (vec![("foo", "tmpfs")], "invalid option: \"foo\""),
            (vec![("size", "10m")], "quota size requested but no quota support"),
        ] {
            assert_eq!(check(&options(&pairs)).unwrap_err().message(), text);
        }
        check(&options(&[])).unwrap();
        check(&options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")])).unwrap();
        check(&options(&[("type", "nfs"), ("device", ":/x")])).unwrap_err();
    }

    #[test]
    fn failed_mount_names_what_was_tried() {
        let bind = mount_of(Some(&options(&[("type", "none"), ("device", "/nonexist"), ("o", "bind")]))).unwrap();
        let target = tempfile::TempDir::new().unwrap();
        let path = target.path().display();
        let expected = format!(
            "error while mounting volume '{path}': failed to mount local volume: mount /nonexist:{path}, flags: 0x1000: no such file or directory"
        );
        assert_eq!(bind.mount(target.path()).unwrap_err().message(), expected);
    }
}
