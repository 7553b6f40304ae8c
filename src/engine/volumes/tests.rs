//! The store on a real folder.

use indexmap::IndexMap;
use tempfile::TempDir;

use super::*;
use crate::{
    backend::runtime::RootfsMount,
    engine::{room::Rooms, testing::Fakes},
    model::{
        container::{MountKind, MountPoint},
        id::ContainerId,
        time::Timestamp,
    },
};

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

async fn create(store: &VolumeStore, tenant: &TenantId, name: &str) {
    let labels = Some(IndexMap::from([("a".to_owned(), "b".to_owned())]));
    let volume = Volume { name: name.to_owned(), labels, options: None, created: Timestamp::now() };
    let changing = store.change().await;
    store.create(&changing, tenant, volume, None).await.unwrap();
}

#[tokio::test]
async fn volumes_survive_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = VolumeStore::open(dir.path(), Rooms::default()).unwrap();
    create(&store, &tenant(), "one").await;
    let before = store.get(&tenant(), "one").unwrap();
    assert_eq!(before.mountpoint, dir.path().join("volumes/one/_data"));
    std::fs::write(before.mountpoint.join("file"), "content").unwrap();

    let store = VolumeStore::open(dir.path(), Rooms::default()).unwrap();
    assert_eq!(store.list(&tenant()), std::slice::from_ref(&before));
    assert!(before.mountpoint.join("file").exists());
}

#[tokio::test]
async fn what_a_killed_daemon_left_is_removed() {
    let dir = TempDir::new().unwrap();
    let store = VolumeStore::open(dir.path(), Rooms::default()).unwrap();
    create(&store, &tenant(), "gone").await;
    let changing = store.change().await;
    drop(store.remove(&changing, &tenant(), "gone").await.unwrap());
    assert!(store.get(&tenant(), "gone").is_none());
    assert_eq!(std::fs::read_dir(dir.path().join("volumes/.removed")).unwrap().count(), 1);
    std::fs::create_dir_all(dir.path().join("volumes/half/_data")).unwrap();

    let store = VolumeStore::open(dir.path(), Rooms::default()).unwrap();
    assert!(store.list(&tenant()).is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("volumes")).unwrap().count(), 0);
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let dir = TempDir::new().unwrap();
    let store = VolumeStore::open(dir.path(), Rooms::default()).unwrap();
    let job: TenantId = "job-1".parse().unwrap();
    create(&store, &job, "same").await;
    assert!(store.get(&tenant(), "same").is_none());
    create(&store, &tenant(), "same").await;
    let store = VolumeStore::open(dir.path(), Rooms::default()).unwrap();
    assert_ne!(store.get(&job, "same").unwrap().mountpoint, store.get(&tenant(), "same").unwrap().mountpoint);
}

#[tokio::test]
async fn first_container_mounts_and_last_unmounts() {
    let dir = TempDir::new().unwrap();
    let store = VolumeStore::open(dir.path(), Rooms::default()).unwrap();
    create(&store, &tenant(), "shared").await;
    let (one, two) = (ContainerId::random(), ContainerId::random());
    let mount = |id| store.mount_for(&tenant(), "shared", id);
    let unmount = |id| store.unmount_for(&tenant(), "shared", id);
    assert_eq!((mount(&one), mount(&two)), (true, false));
    assert_eq!((unmount(&one), unmount(&one), unmount(&two)), (false, false, true));
}

/// Each looks whether the volume is empty before it copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn volume_is_filled_by_one_of_those_who_begin_with_it() {
    let Fakes { engine, folder, .. } = Fakes::new().await;
    let image = folder.path().join("image");
    std::fs::create_dir_all(image.join("many")).unwrap();
    for number in 0..400 {
        std::fs::write(image.join(format!("many/{number}")), "x").unwrap();
    }
    let options = vec!["rbind".to_owned(), "rw".to_owned()];
    let rootfs = vec![RootfsMount { kind: "bind".to_owned(), source: image.display().to_string(), options }];
    for round in 0..8 {
        let name = format!("new{round}");
        let request = VolumeRequest { name: name.clone(), ..VolumeRequest::default() };
        let volume = engine.volume_create(&engine.default_scope(), request).await.unwrap();
        let mount = |place: &str| MountPoint {
            kind: MountKind::Volume,
            name: name.clone(),
            destination: place.to_owned(),
            ..MountPoint::default()
        };
        let mounts = [mount("/many"), mount("/elsewhere")];
        let filling = (0..8).map(|_| {
            let (engine, mounts, rootfs) = (engine.clone(), mounts.clone(), rootfs.clone());
            let fill = async move { engine.populate_volumes(&tenant(), &ContainerId::random(), &mounts, rootfs).await };
            tokio::spawn(fill)
        });
        for filled in futures_util::future::join_all(filling).await {
            filled.unwrap().unwrap();
        }
        assert_eq!(std::fs::read_dir(volume.mountpoint).unwrap().count(), 400);
    }
}

#[tokio::test]
async fn a_volume_of_a_later_ringer_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("volumes").join("later");
    std::fs::create_dir_all(folder.join("_data")).unwrap();
    let json = r#"{"kind":"volume","version":2,"name":"later"}"#;
    std::fs::write(folder.join("volume.json"), json).unwrap();
    let store = VolumeStore::open(dir.path(), Rooms::default()).unwrap();
    assert!(store.list(&tenant()).is_empty());
    let volume = Volume { name: "later".to_owned(), labels: None, options: None, created: Timestamp::now() };
    let changing = store.change().await;
    store.create(&changing, &tenant(), volume, None).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(folder.join("volume.json")).unwrap(), json);
    assert!(folder.join("_data").exists());
}
