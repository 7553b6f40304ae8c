//! Content by digest: what others have brought is here, and nobody gets it by naming it.

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::{World, archives::layout, body, lines};
use crate::{
    backend::images::{
        ImageBackend,
        samples::{Packing, Sample, image, index, tar},
    },
    engine::{
        images::{LoadOptions, PullRequest},
        tenants::Scope,
    },
    model::{
        ErrorKind, Result,
        image::{Descriptor, ImageConfig, documents::media_type},
    },
    registry::tests::{fake, publish},
};

/// Somebody's, with an environment that nobody else should read.
fn secret() -> Sample {
    let config = ImageConfig { env: vec!["TOKEN=secret".to_owned()], ..ImageConfig::default() };
    image("linux/arm64", config, &[(tar(&[("key", b"secret")]), Packing::Gzip)])
}

fn own() -> Sample {
    image("linux/amd64", ImageConfig::default(), &[(tar(&[("own", b"own")]), Packing::Gzip)])
}

/// Two jobs.
struct Case {
    world: World,
    victim: Scope,
    thief: Scope,
    /// A registry of the thief's.
    evil: fake::Registry,
}

impl Case {
    /// A world in which the victim has pulled the secret.
    async fn new() -> Self {
        let world = World::new().await;
        let scope = |job: &str| world.engine.scope_for(&job.parse().unwrap());
        let (victim, thief) = (scope("job-1"), scope("job-2"));
        world.publish("victim/private", &secret());
        let case = Self { victim, thief, evil: fake::Registry::start().await, world };
        case.pull(&case.victim, &case.world.registry, "victim/private").await.unwrap();
        case
    }

    async fn pull(&self, scope: &Scope, registry: &fake::Registry, rest: &str) -> Result<Vec<String>> {
        let platform = Some("linux/arm64".parse().unwrap());
        let image = format!("{}/{rest}:latest", registry.host());
        let request = PullRequest { image, platform, ..PullRequest::default() };
        lines(self.world.engine.image_pull(scope, &request).await?).await
    }

    async fn load(&self, archive: Bytes) -> Result<Vec<String>> {
        lines(self.world.engine.image_load(&self.thief, body(archive), LoadOptions::default())?).await
    }

    async fn has_images(&self, scope: &Scope) -> bool {
        !self.world.store.list_images(scope.tenant()).await.unwrap().is_empty()
    }
}

/// Publishes only the documents of which the kind is named.
fn publish_only(registry: &fake::Registry, repository: &str, sample: &Sample, is_published: impl Fn(&str) -> bool) {
    let mut part = sample.clone();
    part.blobs.retain(|(blob, _)| is_published(&blob.media_type));
    publish(registry, repository, &part);
}

#[tokio::test]
async fn a_registry_that_names_others_content_has_to_give_it() {
    let case = Case::new().await;
    let is_layer = |kind: &str| kind.contains("layer") || kind.contains("rootfs");
    for (n, missing) in ["layer", "config"].into_iter().enumerate() {
        let repository = format!("evil/{n}");
        publish_only(&case.evil, &repository, &secret(), |kind| {
            if missing == "layer" { !is_layer(kind) } else { is_layer(kind) || media_type::is_manifest(kind) }
        });
        let refused = case.pull(&case.thief, &case.evil, &repository).await;
        assert!(refused.is_err(), "without its {missing}: {refused:?}");
        assert!(!case.has_images(&case.thief).await);
    }
    // A registry says that it has whatever it is asked for.
    let layer = secret().manifest().layers[0].clone();
    publish_only(&case.evil, "evil/liar", &secret(), |kind| !is_layer(kind));
    let wrong = vec![0; usize::try_from(layer.size).unwrap()];
    case.evil.put_blob("evil/liar", layer.digest.as_str(), &wrong);
    let refused = case.pull(&case.thief, &case.evil, "evil/liar").await.unwrap_err();
    assert!(refused.message().contains("verification failed"), "{}", refused.message());
    // An index, whose manifest is here.
    let both = index(&[secret(), own()]);
    publish_only(&case.evil, "evil/index", &both, media_type::is_index);
    assert!(case.pull(&case.thief, &case.evil, "evil/index").await.is_err());
    // The registry that has it, by a repository that does not.
    publish_only(&case.world.registry, "thief/public", &secret(), |kind| !is_layer(kind));
    assert!(case.pull(&case.thief, &case.world.registry, "thief/public").await.is_err());
    assert!(!case.has_images(&case.thief).await);
}

