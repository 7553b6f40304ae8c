//! Pushes, to a registry that keeps what it is sent.

use super::{World, archives::layout, lines};
use crate::{
    backend::images::samples::{Packing, Sample, image, index, tar},
    engine::images::{PushRequest, look_up::short},
    model::{Result, image::ImageConfig, registry_auth::RegistryAuth},
    registry::tests::fake::Guard,
};

fn sample() -> Sample {
    let layers = [(tar(&[("a", &[1; 50_000])]), Packing::Gzip), (tar(&[("b", &[2; 50_000])]), Packing::Plain)];
    image("linux/amd64", ImageConfig::default(), &layers)
}

async fn push(world: &World, name: &str, tag: &str) -> Result<Vec<String>> {
    push_as(world, name, tag, RegistryAuth::default()).await
}

async fn push_as(world: &World, name: &str, tag: &str, auth: RegistryAuth) -> Result<Vec<String>> {
    let request = PushRequest { image: world.name(name), tag: tag.into(), auth, ..PushRequest::default() };
    lines(world.engine.image_push(&world.engine.default_scope(), request).await?).await
}

/// An image from the registry, under another name.
async fn world(sample: &Sample, names: &[&str]) -> World {
    let world = World::new().await;
    world.publish("lib/x", sample);
    world.pull("lib/x:latest").await;
    for name in names {
        world
            .engine
            .image_tag(&world.engine.default_scope(), &world.name("lib/x"), &world.name(name), "")
            .await
            .unwrap();
    }
    world
}

#[tokio::test]
async fn what_the_registry_has_elsewhere_is_mounted_and_then_exists() {
    let sample = sample();
    let world = world(&sample, &["lib/y:1", "lib/y:2"]).await;
    let ids: Vec<_> = sample.manifest().layers.iter().map(|layer| short(&layer.digest).to_owned()).collect();
    let said = push(&world, "lib/y", "1").await.unwrap();
    assert_eq!(said[0], format!("The push refers to repository [{}]", world.name("lib/y")));
    assert_eq!(said[1..3], [format!("{} Preparing", ids[1]), format!("{} Preparing", ids[0])]);
    for id in &ids {
        assert!(said.contains(&format!("{id} Mounted from lib/x")), "{said:#?}");
    }
    let done = format!("1: digest: {} size: {}", sample.target.digest, sample.target.size);
    assert_eq!(said[said.len() - 2..], [done, String::new()], "then the message for programs");
    assert_eq!(world.registry.page("/v2/lib/y/manifests/1").unwrap(), sample.bytes(&sample.target.digest).as_ref());
    assert_eq!(world.registry.count("PUT /v2/lib/y/blobs/uploads/"), 1, "the configuration");

    let said = push(&world, "lib/y", "").await.unwrap();
    assert_eq!(said.iter().filter(|line| line.ends_with("Layer already exists")).count(), 4, "two tags: {said:#?}");
    assert!(world.registry.page("/v2/lib/y/manifests/2").is_some());
}

/// The layers are shared, where others got them from is not told.
#[tokio::test]
async fn repositories_of_others_are_not_named() {
    let sample = sample();
    let world = world(&sample, &[]).await;
    let other: crate::model::id::TenantId = "other".parse().unwrap();
    let archive = layout(&sample, &sample.blobs, &world.name("mine/z:1"));
    let load = world
        .engine
        .image_load(
            &world.engine.scope_for(&other),
            super::body(archive),
            crate::engine::images::LoadOptions::default(),
        )
        .unwrap();
    lines(load).await.unwrap();
    let request = PushRequest { image: world.name("mine/z"), tag: "1".into(), ..PushRequest::default() };
    let said = lines(world.engine.image_push(&world.engine.scope_for(&other), request).await.unwrap()).await.unwrap();
    assert!(said.iter().all(|line| !line.contains("lib/x")), "{said:#?}");
    assert!(world.registry.log().iter().all(|line| !line.contains("from=lib")), "{:#?}", world.registry.log());
}

