//! `Mounts`: the structured form of binds, volumes and tmpfs.

use super::{LOCAL_DRIVER, WantedMount, check_absolute, check_destination, mode};
use crate::model::{
    Error, Result,
    container::{BindOptions, MountKind, MountPoint, MountRequest, ReadOnlyDepth, TmpfsOptions},
    path::clean_absolute,
};

/// Reads one mount. Kinds that we have not (`npipe`, `cluster`) are refused as unknown.
pub(super) fn parse(request: &MountRequest, volume_driver: &str) -> Result<WantedMount> {
    check_options_fit(request)?;
    let config_error = |error: Error| error.context(format!("invalid mount config for type {:?}", request.kind));
    read(request, volume_driver).map_err(config_error)
}

fn read(request: &MountRequest, volume_driver: &str) -> Result<WantedMount> {
    if request.target.is_empty() {
        return Err(Error::invalid("field Target must not be empty"));
    }
    if request.image_options.is_some() && request.kind != "image" {
        return Err(Error::invalid("field ImageOptions must not be specified"));
    }
    match request.kind.as_str() {
        "bind" => bind(request).map(WantedMount::from),
        "volume" => volume(request, volume_driver),
        "tmpfs" => tmpfs(request).map(WantedMount::from),
        "image" => image(request).map(WantedMount::from),
        _ => Err(Error::invalid("mount type unknown")),
    }
}

/// Options of one kind on a mount of another.
fn check_options_fit(request: &MountRequest) -> Result<()> {
    let options = [
        ("bind", "BindOptions", request.bind_options.is_some()),
        ("volume", "VolumeOptions", request.volume_options.is_some()),
        ("tmpfs", "TmpfsOptions", request.tmpfs_options.is_some()),
    ];
    for (kind, name, is_there) in options {
        if is_there && request.kind != kind {
            return Err(Error::invalid(format!("{name} must not be specified on mount type {:?}", request.kind)));
        }
    }
    read_only_depth(request, &request.bind_options.clone().unwrap_or_default()).map(|_| ())
}

fn read_only_depth(request: &MountRequest, options: &BindOptions) -> Result<ReadOnlyDepth> {
    let conflict = |what: &str| Err(Error::invalid(format!("mount options conflict: {what}")));
    let (shallow, forced) = (options.read_only_non_recursive, options.read_only_force_recursive);
    match (request.read_only, shallow, forced) {
        (false, true, _) => conflict("!ReadOnly && BindOptions.ReadOnlyNonRecursive"),
        (false, _, true) => conflict("!ReadOnly && BindOptions.ReadOnlyForceRecursive"),
        (true, true, true) => conflict("ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"),
        (_, true, false) => Ok(ReadOnlyDepth::Shallow),
        (_, false, true) => Ok(ReadOnlyDepth::Forced),
        (_, false, false) => Ok(ReadOnlyDepth::IfPossible),
    }
}

fn bind(request: &MountRequest) -> Result<MountPoint> {
    check_destination(&request.target)?;
    if request.source.is_empty() {
        return Err(Error::invalid("field Source must not be empty"));
    }
    let options = request.bind_options.clone().unwrap_or_default();
    if !options.propagation.is_empty() && !mode::is_propagation(&options.propagation) {
        return Err(Error::invalid(format!("invalid propagation mode: {}", options.propagation)));
    }
    check_absolute(&request.source)?;
    let read_only_depth = read_only_depth(request, &options)?;
    let propagation_given = !options.propagation.is_empty();
    let propagation = if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
    Ok(MountPoint {
        kind: MountKind::Bind,
        source: clean_absolute(&request.source),
        destination: clean_absolute(&request.target),
        rw: !request.read_only,
        propagation,
        propagation_given,
        non_recursive: options.non_recursive,
        read_only_depth,
        create_source: options.create_mountpoint,
        ..MountPoint::default()
    })
}

fn volume(request: &MountRequest, volume_driver: &str) -> Result<WantedMount> {
    check_destination(&request.target)?;
    let options = request.volume_options.clone().unwrap_or_default();
    let anonymous = request.source.is_empty();
    if anonymous && !options.subpath.is_empty() {
        return Err(Error::invalid("must not set Subpath when using anonymous volumes"));
    }
    check_subpath(&options.subpath)?;
    if request.read_only && anonymous {
        return Err(Error::invalid("must not set ReadOnly mode when using anonymous volumes"));
    }
    let driver = options.driver_config.unwrap_or_default();
    let names = [driver.name.as_str(), volume_driver, LOCAL_DRIVER];
    let point = MountPoint {
        kind: MountKind::Volume,
        name: request.source.clone(),
        destination: clean_absolute(&request.target),
        driver: names.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned(),
        mode: "z".to_owned(),
        rw: !request.read_only,
        anonymous,
        no_copy: options.no_copy,
        subpath: options.subpath,
        ..MountPoint::default()
    };
    Ok(WantedMount {
        volume_labels: options.labels.unwrap_or_default(),
        volume_options: driver.options,
        ..WantedMount::from(point)
    })
}

fn image(request: &MountRequest) -> Result<MountPoint> {
    check_destination(&request.target)?;
    if request.source.is_empty() {
        return Err(Error::invalid("field Source must not be empty"));
    }
    let options = request.image_options.clone().unwrap_or_default();
    check_subpath(&options.subpath)?;
    Ok(MountPoint {
        kind: MountKind::Image,
        name: request.source.clone(),
        destination: clean_absolute(&request.target),
        propagation: "rprivate".to_owned(),
        subpath: options.subpath,
        ..MountPoint::default()
    })
}

