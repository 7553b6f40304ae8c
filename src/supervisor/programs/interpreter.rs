//! By what a program is started that is put into an image of somebody else's: the shell of its script, or the loader of its library.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Of a file, where its first line and the headers of its program are.
const HEAD: u64 = 64 << 10;

/// A program's header that names its loader (`PT_INTERP` of elf(5)).
const LOADER: u32 = 3;

/// The path of what starts a file; none of one that starts by itself, or is not there.
pub fn interpreter_of(file: &Path) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    match File::open(file) {
        Ok(file) => drop(file.take(HEAD).read_to_end(&mut head)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let named = if let Some(line) = head.strip_prefix(b"#!") { shell_in(line) } else { loader_in(&head) };
    Ok(named.map(|path| String::from_utf8_lossy(path).into_owned()))
}

fn shell_in(line: &[u8]) -> Option<&[u8]> {
    line.split(|&byte| byte == b'\n').next()?.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())
}

/// Of a program of 64 bits whose numbers have their smallest byte first.
fn loader_in(head: &[u8]) -> Option<&[u8]> {
    head.strip_prefix(b"\x7fELF\x02\x01")?;
    let (first, size, count) = (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?);
    let at = |header: usize| first.checked_add(header.checked_mul(size)?);
    let is_loader = |at: &usize| number(head, *at, 4) == usize::try_from(LOADER).ok();
    let header = (0..count).filter_map(at).find(is_loader)?;
    let (from, length) = (number(head, header.checked_add(8)?, 8)?, number(head, header.checked_add(32)?, 8)?);
    head.get(from..from.checked_add(length)?)?.strip_suffix(b"\0")
}

fn number(head: &[u8], at: usize, bytes: usize) -> Option<usize> {
    let bytes = head.get(at..at.checked_add(bytes)?)?;
    usize::try_from(bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_and_loaders_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let of = |content: &[u8]| {
            std::fs::write(folder.path().join("file"), content).unwrap();
            interpreter_of(&folder.path().join("file")).unwrap()
        };
        assert_eq!(of(b"#!/bin/bash\nexit 0\n").as_deref(), Some("/bin/bash"));
        assert_eq!(of(b"#! /usr/bin/env bash").as_deref(), Some("/usr/bin/env"));
        assert_eq!(of(b"#!"), None);
        assert_eq!(of(b"exit 0\n"), None);
        assert_eq!(interpreter_of(&folder.path().join("none")).unwrap(), None);
        let own = interpreter_of(Path::new("/proc/self/exe")).unwrap().unwrap();
        assert!(Path::new(&own).exists() && own.contains("ld-"), "{own}");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        for length in 0..200 {
            loader_in(&own[..length]);
            let mut changed = own[..400].to_vec();
            changed[length] = 0xff;
            loader_in(&changed);
        }
    }
}
