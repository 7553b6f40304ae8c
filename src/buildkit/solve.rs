//! What a client may ask of buildkitd with a build, and what becomes of it: `Control/Solve` and the gateway's `Solve`.

use super::wire::{self, Change};
use crate::{
    backend::builds::{BuildRules, DANGLING, Wish},
    model::{
        Error, Result,
        container::{DeviceRequest, HostConfig, NetworkMode},
        reference::Reference,
    },
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
const SESSION_EXPORTER: u32 = 14;

/// Fields of `moby.buildkit.v1.CacheOptions`. The first one is of older clients.
const OLD_CACHE_EXPORT: u32 = 1;
pub(super) const CACHE_EXPORTS: u32 = 4;
pub(super) const CACHE_IMPORTS: u32 = 5;

/// Fields of `moby.buildkit.v1.Exporter`, and of `CacheOptionsEntry`.
const TYPE: u32 = 1;
const ATTRIBUTES: u32 = 2;

/// Options of frontends, in `moby.buildkit.v1.frontend.SolveRequest`.
const FRONTEND_OPTIONS: u32 = 3;

/// Where a cache goes that is pushed.
const REGISTRY: &str = "registry";

/// The exporter into the engine's own images: clients of Docker call it by the first name, buildkitd by the second.
const MOBY: &str = "moby";
const IMAGE: &str = "image";

/// What an exported image is: with a name that stands for none if it has none. The missing letter is BuildKit's.
const IMAGE_ATTRIBUTES: [(&str, &str); 2] =
    [("dangling-name-prefix", "moby-dangling"), ("danging-name-empty-only", "true")];

/// How its layers are packed, and how hard that is tried. gzip at its quickest takes a third of the time of its default for programs and a
/// tenth for what is packed already, and its layers are an eighth larger. A step that is kept keeps the layer that was made first, whoever
/// pushes it later.
const PACKING: [&str; 2] = ["compression", PACKING_LEVEL];
const PACKING_LEVEL: &str = "compression-level";
const QUICKEST: &str = "1";

/// Whether it is unpacked, which would be in the builder's namespace, where no container is.
const UNPACK: &str = "unpack";

/// Entitlements that a client is given if it asks.
const GRANTED: [&str; 1] = ["network.host"];

/// The option of frontends by which a client chooses the cgroup of steps: where they are is ours to say.
const CGROUP_PARENT: &str = "cgroup-parent";

/// Bytes of names after which no more are shown.
const SHOWN: usize = 300;

/// What a build is called in all its calls.
pub(super) fn reference(message: &[u8]) -> Result<String> {
    wire::text_of(message, REF)
}

/// The names of a build's images, as its client says them: the first ones, as far as they are shown.
pub(super) fn names(message: &[u8]) -> Result<String> {
    let (mut names, mut old) = (String::new(), String::new());
    for field in wire::fields(message) {
        let field = field?;
        let content = field.content.unwrap_or_default();
        match field.number {
            EXPORTERS if [MOBY, IMAGE].contains(&wire::text_of(content, TYPE)?.as_str()) => {
                attributes(content)?.iter().for_each(|(key, value)| add_names(&mut names, key, value));
            }
            OLD_EXPORTER_ATTRIBUTES => {
                let (key, value) = wire::entry(content)?;
                add_names(&mut old, &key, &value);
            }
            _ => {}
        }
    }
    Ok(if names.is_empty() { old } else { names })
}

/// Those of an attribute that is about names. What is no name may be anything, a password too.
fn add_names(names: &mut String, key: &str, value: &str) {
    for name in value.split(',').filter(|_| key == "name").filter_map(|name| Reference::parse(name).ok()) {
        if names.len() > SHOWN {
            break;
        }
        let comma = if names.is_empty() { "" } else { "," };
        names.push_str(&format!("{comma}{}", name.familiar()));
    }
}

/// A `Control/Solve` as buildkitd gets it, if its client may ask that.
pub(super) fn control(message: &[u8], rules: &dyn BuildRules) -> Result<Vec<u8>> {
    // Exporters stand there twice, for older daemons; buildkitd reads the old place only if there is none in the new one.
    let mut is_new = false;
    for field in wire::fields(message) {
        is_new |= field?.number == EXPORTERS;
    }
    let (mut old_type, mut old_attributes) = (String::new(), Vec::new());
    let mut edited = wire::edited(message, |field| {
        let content = field.content.unwrap_or_default();
        Ok(match field.number {
            EXPORTERS => Change::Into(exporter(content, rules)?),
            OLD_EXPORTER => {
                wire::text(content)?.clone_into(&mut old_type);
                Change::Drop
            }
            OLD_EXPORTER_ATTRIBUTES => {
                wire::put(&mut old_attributes, ATTRIBUTES, content);
                Change::Drop
            }
            FRONTEND_ATTRIBUTES => allowed_option(content)?,
            ENTITLEMENTS => allowed_entitlement(wire::text(content)?, rules)?,
            CACHE => allowed_cache(content, rules)?,
            // Exporters that buildkitd asks of the client later, unseen by us.
            SESSION_EXPORTER => Change::Drop,
            _ => Change::Keep,
        })
    })?;
    if !is_new && !old_type.is_empty() {
        let mut old = Vec::new();
        wire::put(&mut old, TYPE, old_type.as_bytes());
        old.extend(old_attributes);
        wire::put(&mut edited, EXPORTERS, &exporter(&old, rules)?);
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

/// The policy says first whether it would be allowed, then we whether there is such a thing.
fn allowed_entitlement(name: &str, rules: &dyn BuildRules) -> Result<Change> {
    let mut wanted = HostConfig::default();
    match name.split('=').next().unwrap_or_default() {
        "network.host" => wanted.network_mode = NetworkMode::Host,
        "security.insecure" => wanted.privileged = true,
        "device" => {
            let request = DeviceRequest { driver: "cdi".to_owned(), ..DeviceRequest::default() };
            wanted.device_requests = Some(vec![request]);
        }
        _ => {}
    }
    rules.permit(Wish::Steps(&wanted))?;
    match GRANTED.contains(&name) {
        true => Ok(Change::Keep),
        false => Err(Error::forbidden(format!("the entitlement {name} is not granted here: leave --allow {name} out"))),
    }
}

/// A cache that is stored in a registry is pushed.
fn allowed_cache(options: &[u8], rules: &dyn BuildRules) -> Result<Change> {
    for field in wire::fields(options) {
        let field = field?;
        let content = field.content.unwrap_or_default();
        match field.number {
            OLD_CACHE_EXPORT if !content.is_empty() => {
                rules.permit(Wish::Push(&Reference::parse(wire::text(content)?)?))?
            }
            CACHE_EXPORTS if wire::text_of(content, TYPE)? == REGISTRY => {
                for (_, name) in attributes(content)?.into_iter().filter(|(key, _)| key == "ref") {
                    rules.permit(Wish::Push(&Reference::parse(&name)?))?;
                }
            }
            _ => {}
        }
    }
    Ok(Change::Keep)
}

fn attributes(message: &[u8]) -> Result<Vec<(String, String)>> {
    let mut attributes = Vec::new();
    for field in wire::fields(message) {
        let field = field?;
        if field.number == ATTRIBUTES {
            attributes.push(wire::entry(field.content.unwrap_or_default())?);
        }
    }
    Ok(attributes)
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

/// Whether a result is pushed, which its names must be allowed to be.
fn permit_pushes(asked: &[(String, String)], rules: &dyn BuildRules) -> Result<bool> {
    // As Go reads it; nothing at all is yes.
    let is_no = |value: &str| matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False");
    if !asked.iter().any(|(key, value)| key == "push" && !is_no(value)) {
        return Ok(false);
    }
    let names = asked.iter().filter(|(key, _)| key == "name").flat_map(|(_, names)| names.split(','));
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Error::invalid("tag is needed when pushing to registry"));
    }
    for name in names {
        rules.permit(Wish::Push(&Reference::parse(name)?.or_latest()))?;
    }
    Ok(true)
}

fn exporter(message: &[u8], rules: &dyn BuildRules) -> Result<Vec<u8>> {
    let kind = wire::text_of(message, TYPE)?;
    if kind != MOBY && kind != IMAGE {
        return Ok(message.to_owned());
    }
    let asked = attributes(message)?;
    let is_pushed = permit_pushes(&asked, rules)?;
    let mut edited = wire::edited(message, |field| {
        Ok(match field.number {
            TYPE => Change::Into(IMAGE.into()),
            ATTRIBUTES => {
                let (key, value) = wire::entry(field.content.unwrap_or_default())?;
                if key == UNPACK || IMAGE_ATTRIBUTES.iter().any(|(ours, _)| *ours == key) {
                    return Ok(Change::Drop);
                }
                let value = if key == "name" { normalised(&value)? } else { value };
                Change::Into(wire::entry_of(&key, &value))
            }
            _ => Change::Keep,
        })
    })?;
    for (key, value) in IMAGE_ATTRIBUTES {
        wire::put_entry(&mut edited, ATTRIBUTES, key, value);
    }
    if !is_pushed && !asked.iter().any(|(key, _)| PACKING.contains(&key.as_str())) {
        wire::put_entry(&mut edited, ATTRIBUTES, PACKING_LEVEL, QUICKEST);
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
    use crate::buildkit::rules::{Bound, Free};

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
        wire::put(
            &mut message,
            EXPORTERS,
            &typed("moby", [("name", "y:1,reg.test/z"), ("push", "true"), ("unpack", "true")]),
        );
        wire::put(&mut message, 77, b"of a newer client");
        message
    }

    #[test]
    fn a_build_is_called_by_its_images_and_by_nothing_that_is_no_name() {
        assert_eq!(names(&request()).unwrap(), "y:1,reg.test/z");
        let of = |kind: &str, name: &str| {
            let mut message = Vec::new();
            wire::put(&mut message, EXPORTERS, &typed(kind, [("name", name), ("dest", "/secret")]));
            wire::put_entry(&mut message, OLD_EXPORTER_ATTRIBUTES, "name", "old:1");
            names(&message).unwrap()
        };
        assert_eq!(of("image", "me:secret@reg.test/a,good"), "good");
        assert_eq!(of("local", "decoy"), "old:1");
        let many = of("image", &vec!["name"; 1000].join(","));
        assert!(many.len() <= SHOWN + "name".len() + 1, "{}", many.len());
    }

    #[test]
    fn the_result_becomes_an_image_of_the_engine() {
        let edited = control(&request(), &Free).unwrap();
        let exporters = exporters_of(&edited);
        let [(kind, attributes)] = exporters.as_slice() else { panic!("{exporters:?}") };
        assert_eq!(kind, "image");
        assert_eq!(attributes["name"], "docker.io/library/y:1,reg.test/z:latest");
        assert_eq!((attributes["push"].as_str(), attributes.get("unpack")), ("true", None));
        assert_eq!(attributes["dangling-name-prefix"], "moby-dangling");
        assert!(wire::text_of(&edited, OLD_EXPORTER).unwrap().is_empty(), "buildkitd would read it");
        assert_eq!(wire::text_of(&edited, 77).unwrap(), "of a newer client");
        assert_eq!(reference(&edited).unwrap(), "build1");
    }

    #[test]
    fn what_stays_here_is_packed_quickly_unless_its_client_says_how() {
        let level = |attributes: &[(&str, &str)]| {
            let (_, attributes) = read(&exporter(&typed("moby", attributes.iter().copied()), &Free).unwrap());
            attributes.get(PACKING_LEVEL).cloned()
        };
        assert_eq!(level(&[("name", "y")]).as_deref(), Some("1"));
        assert_eq!(level(&[("name", "y"), ("push", "false")]).as_deref(), Some("1"));
        assert_eq!(level(&[("name", "y"), ("push", "true")]), None);
        assert_eq!(level(&[("compression", "zstd")]), None);
        assert_eq!(level(&[("compression-level", "9")]).as_deref(), Some("9"));
    }

    #[test]
    fn an_old_client_names_its_exporter_in_the_old_place() {
        let mut message = Vec::new();
        wire::put(&mut message, OLD_EXPORTER, b"moby");
        wire::put_entry(&mut message, OLD_EXPORTER_ATTRIBUTES, "name", "y");
        let exporters = exporters_of(&control(&message, &Free).unwrap());
        assert_eq!((exporters.len(), exporters[0].1["name"].as_str()), (1, "docker.io/library/y:latest"));
    }

    #[test]
    fn a_client_names_nothing_that_is_pushed_by_another_way() {
        let of = |attributes: &[(&str, &str)]| exporter(&typed("image", attributes.iter().copied()), &Free);
        let (_, attributes) = read(
            &of(&[("name", "y"), ("dangling-name-prefix", "evil.test/x"), ("danging-name-empty-only", "false")])
                .unwrap(),
        );
        assert_eq!(attributes["dangling-name-prefix"], "moby-dangling");
        assert_eq!(attributes["danging-name-empty-only"], "true");
        assert!(of(&[("push", "true"), ("dangling-name-prefix", "evil.test/x")]).is_err());
        let mut message = request();
        // A number: a key without content, then the value.
        message.extend([u8::try_from(SESSION_EXPORTER << 3).unwrap(), 1]);
        let edited = control(&message, &Free).unwrap();
        assert!(wire::fields(&edited).all(|field| field.unwrap().number != SESSION_EXPORTER));
    }

    #[test]
    fn other_exporters_stay_as_they_are() {
        let local = typed("local", [("name", "y")]);
        assert_eq!(exporter(&local, &Free).unwrap(), local);
    }

    #[test]
    fn what_nobody_is_given_is_refused_by_name() {
        let of = |number: u32, content: &[u8]| {
            let mut message = Vec::new();
            wire::put(&mut message, number, content);
            message
        };
        assert!(control(&of(ENTITLEMENTS, b"network.host"), &Free).is_ok());
        let error = control(&of(ENTITLEMENTS, b"security.insecure"), &Free).unwrap_err();
        assert!(error.message().contains("security.insecure"), "{error}");
        let option = |key: &str| wire::entry_of(key, "/elsewhere");
        assert!(gateway(&of(FRONTEND_OPTIONS, &option("target"))).is_ok());
        assert!(gateway(&of(FRONTEND_OPTIONS, &option(CGROUP_PARENT))).is_err());
        assert!(control(&of(FRONTEND_ATTRIBUTES, &option(CGROUP_PARENT)), &Free).is_err());
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

    #[test]
    fn what_the_policy_refuses_does_not_reach_buildkitd() {
        let of = |number: u32, content: &[u8]| {
            let mut message = Vec::new();
            wire::put(&mut message, number, content);
            message
        };
        let pushed = |value: &str| of(EXPORTERS, &typed("moby", [("name", "reg.test/x"), ("push", value)]));
        let cache = |kind: &str| {
            let mut options = Vec::new();
            wire::put(&mut options, CACHE_EXPORTS, &typed(kind, [("ref", "reg.test/cache"), ("mode", "max")]));
            of(CACHE, &options)
        };
        for (message, told) in [
            (of(ENTITLEMENTS, b"network.host"), "host network"),
            (of(ENTITLEMENTS, b"security.insecure"), "privileged"),
            (of(ENTITLEMENTS, b"device=vendor.com/class=x"), "device cdi"),
            (pushed("true"), "push reg.test/x:latest"),
            (pushed(""), "push reg.test/x:latest"),
            (cache("registry"), "push reg.test/cache"),
            (of(CACHE, &of(OLD_CACHE_EXPORT, b"reg.test/old")), "push reg.test/old"),
        ] {
            let error = control(&message, &Bound).unwrap_err();
            assert!(error.message().contains(told), "{told}: {error}");
        }
        for message in [request_without_push(), pushed("false"), cache("inline"), of(CACHE, b"")] {
            control(&message, &Bound).unwrap();
        }
    }

    fn request_without_push() -> Vec<u8> {
        let mut message = Vec::new();
        wire::put(&mut message, EXPORTERS, &typed("moby", [("name", "y:1")]));
        message
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut cache = Vec::new();
        wire::put_entry(&mut cache, ATTRIBUTES, "ref", "reg.test/x");
        let mut more = request();
        wire::put(&mut more, CACHE, &cache);
        wire::put(&mut more, ENTITLEMENTS, b"network.host");
        wire::put_entry(&mut more, FRONTEND_ATTRIBUTES, "target", "x");
        crate::model::fuzz::each(&[&request(), &more], |input| {
            let _read = reference(input);
            for edited in [control(input, &Free), control(input, &Bound), gateway(input)].into_iter().flatten() {
                // What goes on to buildkitd is a message still.
                assert!(wire::fields(&edited).all(|field| field.is_ok()));
            }
        });
    }
}