fn check_subpath(subpath: &str) -> Result<()> {
    let mut depth = 0;
    let is_within = subpath.split('/').all(|part| {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth >= 0
    });
    if subpath.starts_with('/') || !is_within {
        // dockerd says so of images too.
        return Err(Error::invalid("subpath must be a relative path within the volume"));
    }
    Ok(())
}

fn tmpfs(request: &MountRequest) -> Result<MountPoint> {
    check_destination(&request.target)?;
    if !request.source.is_empty() {
        return Err(Error::invalid("field Source must not be specified"));
    }
    let options = request.tmpfs_options.clone().unwrap_or_default();
    Ok(MountPoint {
        kind: MountKind::Tmpfs,
        destination: clean_absolute(&request.target),
        rw: !request.read_only,
        tmpfs_options: tmpfs_options(&options, request.read_only)?,
        ..MountPoint::default()
    })
}

/// As options of `mount`: `ro,mode=770,size=64k`.
fn tmpfs_options(options: &TmpfsOptions, read_only: bool) -> Result<String> {
    let mut words = Vec::new();
    if read_only {
        words.push("ro".to_owned());
    }
    if options.mode != 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes != 0 {
        words.push(format!("size={}", size_text(options.size_bytes)));
    }
    for option in options.options.iter().flatten() {
        match option.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [word @ ("exec" | "noexec")] => words.push((*word).to_owned()),
            [] => return Err(Error::invalid("invalid option array length")),
            [word, ..] => return Err(Error::invalid(format!("invalid option: {word}"))),
        }
    }
    Ok(words.join(","))
}

/// In the largest unit that it is a multiple of.
fn size_text(bytes: i64) -> String {
    let units = [(1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")];
    match units.into_iter().find(|(unit, _)| bytes % unit == 0) {
        Some((unit, letter)) => format!("{}{letter}", bytes / unit),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mount(request: Value) -> Result<MountPoint> {
        let request: MountRequest = serde_json::from_value(request).unwrap();
        parse(&request, "").map(|mount| mount.point)
    }

    fn error(request: Value) -> String {
        mount(request).unwrap_err().message().to_owned()
    }

    #[test]
    fn binds_volumes_and_memory_are_read() {
        let bind = mount(json!({"Type": "bind", "Source": "/a", "Target": "/b/", "ReadOnly": true,
            "BindOptions": {"Propagation": "rslave", "NonRecursive": true, "ReadOnlyNonRecursive": true}}));
        let bind = bind.unwrap();
        assert_eq!((bind.destination.as_str(), bind.propagation.as_str(), bind.rw), ("/b", "rslave", false));
        assert!(bind.non_recursive && bind.read_only_depth == ReadOnlyDepth::Shallow && !bind.create_source);
        let volume =
            mount(json!({"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"Subpath": "a/../b"}}));
        assert_eq!(volume.unwrap().subpath, "a/../b");
        let memory = mount(json!({"Type": "tmpfs", "Target": "/t", "ReadOnly": true,
            "TmpfsOptions": {"SizeBytes": 65536, "Mode": 504, "Options": [["exec"]]}}));
        assert_eq!(memory.unwrap().tmpfs_options, "ro,mode=770,size=64k,exec");
    }

    #[test]
    fn driver_and_labels_go_to_the_volume() {
        let request: MountRequest = serde_json::from_value(json!({"Type": "volume", "Source": "v", "Target": "/v",
            "VolumeOptions": {"Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}}}}))
        .unwrap();
        let wanted = parse(&request, "other").unwrap();
        assert_eq!(wanted.point.driver, "local");
        assert_eq!((wanted.volume_labels["a"].as_str(), wanted.volume_options["type"].as_str()), ("b", "tmpfs"));
    }

    #[test]
    fn others_are_refused_in_dockers_words() {
        let table = [
            (json!({"Type": "blue", "Target": "/y"}), "invalid mount config for type \"blue\": mount type unknown"),
            (
                json!({"Type": "bind", "Target": "/y"}),
                "invalid mount config for type \"bind\": field Source must not be empty",
            ),
            (
                json!({"Type": "bind", "Source": "/a"}),
                "invalid mount config for type \"bind\": field Target must not be empty",
            ),
            (
                json!({"Type": "bind", "Source": "/a", "Target": "/y", "VolumeOptions": {}}),
                "VolumeOptions must not be specified on mount type \"bind\"",
            ),
            (
                json!({"Type": "bind", "Source": "/a", "Target": "/y", "BindOptions": {"Propagation": "blue"}}),
                "invalid mount config for type \"bind\": invalid propagation mode: blue",
            ),
            (
                json!({"Type": "volume", "Source": "v", "Target": "/y", "VolumeOptions": {"Subpath": "../x"}}),
                "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
            ),
            (
                json!({"Type": "bind", "Source": "/a", "Target": "/y", "ImageOptions": {}}),
                "invalid mount config for type \"bind\": field ImageOptions must not be specified",
            ),
            (
                json!({"Type": "image", "Target": "/y"}),
                "invalid mount config for type \"image\": field Source must not be empty",
            ),
            (
                json!({"Type": "image", "Source": "a", "Target": "/y", "ImageOptions": {"Subpath": "/x"}}),
                "invalid mount config for type \"image\": subpath must be a relative path within the volume",
            ),
            (
                json!({"Type": "image", "Source": "a", "Target": "/y", "BindOptions": {}}),
                "BindOptions must not be specified on mount type \"image\"",
            ),
            (
                json!({"Type": "tmpfs", "Target": "/y", "TmpfsOptions": {"Options": [["uid", "5"]]}}),
                "invalid mount config for type \"tmpfs\": invalid option: uid",
            ),
        ];
        for (request, expected) in table {
            assert_eq!(error(request), expected);
        }
    }
}
