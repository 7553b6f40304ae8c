//! The bench's table: medians of the first daemon, ratios of the others.

use std::fmt::Write as _;
use std::time::Duration;

use super::Times;
use crate::document::{machine, version};
use crate::report::aligned;
use crate::socket::Socket;

/// The table as markdown, with what ran above it and the memory below it.
pub fn markdown(sockets: &[Socket], times: &Times, rounds: usize) -> String {
    let mut text = String::new();
    for socket in sockets {
        let version = socket.buildctl.as_deref().map_or_else(|| version(socket), super::buildkit::version);
        let _ = writeln!(text, "- {}: {version}", socket.name);
    }
    let _ = writeln!(text, "- {}, {rounds} rounds, interleaved\n", machine());

    let mut header = vec!["workload".to_owned(), "n".to_owned(), format!("{}: median (min), ms", sockets[0].name)];
    header.extend(sockets[1..].iter().map(|socket| format!("{}: ratio", socket.name)));
    let mut lines = vec![header];
    lines.extend(times.iter().map(|((_, _, name), times)| line(name, times)));
    text.push_str(&aligned(&lines));

    let memory: Vec<_> = sockets.iter().filter_map(memory).collect();
    if !memory.is_empty() {
        let _ = write!(text, "\nResident memory at the end: {}.\n", memory.join("; "));
    }
    text
}

fn line(name: &str, times: &[Option<Vec<Duration>>]) -> Vec<String> {
    let taken = times[0].as_deref().unwrap_or_default();
    let (first, min) = (median(taken), taken.iter().min().copied().unwrap_or_default());
    let mut cells =
        vec![name.to_owned(), taken.len().to_string(), format!("{} ({})", milliseconds(first), milliseconds(min))];
    cells.extend(times[1..].iter().map(|times| match times {
        None => String::new(),
        Some(times) if times.is_empty() => "failed".to_owned(),
        Some(_) if first.is_zero() => "-".to_owned(),
        Some(times) => format!("{:.2}", median(times).as_secs_f64() / first.as_secs_f64()),
    }));
    cells
}

/// The one in the middle.
pub fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// For people.
pub fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.2}") } else { format!("{milliseconds:.0}") }
}

/// The daemon's own memory and that of the containerd below it, where the socket names the daemon's process.
fn memory(socket: &Socket) -> Option<String> {
    let pid = socket.netns?;
    let mut parts = vec![format!("{} {} MiB", socket.name, resident(pid)? / 1024)];
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    // A child is listed under the thread that started it.
    let children: String =
        threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok()).collect();
    for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        if name.trim() == "containerd" {
            parts.push(format!("its containerd {} MiB", resident(child)? / 1024));
        }
    }
    Some(parts.join(", "))
}

/// KiB of memory that a process has.
pub fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_medians() {
        let of = |times: &[u64]| Some(times.iter().map(|time| Duration::from_millis(*time)).collect::<Vec<_>>());
        assert_eq!(line("x", &[of(&[30, 10, 20]), of(&[5, 100, 10])]), ["x", "3", "20 (10)", "0.50"]);
    }

    #[test]
    fn a_daemon_that_failed_has_no_ratio_and_one_that_was_not_asked_has_nothing() {
        let cells = line("x", &[Some(vec![Duration::from_millis(1)]), Some(vec![]), None]);
        assert_eq!(cells[3..], ["failed", ""]);
    }
}
