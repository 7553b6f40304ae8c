//! Finding programs and asking them for their versions.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use crate::model::{Error, Result, error::Context};

/// A program that takes longer to tell its version hangs.
const LIMIT: Duration = Duration::from_secs(10);

/// Where the programs of the system are, even if our `PATH` was cut short (a service's often is).
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Searches `PATH` and the system's folders.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = SYSTEM_FOLDERS.iter().map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.is_absolute() && fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Version and commit as the program tells them.
pub(super) async fn version_of(path: &Path) -> Result<(String, String)> {
    let mut command = Command::new(path);
    crate::descriptors::give_back(command.arg("--version").kill_on_drop(true).as_std_mut());
    let output = tokio::time::timeout(LIMIT, command.output())
        .await
        .map_err(|_| Error::system(format!("{} --version hangs", path.display())))?
        .context(format_args!("running {} --version", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| Error::system(format!("unknown answer to --version: {text:?}")))
}

/// `runc version 1.1.5+ds1` and `commit: …` on a line of its own; tini has both in one: `tini version 0.19.0 - git.de40ad0`.
fn parse_version(text: &str) -> Option<(String, String)> {
    let first = text.lines().next()?;
    let version = first.split_once(" version ")?.1.split_whitespace().next()?;
    let line = text.lines().find_map(|line| line.strip_prefix("commit: "));
    let commit = line.or_else(|| first.split_once("git.").map(|(_, commit)| commit)).unwrap_or_default();
    Some((version.to_owned(), commit.trim().to_owned()))
}

/// Whether an ELF program runs without a loader, that is, in any image.
pub(super) fn is_static(path: &Path) -> bool {
    fs::read(path).ok().and_then(|bytes| has_interpreter(&bytes)) == Some(false)
}

/// Looks for a `PT_INTERP` among the program headers of a 64-bit little-endian ELF file.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?) as usize);
    let offset = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (half(54)?, half(56)?);
    let mut kinds = (0..count).map(|index| {
        let at = offset.checked_add(index.checked_mul(size)?)?;
        Some(u32::from_le_bytes(elf.get(at..at.checked_add(4)?)?.try_into().ok()?))
    });
    Some(kinds.any(|kind| kind == Some(PT_INTERP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_runc_crun_and_tini_are_understood() {
        let parsed = |text| parse_version(text).unwrap();
        let pair = |version: &str, commit: &str| (version.to_owned(), commit.to_owned());
        assert_eq!(parsed("runc version 1.1.5+ds1\ncommit: abc-1\nspec: 1.0.2-dev\n"), pair("1.1.5+ds1", "abc-1"));
        assert_eq!(parsed("crun version 1.8.1\ncommit: f8a0\nrundir: /run/crun\n"), pair("1.8.1", "f8a0"));
        assert_eq!(parsed("tini version 0.19.0 - git.de40ad0\n"), pair("0.19.0", "de40ad0"));
        assert_eq!(parsed("tini version 0.19.0\n"), pair("0.19.0", ""));
        assert_eq!(parse_version("hello"), None);
    }

    #[test]
    fn our_own_test_program_is_not_static() {
        let program = env::current_exe().unwrap();
        assert_eq!(has_interpreter(&fs::read(program).unwrap()), Some(true));
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
    }
}
