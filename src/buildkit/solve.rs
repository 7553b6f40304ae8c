//! What a client may ask of buildkitd with a build, and what becomes of it: `Control/Solve` and the gateway's `Solve`.

use super::wire::{self, Change};
use crate::{
    backend::builds::DANGLING,
    model::{Error, Result, reference::Reference},
};

/// Fields of `moby.buildkit.v1.SolveRequest`.
pub(super) const REF: u32 = 1;
const OLD_EXPORTER: u32 = 3;
const OLD_EXPORTER_ATTRIBUTES: u32 = 4;
pub(super) const SESSION: u32 = 5;
pub(super) const FRONTEND: u32 = 6;
pub(super) const FRONTEND_ATTRIBUTES: u32 = 7;
pub(super) const CACHE: u32 = 8;
pub(super) const ENTITLEMENTS: u32 = 9;
pub(super) const EXPORTERS: u32 = 13;

/// Fields of `moby.buildkit.v1.CacheOptions`.
pub(super) const CACHE_EXPORTS: u32 = 4;
pub(super) const CACHE_IMPORTS: u32 = 5;

/// Fields of `moby.buildkit.v1.Exporter`, and of `CacheOptionsEntry`.
const TYPE: u32 = 1;
const ATTRIBUTES: u32 = 2;

/// Options of frontends, in `moby.buildkit.v1.frontend.SolveRequest`.
const FRONTEND_OPTIONS: u32 = 3;

/// The exporter into the engine's own images: clients of Docker call it by the first name, buildkitd by the second.
const MOBY: &str = "moby";
const IMAGE: &str = "image";

/// What an exported image is: unpacked, so that a container starts at once, and with a name that stands for none if it has none. The
/// missing letter is BuildKit's.
const IMAGE_ATTRIBUTES: [(&str, &str); 3] =
    [("unpack", "true"), ("dangling-name-prefix", "moby-dangling"), ("danging-name-empty-only", "true")];

/// Entitlements that a client is given if it asks.
const GRANTED: [&str; 1] = ["network.host"];

/// The option of frontends by which a client chooses the cgroup of steps: where they are is ours to say.
const CGROUP_PARENT: &str = "cgroup-parent";

/// What a build is called in all its calls.
pub(super) fn reference(message: &[u8]) -> Result<String> {
    wire::text_of(message, REF)
}

/// A `Control/Solve` as buildkitd gets it.
pub(super) fn control(message: &[u8]) -> Result<Vec<u8>> {
    // Exporters stand there twice, for older daemons; buildkitd reads the old place only if there is none in the new one.
    let mut is_new = false;
    for field in wire::fields(message) {
        is_new |= field?.number == EXPORTERS;
    }
    let (mut old_type, mut old_attributes) = (String::new(), Vec::new());
    let mut edited = wire::edited(message, |field| {
        let content = field.content.unwrap_or_default();
        Ok(match field.number {
            EXPORTERS => Change::Into(exporter(content)?),
            OLD_EXPORTER => {
                wire::text(content)?.clone_into(&mut old_type);
                Change::Drop
            }
            OLD_EXPORTER_ATTRIBUTES => {
                wire::put(&mut old_attributes, ATTRIBUTES, content);
                Change::Drop
            }
            FRONTEND_ATTRIBUTES => allowed_option(content)?,
            ENTITLEMENTS => allowed_entitlement(wire::text(content)?)?,
            _ => Change::Keep,
        })
    })?;
    if !is_new && !old_type.is_empty() {
        let mut old = Vec::new();
        wire::put(&mut old, TYPE, old_type.as_bytes());
        old.extend(old_attributes);
        wire::put(&mut edited, EXPORTERS, &exporter(&old)?);
    }
    Ok(edited)
}

/// A `Solve` of the gateway, in which clients name the options of their frontend.
pub(super) fn gateway(message: &[u8]) -> Result<Vec<u8>> {
    wire::edited(message, |field| match (field.number, field.content) {
        (FRONTEND_OPTIONS, Some(content)) => allowed_option(content),
        _ => Ok(Change::Keep),
    })
}

fn allowed_option(content: &[u8]) -> Result<Change> {
    match wire::entry(content)? {
        (key, value) if key == CGROUP_PARENT && !value.is_empty() => {
            Err(Error::forbidden("the cgroup of a build's steps cannot be chosen: leave --cgroup-parent out"))
        }
        _ => Ok(Change::Keep),
    }
}

fn allowed_entitlement(name: &str) -> Result<Change> {
    match GRANTED.contains(&name) {
        true => Ok(Change::Keep),
        false => Err(Error::forbidden(format!("the entitlement {name} is not granted here: leave --allow {name} out"))),
    }
}

/// A kind with its attributes, as exporters and caches are said.
pub(super) fn typed<'a>(kind: &str, attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut message = Vec::new();
    wire::put(&mut message, TYPE, kind.as_bytes());
    for (key, value) in attributes {
        wire::put_entry(&mut message, ATTRIBUTES, key, value);
    }
    message
}

