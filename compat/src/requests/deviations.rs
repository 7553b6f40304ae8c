//! Reads `compat/deviations`, and `compat/deviations-of-jobs` where the socket is a job's: fields in which ringer's answer may be another than dockerd's.
//!
//! One line each: `REQUEST | FIELD | REASON`. Request and field are patterns in which `*` stands for any text. The request
//! is its method, its path with version and query, and its body; the field is the beginning of a line of the rendered answer, up to
//! its colon.

use std::path::Path;

use anyhow::Context;

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

    /// Takes those of another file too.
    pub fn add(&mut self, others: Self) {
        self.lines.extend(others.lines);
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
    fn the_deviations_of_this_package_can_be_read() {
        for name in ["deviations", "deviations-of-jobs"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            assert!(!Deviations::read(&path).expect("it is well formed").lines.is_empty());
        }
    }
}
