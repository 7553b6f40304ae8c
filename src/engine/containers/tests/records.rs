//! What is taken up of what an earlier daemon, or a later one, has stored.

use std::collections::HashMap;

use crate::{
    backend::runtime::{NewContainer, Runtime},
    engine::testing::Fakes,
    model::{id::ContainerId, layer::LayerRecord, record},
};

/// As ringer 0.1 stored it.
const CONTAINER: &str = include_str!("../../../model/record/samples/container-0.1.json");

async fn store(fakes: &Fakes, record: &[u8]) -> ContainerId {
    let id = ContainerId::random();
    let new = NewContainer {
        id: id.clone(),
        parent: String::new(),
        image: String::new(),
        labels: HashMap::new(),
        runtime: "runc".to_owned(),
        record: record.to_vec(),
    };
    fakes.runtime.create_container(&new).await.unwrap();
    id
}

/// What is still stored after a start.
async fn kept(fakes: &Fakes) -> Vec<ContainerId> {
    fakes.engine.take_up_containers().await.unwrap();
    fakes.runtime.list_containers().await.unwrap().into_iter().map(|stored| stored.id).collect()
}

#[tokio::test]
async fn records_of_a_later_ringer_are_left_alone_with_their_layers() {
    let fakes = Fakes::new().await;
    let newer = store(&fakes, br#"{"kind":"container","version":2,"name":"later"}"#).await;
    let mount = |container: &ContainerId| LayerRecord::ImageMount { container: Some(container.clone()) };
    let used = store(&fakes, &record::write(&mount(&newer))).await;
    let old = store(&fakes, b"{\"ImageMount\":true}").await;
    let lost = store(&fakes, &record::write(&mount(&ContainerId::random()))).await;
    let kept = kept(&fakes).await;
    assert!([&newer, &used, &old].iter().all(|id| kept.contains(id)), "{kept:?}");
    assert!(!kept.contains(&lost));
    assert!(fakes.engine.containers.list_all().is_empty());
}

#[tokio::test]
async fn containers_of_version_0_1_are_taken_up_and_lost_layers_deleted() {
    let fakes = Fakes::new().await;
    store(&fakes, CONTAINER.as_bytes()).await;
    let pads = [store(&fakes, b"{\"BuildPad\":true}").await, store(&fakes, &record::write(&LayerRecord::Build)).await];
    let lost = store(&fakes, b"{\"ImageMount\":true}").await;
    let kept = kept(&fakes).await;
    assert!(!pads.iter().chain([&lost]).any(|id| kept.contains(id)), "{kept:?}");
    let [container] = &fakes.engine.containers.list_all()[..] else { panic!("one is taken up") };
    assert_eq!(container.record().name, "sample");
    assert_eq!(container.record().mounts.len(), 4);
}
