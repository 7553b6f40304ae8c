//! Reads `compat/deviations`, and `compat/deviations-of-jobs` where the socket is a job's: fields in which ringer's answer may be another than dockerd's.
//!
//! One line each: `REQUEST | FIELD | REASON`. Request and field are patterns in which `*` stands for any text. The request
//! is its method, its path with version and query, and its body; the field is the beginning of a line of the rendered answer, up to
//! its colon.
//!
//! Of a client's step through a job's socket the line is `CLIENT CASE: STEP | WHAT | REASON`, where WHAT is `answer` (another output
//! is right), `exit N` (so is another exit code, that one), `not asked` (a job has no such thing) or `refused RULE` (its policy refuses what
//! the step, or one that it builds on, asks for; `compat/refused-by-POLICY` has these).

use std::path::Path;

use anyhow::Context;

use crate::document::REFUSED;

/// What is known of a client's step through the socket of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfJob {
    /// It shows what a job does not have.
    NotAsked,
    /// Another answer than dockerd's is right, with this exit code if it is another one too.
    Answers { exit: Option<i32>, reason: String },
    /// Its policy refuses it, whatever the client makes of that.
    Refused { reason: String },
}

/// All of the file.
#[derive(Debug, Default)]
pub struct Deviations {
    lines: Vec<Deviation>,
}

#[derive(Debug)]
struct Deviation {
    request: String,
    field: String,
    reason: String,
    used: bool,
}

impl Deviations {
    /// Reads the file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let parse = |line: &str| {
            let parts: Vec<_> = line.splitn(3, '|').map(|part| part.trim().to_owned()).collect();
            let [request, field, reason] =
                <[String; 3]>::try_from(parts).ok().with_context(|| format!("expected three parts in: {line}"))?;
            Ok(Deviation { request, field, reason, used: false })
        };
        Ok(Self { lines: lines.map(parse).collect::<anyhow::Result<_>>()? })
    }

    /// These, and behind them those of another file.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.lines.extend(others.lines);
        self
    }

    /// What is known of a step, by `CLIENT CASE: STEP`.
    pub fn of_step(&mut self, title: &str) -> Option<OfJob> {
        self.lines.iter_mut().filter(|line| matches(&line.request, title)).find_map(|line| {
            let reason = line.reason.clone();
            let known = match line.field.split_once(' ') {
                None if line.field == "answer" => OfJob::Answers { exit: None, reason },
                Some(("exit", code)) => OfJob::Answers { exit: Some(code.parse().ok()?), reason },
                Some(("not", "asked")) => OfJob::NotAsked,
                Some(("refused", rule)) => OfJob::Refused { reason: format!("{REFUSED}{rule}: {reason}") },
                _ => return None,
            };
            line.used = true;
            Some(known)
        })
    }

    /// The reasons, if all fields in which the answer differs from some reference's are known to deviate.
    pub fn explain(&mut self, request: &str, ours: &[String], references: &[&Vec<String>]) -> Option<Vec<String>> {
        let explained = references.iter().find_map(|reference| {
            let different = differences(ours, reference);
            different.into_iter().map(|line| self.find(request, line)).collect::<Option<Vec<_>>>()
        })?;
        let mut reasons = Vec::new();
        for at in explained {
            self.lines[at].used = true;
            if !reasons.contains(&self.lines[at].reason) {
                reasons.push(self.lines[at].reason.clone());
            }
        }
        Some(reasons)
    }

    /// The answer as the reference's, but for the fields that differ without a known reason.
    pub fn without(&self, request: &str, ours: &[String], reference: &[String]) -> String {
        let known = |line: &String| self.find(request, line).is_some();
        let mut lines = Vec::new();
        for line in reference {
            if ours.contains(line) || known(line) {
                lines.push(line.as_str());
            }
        }
        lines.extend(ours.iter().filter(|line| !reference.contains(line) && !known(line)).map(String::as_str));
        lines.join("\n")
    }

    /// The lines that explained nothing.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.lines.iter().filter(|line| !line.used);
        unused.map(|line| format!("{} | {} | {}", line.request, line.field, line.reason)).collect()
    }

    fn find(&self, request: &str, line: &str) -> Option<usize> {
        let field = line.split(": ").next().unwrap_or(line);
        self.lines.iter().position(|known| matches(&known.request, request) && matches(&known.field, field))
    }
}

/// The lines that only one of the answers has.
fn differences<'a>(left: &'a [String], right: &'a [String]) -> Vec<&'a str> {
    let only = |these: &'a [String], those: &'a [String]| {
        these.iter().filter(|line| !those.contains(line)).map(String::as_str).collect::<Vec<_>>()
    };
    [only(left, right), only(right, left)].concat()
}

/// Whether the text is as the pattern says, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    rest.is_empty() || (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("GET *containers*json", "GET /v1.41/containers/a/json"));
        assert!(matches("a", "a"));
        assert!(!matches("GET *json", "GET /x/json?a"));
        assert!(matches("*", ""));
    }

    #[test]
    fn a_step_has_the_first_line_that_is_on_steps() {
        let path = std::env::temp_dir().join(format!("deviations-{}", std::process::id()));
        let text = "* | *Mode | a field\n* tcp: * | not asked | none\n* a: x | exit 3 | other\n* a: * | answer | words\n* c: y | refused binds | paths\n";
        std::fs::write(&path, text).unwrap();
        let mut read = Deviations::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let answers = |exit, reason: &str| Some(OfJob::Answers { exit, reason: reason.to_owned() });
        assert_eq!(read.of_step("docker28 tcp: version"), Some(OfJob::NotAsked));
        assert_eq!(read.of_step("docker28 a: x"), answers(Some(3), "other"));
        assert_eq!(read.of_step("docker28 a: y"), answers(None, "words"));
        assert_eq!(read.of_step("docker28 b: y"), None);
        let reason = "refused by rule binds: paths".to_owned();
        assert_eq!(read.of_step("docker28 c: y"), Some(OfJob::Refused { reason }));
        assert_eq!(read.unused().len(), 1);
    }

    #[test]
    fn the_deviations_of_this_package_can_be_read() {
        for name in ["deviations", "deviations-of-jobs", "refused-by-ci"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            assert!(!Deviations::read(&path).expect("it is well formed").lines.is_empty());
        }
    }
}
