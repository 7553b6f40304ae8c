//! The client against a registry that misbehaves.

use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};

use super::*;
use crate::{
    backend::images::samples::{Packing, Sample, image, tar},
    model::{
        ErrorKind,
        image::{Descriptor, ImageConfig},
        reference::{Digest, Reference},
        registry_auth::RegistryAuth,
    },
};

#[path = "../../tests/integration/support/registry.rs"]
pub mod fake;

use fake::Guard;

fn client() -> Registry {
    let config = RegistryConfig {
        retry_delay: Duration::from_millis(1),
        stall_limit: Duration::from_secs(2),
        ..RegistryConfig::default()
    };
    Registry::new(config).unwrap()
}

/// Offers an image as `REPOSITORY:latest`.
pub fn publish(registry: &fake::Registry, repository: &str, sample: &Sample) {
    for (blob, bytes) in &sample.blobs {
        let kind = &blob.media_type;
        if kind.contains("manifest") || kind.contains("index") {
            let tag = if blob.digest == sample.target.digest { "latest" } else { blob.digest.as_str() };
            registry.put_manifest(repository, tag, kind, blob.digest.as_str(), bytes);
        } else {
            registry.put_blob(repository, blob.digest.as_str(), bytes);
        }
    }
}

fn sample() -> Sample {
    let layer = tar(&[("file", &[7; 100_000])]);
    image("linux/amd64", ImageConfig::default(), &[(layer, Packing::Plain)])
}

fn reference(registry: &fake::Registry) -> Reference {
    Reference::parse(&format!("{}/lib/x:latest", registry.host())).unwrap()
}

async fn resolve(registry: &fake::Registry, auth: &RegistryAuth) -> crate::model::Result<Resolved> {
    client().resolve(&reference(registry), auth, &|_| None).await
}

fn user(name: &str, password: &str) -> RegistryAuth {
    RegistryAuth { username: name.into(), password: password.into(), ..RegistryAuth::default() }
}

#[derive(Default)]
pub(super) struct Memory(pub(super) BytesMut);

#[async_trait]
impl BlobSink for Memory {
    fn offset(&self) -> u64 {
        self.0.len() as u64
    }

    async fn write(&mut self, bytes: Bytes) -> crate::model::Result<()> {
        self.0.extend_from_slice(&bytes);
        Ok(())
    }

    async fn truncate(&mut self) -> crate::model::Result<()> {
        self.0.clear();
        Ok(())
    }
}

async fn download(registry: &fake::Registry, blob: &Descriptor) -> (crate::model::Result<()>, Memory, Vec<Progress>) {
    let resolved = resolve(registry, &RegistryAuth::default()).await.unwrap();
    let (mut memory, mut seen) = (Memory::default(), Vec::new());
    let result = resolved.session.download(blob, &mut memory, &mut |progress| seen.push(progress)).await;
    (result, memory, seen)
}

#[tokio::test]
async fn manifest_and_configuration_are_fetched() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let resolved = resolve(&registry, &RegistryAuth::default()).await.unwrap();
    assert_eq!(resolved.target, sample.target);
    let config = resolved.session.small_blob(&sample.manifest().config, 1 << 20).await.unwrap();
    assert_eq!(Digest::of(&config), sample.manifest().config.digest);
}

#[tokio::test]
async fn known_manifest_is_asked_for_and_not_fetched() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let have = |digest: &Digest| (*digest == sample.target.digest).then(|| sample.target.clone());
    let resolved = client().resolve(&reference(&registry), &RegistryAuth::default(), &have).await.unwrap();
    assert!(resolved.fetched.is_none());
    assert_eq!(registry.count("GET /v2/lib/x/manifests/"), 0);
}

#[tokio::test]
async fn broken_download_goes_on_where_it_broke() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let layer = &sample.manifest().layers[0];
    registry.break_blob("lib/x", layer.digest.as_str(), &[40_000, 30_000]);
    let (result, memory, _) = download(&registry, layer).await;
    result.unwrap();
    assert_eq!(Digest::of(&memory.0), layer.digest);
    let ranges: Vec<String> = registry.log().into_iter().filter(|line| line.contains("bytes=")).collect();
    assert!(ranges.iter().any(|line| line.ends_with("bytes=40000-")), "{ranges:?}");
    assert!(ranges.iter().any(|line| line.ends_with("bytes=70000-")), "{ranges:?}");
}

