//! Reads the `.case` files: steps as data, one subject per file.
//!
//! ```text
//! # A comment.
//! what this step shows [exit 3] [timeout 90]
//!     docker run --rm busybox sh -c 'exit 3'
//! ```
//!
//! A line at the left margin names a step; the indented lines below it are its script for bash. `[exit N]` is the exit
//! code that dockerd gives (0 when left out), `[timeout N]` the seconds it may take (60), `[sorted]` says that the order of
//! the lines means nothing, `[deviation REASON]` that another answer is known and right,
//! `[later WHAT]` that it shows what ringer does not do yet.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

/// All steps on one subject; they run in order, in one working folder.
#[derive(Debug)]
pub struct Subject {
    /// The file's name without its ending.
    pub name: String,
    /// In the order of the file.
    pub steps: Vec<Step>,
}

/// One command line and what is expected of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// What it shows.
    pub name: String,
    /// What bash runs.
    pub script: String,
    /// The exit code that a real dockerd gives.
    pub exit: i32,
    /// After this long the step has failed.
    pub timeout: Duration,
    /// Whether lines are compared in sorted order.
    pub sorted: bool,
    /// Why another answer than dockerd's is right; such a difference is shown but does not count as failed.
    pub deviation: Option<String>,
    /// What ringer does not do yet; a failure is shown as such but not counted as failed.
    pub later: Option<String>,
}

/// Reads every `.case` file of a folder, in the order of their names.
pub fn read_folder(folder: &Path) -> anyhow::Result<Vec<Subject>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "case") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> anyhow::Result<Subject> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_stem().context("a case file has a name")?.to_string_lossy().into_owned();
    let steps = parse(&text).with_context(|| path.display().to_string())?;
    Ok(Subject { name, steps })
}

fn parse(text: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(script) = line.strip_prefix("    ") {
            let step = steps.last_mut().context("a script before the first step")?;
            step.script.push_str(script);
            step.script.push('\n');
        } else {
            steps.push(parse_title(line)?);
        }
    }
    if let Some(step) = steps.iter().find(|step| step.script.is_empty()) {
        bail!("step without a script: {}", step.name);
    }
    Ok(steps)
}

fn parse_title(line: &str) -> anyhow::Result<Step> {
    let (name, marks) = match line.find(" [") {
        Some(at) => line.split_at(at),
        None => (line, ""),
    };
    let mut step = Step {
        name: name.trim().to_owned(),
        script: String::new(),
        exit: 0,
        timeout: Duration::from_secs(60),
        sorted: false,
        deviation: None,
        later: None,
    };
    for mark in marks.split('[').skip(1) {
        let mark = mark.trim().strip_suffix(']').with_context(|| format!("unclosed [ in: {line}"))?;
        match mark.split_once(' ') {
            Some(("exit", code)) => step.exit = code.parse()?,
            Some(("timeout", seconds)) => step.timeout = Duration::from_secs(seconds.parse()?),
            Some(("deviation", reason)) => step.deviation = Some(reason.to_owned()),
            Some(("later", what)) => step.later = Some(what.to_owned()),
            None if mark == "sorted" => step.sorted = true,
            _ => bail!("unknown mark [{mark}] in: {line}"),
        }
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_follow_the_name_and_scripts_are_indented() {
        let steps = parse("# on exits\nfails [exit 3] [sorted]\n    echo a\n      echo b\n\nruns\n    true\n");
        let steps = steps.expect("it is well formed");
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0].name.as_str(), steps[0].exit, steps[0].sorted), ("fails", 3, true));
        assert_eq!(steps[0].script, "echo a\n  echo b\n");
        assert_eq!(steps[1].exit, 0);
    }

    #[test]
    fn an_unknown_mark_is_an_error() {
        assert!(parse("a step [exits 3]\n    true\n").is_err());
    }

    #[test]
    fn the_cases_of_this_package_can_be_read() {
        let subjects =
            read_folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"))).expect("they are well formed");
        assert!(!subjects.is_empty());
    }
}
