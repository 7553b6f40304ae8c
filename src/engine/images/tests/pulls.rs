//! Pulls.

use std::time::Duration;

use super::{World, lines, tenant};
use crate::{
    backend::images::{
        ImageBackend,
        samples::{Packing, Sample, image, index, tar},
    },
    engine::{
        config::EngineConfig,
        images::{PullRequest, look_up::short},
    },
    model::{ErrorKind, Result, id::TenantId, image::ImageConfig, reference::Digest, registry_auth::RegistryAuth},
    policy,
    registry::tests::{
        fake::{self, Guard},
        publish,
    },
};

fn sample() -> Sample {
    let layers = [(tar(&[("a", &[1; 50_000])]), Packing::Gzip), (tar(&[("b", &[2; 50_000])]), Packing::Zstd)];
    image("linux/amd64", ImageConfig::default(), &layers)
}

fn layer_ids(sample: &Sample) -> Vec<String> {
    sample.manifest().layers.iter().map(|layer| short(&layer.digest).to_owned()).collect()
}

#[tokio::test]
async fn messages_are_dockerds_in_number_and_order() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    let messages = world.pull("lib/x:latest").await;
    let ids = layer_ids(&sample);
    assert_eq!(messages[0], "latest Pulling from lib/x");
    assert_eq!(messages[1..3], [format!("{} Pulling fs layer", ids[0]), format!("{} Pulling fs layer", ids[1])]);
    for id in &ids {
        let steps = ["Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"];
        let mut seen = messages.iter().filter(|line| line.starts_with(id.as_str()));
        for step in steps {
            assert!(seen.any(|line| *line == format!("{id} {step}")), "{step} of {id} in {messages:#?}");
        }
    }
    let [.., before, last] = messages.as_slice() else { panic!("few messages") };
    assert_eq!(*before, format!("Digest: {}", sample.target.digest));
    assert_eq!(*last, format!("Status: Downloaded newer image for {}", world.name("lib/x:latest")));

    let again = world.pull("lib/x:latest").await;
    let up_to_date = format!("Status: Image is up to date for {}", world.name("lib/x:latest"));
    assert_eq!(again, ["latest Pulling from lib/x".to_owned(), before.clone(), up_to_date]);
    assert_eq!(world.registry.count("GET /v2/lib/x/manifests/"), 1, "what is here is not fetched again");
}

#[tokio::test]
async fn mirrors_of_a_policy_stand_in_the_place_of_the_daemons() {
    let daemons = fake::Registry::start().await;
    let config =
        EngineConfig { registry_mirrors: vec![format!("http://{}", daemons.host())], ..EngineConfig::default() };
    let (world, sample) = (World::with(config).await, sample());
    for registry in [&daemons, &world.registry] {
        publish(registry, "library/x", &sample);
    }
    let scope = |job: &str, text: &str| {
        let scope = world.engine.scope_for(&job.parse().unwrap());
        scope.as_tenant().obeys(policy::parse("own", text).unwrap().into());
        scope
    };
    // Registries are judged by the name that a client says, mirrors are its operator's word.
    let text = format!("registries = [\"docker.io\"]\nmirrors = [\"http://{}\"]", world.registry.host());
    let (own, without) = (scope("job-1", &text), scope("job-2", "mirrors = false"));
    let request = PullRequest { image: "x:latest".to_owned(), ..PullRequest::default() };
    lines(world.engine.image_pull(&own, &request).await.unwrap()).await.unwrap();
    assert_eq!((world.registry.count("GET /v2/library/x/manifests/"), daemons.count("")), (1, 0));
    assert!(world.engine.mirrors_of(without.as_tenant()).is_empty());
    let default = world.engine.default_scope();
    lines(world.engine.image_pull(&default, &request).await.unwrap()).await.unwrap();
    assert!(daemons.count("HEAD /v2/library/x/manifests/") > 0, "without a policy of its own it asks the daemon's");
}

