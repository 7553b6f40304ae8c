//! `ringer image unpack`: images whose files are wanted and which nobody runs, from a registry on loopback.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ringer::{
    backend::images::samples::{Packing, Sample, image, index, tar},
    model::image::ImageConfig,
};
use tempfile::TempDir;

use crate::support::{
    images::publish,
    registry::{Guard, Registry},
};

fn tool(platform: &str, content: &str) -> Sample {
    let files = tar(&[("bin/tool", content.as_bytes()), ("old", b"old")]);
    let second = tar(&[("share/note", b"second layer"), (".wh.old", b"")]);
    image(platform, ImageConfig::default(), &[(files, Packing::Gzip), (second, Packing::Zstd)])
}

/// A folder to unpack into.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("files")
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder().join(path)).unwrap()
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.folder()).map_or(true, |mut entries| entries.next().is_none())
    }
}

/// Runs it beside the registry, which this runtime carries.
async fn unpack(image: &str, folder: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringer"));
    command.args(["image", "unpack"]).args(flags).arg(image).arg(folder);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn every_form_of_an_image_is_unpacked_for_the_platform_that_is_asked_for() {
    let registry = Registry::start().await;
    let linux = |architecture: &str| tool(&format!("linux/{architecture}"), &format!("linux {architecture}"));
    publish(&registry, "deps/linux", &index(&[linux("arm64"), linux("amd64")]));
    publish(&registry, "deps/mac", &index(&[linux("arm64"), tool("darwin/arm64", "darwin")]));
    publish(&registry, "deps/bare", &tool("linux/s390x", "bare"));
    for (name, platform, content) in [
        ("linux", "linux/amd64", "linux amd64"),
        ("linux", "darwin/arm64", "linux arm64"),
        ("mac", "darwin/arm64", "darwin"),
        ("mac", "linux/arm64", "linux arm64"),
        ("bare", "darwin/arm64", "bare"),
    ] {
        let place = Place::new();
        let output =
            unpack(&format!("{}/deps/{name}", registry.host()), &place.folder(), &["--platform", platform]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((place.read("bin/tool").as_str(), place.read("share/note").as_str()), (content, "second layer"));
        assert!(!place.folder().join("old").exists() && !place.folder().join(".wh.old").exists());
    }
    let place = Place::new();
    let refused =
        unpack(&format!("{}/deps/mac", registry.host()), &place.folder(), &["--platform", "linux/s390x"]).await;
    assert!(
        error(&refused).contains("no matching manifest for linux/s390x; the image is for linux/arm64, darwin/arm64")
    );
}

#[tokio::test]
async fn what_is_refused_leaves_the_folder_empty() {
    let registry = Registry::start().await;
    let hostile = tar(&[("fine", b"fine"), ("a/.wh...", b"")]);
    let fine = (tar(&[("first", b"first")]), Packing::Plain);
    publish(&registry, "hostile", &image("linux/amd64", ImageConfig::default(), &[fine, (hostile, Packing::Gzip)]));
    publish(&registry, "large", &tool("linux/amd64", &"large".repeat(5000)));
    let name = |name: &str| format!("{}/{name}", registry.host());
    let place = Place::new();
    let said = error(&unpack(&name("hostile"), &place.folder(), &[]).await);
    assert!(said.contains("invalid entry name \"a/.wh...\"") && place.is_empty(), "{said}");
    let said = error(&unpack(&name("large"), &place.folder(), &["--max-size", "20k"]).await);
    assert!(said.contains("larger than is allowed") && place.is_empty(), "{said}");
    let said = error(&unpack(&name("none"), &place.folder(), &[]).await);
    assert!(said.contains("manifest unknown") && place.is_empty(), "{said}");
    fs::write(place.folder().join("mine"), "mine").unwrap();
    let said = error(&unpack(&name("large"), &place.folder(), &[]).await);
    assert!(said.contains("is not empty") && place.read("mine") == "mine", "{said}");
}

#[tokio::test]
async fn a_registry_that_wants_a_password_gets_that_of_the_file() {
    let registry = Registry::start().await;
    publish(&registry, "private", &tool("linux/amd64", "private"));
    registry.guard(Guard::Basic("dTpw".to_owned()));
    let (name, place) = (format!("{}/private", registry.host()), Place::new());
    let said = error(&unpack(&name, &place.folder(), &[]).await);
    assert!(said.contains("no basic auth credentials"), "{said}");
    let password = place.0.path().join("password");
    fs::write(&password, "p\n").unwrap();
    let flags = ["--username", "u", "--password-file", password.to_str().unwrap()];
    let output = unpack(&name, &place.folder(), &flags).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(place.read("bin/tool"), "private");
}