#[tokio::test]
async fn server_without_ranges_sends_all_again() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    registry.forget_ranges();
    let layer = &sample.manifest().layers[0];
    registry.break_blob("lib/x", layer.digest.as_str(), &[40_000]);
    let (result, memory, _) = download(&registry, layer).await;
    result.unwrap();
    assert_eq!(Digest::of(&memory.0), layer.digest);
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_reported() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let layer = &sample.manifest().layers[0];
    registry.fail(&format!("/v2/lib/x/blobs/{}", layer.digest), &[(503, ""), (500, "")]);
    let (result, _, seen) = download(&registry, layer).await;
    result.unwrap();
    assert!(seen.contains(&Progress::Retrying(1)));
}

#[tokio::test]
async fn lasting_failures_end_it_after_five_tries() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let layer = &sample.manifest().layers[0];
    registry.fail(&format!("/v2/lib/x/blobs/{}", layer.digest), &[(500, ""); 9]);
    let error = download(&registry, layer).await.0.unwrap_err();
    assert_eq!(error.message(), "received unexpected HTTP status: 500 Internal Server Error");
    assert_eq!(registry.count("GET /v2/lib/x/blobs/"), 5);
}

#[tokio::test]
async fn a_registry_that_is_asked_too_often_is_asked_again_and_has_the_last_word() {
    const TOO_MANY: (u16, &str) = (429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#);
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let layer = &sample.manifest().layers[0];
    let path = format!("/v2/lib/x/blobs/{}", layer.digest);
    registry.fail(&path, &[TOO_MANY; 2]);
    let (result, _, seen) = download(&registry, layer).await;
    result.unwrap();
    assert!(seen.contains(&Progress::Retrying(1)));
    registry.fail(&path, &[TOO_MANY; 9]);
    assert_eq!(download(&registry, layer).await.0.unwrap_err().message(), "toomanyrequests: slow down");
}

#[tokio::test]
async fn download_that_stands_still_is_taken_up_again() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let layer = &sample.manifest().layers[0];
    let gate = registry.hold_blob("lib/x", layer.digest.as_str());
    let opens = async {
        while registry.count("GET /v2/lib/x/blobs/") < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gate.add_permits(2);
    };
    let ((result, memory, seen), ()) = tokio::join!(download(&registry, layer), opens);
    result.unwrap();
    assert!(seen.contains(&Progress::Retrying(1)));
    assert_eq!(Digest::of(&memory.0), layer.digest);
}

#[tokio::test]
async fn missing_blob_is_not_tried_again() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let missing = Descriptor::of("m", b"nobody has it");
    assert_eq!(download(&registry, &missing).await.0.unwrap_err().message(), "blob unknown: blob unknown");
    assert_eq!(registry.count("GET /v2/lib/x/blobs/"), 1);
}

#[tokio::test]
async fn blob_that_is_longer_than_announced_is_refused() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    let layer = sample.manifest().layers[0].clone();
    let short = Descriptor { size: 1000, ..layer };
    let error = download(&registry, &short).await.0.unwrap_err();
    assert!(error.message().contains("larger than the 1000 bytes"), "{}", error.message());
}

#[tokio::test]
async fn texts_are_dockerds() {
    let registry = fake::Registry::start().await;
    let host = registry.host();
    let error = resolve(&registry, &RegistryAuth::default()).await.err().unwrap();
    let expected = format!("manifest for {host}/lib/x:latest not found: manifest unknown: manifest unknown");
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, expected.as_str()));

    registry.guard(Guard::Basic(STANDARD.encode("u:pw")));
    let error = resolve(&registry, &RegistryAuth::default()).await.err().unwrap();
    let expected = format!("Head \"http://{host}/v2/lib/x/manifests/latest\": no basic auth credentials");
    assert_eq!((error.kind(), error.message()), (ErrorKind::System, expected.as_str()));
    let error = resolve(&registry, &user("u", "bad")).await.err().unwrap();
    assert_eq!(error.message(), "unauthorized: authentication required");

    drop(registry);
    let reference = Reference::parse("127.0.0.1:1/lib/x:latest").unwrap();
    let error = client().resolve(&reference, &RegistryAuth::default(), &|_| None).await.err().unwrap();
    assert_eq!(error.message(), "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused");
}

