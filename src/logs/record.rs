//! The bytes of a record: header, line, length again. The length at both ends lets a reader walk either way;
//! a record that was torn by a crash does not pass the check at its end.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::model::output::OutputStream;

/// Bytes before the line: length (4), stream (1), unused (1), mark (2), nanoseconds since 1970 (8), little endian.
pub const HEADER: usize = 16;
/// Bytes after the line: its length once more.
pub const TRAILER: usize = 4;
/// Longest line in a record; longer ones are cut as dockerd cuts them. One more for the line feed.
pub const MAX_LINE: usize = 16 * 1024 + 1;
const MARK: u16 = 0x676c;

/// One line, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub stream: OutputStream,
    pub nanos: i64,
    /// With its line feed, unless it is a part or the end of an output that lacks one.
    pub line: &'a [u8],
}

/// Appends a record whose line is `head` followed by `tail`.
pub fn encode(into: &mut Vec<u8>, stream: OutputStream, nanos: i64, head: &[u8], tail: &[u8]) {
    let length = u32::try_from(head.len() + tail.len()).expect("lines are at most MAX_LINE").to_le_bytes();
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length);
    header[4] = stream as u8;
    header[6..8].copy_from_slice(&MARK.to_le_bytes());
    header[8..].copy_from_slice(&nanos.to_le_bytes());
    into.extend_from_slice(&header);
    into.extend_from_slice(head);
    into.extend_from_slice(tail);
    into.extend_from_slice(&length);
}

/// The record at the start of `bytes` and how many bytes it takes; `None` if it is not complete there.
pub fn decode(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let length = word(&header[..4])?;
    if length > MAX_LINE || header[6..8] != MARK.to_le_bytes() {
        return None;
    }
    let (line, rest) = rest.split_at_checked(length)?;
    if word(rest.get(..TRAILER)?)? != length {
        return None;
    }
    let stream = match header[4] {
        1 => OutputStream::Stdout,
        2 => OutputStream::Stderr,
        _ => return None,
    };
    let nanos = i64::from_le_bytes(header[8..].try_into().ok()?);
    Some((Record { stream, nanos, line }, HEADER + length + TRAILER))
}

/// Where the last record that ends at the end of `bytes` starts.
pub fn last_start(bytes: &[u8]) -> Option<usize> {
    let length = word(bytes.get(bytes.len().checked_sub(TRAILER)?..)?)?;
    let start = bytes.len().checked_sub(HEADER + length + TRAILER)?;
    decode(&bytes[start..])?;
    Some(start)
}

/// Bytes of `file` up to the end of its last whole record.
pub fn whole_length(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let longest = (HEADER + MAX_LINE + TRAILER) as u64;
    let from = length.saturating_sub(longest);
    let mut end = vec![0; usize::try_from(length - from).expect("at most one record")];
    file.read_exact_at(&mut end, from)?;
    if end.is_empty() || last_start(&end).is_some() {
        return Ok(length);
    }
    scan(file)
}

/// As [`whole_length`], by walking from the start: for files that end in the middle of a record.
fn scan(file: &File) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        let mut used = 0;
        while let Some((_, size)) = decode(&buffer[used..count]) {
            used += size;
        }
        if used == 0 {
            return Ok(offset);
        }
        offset += used as u64;
    }
}

fn word(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_found_from_both_ends() {
        let mut bytes = Vec::new();
        encode(&mut bytes, OutputStream::Stdout, 7, b"", b"one\n");
        let first = bytes.len();
        encode(&mut bytes, OutputStream::Stderr, -8, b"tw", b"o");
        let (record, size) = decode(&bytes).unwrap();
        assert_eq!((record.line, record.nanos, size), (&b"one\n"[..], 7, first));
        let (record, _) = decode(&bytes[size..]).unwrap();
        assert_eq!((record.line, record.stream), (&b"two"[..], OutputStream::Stderr));
        assert_eq!(last_start(&bytes), Some(first));
    }

    #[test]
    fn torn_record_is_none() {
        let mut bytes = Vec::new();
        encode(&mut bytes, OutputStream::Stdout, 7, b"", b"one\n");
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None);
            assert_eq!(last_start(&bytes[..cut]), None);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut good = Vec::new();
        encode(&mut good, OutputStream::Stdout, 1, b"one", b"\n");
        encode(&mut good, OutputStream::Stderr, i64::MAX, b"", b"two");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        crate::model::fuzz::each(&[&good], |input| {
            let mut rest = input;
            while let Some((record, length)) = decode(rest) {
                assert!(record.line.len() <= rest.len());
                rest = &rest[length..];
            }
            assert!(last_start(input).is_none_or(|start| start < input.len()));
            std::fs::write(&path, input).unwrap();
            assert!(whole_length(&File::open(&path).unwrap()).unwrap() <= input.len() as u64);
        });
    }
}
