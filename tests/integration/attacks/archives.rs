//! Entries and links of tars that lead out of where they are unpacked: by a copy into a container, a context, `ADD`, an import, a load.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ringer::{
    backend::images::samples::{Packing, image},
    model::image::ImageConfig,
};
use serde_json::Value;
use tar::EntryType;

use crate::{
    jobs::Job,
    support::{
        daemon::{Daemon, http::Answer},
        images::docker_archive,
    },
};

/// What a file of the machine says that nobody may read or change.
const SECRET: &str = "a-secret-of-the-machine";

/// A folder of the machine with a file; below `/tmp`, so that a container has it if it is asked for by its path.
struct Victim(tempfile::TempDir);

impl Victim {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("victim-").tempdir_in("/tmp").unwrap();
        fs::write(folder.path().join("secret"), SECRET).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn is_untouched(&self) -> bool {
        let names: Vec<_> = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names == ["secret"] && fs::read_to_string(self.path().join("secret")).unwrap() == SECRET
    }
}

/// An archive; names are as they stand, which the tar crate would refuse.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, said) in entries {
        let mut header = tar::Header::new_gnu();
        let content = if *kind == EntryType::Regular { said.as_bytes() } else { b"" };
        let link = if *kind == EntryType::Regular { "" } else { said };
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The ways out, each with a name.
fn escapes(victim: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let (link, hard, file) = (EntryType::Symlink, EntryType::Link, EntryType::Regular);
    let (to, up) = (victim.display().to_string(), "../".repeat(12));
    let (secret, above) = (format!("{to}/secret"), format!("{up}{}", to.trim_start_matches('/')));
    vec![
        ("..", archive(&[(&format!("{above}/new"), file, "evil")])),
        ("from the root", archive(&[(&format!("{to}/new"), file, "evil")])),
        ("by a link", archive(&[("out", link, &to), ("out/new", file, "evil")])),
        ("by a link upwards", archive(&[("out", link, &above), ("out/secret", file, "evil")])),
        ("by two links", archive(&[("a", link, ".."), ("a/b", link, &to), ("a/b/new", file, "evil")])),
        ("by a hard link", archive(&[("hard", hard, &secret), ("hard", file, "evil")])),
        ("by a hard link upwards", archive(&[("hard", hard, &format!("{above}/secret"))])),
        ("by a hard link behind a link", archive(&[("out", link, &to), ("hard", hard, "out/secret")])),
    ]
}

/// Unpacks as one does who believes an archive.
fn naive(root: &Path, tar: &[u8]) {
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = root.join(PathBuf::from(String::from_utf8(entry.path_bytes().into_owned()).unwrap()));
        let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).unwrap());
        let _it_may_not_work = fs::create_dir_all(path.parent().unwrap());
        let _it_may_not_work = match (entry.header().entry_type(), link) {
            (EntryType::Symlink, Some(link)) => std::os::unix::fs::symlink(link, &path),
            (EntryType::Link, Some(link)) => fs::hard_link(root.join(link), &path),
            _ => fs::File::create(&path).and_then(|mut file| std::io::copy(&mut entry, &mut file).map(drop)),
        };
    }
}

/// Whether something below a folder says the secret, links of it aside.
fn says_the_secret(root: &Path) -> bool {
    let names = ["hard", "out/secret", "secret"];
    names.iter().any(|name| {
        let path = root.join(name);
        path.is_file() && !path.is_symlink() && fs::read_to_string(&path).is_ok_and(|text| text == SECRET)
    })
}

async fn send(job: &Job, path: &str, tar: &[u8]) -> Answer {
    let request = Request::builder().method(if path.contains("/archive?") { "PUT" } else { "POST" });
    let request = request.uri(path).header("content-type", "application/x-tar");
    job.client.whole(request.body(Full::from(Bytes::copy_from_slice(tar))).unwrap()).await
}

