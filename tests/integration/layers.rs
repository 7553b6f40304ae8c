//! What containers leave in images: random edits in a real container, committed by our own path and unpacked by
//! containerd, several layers deep. What the container saw and what the image holds is compared as exports.

use std::{collections::BTreeMap, io::Read, time::SystemTime};

use serde_json::{Value, json};

use crate::support::{boxes::IMAGE, daemon::Daemon};

/// Layers of one run; `RINGER_TEST_RUSH` is a factor.
const LAYERS: u64 = 4;

/// Edits that make a layer.
const EDITS: usize = 25;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).expect("below a usize")
    }

    /// One of few paths, so that edits meet each other.
    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        let names = (0..depth).map(|_| ["a", "b", "c", ".h"][self.below(4)]);
        format!("/t/{}", names.collect::<Vec<_>>().join("/"))
    }

    /// A command of busybox's shell. Much of it cannot be done where it falls; that is no matter.
    fn edit(&mut self) -> String {
        let (path, other) = (self.path(), self.path());
        match self.below(12) {
            0 | 1 => format!("mkdir -p {path}"),
            2 => format!("echo {} > {path}", self.below(1000)),
            3 => format!("rm -rf {path}"),
            // A folder made anew, with names that it had: overlayfs marks it, and nothing that is in it.
            4 | 5 => format!("rm -rf {path}; mkdir -p {path}/a/b; echo new > {path}/c"),
            6 => format!("rm -rf {path}; ln -s ../a {path}"),
            7 => format!("rm -rf {path}; echo in place > {path}"),
            8 => format!("ln {path} {other}"),
            9 => format!("mv {path} {other}"),
            10 => format!("chmod {} {path}", ["600", "4711", "755"][self.below(3)]),
            _ => format!("chown -h {}:7 {path}", self.below(3)),
        }
    }
}

/// What an export says of the files below `/t`.
async fn exported(daemon: &Daemon, container: &str) -> BTreeMap<String, String> {
    let answer = daemon.client().get(&format!("/containers/{container}/export")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut archive = tar::Archive::new(answer.body.as_ref());
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        if !path.starts_with("t/") {
            continue;
        }
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        let header = entry.header();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
        let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
        let (mode, mtime) = (header.mode().unwrap(), header.mtime().unwrap());
        found.insert(path, format!("{:?} {mode:o} {uid}:{gid} @{mtime} {content:?} {link}", header.entry_type()));
    }
    found
}

#[tokio::test]
async fn images_hold_what_containers_saw() {
    let factor = std::env::var("RINGER_TEST_RUSH").ok().and_then(|rush| rush.parse().ok()).unwrap_or(1);
    let given = std::env::var("RINGER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let seed: u64 = given.unwrap_or_else(now);
    let mut dice = Dice(seed);
    let daemon = Daemon::with_box().await;
    let mut image = IMAGE.to_owned();
    for layer in 0..LAYERS * factor {
        let edits: Vec<String> = (0..EDITS).map(|_| dice.edit()).collect();
        let script = format!("busybox mkdir -p /bin /t; busybox --install -s /bin; {}; true", edits.join("; "));
        let id = daemon.create("editor", &script, json!({"Image": image})).await;
        daemon.launch(&id).await;
        assert_eq!(daemon.exit_code(&id).await, 0, "{}", daemon.output(&id).await);
        let saw = exported(&daemon, &id).await;
        let committed =
            daemon.client().post(&format!("/commit?container={id}&repo=layer&tag={layer}"), Value::Null).await;
        assert_eq!(committed.status, 201, "{}", committed.text());
        daemon.remove(&id).await;
        image = format!("layer:{layer}");
        let id = daemon.create("reader", "true", json!({"Image": image})).await;
        assert_eq!(
            exported(&daemon, &id).await,
            saw,
            "RINGER_TEST_SEED={seed}, layer {layer} of\n{}",
            edits.join("\n")
        );
        daemon.remove(&id).await;
    }
}