#[tokio::test]
async fn who_has_the_content_gets_the_image() {
    let case = Case::new().await;
    let layer = secret().manifest().layers[0].digest.clone();
    // Another registry: fetched once more and compared, then known.
    publish(&case.evil, "own/copy", &secret());
    case.pull(&case.thief, &case.evil, "own/copy").await.unwrap();
    assert_eq!(case.evil.count(&format!("GET /v2/own/copy/blobs/{layer}")), 1);
    let third = case.world.engine.scope_for(&"job-3".parse().unwrap());
    case.pull(&third, &case.evil, "own/copy").await.unwrap();
    assert_eq!(case.evil.count(&format!("GET /v2/own/copy/blobs/{layer}")), 1, "nothing is fetched twice");
    // Another repository of a registry that has given it: asked, not fetched.
    case.world.publish("other/copy", &secret());
    let fourth = case.world.engine.scope_for(&"job-4".parse().unwrap());
    case.pull(&fourth, &case.world.registry, "other/copy").await.unwrap();
    assert_eq!(case.world.registry.count(&format!("HEAD /v2/other/copy/blobs/{layer}")), 1);
    assert_eq!(case.world.registry.count(&format!("GET /v2/other/copy/blobs/{layer}")), 0);
    // What is one's own needs no word of anybody.
    publish_only(&case.evil, "own/again", &secret(), |kind| !kind.contains("layer") && !kind.contains("rootfs"));
    case.pull(&case.victim, &case.evil, "own/again").await.unwrap();
}

/// Two jobs may have a registry at the same address of theirs, and each says of its own what it likes.
#[tokio::test]
async fn a_registry_in_a_jobs_host_gives_what_it_has_and_vouches_for_nothing() {
    let case = Case::new().await;
    let layer = secret().manifest().layers[0].digest.clone();
    let thief = case.world.engine.scope_in_host(&"job-5".parse().unwrap()).await;
    // The victim has pulled it from a registry of this very name.
    let registry = &case.world.registry;
    publish_only(registry, "victim/again", &secret(), |kind| !kind.contains("layer") && !kind.contains("rootfs"));
    let wrong = vec![0; usize::try_from(secret().manifest().layers[0].size).unwrap()];
    registry.put_blob("victim/again", layer.as_str(), &wrong);
    let refused = case.pull(&thief, registry, "victim/again").await.unwrap_err();
    assert!(refused.message().contains("verification failed"), "{}", refused.message());
    let fetched = || registry.count(&format!("GET /v2/victim/private/blobs/{layer}"));
    assert_eq!(fetched(), 1);
    case.pull(&thief, registry, "victim/private").await.unwrap();
    assert_eq!(fetched(), 2, "that it has given it to others is no word of this one's");
    case.pull(&thief, registry, "victim/private").await.unwrap();
    assert_eq!(fetched(), 2, "what is one's own is not fetched again");
}

/// A registry that sends nothing any more holds up those who ask it, and nobody else.
#[tokio::test]
async fn a_slow_registry_holds_up_nobody_elses_pulls() {
    let case = Case::new().await;
    let (evil, registry) = (&case.evil, &case.world.registry);
    publish(registry, "fast/own", &own());
    let _others = SlowPulls::start(&case, evil).await;
    let platform = Some("linux/amd64".parse().unwrap());
    let request =
        PullRequest { image: format!("{}/fast/own:latest", registry.host()), platform, ..PullRequest::default() };
    let pulled = async { lines(case.world.engine.image_pull(&case.thief, &request).await.unwrap()).await.unwrap() };
    tokio::time::timeout(std::time::Duration::from_secs(30), pulled)
        .await
        .expect("the same layer comes from elsewhere");
}

/// Pulls of a job for all places, that wait for layers which never come; one of them is [`own`]'s. And one more, of what others want.
struct SlowPulls(Vec<tokio_util::task::AbortOnDropHandle<()>>);

impl SlowPulls {
    async fn start(case: &Case, evil: &fake::Registry) -> Self {
        let slow = case.world.engine.scope_for(&"job-6".parse().unwrap());
        let mut pulls = Self(Vec::new());
        for n in 0..3 {
            let (repository, layer) = publish_slow(evil, n);
            pulls.add(case, &slow, format!("{}/{repository}:latest", evil.host())).await;
            let asked = format!("GET /v2/{repository}/blobs/{layer}");
            while evil.count(&asked) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        let registry = &case.world.registry;
        pulls.add(case, &slow, format!("{}/fast/own:latest", registry.host())).await;
        while registry.count("GET /v2/fast/own/manifests/") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        pulls
    }

    async fn add(&mut self, case: &Case, scope: &Scope, image: String) {
        let platform = Some("linux/amd64".parse().unwrap());
        let request = PullRequest { image, platform, ..PullRequest::default() };
        let stream = case.world.engine.image_pull(scope, &request).await.unwrap();
        self.0.push(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move { drop(lines(stream).await) })));
    }
}

/// An image whose layer never comes: its repository and the layer.
fn publish_slow(evil: &fake::Registry, n: u8) -> (String, String) {
    let sample = match n {
        0 => own(),
        n => image("linux/amd64", ImageConfig::default(), &[(tar(&[("slow", &[n])]), Packing::Gzip)]),
    };
    let repository = format!("slow/{n}");
    publish(evil, &repository, &sample);
    let layer = sample.manifest().layers[0].digest.to_string();
    let _never_opened = evil.hold_blob(&repository, &layer);
    (repository, layer)
}

