//! What is mounted below a folder where this process sees it, such as a killed program has left it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{UnmountFlags, unmount},
};
use tracing::warn;

/// Threads that unmount.
const UNMOUNTING: usize = 8;

/// Where something is mounted at the folder or below it, in the order in which it was mounted.
pub fn mounted_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescaped(point)));
    points.filter(|point| point.starts_with(folder)).collect()
}

/// Unmounts all of it, what was mounted last first. Goes on after failures: the log names what stays, and `whose` left it.
pub fn unmount_below(folder: &Path, whose: &str) {
    let points = mounted_below(folder);
    // Each waits for the kernel for 10 to 30 ms.
    std::thread::scope(|scope| {
        for part in points.chunks(points.len().div_ceil(UNMOUNTING).max(1)) {
            scope.spawn(move || part.iter().rev().for_each(|at| unmount_found(at, whose)));
        }
    });
}

fn unmount_found(at: &Path, whose: &str) {
    match unmount(at, UnmountFlags::DETACH) {
        // It went with what it was mounted on.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => warn!("unmounting {}, which {whose} left: {error}", at.display()),
    }
}

/// The kernel writes blanks and the like as three octal digits.
fn unescaped(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
