//! A server that believes what it is sent: under the daemon's limit it dies of what the daemon refuses, so that a bomb is one.

use std::{
    env,
    hint::black_box,
    io::{Read as _, Write as _, stdin},
    process::{Command, Stdio},
};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::{bodies, fort};

/// Says to the process in which the server is what it is sent.
const KIND: &str = "NAIVE_SERVER_OF";

/// Whether such a server dies of a bomb: `json`, sent by as many clients as to the daemon, or `tar` in gzip.
pub fn dies_of(kind: &str, bomb: &[u8]) -> bool {
    let limit = format!("--data={}", fort::MEMORY);
    let mut server = Command::new("prlimit")
        .args([&limit, "--core=0"])
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "bombs::naive::it_takes_what_comes", "--ignored", "--test-threads=1"])
        .env(KIND, kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prlimit runs");
    let _it_may_die_meanwhile = server.stdin.take().expect("a pipe").write_all(bomb);
    !server.wait().expect("a child").success()
}

#[test]
#[ignore = "a server of its own, which `dies_of` starts"]
fn it_takes_what_comes() {
    let Ok(kind) = env::var(KIND) else { return };
    let mut sent = Vec::new();
    stdin().read_to_end(&mut sent).unwrap();
    match kind.as_str() {
        "json" => drop(black_box(
            (0..bodies::AT_ONCE).map(|_| serde_json::from_slice(&sent)).collect::<Vec<Result<Value, _>>>(),
        )),
        "tar" => drop(black_box(MultiGzDecoder::new(sent.as_slice()).read_to_end(&mut Vec::new()).unwrap())),
        other => panic!("{other}"),
    }
}

/// What is no bomb it survives.
#[test]
fn a_naive_server_lives_of_what_is_usual() {
    assert!(!dies_of("json", br#"{"Image":"box","Labels":{"a":"b"}}"#));
}
