//! Names: tag, delete, list, and whose they are.

use super::World;
use crate::{
    backend::images::samples::{Packing, Sample, image, tar},
    engine::images::{DeleteOptions, Deleted, ListOptions},
    model::{
        ErrorKind,
        container::{Config, ContainerCreateRequest, HostConfig, NetworkMode},
        filters::Filters,
        id::TenantId,
        image::ImageConfig,
    },
};

const FORCE: DeleteOptions = DeleteOptions { force: true, keep_parents: false };
const GENTLY: DeleteOptions = DeleteOptions { force: false, keep_parents: false };

fn sample(text: &str) -> Sample {
    let config = ImageConfig {
        cmd: Some(vec!["true".into()]),
        labels: Some([("text".to_owned(), text.to_owned())].into_iter().collect()),
        ..ImageConfig::default()
    };
    image("linux/amd64", config, &[(tar(&[("a", text.as_bytes())]), Packing::Gzip)])
}

/// A world with one image under two names of two repositories.
async fn world() -> (World, String) {
    let (world, sample) = (World::new().await, sample("one"));
    world.publish("lib/x", &sample);
    world.pull("lib/x:latest").await;
    world.engine.image_tag(&world.engine.default_scope(), &world.name("lib/x"), "y", "2").await.unwrap();
    let id = sample.target.digest.to_string();
    (world, id)
}

async fn create_container(world: &World, image: &str) -> String {
    let request = ContainerCreateRequest {
        config: Config { image: image.to_owned(), ..Config::default() },
        host_config: HostConfig { network_mode: NetworkMode::None, ..HostConfig::default() },
        ..ContainerCreateRequest::default()
    };
    let created = world.engine.container_create(&world.engine.default_scope(), request).await.unwrap();
    created.id.short().to_owned()
}

fn untagged(name: &str) -> Deleted {
    Deleted::Untagged(name.to_owned())
}

#[tokio::test]
async fn last_name_takes_the_image_with_it() {
    let (world, id) = world().await;
    let deleted = world.engine.image_delete(&world.engine.default_scope(), "y:2", GENTLY).await.unwrap();
    assert_eq!(deleted, [untagged("y:2")]);
    let error = world.engine.image_delete(&world.engine.default_scope(), "y:2", GENTLY).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "No such image: y:2"));
    let name = world.name("lib/x:latest");
    let deleted = world.engine.image_delete(&world.engine.default_scope(), &name, GENTLY).await.unwrap();
    assert_eq!(deleted, [untagged(&name), Deleted::Deleted(id.parse().unwrap())]);
    assert_eq!(world.store.counts(), (0, 0));
}

#[tokio::test]
async fn id_with_several_names_needs_force() {
    let (world, id) = world().await;
    let error = world.engine.image_delete(&world.engine.default_scope(), &id, GENTLY).await.unwrap_err();
    let short = &id["sha256:".len()..][..12];
    let expected =
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories");
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, expected.as_str()));
    let deleted = world.engine.image_delete(&world.engine.default_scope(), short, FORCE).await.unwrap();
    let names = [untagged(&world.name("lib/x:latest")), untagged("y:2"), Deleted::Deleted(id.parse().unwrap())];
    assert!(deleted.len() == 3 && names.iter().all(|step| deleted.contains(step)), "{deleted:?}");
    assert_eq!(world.store.counts(), (0, 0));
}

#[tokio::test]
async fn image_of_a_container_is_a_conflict_in_dockerds_words() {
    let (world, id) = world().await;
    world.engine.image_delete(&world.engine.default_scope(), &world.name("lib/x"), GENTLY).await.unwrap();
    let (container, short) = (create_container(&world, "y:2").await, &id["sha256:".len()..][..12]);
    let error = world.engine.image_delete(&world.engine.default_scope(), "y:2", GENTLY).await.unwrap_err();
    let expected = format!(
        "conflict: unable to remove repository reference \"y:2\" (must force) - container {container} is using its \
         referenced image {short}"
    );
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, expected.as_str()));
    let error = world.engine.image_delete(&world.engine.default_scope(), &id, GENTLY).await.unwrap_err();
    let expected = format!(
        "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"
    );
    assert_eq!(error.message(), expected);
    assert_eq!(
        world.engine.image_delete(&world.engine.default_scope(), "y:2", FORCE).await.unwrap(),
        [untagged("y:2")]
    );
    let deleted = world.engine.image_delete(&world.engine.default_scope(), &id, FORCE).await.unwrap();
    assert_eq!(deleted, [Deleted::Deleted(id.parse().unwrap())]);
}

#[tokio::test]
async fn list_is_filtered() {
    let (world, _) = world().await;
    let list = async |filters: &str| {
        let filters = Filters::parse(filters).unwrap();
        let options = ListOptions { filters, ..ListOptions::default() };
        world.engine.image_list(&world.engine.default_scope(), &options).await
    };
    assert_eq!(list("").await.unwrap().len(), 1);
    let by_name = list(r#"{"reference":["y"]}"#).await.unwrap();
    assert_eq!((by_name.len(), by_name[0].repo_tags.as_slice()), (1, ["y:2".to_owned()].as_slice()));
    for (filters, count) in [
        (r#"{"reference":["z*"]}"#, 0),
        (r#"{"label":["text=one"]}"#, 1),
        (r#"{"label":["text=two"]}"#, 0),
        (r#"{"dangling":["true"]}"#, 0),
        (r#"{"dangling":["false"]}"#, 1),
        (r#"{"before":["y:2"]}"#, 0),
        (r#"{"until":["1700000001"]}"#, 1),
    ] {
        assert_eq!(list(filters).await.unwrap().len(), count, "{filters}");
    }
    assert_eq!(list(r#"{"bogus":["x"]}"#).await.unwrap_err().message(), "invalid filter 'bogus'");
    assert_eq!(list(r#"{"before":["nosuch"]}"#).await.unwrap_err().message(), "No such image: nosuch:latest");
}

#[tokio::test]
async fn names_of_one_tenant_are_not_anothers() {
    let (world, id) = world().await;
    let other: TenantId = "other".parse().unwrap();
    assert!(
        world.engine.image_list(&world.engine.scope_for(&other), &ListOptions::default()).await.unwrap().is_empty()
    );
    for name in ["y:2", &id] {
        assert_eq!(
            world.engine.image_inspect(&world.engine.scope_for(&other), name, None, false).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert!(world.engine.image_for_container(&world.engine.scope_for(&other), name, None).await.is_err());
        assert!(world.engine.image_delete(&world.engine.scope_for(&other), name, FORCE).await.is_err());
    }
}

#[tokio::test]
async fn history_names_the_newest_step() {
    let (world, id) = world().await;
    let history = world.engine.image_history(&world.engine.default_scope(), "y:2", None).await.unwrap();
    assert_eq!((history.len(), history[0].id.as_str()), (1, id.as_str()));
    assert!(history[0].size > 0 && history[0].tags.contains(&"y:2".to_owned()));
}
