//! The log as a whole: writers and readers on real files.

use std::{fs, io::Write, path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt;
use tempfile::TempDir;

use super::*;
use crate::model::{error::ErrorKind, output::OutputStream, time::Timestamp};

const ALL: ReadOptions = ReadOptions {
    stdout: true,
    stderr: true,
    follow: false,
    since: None,
    until: None,
    tail: None,
    timestamps: false,
    details: false,
    framed: false,
};

fn log(dir: &Path, options: &[(&str, &str)]) -> Arc<ContainerLog> {
    let config = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ContainerLog::new(dir, &LogConfig { kind: "json-file".to_owned(), config }, &Facts::default())
}

async fn read(log: &Arc<ContainerLog>, options: ReadOptions) -> String {
    let chunks: Vec<_> = log.read(options).unwrap().map(|chunk| chunk.unwrap()).collect().await;
    String::from_utf8(chunks.concat()).unwrap()
}

fn written(dir: &TempDir, chunks: &[(OutputStream, &str)]) -> Arc<ContainerLog> {
    let log = log(dir.path(), &[]);
    let mut writer = log.writer().unwrap();
    for (stream, chunk) in chunks {
        writer.write(*stream, chunk.as_bytes());
    }
    log
}

#[tokio::test]
async fn lines_come_back_framed_by_stream() {
    let dir = TempDir::new().unwrap();
    let log = written(&dir, &[(OutputStream::Stdout, "fooa\nb"), (OutputStream::Stderr, "err")]);
    let chunks: Vec<_> = log.read(ReadOptions { framed: true, ..ALL }).unwrap().collect().await;
    let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap().to_vec()).collect();
    // As dockerd 20.10 answered: a last line without line feed has none.
    assert_eq!(bytes, b"\x01\0\0\0\0\0\0\x05fooa\n\x01\0\0\0\0\0\0\x01b\x02\0\0\0\0\0\0\x03err");
}

#[tokio::test]
async fn one_stream_can_be_chosen() {
    let dir = TempDir::new().unwrap();
    let log =
        written(&dir, &[(OutputStream::Stdout, "a\n"), (OutputStream::Stderr, "b\n"), (OutputStream::Stdout, "c\n")]);
    assert_eq!(read(&log, ReadOptions { stderr: false, ..ALL }).await, "a\nc\n");
    assert_eq!(read(&log, ReadOptions { stdout: false, ..ALL }).await, "b\n");
}

#[tokio::test]
async fn line_is_put_together_from_chunks() {
    let dir = TempDir::new().unwrap();
    let log =
        written(&dir, &[(OutputStream::Stdout, "ab"), (OutputStream::Stderr, "x\n"), (OutputStream::Stdout, "cd\nef")]);
    assert_eq!(read(&log, ALL).await, "x\nabcd\nef");
}

/// Lengths as dockerd 20.10 answered them.
#[tokio::test]
async fn long_lines_are_cut_at_16_kib() {
    let dir = TempDir::new().unwrap();
    let text = format!("{}\n{}\n{}", "x".repeat(16384), "y".repeat(16385), "z".repeat(40000));
    let log = written(&dir, &[(OutputStream::Stdout, &text)]);
    let answer = read(&log, ReadOptions { timestamps: true, ..ALL }).await;
    let (x, rest) = answer.split_at(31 + 16384);
    assert!(x.ends_with('x') && rest.starts_with(&x[..31]) && rest[31..].starts_with('\n'));
    assert_eq!(answer.len(), text.len() + 7 * 31);
    let times: Vec<&str> = answer.split(['x', 'y', 'z', '\n']).filter(|part| !part.is_empty()).collect();
    assert_eq!(times.len(), 7);
    assert!(times[4..].iter().all(|time| *time == times[4]), "parts of a line carry one time");
}

#[tokio::test]
async fn tail_counts_lines_of_both_streams_over_all_files() {
    let dir = TempDir::new().unwrap();
    let log = log(dir.path(), &[("max-size", "100"), ("max-file", "4")]);
    let mut writer = log.writer().unwrap();
    for number in 0..30 {
        writer.write(OutputStream::Stdout, format!("line {number}\n").as_bytes());
    }
    drop(writer);
    assert_eq!(read(&log, ReadOptions { tail: Some(0), ..ALL }).await, "");
    assert_eq!(read(&log, ReadOptions { tail: Some(2), ..ALL }).await, "line 28\nline 29\n");
    let lines = read(&log, ReadOptions { tail: Some(10), ..ALL }).await;
    assert!(lines.starts_with("line 20\n") && lines.lines().count() == 10);
    let kept = read(&log, ALL).await;
    assert_eq!(read(&log, ReadOptions { tail: Some(1000), ..ALL }).await, kept);
    assert!(!kept.contains("line 5\n"), "only the newest files stay");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[tokio::test]
async fn since_and_until_choose_by_time() {
    let dir = TempDir::new().unwrap();
    let log = log(dir.path(), &[]);
    let mut writer = log.writer().unwrap();
    writer.write(OutputStream::Stdout, b"early\n");
    let between = Timestamp::now();
    writer.write(OutputStream::Stdout, b"late\n");
    drop(writer);
    assert_eq!(read(&log, ReadOptions { since: Some(between), ..ALL }).await, "late\n");
    assert_eq!(read(&log, ReadOptions { until: Some(between), ..ALL }).await, "early\n");
}

#[tokio::test]
async fn follower_sees_each_line_at_once_and_ends_with_the_run() {
    let dir = TempDir::new().unwrap();
    let log = log(dir.path(), &[("max-size", "60"), ("max-file", "2")]);
    let mut writer = log.writer().unwrap();
    let mut stream = log.read(ReadOptions { follow: true, ..ALL }).unwrap();
    for number in 0..20 {
        let line = format!("line {number}\n");
        writer.write(OutputStream::Stdout, line.as_bytes());
        assert_eq!(stream.next().await.unwrap().unwrap(), line);
    }
    writer.write(OutputStream::Stdout, b"no line feed");
    drop(writer);
    assert_eq!(stream.next().await.unwrap().unwrap(), "no line feed");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn follower_does_not_go_on_into_the_next_run() {
    let dir = TempDir::new().unwrap();
    let log = log(dir.path(), &[]);
    let mut first = log.writer().unwrap();
    first.write(OutputStream::Stdout, b"one\n");
    let stream = log.read(ReadOptions { follow: true, ..ALL }).unwrap();
    drop(first);
    let mut second = log.writer().unwrap();
    second.write(OutputStream::Stdout, b"two\n");
    let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap()).collect().await;
    assert_eq!(chunks.concat(), b"one\n");
}

#[tokio::test]
async fn follow_without_a_run_ends_at_once() {
    let dir = TempDir::new().unwrap();
    assert_eq!(read(&log(dir.path(), &[]), ReadOptions { follow: true, ..ALL }).await, "");
}

#[tokio::test]
async fn follow_ends_at_until_though_nothing_comes() {
    let dir = TempDir::new().unwrap();
    let log = log(dir.path(), &[]);
    let _writer = log.writer().unwrap();
    let soon = Timestamp::from_unix(Timestamp::now().unix(), 0);
    let reading = read(&log, ReadOptions { follow: true, until: Some(soon), ..ALL });
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap(), "");
}