#[tokio::test]
async fn shared_layer_already_exists() {
    let world = World::new().await;
    let base = (tar(&[("base", b"base")]), Packing::Gzip);
    let first = image("linux/amd64", ImageConfig::default(), std::slice::from_ref(&base));
    let second = image("linux/amd64", ImageConfig::default(), &[base, (tar(&[("top", b"top")]), Packing::Gzip)]);
    world.publish("a", &first);
    world.publish("b", &second);
    world.pull("a:latest").await;
    let messages = world.pull("b:latest").await;
    let ids = layer_ids(&second);
    assert!(messages.contains(&format!("{} Already exists", ids[0])), "{messages:#?}");
    assert!(messages.contains(&format!("{} Pull complete", ids[1])));
}

#[tokio::test]
async fn failure_before_the_first_message_is_a_status() {
    let world = World::new().await;
    let error = world.start_pull("lib/x:nope", "").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().ends_with("not found: manifest unknown: manifest unknown"), "{}", error.message());
    let error = world.start_pull("lib/X:nope", "").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    assert_eq!(world.store.counts(), (0, 0));
}

#[tokio::test]
async fn corrupt_layer_fails_in_the_stream_and_leaves_nothing() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    let layer = &sample.manifest().layers[1];
    let wrong = vec![0; usize::try_from(layer.size).unwrap()];
    world.registry.put_blob("lib/x", layer.digest.as_str(), &wrong);
    let error = lines(world.start_pull("lib/x:latest", "").await.unwrap()).await.unwrap_err();
    assert_eq!(error.message(), format!("filesystem layer verification failed for digest {}", layer.digest));
    world.wait_for_counts((0, 0)).await;
    assert!(world.engine.image_list(&world.engine.default_scope(), &Default::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn failed_unpacking_leaves_nothing() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    world.store.fail_next_unpack("no space left on device");
    let error = lines(world.start_pull("lib/x:latest", "").await.unwrap()).await.unwrap_err();
    assert_eq!(error.message(), "no space left on device");
    world.wait_for_counts((0, 0)).await;
}

#[tokio::test]
async fn broken_connection_is_taken_up_again() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    let layer = &sample.manifest().layers[0];
    world.registry.break_blob("lib/x", layer.digest.as_str(), &[20, 20]);
    world.pull("lib/x:latest").await;
    assert_eq!(world.registry.count(&format!("GET /v2/lib/x/blobs/{} bytes=", layer.digest)), 2);
}

#[tokio::test]
async fn two_pulls_of_one_image_share_the_work() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    let layer = sample.manifest().layers[0].digest.to_string();
    let gate = world.registry.hold_blob("lib/x", &layer);
    let first = world.start_pull("lib/x:latest", "").await.unwrap();
    let second = world.start_pull("lib/x:latest", "").await.unwrap();
    gate.add_permits(9);
    let (first, second) = tokio::join!(lines(first), lines(second));
    assert_eq!(first.unwrap().last(), second.unwrap().last());
    assert_eq!(world.registry.count(&format!("GET /v2/lib/x/blobs/{layer}")), 1);
}

#[tokio::test]
async fn different_images_share_a_layer_on_its_way() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    world.publish("lib/y", &sample);
    let layer = sample.manifest().layers[0].digest.to_string();
    let gate = world.registry.hold_blob("lib/x", &layer);
    let other = world.registry.hold_blob("lib/y", &layer);
    let first = world.start_pull("lib/x:latest", "").await.unwrap();
    let second = world.start_pull("lib/y:latest", "").await.unwrap();
    gate.add_permits(9);
    other.add_permits(9);
    let (first, second) = tokio::join!(lines(first), lines(second));
    assert!(first.is_ok() && second.is_ok());
    let fetched = |name: &str| world.registry.count(&format!("GET /v2/lib/{name}/blobs/{layer}"));
    assert_eq!(fetched("x") + fetched("y"), 1);
}

