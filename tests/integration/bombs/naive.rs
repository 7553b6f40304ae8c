//! A server that believes what it is sent: under the daemon's limit, and with a second of a processor, it dies of what the daemon refuses, so
//! that a bomb is one.

mod dockerfile;

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

/// Whether such a server dies of a bomb: `json`, sent by as many clients as to the daemon, `tar` in gzip, or a `dockerfile`.
pub fn dies_of(kind: &str, bomb: &[u8]) -> bool {
    dies_of_all(kind, [bomb])
}

/// The same of an answer that goes on and on.
pub fn dies_of_endless(piece: &[u8]) -> bool {
    dies_of_holding(piece, 2 * fort::MEMORY / piece.len())
}

/// The same of so many things that are held at once.
pub fn dies_of_holding(piece: &[u8], count: usize) -> bool {
    dies_of_all("held", std::iter::repeat_n(piece, count))
}

fn dies_of_all<'b>(kind: &str, pieces: impl IntoIterator<Item = &'b [u8]>) -> bool {
    let limit = format!("--data={}", fort::MEMORY);
    let mut server = Command::new("prlimit")
        .args([&limit, "--cpu=1", "--core=0"])
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "bombs::naive::it_takes_what_comes", "--ignored", "--test-threads=1"])
        .env(KIND, kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prlimit runs");
    let mut pipe = server.stdin.take().expect("a pipe");
    let _it_may_die_meanwhile = pieces.into_iter().try_for_each(|piece| pipe.write_all(piece));
    drop(pipe);
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
        "held" => drop(black_box(sent)),
        "dockerfile" => drop(black_box(dockerfile::read(&String::from_utf8(sent).unwrap()))),
        "tar" => drop(black_box(MultiGzDecoder::new(sent.as_slice()).read_to_end(&mut Vec::new()).unwrap())),
        other => panic!("{other}"),
    }
}

/// What is no bomb it survives.
#[test]
fn a_naive_server_lives_of_what_is_usual() {
    assert!(!dies_of("json", br#"{"Image":"box","Labels":{"a":"b"}}"#));
    assert!(!dies_of("dockerfile", b"FROM box\nENV A=a\nENV A=$A$A\nRUN echo $A\n"));
    assert!(!dies_of_holding(br#"{"schemaVersion":2}"#, 2));
}
