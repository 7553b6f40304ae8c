//! Writes what a run found into a document, between two marks, so that the text around it stays.

use std::path::Path;

use anyhow::Context;

use crate::http::{Body, Client};
use crate::report::Report;
use crate::socket::Socket;

/// How the reason begins why a policy's refusal is right.
pub const REFUSED: &str = "refused by rule ";

/// Puts a run's compatibility table into the file, that of a job's socket between marks of its own: one for each policy. Of a policy that
/// refuses something only that is told, since the rest is as under `trusted`.
pub fn write(path: &Path, report: &Report, sockets: &[Socket]) -> anyhow::Result<()> {
    let daemons: String = sockets.iter().map(|socket| format!("- {}: {}\n", socket.name, version(socket))).collect();
    let policy = sockets.iter().find_map(|socket| socket.job.as_deref());
    let is_told = |line: &&String| policy.is_none_or(|policy| policy == "trusted") || line.contains(REFUSED);
    let deviations: String =
        report.deviations(sockets).iter().filter(is_told).map(|line| format!("- {line}\n")).collect();
    let text = format!("{daemons}- {}\n\n{}\n{deviations}", machine(), report.table(sockets));
    let mark = policy.map_or("compat".to_owned(), |policy| format!("compat-of-jobs-{policy}"));
    block(path, &mark, text.trim_end())
}

/// Puts the text between the two marks of the file, which are made when they are not there.
pub fn block(path: &Path, mark: &str, text: &str) -> anyhow::Result<()> {
    let (begin, end) = (format!("<!-- {mark}: begin -->"), format!("<!-- {mark}: end -->"));
    let block = format!("{begin}\n{}\n{end}\n", text.trim_end());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => match (text.find(&begin), text.find(&end)) {
            (Some(from), Some(to)) => {
                let rest = text[to + end.len()..].trim_start_matches('\n');
                let gap = if rest.is_empty() { "" } else { "\n" };
                format!("{}{block}{gap}{rest}", &text[..from])
            }
            _ => format!("{text}\n{block}"),
        },
        Err(_) => block,
    };
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// The names and versions of a daemon's parts.
pub fn version(socket: &Socket) -> String {
    let answer = Client::new(&socket.path).request("GET", "/version", Body::Empty);
    let Ok(version) = answer.and_then(|answer| answer.json()) else { return "unknown".to_owned() };
    let components = version["Components"].as_array().into_iter().flatten();
    let names = components.filter(|component| component["Name"] != "docker-init").map(|component| {
        let word = |key: &str| component[key].as_str().unwrap_or("?").to_owned();
        format!("{} {}", word("Name"), word("Version"))
    });
    names.collect::<Vec<_>>().join(", ")
}

/// What the run was on.
pub fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("Linux {}, {cpus} CPUs", kernel.trim())
}