#[tokio::test]
async fn basic_credentials_are_sent() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    registry.guard(Guard::Basic(STANDARD.encode("u:pw")));
    assert_eq!(resolve(&registry, &user("u", "pw")).await.unwrap().target, sample.target);
}

#[tokio::test]
async fn token_is_fetched_once_for_a_password_and_kept() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    registry.guard(Guard::Bearer { pair: STANDARD.encode("u:pw"), refresh: "r".into() });
    let resolved = resolve(&registry, &user("u", "pw")).await.unwrap();
    resolved.session.small_blob(&sample.manifest().config, 1 << 20).await.unwrap();
    let asked: Vec<String> = registry.log().into_iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(asked, ["GET /token?account=u&scope=repository%3Alib%2Fx%3Apull&service=fake+service"]);
    let error = resolve(&registry, &user("u", "bad")).await.err().unwrap();
    assert_eq!(error.message(), "unauthorized: incorrect username or password");
}

#[tokio::test]
async fn identity_token_is_exchanged_and_registry_token_is_sent_as_it_is() {
    let (registry, sample) = (fake::Registry::start().await, sample());
    publish(&registry, "lib/x", &sample);
    registry.guard(Guard::Bearer { pair: STANDARD.encode("u:pw"), refresh: "r3fresh".into() });
    let identity = RegistryAuth { identitytoken: "r3fresh".into(), ..RegistryAuth::default() };
    assert!(resolve(&registry, &identity).await.is_ok());
    assert_eq!(registry.count("POST /token"), 1);
    let own = RegistryAuth { registrytoken: "good".into(), ..RegistryAuth::default() };
    assert!(resolve(&registry, &own).await.is_ok());
    assert_eq!(registry.count("POST /token") + registry.count("GET /token"), 1);
}

#[tokio::test]
async fn login_tells_right_from_wrong() {
    let registry = fake::Registry::start().await;
    let login = async |auth: RegistryAuth| {
        let auth = RegistryAuth { serveraddress: registry.host(), ..auth };
        client().login(&auth).await
    };
    registry.guard(Guard::Basic(STANDARD.encode("u:pw")));
    assert_eq!(login(user("u", "pw")).await.unwrap(), Login::default());
    let error = login(user("u", "bad")).await.unwrap_err();
    let expected = format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", registry.host());
    assert_eq!(error.message(), expected);

    registry.guard(Guard::Bearer { pair: STANDARD.encode("u:pw"), refresh: String::new() });
    assert_eq!(login(user("u", "pw")).await.unwrap().identity_token, "again");
    let error = login(user("u", "bad")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.message().ends_with("unauthorized: incorrect username or password"), "{}", error.message());
}

#[tokio::test]
async fn tags_are_listed() {
    let registry = fake::Registry::start().await;
    registry.put_page("/v2/lib/x/tags/list", "application/json", br#"{"name":"lib/x","tags":["1","2"]}"#);
    let tags = client().tags(&reference(&registry), &RegistryAuth::default()).await.unwrap();
    assert_eq!(tags, ["1", "2"]);
}

#[tokio::test]
async fn mirror_is_asked_first_and_the_next_if_it_has_not() {
    let (empty, full, sample) = (fake::Registry::start().await, fake::Registry::start().await, sample());
    publish(&full, "library/x", &sample);
    let mirrors = [&empty, &full].map(|registry| format!("http://{}", registry.host()));
    let config = RegistryConfig { mirrors: mirrors.to_vec(), ..RegistryConfig::default() };
    let reference = Reference::parse("x:latest").unwrap();
    let found = Registry::new(config).unwrap().resolve(&reference, &RegistryAuth::default(), &|_| None).await;
    assert_eq!(found.unwrap().target, sample.target);
    assert!(empty.count("HEAD /v2/library/x/manifests/latest") > 0);
}