#[tokio::test]
async fn last_client_that_leaves_ends_the_pull() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    let layer = sample.manifest().layers[0].digest.to_string();
    let _gate = world.registry.hold_blob("lib/x", &layer);
    let first = world.start_pull("lib/x:latest", "").await.unwrap();
    let second = world.start_pull("lib/x:latest", "").await.unwrap();
    drop(first);
    drop(second);
    world.wait_for_counts((0, 0)).await;
    assert!(world.engine.image_list(&world.engine.default_scope(), &Default::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn index_gives_the_platform_that_is_asked_for() {
    let world = World::new().await;
    let of = |platform: &str| {
        let layer = tar(&[("platform", platform.as_bytes())]);
        image(platform, ImageConfig::default(), &[(layer, Packing::Gzip)])
    };
    let (amd64, arm64) = (of("linux/amd64"), of("linux/arm64"));
    let both = index(&[amd64.clone(), arm64.clone()]);
    world.publish("multi", &both);
    lines(world.start_pull("multi:latest", "linux/arm64/v8").await.unwrap()).await.unwrap();

    let name = world.name("multi:latest");
    let (tenant, arm, amd) = (tenant(), "linux/arm64".parse().unwrap(), "linux/amd64".parse().unwrap());
    let details = world.engine.image_inspect(&world.engine.scope_for(&tenant), &name, None, true).await.unwrap();
    assert_eq!(details.id, both.target.digest);
    assert_eq!(details.document.platform.architecture, "arm64");
    assert_eq!(details.manifests.iter().map(|m| m.available).collect::<Vec<_>>(), [false, true]);
    let error =
        world.engine.image_inspect(&world.engine.scope_for(&tenant), &name, Some(&amd), false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let expected =
        format!("image with reference {name} was found but does not provide the specified platform (linux/amd64)");
    assert_eq!(error.message(), expected);
    let found = world.engine.image_for_container(&world.engine.scope_for(&tenant), &name, Some(&arm)).await.unwrap();
    assert_eq!(found.manifest.digest, arm64.target.digest);
    assert_eq!(found.chain_id, arm64.document().chain_ids()[0]);

    lines(world.start_pull("multi:latest", "linux/amd64").await.unwrap()).await.unwrap();
    assert!(world.engine.image_for_container(&world.engine.scope_for(&tenant), &name, Some(&amd)).await.is_ok());
    world.engine.images.backend.collect_garbage().await.unwrap();
    assert_eq!(world.store.counts(), (7, 2), "both platforms are pinned by one name");

    let stream = world.start_pull("multi:latest", "linux/s390x").await.unwrap();
    let error = lines(stream).await.unwrap_err();
    assert_eq!(error.message(), "no matching manifest for linux/s390x in the manifest list entries");
}

#[tokio::test]
async fn an_image_for_another_platform_is_told() {
    let world = World::new().await;
    world.publish("lib/x", &sample());
    let said = lines(world.start_pull("lib/x:latest", "linux/s390x").await.unwrap()).await.unwrap();
    let expected = format!(
        "WARNING: image with reference {} was found but its platform (linux/amd64) does not match the specified \
         platform (linux/s390x)",
        world.name("lib/x:latest")
    );
    assert_eq!(said.last(), Some(&expected));
    let said = lines(world.start_pull("lib/x:latest", "linux/amd64").await.unwrap()).await.unwrap();
    assert!(said.last().unwrap().starts_with("Status: Image is up to date"), "{said:?}");
}

#[tokio::test]
async fn moved_tag_leaves_the_old_image_without_name() {
    let (world, old) = (World::new().await, sample());
    world.publish("lib/x", &old);
    world.pull("lib/x:latest").await;
    let new = image("linux/amd64", ImageConfig::default(), &[(tar(&[("new", b"new")]), Packing::Gzip)]);
    world.publish("lib/x", &new);
    let messages = world.pull("lib/x:latest").await;
    assert!(messages.last().unwrap().starts_with("Status: Downloaded newer image"));
    let list = world.engine.image_list(&world.engine.default_scope(), &Default::default()).await.unwrap();
    let dangling = list.iter().find(|image| image.id == old.target.digest).unwrap();
    assert!(dangling.repo_tags.is_empty() && dangling.repo_digests.is_empty());
}

#[tokio::test]
async fn without_a_tag_all_tags_are_pulled() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    let manifest = sample.bytes(&sample.target.digest);
    let digest = sample.target.digest.as_str();
    world.registry.put_manifest("lib/x", "2", &sample.target.media_type, digest, manifest);
    world.registry.put_page("/v2/lib/x/tags/list", "application/json", br#"{"name":"lib/x","tags":["2","latest"]}"#);
    let messages = world.pull("lib/x").await;
    assert_eq!(messages.last().unwrap(), &format!("Status: Downloaded newer image for {}", world.name("lib/x")));
    let details = world.engine.image_inspect(&world.engine.default_scope(), digest, None, false).await.unwrap();
    assert_eq!(details.repo_tags, [world.name("lib/x:2"), world.name("lib/x:latest")]);
}

#[tokio::test]
async fn digest_is_a_name_without_tag() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    let name = format!("lib/x@{}", sample.target.digest);
    let messages = world.pull(&name).await;
    assert_eq!(messages[0], format!("{} Pulling from lib/x", world.name(&name)));
    let details =
        world.engine.image_inspect(&world.engine.default_scope(), &world.name(&name), None, false).await.unwrap();
    assert!(details.repo_tags.is_empty());
    assert_eq!(details.repo_digests, [world.name(&name)]);
}

#[tokio::test]
async fn old_and_foreign_manifests_are_refused() {
    let world = World::new().await;
    let old = br#"{"schemaVersion":1,"name":"x"}"#;
    let kind = "application/vnd.docker.distribution.manifest.v1+json";
    world.registry.put_manifest("old", "latest", kind, Digest::of(old).as_str(), old);
    let error = lines(world.start_pull("old:latest", "").await.unwrap()).await.unwrap_err();
    assert!(error.message().contains("schema 1 support is disabled"), "{}", error.message());

    let chart = br#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1},"layers":[]}"#;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    world.registry.put_manifest("chart", "latest", kind, Digest::of(chart).as_str(), chart);
    let error = lines(world.start_pull("chart:latest", "").await.unwrap()).await.unwrap_err();
    assert!(error.message().contains("Encountered remote"), "{}", error.message());
}

/// A pull of a job, which is gone afterwards with its names.
async fn pull_of_job(world: &World, job: &str, rest: &str, auth: RegistryAuth) -> Result<Vec<String>> {
    let scope = world.engine.scope_for(&job.parse().unwrap());
    let request = PullRequest { image: world.name(rest), auth, ..PullRequest::default() };
    let told = match world.engine.image_pull(&scope, &request).await {
        Ok(stream) => lines(stream).await,
        Err(error) => Err(error),
    };
    for record in world.store.list_images(scope.tenant()).await.unwrap() {
        world.store.delete_image(scope.tenant(), &record.name, true).await.unwrap();
    }
    world.store.collect_garbage().await.unwrap();
    told
}

#[tokio::test]
async fn the_next_job_fetches_no_layer_again_and_is_asked_for_its_own_credentials() {
    let (world, sample) = (World::new().await, sample());
    world.publish("lib/x", &sample);
    world.registry.guard(Guard::Basic("dTpw".to_owned()));
    let auth = || RegistryAuth { username: "u".to_owned(), password: "p".to_owned(), ..RegistryAuth::default() };
    let layer = format!("GET /v2/lib/x/blobs/{}", sample.manifest().layers[0].digest);
    pull_of_job(&world, "job-1", "lib/x:latest", auth()).await.unwrap();
    assert_eq!(world.registry.count(&layer), 1);
    let told = pull_of_job(&world, "job-2", "lib/x:latest", auth()).await.unwrap();
    assert_eq!(world.registry.count(&layer), 1, "{told:?}");
    // Whoever says what the registry does not know, or nothing, sees nothing.
    let named = |username: &str, password: &str, serveraddress: &str| RegistryAuth {
        username: username.to_owned(),
        password: password.to_owned(),
        serveraddress: serveraddress.to_owned(),
        ..RegistryAuth::default()
    };
    let forged = [
        RegistryAuth::default(),
        named("u", "other", ""),
        named("other", "pw", ""),
        named("u", "other", "https://index.docker.io/v1/"),
        RegistryAuth { auth: "dTpvdGhlcg==".to_owned(), ..RegistryAuth::default() },
        RegistryAuth { identitytoken: "forged".to_owned(), ..RegistryAuth::default() },
        RegistryAuth { registrytoken: "forged".to_owned(), ..RegistryAuth::default() },
    ];
    let tokens = Guard::Bearer { pair: "dTpw".to_owned(), refresh: "good-one".to_owned() };
    for guard in [Guard::Basic("dTpw".to_owned()), tokens] {
        world.registry.guard(guard);
        for auth in &forged {
            let refused = pull_of_job(&world, "job-3", "lib/x:latest", auth.clone()).await.unwrap_err();
            let said = refused.message();
            assert!(
                ["unauthorized", "denied", "no basic auth"].iter().any(|word| said.contains(word)),
                "{auth:?}: {said}"
            );
        }
        pull_of_job(&world, "job-4", "lib/x:latest", auth()).await.unwrap();
    }
    assert_eq!(world.registry.count(&layer), 1);
}

#[tokio::test]
async fn what_is_kept_for_other_jobs_stays_within_its_room() {
    let config = EngineConfig { cache_max_bytes: Some(1), ..EngineConfig::default() };
    let world = World::with(config).await;
    let sample = sample();
    world.publish("lib/x", &sample);
    pull_of_job(&world, "job-1", "lib/x:latest", RegistryAuth::default()).await.unwrap();
    world.engine.trim_cache().await.unwrap();
    world.wait_for_counts((0, 0)).await;
}

/// Two of three images of one size have room.
#[tokio::test]
async fn what_is_kept_for_other_jobs_goes_by_its_last_use_and_by_its_age() {
    const LONGEST: Duration = Duration::from_secs(3600);
    let config =
        EngineConfig { cache_max_bytes: Some(500_000), cache_max_age: Some(LONGEST), ..EngineConfig::default() };
    let world = World::with(config).await;
    let images = ["x", "y", "z"].map(|name| {
        let layer = (tar(&[(name, &[1; 100_000])]), Packing::Plain);
        (name, image("linux/amd64", ImageConfig::default(), &[layer]))
    });
    for (name, sample) in &images {
        world.publish(name, sample);
    }
    let kept = async || {
        let records = world.store.list_images(&TenantId::of_cache()).await.unwrap();
        let is_kept = |sample: &Sample| records.iter().any(|record| record.target.digest == sample.target.digest);
        images.iter().filter(|(_, sample)| is_kept(sample)).map(|(name, _)| *name).collect::<Vec<_>>()
    };
    // The last pull of each counts, not the first.
    for name in ["x", "y", "x", "z"] {
        pull_of_job(&world, "job-1", &format!("{name}:latest"), RegistryAuth::default()).await.unwrap();
    }
    world.engine.trim_cache().await.unwrap();
    assert_eq!(kept().await, ["x", "z"]);
    world.store.backdate(&TenantId::of_cache(), images[0].1.target.digest.as_str(), LONGEST);
    world.engine.trim_cache().await.unwrap();
    assert_eq!(kept().await, ["z"]);
}