#[tokio::test]
async fn what_the_registry_has_not_is_uploaded_and_tried_again() {
    let (world, sample) = (World::new().await, sample());
    let archive = tests_archive(&sample);
    world.load(archive).await.unwrap();
    world.engine.image_tag(&world.engine.default_scope(), "loaded:1", &world.name("new/z:1"), "").await.unwrap();
    world.registry.fail("/v2/new/z/blobs/uploads/", &[(503, "")]);
    let said = push(&world, "new/z", "1").await.unwrap();
    assert!(said.iter().any(|line| line.contains("Retrying in")), "{said:#?}");
    assert_eq!(said.iter().filter(|line| line.ends_with(" Pushed")).count(), 2, "{said:#?}");
    let details = world.engine.image_inspect(&world.engine.default_scope(), "loaded:1", None, false).await.unwrap();
    assert!(details.repo_digests.contains(&format!("{}@{}", world.name("new/z"), details.id)));
}

/// Layers as they are, since a docker-archive has no names for packed ones.
fn tests_archive(sample: &Sample) -> bytes::Bytes {
    let manifest = sample.manifest();
    let config = sample.bytes(&manifest.config.digest).clone();
    let list = serde_json::json!([{"Config": "c.json", "RepoTags": ["loaded:1"], "Layers": ["0.tar", "1.tar"]}]);
    tar(&[
        ("c.json", &config),
        ("0.tar", sample.bytes(&manifest.layers[0].digest)),
        ("1.tar", sample.bytes(&manifest.layers[1].digest)),
        ("manifest.json", list.to_string().as_bytes()),
    ])
}

#[tokio::test]
async fn part_of_an_index_is_pushed_in_its_place() {
    let ours = sample();
    let other = image("linux/s390x", ImageConfig::default(), &[(tar(&[("o", b"o")]), Packing::Gzip)]);
    let both = index(&[ours.clone(), other]);
    let world = world(&both, &["lib/part:1"]).await;
    push(&world, "lib/part", "1").await.unwrap();
    assert_eq!(world.registry.page("/v2/lib/part/manifests/1").unwrap(), ours.bytes(&ours.target.digest).as_ref());

    lines(world.start_pull("lib/x:latest", "linux/s390x").await.unwrap()).await.unwrap();
    push(&world, "lib/part", "1").await.unwrap();
    assert_eq!(world.registry.page("/v2/lib/part/manifests/1").unwrap(), both.bytes(&both.target.digest).as_ref());
}

#[tokio::test]
async fn failures_are_dockerds_and_in_the_stream() {
    let world = world(&sample(), &["lib/y:1"]).await;
    let text = async |name: &str, tag: &str| push(&world, name, tag).await.unwrap_err().message().to_owned();
    let nothing = format!("An image does not exist locally with the tag: {}", world.name("lib/none"));
    assert_eq!(text("lib/none", "1").await, nothing);
    assert_eq!(text("lib/y", "9").await, format!("tag does not exist: {}", world.name("lib/y:9")));
    assert_eq!(text("lib/y", "-").await, "invalid tag format");
    world.registry.guard(Guard::Basic("dTpw".into()));
    assert_eq!(text("lib/y", "1").await, "no basic auth credentials");
    let wrong = RegistryAuth { username: "u".into(), password: "x".into(), ..RegistryAuth::default() };
    let error = push_as(&world, "lib/y", "1", wrong).await.unwrap_err();
    assert_eq!(error.message(), "unauthorized: authentication required");
    let right = RegistryAuth { username: "u".into(), password: "p".into(), ..RegistryAuth::default() };
    push_as(&world, "lib/y", "1", right).await.unwrap();
}

#[tokio::test]
async fn registry_tells_what_a_name_points_at() {
    let sample = sample();
    let world = world(&sample, &[]).await;
    let ask = async |name: &str| {
        world
            .engine
            .distribution_inspect(&world.engine.default_scope(), &world.name(name), &RegistryAuth::default())
            .await
    };
    let inspected = ask("lib/x").await.unwrap();
    assert_eq!(
        (inspected.target.digest, inspected.platforms[0].to_string()),
        (sample.target.digest, "linux/amd64".into())
    );
    assert_eq!(ask("lib/x:9").await.unwrap_err().message(), "manifest unknown: manifest unknown");
}
