//! `Binds`: `source:destination[:mode]`, where the source is a path or a volume's name, or a destination alone.

use super::{LOCAL_DRIVER, WantedMount, check_absolute, check_destination, mode};
use crate::model::{
    Error, Result,
    container::{MountKind, MountPoint},
    path::clean_absolute,
};

/// Reads one bind. `volume_driver` is the request's driver of named volumes. dockerd answers 500 to what it cannot read.
pub(super) fn parse(text: &str, volume_driver: &str) -> Result<WantedMount> {
    let invalid = || Error::system(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, words) = match *parts.as_slice() {
        [] | ["", ..] => return Err(invalid()),
        [destination] => ("", destination, ""),
        // A path with a mode would be an anonymous volume, which has none.
        [_, words] if mode::Mode::parse(words).is_some() => return Err(invalid()),
        [source, destination] => (source, destination, ""),
        [source, destination, words] => (source, destination, words),
        _ => return Err(invalid()),
    };
    let mode = mode::Mode::parse(words).ok_or_else(|| Error::system(mode::invalid(words).message()))?;
    let kind = if source.starts_with('/') { MountKind::Bind } else { MountKind::Volume };
    let point = match kind {
        MountKind::Bind => bind(source, destination, words, mode),
        _ => volume(source, destination, words, mode, volume_driver),
    };
    let name = if kind == MountKind::Bind { "bind" } else { "volume" };
    let config_error = |error: Error| {
        Error::system(format!(
            "invalid volume specification: '{text}': invalid mount config for type {name:?}: {}",
            error.message()
        ))
    };
    point.map(WantedMount::from).map_err(config_error)
}

fn bind(source: &str, destination: &str, words: &str, mode: mode::Mode) -> Result<MountPoint> {
    check_destination(destination)?;
    if mode.no_copy {
        return Err(Error::invalid("field VolumeOptions must not be specified"));
    }
    check_absolute(source)?;
    Ok(MountPoint {
        kind: MountKind::Bind,
        source: clean_absolute(source),
        destination: clean_absolute(destination),
        mode: words.to_owned(),
        rw: !mode.read_only,
        propagation_given: mode.propagation.is_some(),
        propagation: mode.propagation.unwrap_or_else(|| "rprivate".to_owned()),
        create_source: true,
        ..MountPoint::default()
    })
}

fn volume(source: &str, destination: &str, words: &str, mode: mode::Mode, driver: &str) -> Result<MountPoint> {
    check_destination(destination)?;
    if mode.propagation.is_some() {
        return Err(Error::invalid("field BindOptions must not be specified"));
    }
    if source.is_empty() && mode.read_only {
        return Err(Error::invalid("must not set ReadOnly mode when using anonymous volumes"));
    }
    Ok(MountPoint {
        kind: MountKind::Volume,
        name: source.to_owned(),
        destination: clean_absolute(destination),
        driver: if driver.is_empty() { LOCAL_DRIVER } else { driver }.to_owned(),
        // dockerd shows its own default of the label for volumes that were asked for by the request.
        mode: if words.is_empty() { "z" } else { words }.to_owned(),
        rw: !mode.read_only,
        anonymous: source.is_empty(),
        no_copy: mode.no_copy,
        ..MountPoint::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(text: &str) -> MountPoint {
        parse(text, "").unwrap().point
    }

    fn error(text: &str) -> String {
        parse(text, "").unwrap_err().message().to_owned()
    }

    #[test]
    fn paths_and_names_are_told_apart() {
        let bind = point("/one/../two:/b/:ro,rslave");
        assert_eq!((bind.kind, bind.source.as_str(), bind.destination.as_str()), (MountKind::Bind, "/two", "/b"));
        assert_eq!((bind.rw, bind.propagation.as_str(), bind.mode.as_str()), (false, "rslave", "ro,rslave"));
        assert!(bind.create_source);
        let volume = point("cache:/c:nocopy");
        assert_eq!((volume.kind, volume.name.as_str(), volume.no_copy), (MountKind::Volume, "cache", true));
        assert_eq!(volume.driver, "local");
        assert!(point("/c").anonymous);
        assert_eq!(point("/a:/b:").mode, "");
    }

    #[test]
    fn others_are_refused_in_dockers_words() {
        let table = [
            ("", "invalid volume specification: ''"),
            (":/b", "invalid volume specification: ':/b'"),
            ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
            ("/a:ro", "invalid volume specification: '/a:ro'"),
            ("/a:/b:blue", "invalid mode: blue"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            (
                "/a:/b:nocopy",
                "invalid volume specification: '/a:/b:nocopy': invalid mount config for type \"bind\": field VolumeOptions \
                 must not be specified",
            ),
            (
                "/a:b",
                "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount \
                 path must be absolute",
            ),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: \
                 destination can't be '/'",
            ),
            (
                "cache:/b:rshared",
                "invalid volume specification: 'cache:/b:rshared': invalid mount config for type \"volume\": field \
                 BindOptions must not be specified",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(error(text), expected);
        }
    }
}
