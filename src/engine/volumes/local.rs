//! Options of the driver `local`: what is mounted over a volume's folder while a container uses it.

use std::{
    ffi::CString,
    io,
    net::{IpAddr, ToSocketAddrs},
    path::Path,
};

use indexmap::IndexMap;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::model::{Error, Result, volume::Volume};

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
    Ok(())
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
    /// What a volume's options ask to mount; `None` for a plain folder.
    pub fn of(volume: &Volume) -> Option<Self> {
        let options = volume.options.as_ref().filter(|options| !options.is_empty())?;
        let (flags, data) = parse_options(options.get("o").map_or("", String::as_str));
        Some(Self { kind: options.get("type")?.clone(), device: options.get("device")?.clone(), flags, data })
    }

    /// Whether nothing can be written to it.
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(MountFlags::RDONLY)
    }

    /// What a volume that is kept elsewhere has for options: its folder is bound, for reading only if so.
    pub fn options_of_bind(folder: &Path, is_read_only: bool) -> IndexMap<String, String> {
        let o = if is_read_only { "bind,ro" } else { "bind" };
        let device = folder.to_string_lossy().into_owned();
        [("type", "none".to_owned()), ("o", o.to_owned()), ("device", device)]
            .map(|(key, value)| (key.to_owned(), value))
            .into()
    }

    /// Mounts it at `target`.
    pub fn mount(&self, target: &Path) -> Result<()> {
        let while_mounting =
            |error: Error| error.context(format!("error while mounting volume '{}'", target.display()));
        let resolved = self.with_addresses().map_err(while_mounting)?;
        resolved.try_mount(target).map_err(|error| while_mounting(resolved.failure(target, error)))
    }

    /// With addresses in place of names: the kernel resolves none. Which names those are is as with dockerd.
    fn with_addresses(&self) -> Result<Self> {
        let mut resolved = self.clone();
        if !matches!(self.kind.as_str(), "nfs" | "cifs") {
            return Ok(resolved);
        }
        let named = |option: &&str| option.strip_prefix("addr=").is_some_and(|host| !host.is_empty());
        if let Some(option) = self.data.split(',').find(named) {
            let address = address_of(&option["addr=".len()..])?;
            let with_address = |one: &str| if one == option { format!("addr={address}") } else { one.to_owned() };
            resolved.data = self.data.split(',').map(with_address).collect::<Vec<_>>().join(",");
        } else if let ("cifs", Some((host, share))) = (
            self.kind.as_str(),
            self.device.strip_prefix("//").and_then(|path| path.split_once('/')).filter(|(host, _)| !host.is_empty()),
        ) {
            resolved.device = format!("//{}/{share}", address_of(host)?);
        }
        Ok(resolved)
    }

    /// As Go prints it: flags and data only where there are any, passwords never.
    fn failure(&self, target: &Path, error: io::Error) -> Error {
        let (device, target) = (&self.device, target.display());
        let flags = if self.flags.is_empty() { String::new() } else { format!(", flags: {:#x}", self.flags.bits()) };
        let hidden = |option: &str| match option.starts_with("password=") {
            true => "password=********".to_owned(),
            false => option.to_owned(),
        };
        let shown = self.data.split(',').map(hidden).collect::<Vec<_>>().join(",");
        let data = if shown.is_empty() { String::new() } else { format!(", data: {shown}") };
        let cause = error.to_string();
        let cause = cause.split(" (os error").next().unwrap_or_default().to_lowercase();
        Error::system(format!("failed to mount local volume: mount {device}:{target}{flags}{data}: {cause}"))
            .with_source(error)
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

/// An address of a host, IPv4 if it has one.
fn address_of(host: &str) -> Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let unknown = |cause: Option<io::Error>| {
        let error =
            Error::system(format!("error resolving passed in network volume address: lookup {host}: no such host"));
        match cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    };
    let found: Vec<IpAddr> =
        (host, 0).to_socket_addrs().map_err(|cause| unknown(Some(cause)))?.map(|address| address.ip()).collect();
    found.iter().find(|address| address.is_ipv4()).or(found.first()).copied().ok_or_else(|| unknown(None))
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
            "rw" | "defaults" | "suid" | "dev" | "exec" | "atime" | "async" | "private" | "rprivate" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    fn options(pairs: &[(&str, &str)]) -> IndexMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn wanted(pairs: &[(&str, &str)]) -> LocalMount {
        let options = Some(options(pairs));
        let volume = Volume { name: "v".to_owned(), labels: None, options, created: Timestamp::now() };
        LocalMount::of(&volume).unwrap()
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
        check(&options(&[("type", "nfs"), ("device", ":/x")])).unwrap();
    }

    #[test]
    fn failed_mount_names_what_was_tried() {
        let target = tempfile::TempDir::new().unwrap();
        let path = target.path().display();
        // Beside the target, where nobody can have put anything.
        let absent = format!("{path}/absent");
        let bind = wanted(&[("type", "none"), ("device", &absent), ("o", "bind")]);
        let expected = format!(
            "error while mounting volume '{path}': failed to mount local volume: mount {absent}:{path}, flags: 0x1000: no such file or directory"
        );
        assert_eq!(bind.mount(target.path()).unwrap_err().message(), expected);
    }

    fn failure(kind: &str, device: &str, o: &str) -> String {
        let wanted = wanted(&[("type", kind), ("device", device), ("o", o)]);
        let refused =
            wanted.with_addresses().map(|with| with.failure(Path::new("/t"), io::Error::from_raw_os_error(19)));
        refused.unwrap_or_else(|error| error).message().replace("failed to mount local volume: mount ", "")
    }

    /// What dockerd 28 answered where the kernel has neither nfs nor cifs.
    #[test]
    fn names_of_servers_are_resolved_and_passwords_hidden() {
        let none = "no such device";
        for (kind, device, o, expected) in [
            ("nfs", ":/x", "addr=127.0.0.1,rw", format!(":/x:/t, data: addr=127.0.0.1: {none}")),
            (
                "nfs",
                ":/x",
                "mountaddr=1.2.3.4,addr=localhost",
                format!(":/x:/t, data: mountaddr=1.2.3.4,addr=127.0.0.1: {none}"),
            ),
            ("nfs", ":/x", "addr=::1,hard", format!(":/x:/t, data: addr=::1,hard: {none}")),
            (
                "nfs",
                ":/x",
                "addr=,nolock,soft,nosuid,sync,noatime",
                format!(":/x:/t, flags: 0x412, data: addr=,nolock,soft: {none}"),
            ),
            ("nfs", ":/x", "", format!(":/x:/t: {none}")),
            ("nfs4", ":/x", "addr=localhost", format!(":/x:/t, data: addr=localhost: {none}")),
            (
                "cifs",
                "//localhost/x",
                "username=u,password=p,x=y",
                format!("//127.0.0.1/x:/t, data: username=u,password=********,x=y: {none}"),
            ),
            ("cifs", "//1.2.3.4/x", "addr=localhost", format!("//1.2.3.4/x:/t, data: addr=127.0.0.1: {none}")),
            (
                "smb3",
                "//localhost/x",
                "addr=localhost,password=x",
                format!("//localhost/x:/t, data: addr=localhost,password=********: {none}"),
            ),
            (
                "nfs",
                ":/x",
                "addr=nosuch.invalid",
                "error resolving passed in network volume address: lookup nosuch.invalid: no such host".to_owned(),
            ),
        ] {
            assert_eq!(failure(kind, device, o), expected, "{kind} {device} {o}");
        }
    }
}