/// Sends a tar in every way in which one is taken.
async fn through_all_doors(job: &Job, containers: [&String; 2], tar: &[u8]) {
    for container in containers {
        send(job, &format!("/containers/{container}/archive?path=/"), tar).await;
        send(job, &format!("/containers/{container}/archive?path=/tmp"), tar).await;
    }
    send(job, "/images/create?fromSrc=-&repo=imported", tar).await;
    let dockerfile = archive(&[("Dockerfile", EntryType::Regular, "FROM box\nCOPY . /c\nADD inner.tar /c/\n")]);
    let mut context = tar::Builder::new(dockerfile[..dockerfile.len() - 1024].to_vec());
    let mut header = tar::Header::new_gnu();
    header.set_size(tar.len() as u64);
    header.set_mode(0o644);
    context.append_data(&mut header, "inner.tar", tar).unwrap();
    let context = context.into_inner().unwrap();
    send(job, "/build?t=added", &context).await;
    // The same entries in the context itself.
    send(job, "/build?t=built", &[&context[..context.len() - 1024], tar].concat()).await;
    let layers = [crate::support::boxes::rootfs(), tar.to_vec()].map(|layer| (Bytes::from(layer), Packing::Gzip));
    send(job, "/images/load", &docker_archive(&image("linux/amd64", ImageConfig::default(), &layers), "loaded:1"))
        .await;
}

/// What each of the doors has let in says the text, so that one that stays shut is seen.
async fn all_doors_open(job: &Job, containers: [&String; 2], text: &str) {
    for image in ["loaded:1", "added", "built"] {
        let seen = looks(job, image).await;
        assert!(seen.contains(text), "{image}: {seen}");
    }
    for container in containers {
        for path in ["/hard", "/tmp/hard"] {
            let answer = job.client.get(&format!("/containers/{container}/archive?path={path}")).await;
            assert!(answer.text().contains(text), "{path}: {}", answer.status);
        }
    }
    let kept = job.client.get("/images/imported/get").await;
    assert!(kept.status == 200 && kept.text().contains("hard"), "the import is an image with what was sent");
}

/// All that a container of an image sees of it.
async fn looks(job: &Job, image: &str) -> String {
    let script = "cat /hard /out/secret /c/hard /c/out/secret /tmp/victim-*/secret 2>/dev/null; true";
    let created = job.client.post(
        "/containers/create?name=looks",
        serde_json::json!({"Image": image, "Cmd": ["/bin/sh", "-c", script], "HostConfig": {"NetworkMode": "none"}}),
    );
    let created = created.await;
    if created.status != 201 {
        return created.text();
    }
    job.client.post("/containers/looks/start", Value::Null).await;
    let _code_of_a_shell_that_may_be_missing = job.client.post("/containers/looks/wait", Value::Null).await;
    let seen = job.client.get("/containers/looks/logs?stdout=1&stderr=1").await.text();
    job.client.remove("looks").await;
    seen
}

#[tokio::test]
async fn no_entry_of_a_tar_leads_out() {
    let daemon = Daemon::start().await;
    let job = Job::with_box(&daemon, &[]).await;
    let running = job.client.create("running", "sleep 1000", Value::Null).await;
    job.client.launch(&running).await;
    let stopped = job.client.create("stopped", "true", Value::Null).await;
    let victim = Victim::new();
    through_all_doors(&job, [&running, &stopped], &archive(&[("hard", EntryType::Regular, "nothing bad")])).await;
    all_doors_open(&job, [&running, &stopped], "nothing bad").await;
    for (name, tar) in escapes(victim.path()) {
        let (prey, folder) = (Victim::new(), tempfile::tempdir_in("/tmp").unwrap());
        let same = escapes(prey.path()).into_iter().find(|(other, _)| *other == name).unwrap().1;
        let root = folder.path().join("root");
        naive(&root, &same);
        assert!(!prey.is_untouched() || says_the_secret(&root), "{name} leads nowhere for anybody");

        through_all_doors(&job, [&running, &stopped], &tar).await;
        assert!(victim.is_untouched(), "{name}");
        for image in ["loaded:1", "added", "built"] {
            let seen = looks(&job, image).await;
            assert!(!seen.contains(SECRET), "{name}: {image}: {seen}");
            job.client.delete(&format!("/images/{image}?force=1")).await;
        }
        for container in [&running, &stopped] {
            for path in ["/hard", "/tmp/hard", "/out/secret", "/tmp/out/secret"] {
                let answer = job.client.get(&format!("/containers/{container}/archive?path={path}")).await;
                assert!(!answer.text().contains(SECRET), "{name}: {path}");
            }
        }
        assert!(victim.is_untouched(), "{name}, by a start");
    }
    job.remove(&daemon);
}
