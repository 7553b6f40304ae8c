//! Commits and what follows from them: history, parents, prune.

use super::{World, lines};
use crate::{
    backend::images::samples::{Packing, Sample, image, tar},
    engine::{
        containers::delete::DeleteOptions as RemoveOptions,
        images::{CommitRequest, DeleteOptions, Deleted, ListOptions, PushRequest},
    },
    model::{
        ErrorKind,
        container::{Config, ContainerCreateRequest},
        filters::Filters,
        id::ContainerId,
        image::{
            ImageConfig,
            documents::{Manifest, media_type},
        },
    },
};

fn sample() -> Sample {
    let config = ImageConfig { cmd: Some(vec!["sh".into()]), ..ImageConfig::default() };
    image("linux/amd64", config, &[(tar(&[("base", b"base")]), Packing::Gzip)])
}

async fn container(world: &World, changes: &[(&str, &[u8])]) -> ContainerId {
    let config = Config { image: world.name("base:latest"), ..Config::default() };
    let request = ContainerCreateRequest { name: Some("com".into()), config, ..ContainerCreateRequest::default() };
    let id = world.engine.container_create(&world.engine.default_scope(), request).await.unwrap().id;
    world.store.set_changes(&id, tar(changes));
    id
}

fn request(repository: &str) -> CommitRequest {
    CommitRequest {
        container: "com".into(),
        repository: repository.into(),
        comment: "why".into(),
        author: "me".into(),
        pause: true,
        ..CommitRequest::default()
    }
}

#[tokio::test]
async fn committed_image_has_a_layer_and_a_step_more_and_knows_its_parent() {
    let (world, sample) = (World::new().await, sample());
    world.publish("base", &sample);
    world.pull("base:latest").await;
    let id = container(&world, &[("new", b"new")]).await;
    let image = world.engine.image_commit(&world.engine.default_scope(), request("made:1")).await.unwrap();
    world.engine.images.backend.collect_garbage().await.unwrap();
    let details = world.engine.image_inspect(&world.engine.default_scope(), "made:1", None, false).await.unwrap();
    assert_eq!((&details.id, details.parent.as_ref()), (&image, Some(&sample.target.digest)));
    assert_eq!((details.document.rootfs.diff_ids.len(), details.document.author.as_str()), (2, "me"));
    assert!(world.engine.image_for_container(&world.engine.default_scope(), "made:1", None).await.is_ok());
    let tree = world.engine.images.whole_tree(&details.descriptor).await.unwrap();
    let kinds: Vec<_> =
        tree.available().flat_map(|(_, content)| &content.manifest.layers).map(|l| &l.media_type).collect();
    assert_eq!(kinds, [media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_GZIP]);

    let lines = world.engine.image_history(&world.engine.default_scope(), "made:1", None).await.unwrap();
    assert_eq!(
        (lines[0].id.as_str(), lines[0].comment.as_str(), lines[0].created_by.as_str()),
        (image.as_str(), "why", "sh")
    );
    assert_eq!(lines[1].id, sample.target.digest.as_str());
    let forced = DeleteOptions { force: true, keep_parents: false };
    let refused = world
        .engine
        .image_delete(&world.engine.default_scope(), sample.target.digest.as_str(), forced)
        .await
        .unwrap_err();
    assert!(refused.to_string().ends_with("(cannot be forced) - image has dependent child images"), "{refused}");

    let events = world.engine.events.subscribe(world.engine.default_scope().tenant()).0;
    let last: Vec<_> = events.iter().rev().take(3).map(|event| event.action.as_str()).collect();
    assert_eq!(last, ["commit", "tag", "create"]);
    let commit = events.last().unwrap();
    assert_eq!((commit.actor.as_str(), commit.attributes["imageRef"].as_str()), (id.as_str(), "made:1"));
}

#[tokio::test]
async fn parent_stays_without_its_name_and_goes_with_the_last_child() {
    let (world, sample) = (World::new().await, sample());
    world.publish("base", &sample);
    world.pull("base:latest").await;
    let id = container(&world, &[("new", b"new")]).await;
    let (one, two) = ("one:latest", "two:latest");
    for name in [one, two] {
        let made = request(name.split(':').next().unwrap());
        world
            .engine
            .image_commit(&world.engine.default_scope(), CommitRequest { comment: name.into(), ..made })
            .await
            .unwrap();
    }
    world.engine.container_delete(&world.engine.default_scope(), id.as_str(), RemoveOptions::default()).await.unwrap();
    let (base, parent) = (world.name("base:latest"), &sample.target.digest);
    let delete = async |image: &str, keep_parents| {
        world
            .engine
            .image_delete(&world.engine.default_scope(), image, DeleteOptions { force: true, keep_parents })
            .await
            .unwrap()
    };
    let listed = async |all, filters: &str| {
        let options = ListOptions { all, filters: Filters::parse(filters).unwrap(), ..ListOptions::default() };
        world
            .engine
            .image_list(&world.engine.default_scope(), &options)
            .await
            .unwrap()
            .iter()
            .filter(|image| image.id == *parent)
            .count()
    };
    assert_eq!(delete(&base, false).await, [Deleted::Untagged(base.clone())]);
    let dangling = r#"{"dangling":["true"]}"#;
    assert_eq!((listed(false, "").await, listed(true, "").await, listed(true, dangling).await), (0, 1, 0));
    assert!(
        world.engine.image_prune(&world.engine.default_scope(), &Filters::default()).await.unwrap().deleted.is_empty()
    );
    assert_eq!(delete(one, false).await.len(), 2, "the other child needs it");
    assert_eq!(delete(two, true).await.len(), 2, "it is to stay");
    assert_eq!((listed(false, "").await, listed(false, dangling).await), (1, 1));

    world.engine.image_prune(&world.engine.default_scope(), &Filters::default()).await.unwrap();
    assert_eq!((listed(true, "").await, world.store.counts()), (0, (0, 0)));
}

