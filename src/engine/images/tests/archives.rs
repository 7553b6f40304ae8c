//! Load, save and import.

use std::io::Write as _;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::{World, body, lines};
use crate::{
    backend::images::samples::{Packing, Sample, image, index, pack, tar},
    engine::images::{ImportRequest, LoadOptions},
    model::{
        ErrorKind,
        id::TenantId,
        image::{Descriptor, ImageConfig},
    },
};

fn sample() -> Sample {
    let config = ImageConfig { cmd: Some(vec!["sh".into()]), ..ImageConfig::default() };
    image("linux/amd64", config, &[(tar(&[("a", b"a")]), Packing::Plain), (tar(&[("b", b"b")]), Packing::Gzip)])
}

/// As `docker save` of 20.10 writes it.
fn docker_archive(sample: &Sample, tags: &str) -> Bytes {
    let manifest = sample.manifest();
    let config = format!("{}.json", manifest.config.digest.hex());
    let layers = ["1/layer.tar", "2/layer.tar"];
    let list = format!(r#"[{{"Config":"{config}","RepoTags":{tags},"Layers":["{}","{}"]}}]"#, layers[0], layers[1]);
    let bytes = |n: usize| sample.bytes(&manifest.layers[n].digest).as_ref();
    tar(&[
        (layers[0], bytes(0)),
        (layers[1], bytes(1)),
        (&config, sample.bytes(&manifest.config.digest)),
        ("manifest.json", list.as_bytes()),
    ])
}

#[tokio::test]
async fn docker_archive_becomes_the_image_that_dockerd_makes() {
    let (world, sample) = (World::new().await, sample());
    let archive = docker_archive(&sample, r#"["y:2","y:3"]"#);
    assert_eq!(world.load(archive.clone()).await.unwrap(), ["Loaded image: y:2\n", "Loaded image: y:3\n"]);
    let details = world.engine.image_inspect(&world.engine.default_scope(), "y:2", None, false).await.unwrap();
    // The sample's manifest is put together as dockerd's, so its digest is the id.
    assert_eq!(details.id, sample.target.digest);
    assert_eq!(details.repo_digests, [format!("y@{}", details.id)]);
    world.engine.images.backend.collect_garbage().await.unwrap();
    assert!(world.engine.image_for_container(&world.engine.default_scope(), "y:3", None).await.is_ok());
    for packing in [Packing::Gzip, Packing::Zstd] {
        assert!(world.load(pack(&archive, packing)).await.is_ok(), "{packing:?}");
    }
    assert_eq!(world.store.counts().1, 2);
}

#[tokio::test]
async fn archive_without_names_tells_the_id() {
    let (world, sample) = (World::new().await, sample());
    let loaded = world.load(docker_archive(&sample, "null")).await.unwrap();
    assert_eq!(loaded, [format!("Loaded image ID: {}\n", sample.target.digest)]);
    assert!(
        world
            .engine
            .image_for_container(&world.engine.default_scope(), sample.target.digest.as_str(), None)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn legacy_archive_is_read() {
    let world = World::new().await;
    let (base, top) = (tar(&[("a", b"a")]), tar(&[("b", b"b")]));
    let archive = tar(&[
        ("base/VERSION", b"1.0"),
        ("base/json", br#"{"id":"base","created":"2015-01-01T00:00:00Z","container_config":{"Cmd":["add","a"]}}"#),
        ("base/layer.tar", &base),
        ("top/json", br#"{"id":"top","parent":"base","architecture":"amd64","os":"linux","config":{"Cmd":["sh"]}}"#),
        ("top/layer.tar", &top),
        ("repositories", br#"{"old":{"1":"top"}}"#),
    ]);
    assert_eq!(world.load(archive).await.unwrap(), ["Loaded image: old:1\n"]);
    let details = world.engine.image_inspect(&world.engine.default_scope(), "old:1", None, false).await.unwrap();
    assert_eq!(details.document.config.cmd.unwrap(), ["sh"]);
    assert_eq!((details.document.rootfs.diff_ids.len(), details.document.history[0].created_by.as_str()), (2, "add a"));
}

#[tokio::test]
async fn saved_images_are_loaded_again_with_their_ids() {
    let world = World::new().await;
    let one = sample();
    let arm = image("linux/arm64", ImageConfig::default(), &[(tar(&[("arm", b"arm")]), Packing::Zstd)]);
    let both = index(&[one.clone(), arm]);
    world.publish("multi", &both);
    world.pull("multi:latest").await;
    world.load(docker_archive(&one, r#"["y:2","y:3"]"#)).await.unwrap();

    let (name, mut saved) = (world.name("multi:latest"), Vec::new());
    let names = [name.clone(), "y".to_owned()];
    let mut reader = world.engine.image_get(&world.engine.default_scope(), &names, &[]).await.unwrap();
    reader.read_to_end(&mut saved).await.unwrap();
    let paths: Vec<String> = tar::Archive::new(saved.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    for document in ["index.json", "manifest.json", "oci-layout"] {
        assert!(paths.iter().any(|path| path == document), "{paths:?}");
    }

    let other: TenantId = "other".parse().unwrap();
    let loaded =
        lines(world.engine.image_load(&world.engine.scope_for(&other), body(saved), LoadOptions::default()).unwrap())
            .await
            .unwrap();
    let named: Vec<String> = loaded.into_iter().filter(|line| line.starts_with("Loaded image")).collect();
    assert_eq!(named, [format!("Loaded image: {name}\n"), "Loaded image: y:2\n".into(), "Loaded image: y:3\n".into()]);
    let again = world.engine.image_inspect(&world.engine.scope_for(&other), &name, None, false).await.unwrap();
    assert_eq!(again.id, both.target.digest);
    assert_eq!(
        world.engine.image_inspect(&world.engine.scope_for(&other), "y:2", None, false).await.unwrap().id,
        one.target.digest
    );
}

/// An OCI layout that names an image and has some of its blobs.
pub fn layout(sample: &Sample, blobs: &[(Descriptor, Bytes)], name: &str) -> Bytes {
    let target = &sample.target;
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": target.media_type, "digest": target.digest, "size": target.size,
        "annotations": {"io.containerd.image.name": name},
    }]})
    .to_string();
    let paths: Vec<String> = blobs.iter().map(|(blob, _)| format!("blobs/sha256/{}", blob.digest.hex())).collect();
    let mut files: Vec<(&str, &[u8])> =
        paths.iter().zip(blobs).map(|(path, (_, bytes))| (path.as_str(), bytes.as_ref())).collect();
    files.push(("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#));
    files.push(("index.json", index.as_bytes()));
    tar(&files)
}

/// What an archive's documents name and its files lack may be in the store for somebody else.
#[tokio::test]
async fn archive_reaches_no_content_but_its_own() {
    let world = World::new().await;
    let theirs = sample();
    let ours = image("linux/arm64", ImageConfig::default(), &[(tar(&[("arm", b"arm")]), Packing::Zstd)]);
    let both = index(&[theirs.clone(), ours.clone()]);
    let other: TenantId = "other".parse().unwrap();
    let archive = docker_archive(&theirs, r#"["secret:1"]"#);
    lines(world.engine.image_load(&world.engine.scope_for(&other), body(archive), LoadOptions::default()).unwrap())
        .await
        .unwrap();

    let is_theirs = |blob: &&(Descriptor, Bytes)| theirs.blobs.iter().any(|(known, _)| known.digest == blob.0.digest);
    let without_theirs: Vec<_> = both.blobs.iter().filter(|blob| !is_theirs(blob)).cloned().collect();
    let loaded = world.load(layout(&both, &without_theirs, "docker.io/library/both:1")).await.unwrap();
    assert!(loaded.contains(&"Loaded image: both:1\n".to_owned()), "a part of an image is one: {loaded:?}");
    let labels = world.engine.images.backend.blob_info(&both.target.digest).await.unwrap().unwrap().labels;
    let pinned: Vec<&String> = labels.values().collect();
    assert_eq!(pinned, [ours.target.digest.as_str()], "and pins no more than that part");

    // Neither a manifest without its layers, nor an index without its manifests.
    for sample in [&theirs, &both] {
        let document = |blob: &&(Descriptor, Bytes)| blob.0.digest == sample.target.digest;
        let blobs: Vec<_> = sample.blobs.iter().filter(document).cloned().collect();
        let error = world.load(layout(sample, &blobs, "docker.io/library/stolen:1")).await.unwrap_err();
        assert!(error.message().ends_with("has no content in the archive"), "{}", error.message());
    }
    assert!(world.engine.image_inspect(&world.engine.default_scope(), "stolen:1", None, false).await.is_err());
}

#[tokio::test]
async fn saving_what_is_not_there_is_404_before_the_first_byte() {
    let world = World::new().await;
    let error = world.engine.image_get(&world.engine.default_scope(), &["nosuch".to_owned()], &[]).await.err().unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "No such image: nosuch"));
}

#[tokio::test]
async fn bad_archives_are_clear_errors_and_leave_nothing() {
    let world = World::new().await;
    let escaping = |name: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, b"x".as_slice()).unwrap();
        Bytes::from(archive.into_inner().unwrap())
    };
    let link = {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "layer.tar", "/etc/passwd").unwrap();
        Bytes::from(archive.into_inner().unwrap())
    };
    let missing = tar(&[("manifest.json", br#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#)]);
    let broken_off = docker_archive(&sample(), "null").slice(..3000);
    for (archive, text) in [
        (Bytes::new(), "unrecognized image format"),
        (tar(&[("x", b"x")]), "unrecognized image format"),
        (Bytes::from(vec![b'x'; 2000]), "archive/tar: invalid tar header"),
        (broken_off, "unexpected EOF"),
        (escaping("../x"), "\"../x\" leads out of it"),
        (escaping("/x"), "\"/x\" leads out of it"),
        (link, "\"/etc/passwd\" leads out of it"),
        (missing, "file c.json is missing"),
        (tar(&[("manifest.json", b"{")]), "invalid manifest.json"),
    ] {
        let error = world.load(archive).await.unwrap_err();
        assert!(error.message().contains(text), "{text}: {}", error.message());
        world.wait_for_counts((0, 0)).await;
    }
}

#[tokio::test]
async fn import_makes_an_image_of_a_packed_tar() {
    let world = World::new().await;
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar(&[("entrypoint", b"#!")])).unwrap();
    let request = ImportRequest {
        repository: "imp".into(),
        tag: "1".into(),
        changes: vec!["ENV A=b".into(), r#"ENTRYPOINT ["/entrypoint"]"#.into()],
        message: "msg".into(),
        platform: None,
    };
    let id =
        world.engine.image_import(&world.engine.default_scope(), &request, body(xz.finish().unwrap())).await.unwrap();
    let details = world.engine.image_inspect(&world.engine.default_scope(), "imp:1", None, false).await.unwrap();
    assert_eq!((&details.id, details.document.comment.as_str()), (&id, "msg"));
    assert_eq!(details.document.config.env, ["A=b"]);
    world.engine.images.backend.collect_garbage().await.unwrap();
    assert!(world.engine.image_for_container(&world.engine.default_scope(), "imp:1", None).await.is_ok());

    let bad = ImportRequest { changes: vec!["FROM x".into()], ..request.clone() };
    let error = world.engine.image_import(&world.engine.default_scope(), &bad, body("")).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidParameter, "FROM is not a valid change command"));
    let error =
        world.engine.image_import(&world.engine.default_scope(), &request, body(vec![b'x'; 2000])).await.unwrap_err();
    assert!(error.message().contains("invalid tar header"), "{}", error.message());
}

#[tokio::test]
async fn chosen_platforms_are_saved_and_loaded() {
    let world = World::new().await;
    let one = sample();
    let arm = image("linux/arm64", ImageConfig::default(), &[(tar(&[("arm", b"arm")]), Packing::Zstd)]);
    let both = index(&[one.clone(), arm.clone()]);
    world.publish("multi", &both);
    for platform in ["linux/amd64", "linux/arm64"] {
        lines(world.start_pull("multi:latest", platform).await.unwrap()).await.unwrap();
    }
    let name = world.name("multi:latest");
    let platforms = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
    let save = async |wanted: &[&str]| {
        let mut saved = Vec::new();
        let reader = world
            .engine
            .image_get(&world.engine.default_scope(), std::slice::from_ref(&name), &platforms(wanted))
            .await;
        reader.unwrap().read_to_end(&mut saved).await.unwrap();
        saved
    };
    let has = |saved: &[u8], blob: &crate::model::reference::Digest| {
        let path = format!("blobs/sha256/{}", blob.hex());
        tar::Archive::new(saved)
            .entries()
            .unwrap()
            .any(|entry| entry.unwrap().path().unwrap().display().to_string() == path)
    };
    let (amd_layer, arm_layer) = (&one.manifest().layers[0].digest, &arm.manifest().layers[0].digest);
    let saved = save(&["linux/arm64"]).await;
    assert!(has(&saved, arm_layer) && !has(&saved, amd_layer));
    let both_saved = save(&["linux/amd64", "linux/arm64"]).await;
    assert!(has(&both_saved, arm_layer) && has(&both_saved, amd_layer));
    let missing = world
        .engine
        .image_get(&world.engine.default_scope(), std::slice::from_ref(&name), &platforms(&["linux/s390x"]))
        .await
        .err()
        .unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);

    let other = World::new().await;
    let options = |names: &[&str]| LoadOptions { quiet: true, platforms: platforms(names) };
    let load = other
        .engine
        .image_load(&other.engine.default_scope(), body(both_saved.clone()), options(&["linux/s390x"]))
        .unwrap();
    let error = lines(load).await.unwrap_err();
    assert_eq!(error.message(), "requested platform (linux/s390x) not found: image might be filtered out");
    lines(other.engine.image_load(&other.engine.default_scope(), body(both_saved), options(&["linux/arm64"])).unwrap())
        .await
        .unwrap();
    let details = other.engine.image_inspect(&other.engine.default_scope(), &name, None, false).await.unwrap();
    assert_eq!((details.document.platform.architecture.as_str(), details.id), ("arm64", both.target.digest));
    assert!(
        other
            .engine
            .image_inspect(&other.engine.default_scope(), &name, Some(&"linux/amd64".parse().unwrap()), false)
            .await
            .is_err()
    );
}

#[test]
fn no_bytes_make_it_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (world, sample) = (runtime.block_on(World::new()), sample());
    let manifest = sample.manifest();
    let parts = manifest.layers.iter().chain([&manifest.config, &sample.target]);
    let blobs: Vec<(Descriptor, Bytes)> =
        parts.map(|part| (part.clone(), sample.bytes(&part.digest).clone())).collect();
    let layout = layout(&sample, &blobs, "reg.test/y:3");
    let good = [docker_archive(&sample, r#"["y:2"]"#), layout.clone(), pack(&layout, Packing::Gzip)];
    let good: Vec<&[u8]> = good.iter().map(AsRef::as_ref).collect();
    crate::model::fuzz::each(&good, |input| {
        let loaded = runtime.block_on(world.load(input.to_vec()));
        let said = loaded.map(|lines| lines.concat()).unwrap_or_else(|error| error.chain());
        assert!(!said.contains("panic"), "{said}");
    });
}
