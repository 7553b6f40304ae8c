//! Files that say who works here: the lock on the data root and the pid file.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use ringer::model::{Error, Result, error::Context};
use rustix::fs::{FlockOperation, flock};

/// One daemon per data root. The kernel frees the lock with the process, so a killed daemon leaves none behind.
pub struct DataRootLock {
    _file: File,
}

impl DataRootLock {
    /// Makes the folder if need be and locks it. If another daemon has it, the error says which one.
    pub fn take(data_root: &Path, hosts: &[String]) -> Result<Self> {
        // Images and volumes hold other people's files: nobody but root may walk in.
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o710);
        builder.create(data_root).context(format!("making {}", data_root.display()))?;
        let path = data_root.join("lock");
        let context = || format!("locking {}", path.display());
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).context(context())?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let _unreadable_is_unknown = file.read_to_string(&mut holder);
            return Err(in_use(data_root, holder.trim()));
        }
        file.set_len(0).context(context())?;
        writeln!(file, "pid {}, {}", std::process::id(), hosts.join(", ")).context(context())?;
        Ok(Self { _file: file })
    }
}

fn in_use(data_root: &Path, holder: &str) -> Error {
    let holder = if holder.is_empty() { "unknown" } else { holder };
    Error::conflict(format!("the data root {} is in use by another ringer ({holder})", data_root.display()))
}

/// The pid file, removed with this.
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes it, unless the process that an existing one names is alive.
    pub fn write(path: &Path) -> Result<Self> {
        if let Some(pid) = living(path) {
            return Err(Error::conflict(format!("process {pid} named by {} is still running", path.display())));
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).context(format!("making {}", folder.display()))?;
        }
        fs::write(path, std::process::id().to_string()).context(format!("writing {}", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.path);
    }
}

fn living(pidfile: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(pidfile).ok()?.trim().parse().ok()?;
    (pid != std::process::id() && is_alive(pid) && is_ringer(pid)).then_some(pid)
}

/// A process that was killed keeps its number and name until its parent has asked how it ended, which the first
/// process of a container may never do. It has no program any more.
fn is_alive(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

/// Process numbers are used again: after a reboot the file may name anyone.
fn is_ringer(pid: u32) -> bool {
    let ours = fs::read("/proc/self/comm");
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|theirs| ours.is_ok_and(|ours| ours == theirs))
}

/// Takes a folder away with all folders in it, as far as there are no files in them.
pub fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _still_used = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_daemon_is_told_who_holds_the_data_root() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DataRootLock::take(folder.path(), &["unix:///a.sock".to_owned()]).unwrap();
        let Err(error) = DataRootLock::take(folder.path(), &[]) else { panic!("the lock was given twice") };
        assert!(error.message().contains(&format!("pid {}, unix:///a.sock", std::process::id())), "{error}");
    }

    #[test]
    fn killed_process_that_nobody_asked_for_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while is_alive(child.id()) {
            assert!(std::time::Instant::now() < deadline, "a killed process counts as alive");
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn only_empty_folders_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        fs::create_dir_all(run.join("a/b")).unwrap();
        fs::create_dir_all(run.join("c")).unwrap();
        fs::write(run.join("c/file"), "").unwrap();
        remove_empty(&run);
        assert!(!run.join("a").exists() && run.join("c/file").exists());
    }

    #[test]
    fn stale_pid_file_is_replaced_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/ringer.pid");
        fs::create_dir_all(folder.path().join("run")).unwrap();
        fs::write(&path, "4194305").unwrap();
        let pidfile = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(pidfile);
        assert!(!path.exists());
    }
}
