//! What a repository's first job downloads for its build, and its later ones do not: real cargo and rustc in jobs, with crates from a
//! server on loopback that counts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::cli::{run_in, stderr};
use crate::support::{
    boxes,
    daemon::Daemon,
    place::{self, Place},
    registry::Registry,
};

/// Where crates are served, at [`place::ADDRESS`].
const PORT: u16 = 5002;

/// What the project is made of: crates of ours that need no others.
const CRATES: [&str; 2] = ["cfg-if", "itoa"];

/// A registry of crates, with those of this machine's own cache.
struct Crates {
    server: Registry,
    sizes: BTreeMap<String, usize>,
}

impl Crates {
    /// Writes the project's lock file, too.
    fn start(place: &Place, project: &Path) -> Self {
        let server = Registry::serve_at(place.listener(&format!("{}:{PORT}", place::ADDRESS)));
        let mut crates = Self { server, sizes: BTreeMap::new() };
        crates
            .offer("/index/config.json", json!({"dl": format!("http://{}:{PORT}/crates", place::ADDRESS)}).to_string());
        let mut lock = "version = 4\n\n[[package]]\nname = \"project\"\nversion = \"0.1.0\"\n".to_owned();
        lock += &format!("dependencies = {CRATES:?}\n");
        for name in CRATES {
            let version = version_of(name);
            let content = fs::read(cached(name, &version)).expect("a file of cargo's cache");
            let sum = format!("{:x}", Sha256::digest(&content));
            let line =
                json!({"name": name, "vers": version, "deps": [], "cksum": sum, "features": {}, "yanked": false});
            crates.offer(&format!("/index/{}/{}/{name}", &name[..2], &name[2..4]), format!("{line}\n"));
            crates.offer(&format!("/crates/{name}/{version}/download"), content);
            let source = "registry+https://github.com/rust-lang/crates.io-index";
            lock += &format!(
                "\n[[package]]\nname = {name:?}\nversion = {version:?}\nsource = {source:?}\nchecksum = {sum:?}\n"
            );
        }
        fs::write(project.join("Cargo.lock"), lock).expect("a file of ours");
        crates
    }

    fn offer(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let content = content.into();
        self.server.put_page(path, "application/octet-stream", &content);
        self.sizes.insert(path.to_owned(), content.len());
    }

    /// Requests and bytes until now.
    fn served(&self) -> (usize, usize) {
        let log = self.server.log();
        let paths = log.iter().filter_map(|line| line.split(' ').nth(1));
        (log.len(), paths.filter_map(|path| self.sizes.get(path)).sum())
    }
}

/// As our own lock file has it.
fn version_of(name: &str) -> String {
    let lock = include_str!("../../../Cargo.lock");
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).expect("it is ours");
    rest.chars().take_while(|c| *c != '"').collect()
}

fn cached(name: &str, version: &str) -> PathBuf {
    let home = std::env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cargo"), PathBuf::from);
    let caches = fs::read_dir(home.join("registry/cache")).expect("what we are built of").flatten();
    let mut files = caches.map(|cache| cache.path().join(format!("{name}-{version}.crate")));
    files.find(|file| file.exists()).expect("what we are built of")
}

fn shell(script: &str, folder: &Path) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().expect("sh is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A folder with the toolchain and a project, and an image with what the toolchain is linked to.
fn prepare(daemon: &Daemon, folder: &Path) {
    fs::write(daemon.folder().join("files.tar"), boxes::rootfs()).expect("a file of ours");
    let (image, root) = (daemon.folder().join("box.tar"), daemon.folder().join("files"));
    let pack = format!(
        "mkdir {0}; tar -xf {0}.tar -C {0}; sysroot=$(rustc --print sysroot)\n\
         for program in cargo rustc; do ldd \"$sysroot/bin/$program\" | grep -o ' /[^ ]*\\|^.*/ld-linux[^ ]*' | grep -vF \"$sysroot\" |\n\
             while read -r library; do [ -e \"{0}/$library\" ] || cp -L --parents \"$library\" {0}; done; done\n\
         tar -C {0} -cf {1} .\n\
         mkdir -p rust/bin\n\
         for part in bin/cargo bin/rustc lib; do cp -al \"$sysroot/$part\" rust/$part || cp -a \"$sysroot/$part\" rust/$part; done",
        root.display(),
        image.display()
    );
    shell(&pack, folder);
    let project = folder.join("project");
    fs::create_dir_all(project.join("src")).expect("a folder of ours");
    fs::create_dir_all(project.join(".cargo")).expect("a folder of ours");
    let dependencies: String = CRATES.iter().map(|name| format!("{name} = \"1\"\n")).collect();
    let manifest = format!(
        "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n{dependencies}"
    );
    let source = format!(
        "[source.crates-io]\nreplace-with = \"near\"\n[source.near]\nregistry = \"sparse+http://{}:{PORT}/index/\"\n",
        place::ADDRESS
    );
    let code = "pub fn number(n: u8) -> String { cfg_if::cfg_if! { if #[cfg(unix)] { itoa::Buffer::new().format(n).into() } else { String::new() } } }\n";
    for (path, text) in [("Cargo.toml", manifest.as_str()), (".cargo/config.toml", &source), ("src/lib.rs", code)] {
        fs::write(project.join(path), text).expect("a file of ours");
    }
}

const BUILD: &str = "docker run --rm -v cargo:/cargo -v $PWD:/src:ro -e CARGO_HOME=/cargo -e HOME=/tmp \
                     -e PATH=/src/rust/bin:/bin box sh -c \
                     'cp -r /src/project /tmp/project && cd /tmp/project && cargo build --locked 2>&1 && ls target/debug/libproject.rlib'";

#[tokio::test(flavor = "multi_thread")]
async fn a_repositorys_later_jobs_download_nothing_that_its_first_has() {
    let place = Place::start();
    let daemon = Daemon::start_at(&place, &[&format!("--job-allow=tcp:{}:{PORT}", place::ADDRESS)]).await;
    let folder = Daemon::folder_of_its_own();
    prepare(&daemon, folder.path());
    let crates = Crates::start(&place, &folder.path().join("project"));
    let build = |key: &str| -> Duration {
        let begun = Instant::now();
        let output = tokio::task::block_in_place(|| {
            run_in(&daemon, folder.path(), &["--cache-key", key, "--volume-cache", "cargo"], BUILD)
        });
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        assert!(output.status.success() && said.contains("libproject.rlib"), "{said}\n{}", daemon.log());
        begun.elapsed()
    };
    let first = build("org/a");
    let (requests, bytes) = crates.served();
    assert!(requests >= 5 && bytes > 10_000, "an index and crates: {requests} requests, {bytes} bytes");
    let second = build("org/a");
    assert_eq!(crates.served(), (requests, bytes), "all of it is there");
    println!("first job: {requests} requests, {bytes} bytes, {first:.1?}; second: 0 requests, 0 bytes, {second:.1?}");

    build("org/b");
    assert_eq!(crates.served(), (2 * requests, 2 * bytes), "another repository sees nothing of it");
    drop(crates);
    build("org/a");
}