#[tokio::test]
async fn committed_image_is_pushed_packed_and_comes_back_as_the_same() {
    let world = World::new().await;
    world.publish("base", &sample());
    world.pull("base:latest").await;
    let container = container(&world, &[("new", &[0; 100_000])]).await;
    let (engine, name) = (&world.engine, world.name("made:1"));
    let id = engine.image_commit(&engine.default_scope(), request(&world.name("made"))).await.unwrap();
    engine.image_tag(&engine.default_scope(), id.as_str(), &name, "").await.unwrap();
    let push = async || {
        let request = PushRequest { image: name.clone(), tag: "1".into(), ..PushRequest::default() };
        lines(engine.image_push(&engine.default_scope(), request).await.unwrap()).await.unwrap()
    };
    assert_eq!(push().await.iter().filter(|line| line.ends_with(" Pushed")).count(), 1);
    assert_eq!(push().await.iter().filter(|line| line.ends_with("Layer already exists")).count(), 2);
    let manifest = Manifest::parse(&world.registry.page("/v2/made/manifests/1").unwrap()).unwrap();
    assert!(manifest.layers[1].media_type.ends_with("gzip") && manifest.layers[1].size < 5000, "{manifest:?}");

    engine.container_delete(&engine.default_scope(), container.as_str(), RemoveOptions::default()).await.unwrap();
    engine
        .image_delete(&engine.default_scope(), id.as_str(), DeleteOptions { force: true, keep_parents: false })
        .await
        .unwrap();
    world.pull("made:1").await;
    assert_eq!(engine.image_inspect(&engine.default_scope(), &name, None, false).await.unwrap().id, id);
}

#[tokio::test]
async fn prune_of_all_takes_parents_too() {
    let world = World::new().await;
    world.publish("base", &sample());
    world.pull("base:latest").await;
    let id = container(&world, &[("new", b"new")]).await;
    world.engine.image_commit(&world.engine.default_scope(), request("made")).await.unwrap();
    let all = Filters::parse(r#"{"dangling":["false"]}"#).unwrap();
    world.engine.container_delete(&world.engine.default_scope(), id.as_str(), RemoveOptions::default()).await.unwrap();
    let pruned = world.engine.image_prune(&world.engine.default_scope(), &all).await.unwrap();
    assert_eq!((pruned.deleted.len(), world.store.counts()), (4, (0, 0)), "{pruned:?}");
    assert!(pruned.reclaimed > 0);
}

#[tokio::test]
async fn commit_of_no_changes_has_no_layer_and_prune_takes_it_away() {
    let world = World::new().await;
    world.publish("base", &sample());
    world.pull("base:latest").await;
    container(&world, &[]).await;
    let image = world.engine.image_commit(&world.engine.default_scope(), request("")).await.unwrap();
    let details = world.engine.image_inspect(&world.engine.default_scope(), image.as_str(), None, false).await.unwrap();
    assert_eq!((details.document.rootfs.diff_ids.len(), details.document.history.len()), (1, 2));
    assert!(details.document.history[1].empty_layer && details.repo_tags.is_empty());

    let pruned = world.engine.image_prune(&world.engine.default_scope(), &Filters::default()).await.unwrap();
    assert_eq!(pruned.deleted, [Deleted::Deleted(image)]);
    assert!(pruned.reclaimed > 0 && pruned.reclaimed < 5000, "{}", pruned.reclaimed);
    // What a container uses stays, also without `dangling`.
    let all = Filters::parse(r#"{"dangling":["false"]}"#).unwrap();
    assert!(world.engine.image_prune(&world.engine.default_scope(), &all).await.unwrap().deleted.is_empty());
    let two = Filters::parse(r#"{"until":["1h","2h"]}"#).unwrap();
    assert_eq!(
        world.engine.image_prune(&world.engine.default_scope(), &two).await.unwrap_err().message(),
        "more than one until filter specified"
    );
}

#[tokio::test]
async fn missing_containers_are_told_in_dockerds_words() {
    let world = World::new().await;
    let error = world.engine.image_commit(&world.engine.default_scope(), request("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "No such container: com"));
    let nobody = CommitRequest { container: String::new(), ..request("x") };
    let error = world.engine.image_commit(&world.engine.default_scope(), nobody).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidParameter, "invalid name or ID supplied: \"\""));
}
