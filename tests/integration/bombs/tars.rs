//! Tars whose records have no end, as containers, builds and loads meet them.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::bombs::{fort::Fort, naive};

/// What a record says of its size.
const RECORD: u64 = 2 << 30;

/// Bytes of one member of the gzip; all of them are the same.
const MEMBER: usize = 8 << 20;

/// Go's words.
const TOO_LONG: &str = "archive/tar: header field too long";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn header(kind: tar::EntryType, path: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// `before`, then a record of 2 GiB, in 2 MB of gzip.
pub fn bomb(before: &[u8], kind: tar::EntryType) -> Vec<u8> {
    let start = [before, &header(kind, "record", RECORD)].concat();
    let mut bomb = gzip(&start);
    let member = gzip(&vec![b'a'; MEMBER]);
    for _ in 0..RECORD / MEMBER as u64 {
        bomb.extend_from_slice(&member);
    }
    bomb.extend(gzip(&header(tar::EntryType::Regular, "end", 0)));
    bomb
}

#[tokio::test]
async fn records_without_end_are_refused_everywhere() {
    let fort = Fort::build().await;
    let id = fort.daemon().create("filled", "true", Value::Null).await;
    for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
        let bomb = Bytes::from(bomb(b"", kind));
        assert!(naive::dies_of("tar", &bomb), "{kind:?} is no bomb");
        let put = Request::put(format!("/containers/{id}/archive?path=/tmp")).body(Full::from(bomb.clone())).unwrap();
        let log = fort.log_length();
        let answer = fort.daemon().client().whole(put).await;
        assert_eq!((answer.status, answer.message().as_str()), (500, TOO_LONG), "{kind:?}");
        fort.stands("put", log).await;
        let answer = fort.send_tar("/build", bomb.clone()).await;
        assert_eq!((answer.status, answer.message().as_str()), (500, TOO_LONG), "{kind:?}");
        fort.stands("build", log).await;
        let answer = fort.send_tar("/images/load", bomb).await;
        assert!(answer.text().contains(TOO_LONG) && answer.body.len() < 4 << 10, "{}", answer.text());
        fort.stands("load", log).await;
    }
    fort.daemon().remove("filled").await;
    fort.runs_a_container().await;
}

#[tokio::test]
async fn archives_that_a_build_unpacks_have_bounds_too() {
    let fort = Fort::build().await;
    let hidden = bomb(&header(tar::EntryType::Regular, "first", 0), tar::EntryType::GNULongName);
    let dockerfile = "FROM box:latest\nADD bomb.tar.gz /x/\n";
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in [("Dockerfile", dockerfile.as_bytes()), ("bomb.tar.gz", &hidden)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).unwrap();
    }
    let log = fort.log_length();
    let answer = fort.send_tar("/build", tar.into_inner().unwrap()).await;
    let end = answer.text().lines().last().unwrap_or_default().to_owned();
    assert!(end.contains(TOO_LONG) && end.len() < 4 << 10, "{end}");
    fort.stands("ADD", log).await;
    fort.runs_a_container().await;
}