/// An index may name whatever is here: by load, and for another platform than was pulled.
#[tokio::test]
async fn a_part_of_an_index_that_others_have_is_not_seen() {
    let case = Case::new().await;
    let both = index(&[secret(), own()]);
    let is_theirs =
        |blob: &(Descriptor, Bytes)| secret().blobs.iter().any(|(theirs, _)| theirs.digest == blob.0.digest);
    let own_part: Vec<_> = both.blobs.iter().filter(|blob| !is_theirs(blob)).cloned().collect();
    case.load(layout(&both, &own_part, "docker.io/library/both:1")).await.unwrap();
    publish(&case.evil, "evil/both", &Sample { blobs: own_part, ..both.clone() });
    let request = PullRequest {
        image: format!("{}/evil/both:latest", case.evil.host()),
        platform: Some("linux/amd64".parse().unwrap()),
        ..PullRequest::default()
    };
    lines(case.world.engine.image_pull(&case.thief, &request).await.unwrap()).await.unwrap();
    case.world.engine.image_tag(&case.thief, "both:1", "both", "2").await.unwrap();
    let arm = "linux/arm64".parse().unwrap();
    for name in ["both:1".to_owned(), "both:2".to_owned(), both.target.digest.to_string(), request.image] {
        let engine = &case.world.engine;
        let inspected = engine.image_inspect(&case.thief, &name, Some(&arm), false).await;
        assert_eq!(inspected.unwrap_err().kind(), ErrorKind::NotFound, "{name}");
        assert!(engine.image_for_container(&case.thief, &name, Some(&arm)).await.is_err(), "{name}");
        assert!(
            engine.image_get(&case.thief, std::slice::from_ref(&name), std::slice::from_ref(&arm)).await.is_err(),
            "{name}"
        );
        let mut saved = Vec::new();
        let mut archive = engine.image_get(&case.thief, std::slice::from_ref(&name), &[]).await.unwrap();
        archive.read_to_end(&mut saved).await.unwrap();
        let hex = secret().target.digest.hex().to_owned();
        let path = format!("blobs/sha256/{hex}");
        assert!(!saved.windows(path.len()).any(|window| window == path.as_bytes()), "{name}");
        let details = engine.image_inspect(&case.thief, &name, None, true).await.unwrap();
        let available: Vec<bool> = details.manifests.iter().map(|manifest| manifest.available).collect();
        assert_eq!(available, [false, true], "{name}");
    }
    // Pulled with the registry's yes it is there, under every name.
    publish(&case.evil, "evil/both", &both);
    case.pull(&case.thief, &case.evil, "evil/both").await.unwrap();
    assert!(case.world.engine.image_inspect(&case.thief, "both:2", Some(&arm), false).await.is_ok());
}

/// Unpacked layers are found by the digest of their tar, which a configuration says.
#[tokio::test]
async fn a_configuration_that_names_others_tars_makes_no_image() {
    let case = Case::new().await;
    let junk = (tar(&[("junk", b"junk")]), Packing::Gzip);
    let honest = image("linux/arm64", ImageConfig::default(), &[junk]);
    let stolen = with_tars_of(&honest, &secret());
    let refused = case.load(layout(&stolen, &stolen.blobs, "docker.io/library/stolen:1")).await.unwrap_err();
    assert!(refused.message().contains("don't match image configuration"), "{}", refused.message());
    publish(&case.evil, "evil/x", &stolen);
    let refused = case.pull(&case.thief, &case.evil, "evil/x").await.unwrap_err();
    assert!(refused.message().contains("don't match image configuration"), "{}", refused.message());
    // Also where the blob is the tenant's own.
    publish(&case.evil, "own/x", &honest);
    case.pull(&case.thief, &case.evil, "own/x").await.unwrap();
    let refused = case.pull(&case.thief, &case.evil, "evil/x").await.unwrap_err();
    assert!(refused.message().contains("don't match image configuration"), "{}", refused.message());
}

fn json(document: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(document).unwrap().into()
}

/// An image whose configuration says that its layers hold the tars of another's.
fn with_tars_of(sample: &Sample, other: &Sample) -> Sample {
    let (mut manifest, mut document) = (sample.manifest(), sample.document());
    let (config, target) = (manifest.config.digest.clone(), sample.target.digest.clone());
    document.rootfs.diff_ids = other.document().rootfs.diff_ids;
    let document = json(&document);
    manifest.config = Descriptor::of(&manifest.config.media_type, &document);
    let written = json(&manifest);
    let target_now = Descriptor::of(&sample.target.media_type, &written);
    let mut blobs = sample.blobs.clone();
    blobs.retain(|(blob, _)| blob.digest != config && blob.digest != target);
    blobs.push((manifest.config, document));
    blobs.push((target_now.clone(), written));
    Sample { target: target_now, blobs, platform: sample.platform.clone() }
}