#[tokio::test]
async fn log_goes_on_after_a_restart_and_a_torn_tail() {
    let dir = TempDir::new().unwrap();
    drop(written(&dir, &[(OutputStream::Stdout, "one\n")]));
    let mut torn = Vec::new();
    record::encode(&mut torn, OutputStream::Stdout, 1, b"", b"torn\n");
    let path = dir.path().join("container.log");
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&torn[..20]).unwrap();

    assert_eq!(read(&log(dir.path(), &[]), ALL).await, "one\n", "a reader alone passes over the torn record");
    let log = log(dir.path(), &[]);
    log.writer().unwrap().write(OutputStream::Stdout, b"two\n");
    assert_eq!(read(&log, ALL).await, "one\ntwo\n");
    assert_eq!(read(&log, ReadOptions { tail: Some(1), ..ALL }).await, "two\n");
}

#[tokio::test]
async fn what_is_no_whole_line_outlives_a_writer_that_dies() {
    let dir = TempDir::new().unwrap();
    let mut writer = log(dir.path(), &[]).writer().unwrap();
    writer.write(OutputStream::Stdout, b"whole\nbegun ");
    writer.write(OutputStream::Stderr, b"err whole\nerr begun");
    let long = "x".repeat(20_000);
    writer.write(OutputStream::Stdout, long.as_bytes());
    std::mem::forget(writer);
    let next = log(dir.path(), &[]);
    assert!(next.has_unfinished());
    let mut writer = next.writer().unwrap();
    writer.write(OutputStream::Stdout, b" done\n");
    writer.finish();
    let text = read(&next, ReadOptions { stderr: false, ..ALL }).await;
    assert_eq!(text, format!("whole\nbegun {long} done\n"));
    assert_eq!(read(&next, ReadOptions { stdout: false, ..ALL }).await, "err whole\nerr begun");
    assert!(!next.has_unfinished());
}

#[tokio::test]
async fn writer_goes_on_when_the_disk_is_full() {
    let dir = TempDir::new().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("container.log")).unwrap();
    let log = log(dir.path(), &[]);
    let mut writer = log.writer().unwrap();
    writer.write(OutputStream::Stdout, b"lost\n");
    writer.write(OutputStream::Stdout, b"lost too\n");
    drop(writer);
    assert_eq!(read(&log, ALL).await, "");
}

#[tokio::test]
async fn log_that_was_cut_from_outside_does_not_hang_readers() {
    let dir = TempDir::new().unwrap();
    let log = written(&dir, &[(OutputStream::Stdout, "one\n")]);
    fs::File::create(dir.path().join("container.log")).unwrap();
    assert_eq!(read(&log, ALL).await, "");
}

#[tokio::test]
async fn many_lines_come_back_whole() {
    let dir = TempDir::new().unwrap();
    let log = log(dir.path(), &[]);
    let mut writer = log.writer().unwrap();
    let text: String = (0..50_000).map(|number| format!("{number:099}\n")).collect();
    for chunk in text.as_bytes().chunks(65_521) {
        writer.write(OutputStream::Stdout, chunk);
    }
    drop(writer);
    assert_eq!(read(&log, ALL).await, text);
    assert_eq!(read(&log, ReadOptions { tail: Some(20_000), ..ALL }).await, text[30_000 * 100..]);
}

#[test]
fn driver_none_keeps_nothing_and_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    let config = LogConfig { kind: "none".to_owned(), ..LogConfig::default() };
    let log = ContainerLog::new(dir.path().join("log"), &config, &Facts::default());
    log.writer().unwrap().write(OutputStream::Stdout, b"x\n");
    assert_eq!(log.read(ALL).err().unwrap().kind(), ErrorKind::NotImplemented);
    assert!(!dir.path().join("log").exists() && log.path().is_empty());
}