fn exporter(message: &[u8]) -> Result<Vec<u8>> {
    let kind = wire::text_of(message, TYPE)?;
    if kind != MOBY && kind != IMAGE {
        return Ok(message.to_owned());
    }
    let mut set: Vec<String> = Vec::new();
    let mut edited = wire::edited(message, |field| {
        Ok(match field.number {
            TYPE => Change::Into(IMAGE.into()),
            ATTRIBUTES => {
                let (key, value) = wire::entry(field.content.unwrap_or_default())?;
                let value = if key == "name" { normalised(&value)? } else { value };
                let entry = wire::entry_of(&key, &value);
                set.push(key);
                Change::Into(entry)
            }
            _ => Change::Keep,
        })
    })?;
    for (key, value) in IMAGE_ATTRIBUTES.iter().filter(|(key, _)| !set.iter().any(|set| set == key)) {
        wire::put_entry(&mut edited, ATTRIBUTES, key, value);
    }
    Ok(edited)
}

/// Names as buildkitd takes them: literally. Several are joined by commas.
fn normalised(names: &str) -> Result<String> {
    let names = names.split(',').filter(|name| !name.is_empty());
    let names = names.map(|name| Ok(built_name(name)?.to_string())).collect::<Result<Vec<_>>>()?;
    Ok(names.join(","))
}

/// The name that a built image can have.
fn built_name(text: &str) -> Result<Reference> {
    let name = Reference::parse(text)?.or_latest();
    if name.digest().is_some() || text.starts_with(DANGLING) {
        return Err(Error::invalid(format!("invalid name of an image that is built: {text}")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(exporter: &[u8]) -> (String, BTreeMap<String, String>) {
        let fields = wire::fields(exporter).map(Result::unwrap).filter(|field| field.number == ATTRIBUTES);
        let attributes = fields.map(|field| wire::entry(field.content.unwrap()).unwrap()).collect();
        (wire::text_of(exporter, TYPE).unwrap(), attributes)
    }

    fn exporters_of(message: &[u8]) -> Vec<(String, BTreeMap<String, String>)> {
        let fields = wire::fields(message).map(Result::unwrap).filter(|field| field.number == EXPORTERS);
        fields.map(|field| read(field.content.unwrap())).collect()
    }

    /// As buildx sends it: the exporter in the old and in the new place, and a field that nobody here knows.
    fn request() -> Vec<u8> {
        let mut message = Vec::new();
        wire::put(&mut message, REF, b"build1");
        wire::put(&mut message, OLD_EXPORTER, b"moby");
        wire::put_entry(&mut message, OLD_EXPORTER_ATTRIBUTES, "name", "y:1");
        wire::put(&mut message, EXPORTERS, &typed("moby", [("name", "y:1,reg.test/z"), ("push", "true")]));
        wire::put(&mut message, 77, b"of a newer client");
        message
    }

    #[test]
    fn the_result_becomes_an_image_of_the_engine() {
        let edited = control(&request()).unwrap();
        let exporters = exporters_of(&edited);
        let [(kind, attributes)] = exporters.as_slice() else { panic!("{exporters:?}") };
        assert_eq!(kind, "image");
        assert_eq!(attributes["name"], "docker.io/library/y:1,reg.test/z:latest");
        assert_eq!((attributes["push"].as_str(), attributes["unpack"].as_str()), ("true", "true"));
        assert_eq!(attributes["dangling-name-prefix"], "moby-dangling");
        assert!(wire::text_of(&edited, OLD_EXPORTER).unwrap().is_empty(), "buildkitd would read it");
        assert_eq!(wire::text_of(&edited, 77).unwrap(), "of a newer client");
        assert_eq!(reference(&edited).unwrap(), "build1");
    }

    #[test]
    fn an_old_client_names_its_exporter_in_the_old_place() {
        let mut message = Vec::new();
        wire::put(&mut message, OLD_EXPORTER, b"moby");
        wire::put_entry(&mut message, OLD_EXPORTER_ATTRIBUTES, "name", "y");
        let exporters = exporters_of(&control(&message).unwrap());
        assert_eq!((exporters.len(), exporters[0].1["name"].as_str()), (1, "docker.io/library/y:latest"));
    }

    #[test]
    fn other_exporters_stay_as_they_are() {
        let local = typed("local", [("name", "y")]);
        assert_eq!(exporter(&local).unwrap(), local);
    }

    #[test]
    fn what_nobody_is_given_is_refused_by_name() {
        let of = |number: u32, content: &[u8]| {
            let mut message = Vec::new();
            wire::put(&mut message, number, content);
            message
        };
        assert!(control(&of(ENTITLEMENTS, b"network.host")).is_ok());
        let error = control(&of(ENTITLEMENTS, b"security.insecure")).unwrap_err();
        assert!(error.message().contains("security.insecure"), "{error}");
        let option = |key: &str| wire::entry_of(key, "/elsewhere");
        assert!(gateway(&of(FRONTEND_OPTIONS, &option("target"))).is_ok());
        assert!(gateway(&of(FRONTEND_OPTIONS, &option(CGROUP_PARENT))).is_err());
        assert!(control(&of(FRONTEND_ATTRIBUTES, &option(CGROUP_PARENT))).is_err());
    }

    #[test]
    fn names_that_cannot_be_given_are_refused() {
        for name in [
            "Upper",
            "x@sha256:12",
            "moby-dangling@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ] {
            assert!(normalised(name).is_err(), "{name}");
        }
        assert_eq!(normalised("").unwrap(), "");
    }
}
