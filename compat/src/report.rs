//! Holds the answers of all sockets against the references' and prints the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::socket::Socket;

/// What one socket answered to one step, already made comparable.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The step's exit code; `None` when its time ran out.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// What one socket has to do with one step.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The client's program was not given.
    Absent,
    /// A reference that had nothing to add: another one answered as the daemons under test did.
    NotAsked,
    /// It answered.
    Answer(Observed),
}

impl Outcome {
    fn answer(&self) -> Option<&Observed> {
        match self {
            Self::Answer(observed) => Some(observed),
            Self::Absent | Self::NotAsked => None,
        }
    }
}

/// Which sockets a run of a subject is to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The daemons under test and the client's first reference.
    First,
    /// All of them.
    All,
}

/// One step of one client, with the answer of every socket in the order of the sockets.
#[derive(Debug)]
pub struct Row {
    /// `docker20`, `act`...
    pub client: String,
    /// The case file, or the agent's job.
    pub case: String,
    /// What the step shows.
    pub step: String,
    /// The exit code that the case expects.
    pub exit: i32,
    /// The one that the socket of a job gives; any, where its policy refuses what the step asks for.
    pub exit_of_job: Option<i32>,
    /// Why another answer than the reference's is right, if it is.
    pub deviation: Option<String>,
    /// Whether it is known that only dockerd does this yet.
    pub later: bool,
    /// One for each socket.
    pub observed: Vec<Outcome>,
}

/// How a socket did on one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As the reference, with the expected exit code.
    Pass,
    /// Another answer than the reference's, for a reason that the case names.
    Deviates,
    /// The client's program was not given.
    Absent,
    /// Not done yet, as the case says.
    Later,
    /// A reference that was not needed.
    NotAsked,
    /// The expected exit code, but another output than any reference's.
    Differs,
    /// Another exit code than expected, or no end at all.
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Deviates => "deviates",
            Self::Absent => "absent",
            Self::Later => "later",
            Self::NotAsked => "not asked",
            Self::Differs => "differs",
            Self::Fail => "FAIL",
        }
    }

    fn is_failure(self) -> bool {
        matches!(self, Self::Differs | Self::Fail)
    }
}

/// How often each verdict was given.
type Counts = BTreeMap<Verdict, usize>;

/// Everything that was seen in one run.
#[derive(Debug, Default)]
pub struct Report {
    /// One per client and step.
    pub rows: Vec<Row>,
}

impl Report {
    /// Adds the rows of a subject. The first run asks one reference only; what fails then is asked of all, at most twice, since
    /// some steps compare what two daemons do within a moment, and counts as in the last run of them.
    pub fn add(
        &mut self,
        sockets: &[Socket],
        mut run: impl FnMut(Asked) -> anyhow::Result<Vec<Row>>,
    ) -> anyhow::Result<()> {
        let mut rows = run(Asked::First)?;
        for _ in 0..2 {
            let steps: Vec<_> = rows.iter().filter(|row| failed(row, sockets)).map(|row| row.step.as_str()).collect();
            if steps.is_empty() {
                break;
            }
            eprint!(", again for: {}", steps.join("; "));
            for (row, again) in rows.iter_mut().zip(run(Asked::All)?) {
                if failed(row, sockets) {
                    *row = again;
                }
            }
        }
        self.rows.append(&mut rows);
        Ok(())
    }

    /// The verdict of every socket on a row.
    fn verdicts(&self, row: &Row, sockets: &[Socket]) -> Vec<Verdict> {
        (0..sockets.len()).map(|at| verdict(row, sockets, at)).collect()
    }

    /// The table: one line per client and case, with what each socket did on its steps.
    pub fn table(&self, sockets: &[Socket]) -> String {
        self.counted(sockets, ["client", "case"], |row| [&row.client, &row.case])
    }

    /// Its short form: one line per client.
    pub fn summary(&self, sockets: &[Socket]) -> String {
        self.counted(sockets, ["client"], |row| [&row.client])
    }

    /// A line for all rows in a run that have the same key.
    fn counted<const N: usize>(
        &self,
        sockets: &[Socket],
        names: [&str; N],
        key: impl Fn(&Row) -> [&String; N],
    ) -> String {
        let mut cells: Vec<([&String; N], Vec<Counts>)> = Vec::new();
        for row in &self.rows {
            let key = key(row);
            if cells.last().is_none_or(|(last, _)| *last != key) {
                cells.push((key, vec![Counts::new(); sockets.len()]));
            }
            let (_, counts) = cells.last_mut().expect("one was pushed above");
            for (count, verdict) in counts.iter_mut().zip(self.verdicts(row, sockets)) {
                *count.entry(verdict).or_default() += 1;
            }
        }
        let daemons = sockets.iter().map(|socket| socket.name.clone());
        let mut lines = vec![names.map(str::to_owned).into_iter().chain(daemons).collect()];
        lines.extend(
            cells.iter().map(|(key, counts)| key.iter().copied().cloned().chain(counts.iter().map(cell)).collect()),
        );
        aligned(&lines)
    }

    /// Every step that failed, with the answers of those that did not pass. A reference need not where another one did.
    pub fn details(&self, sockets: &[Socket]) -> String {
        let alone = alone(sockets);
        let mut text = String::new();
        for row in &self.rows {
            let shown = alone || is_wrong(row, sockets);
            for (at, verdict) in self.verdicts(row, sockets).into_iter().enumerate() {
                if verdict.is_failure() && (shown || !sockets[at].reference) {
                    describe(&mut text, row, sockets, at, verdict);
                }
            }
        }
        text
    }

    /// What the first reference that passed answered to every step.
    pub fn answers(&self, sockets: &[Socket]) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let _ = writeln!(text, "{} {}: {}", row.client, row.case, row.step);
            if let Some(reference) = passing_references(row, sockets).next() {
                quote(&mut text, "", &reference.stdout, &reference.stderr);
            }
        }
        text
    }

    /// Every step on which another answer than the references' is right, with the reason.
    pub fn deviations(&self, sockets: &[Socket]) -> Vec<String> {
        let deviates = |row: &&Row| self.verdicts(row, sockets).contains(&Verdict::Deviates);
        let line = |row: &Row| {
            format!("{} {}: {}: {}", row.client, row.case, row.step, row.deviation.as_deref().unwrap_or_default())
        };
        self.rows.iter().filter(deviates).map(line).collect()
    }

    /// How many verdicts passed, failed, and were absent or are for later. With only references, theirs count; otherwise the others'.
    pub fn counts(&self, sockets: &[Socket]) -> (usize, usize, usize) {
        let alone = alone(sockets);
        let (mut passed, mut failed, mut absent) = (0, 0, 0);
        for row in &self.rows {
            for (socket, verdict) in sockets.iter().zip(self.verdicts(row, sockets)) {
                match verdict {
                    _ if socket.reference && !alone => {}
                    Verdict::Pass | Verdict::Deviates => passed += 1,
                    Verdict::Differs | Verdict::Fail => failed += 1,
                    Verdict::Absent | Verdict::Later => absent += 1,
                    Verdict::NotAsked => {}
                }
            }
        }
        (passed, failed, absent)
    }

    /// The steps that no reference passed: there the case is wrong, not the daemon under test.
    pub fn wrong_cases(&self, sockets: &[Socket]) -> Vec<String> {
        let wrong = self.rows.iter().filter(|row| is_wrong(row, sockets));
        wrong.map(|row| format!("{} {}: {}", row.client, row.case, row.step)).collect()
    }
}

/// Whether none is under test but the references.
fn alone(sockets: &[Socket]) -> bool {
    sockets.iter().all(|socket| socket.reference)
}

/// Whether a daemon under test failed, or the case is wrong.
fn failed(row: &Row, sockets: &[Socket]) -> bool {
    let mut tested = (0..sockets.len()).filter(|at| !sockets[*at].reference);
    tested.any(|at| verdict(row, sockets, at).is_failure()) || is_wrong(row, sockets)
}

/// Whether there are references and none passed, though the case does not say that they need not.
fn is_wrong(row: &Row, sockets: &[Socket]) -> bool {
    let mut references = (0..sockets.len()).filter(|at| sockets[*at].reference).peekable();
    row.deviation.is_none()
        && references.peek().is_some()
        && references.all(|at| matches!(verdict(row, sockets, at), Verdict::Fail | Verdict::NotAsked))
}

/// A reference passes with the expected exit code; any other socket must also answer as one of the references that passed.
fn verdict(row: &Row, sockets: &[Socket], at: usize) -> Verdict {
    let observed = match &row.observed[at] {
        Outcome::Absent => return Verdict::Absent,
        Outcome::NotAsked => return Verdict::NotAsked,
        Outcome::Answer(observed) => observed,
    };
    let later = row.later && !sockets[at].reference;
    let expected = expected(row, &sockets[at]);
    if observed.code.is_none() || expected.is_some_and(|expected| observed.code != Some(expected)) {
        return if later { Verdict::Later } else { Verdict::Fail };
    }
    let as_reference = passing_references(row, sockets)
        .any(|reference| reference.stdout == observed.stdout && reference.stderr == observed.stderr);
    match &row.deviation {
        _ if sockets[at].reference || as_reference => Verdict::Pass,
        Some(_) => Verdict::Deviates,
        None if later => Verdict::Later,
        None => Verdict::Differs,
    }
}

fn expected(row: &Row, socket: &Socket) -> Option<i32> {
    if socket.job.is_some() { row.exit_of_job } else { Some(row.exit) }
}

fn passing_references<'a>(row: &'a Row, sockets: &'a [Socket]) -> impl Iterator<Item = &'a Observed> {
    let all = row.observed.iter().zip(sockets);
    all.filter(|(_, socket)| socket.reference)
        .filter_map(|(seen, _)| seen.answer())
        .filter(|observed| observed.code == Some(row.exit))
}

/// The reference that has the most lines in common with the answer.
fn closest_reference<'a>(row: &'a Row, sockets: &'a [Socket], observed: &Observed) -> Option<&'a Observed> {
    let lines = |seen: &Observed| seen.stdout.lines().chain(seen.stderr.lines()).map(str::to_owned).collect::<Vec<_>>();
    let mine = lines(observed);
    passing_references(row, sockets).max_by_key(|reference| {
        let theirs = lines(reference);
        mine.iter().filter(|line| theirs.contains(line)).count()
    })
}

fn describe(text: &mut String, row: &Row, sockets: &[Socket], at: usize, verdict: Verdict) {
    let name = &sockets[at].name;
    let _ = writeln!(text, "{} on {name}: {} {}: {}", verdict.word(), row.client, row.case, row.step);
    let Some(observed) = row.observed[at].answer() else {
        return;
    };
    match (observed.code, expected(row, &sockets[at])) {
        (None, _) => text.push_str("    did not end in time\n"),
        (Some(code), Some(expected)) if code != expected => {
            let _ = writeln!(text, "    exit code {code} instead of {expected}");
        }
        (Some(_), _) => {}
    }
    if sockets[at].reference {
        quote(text, name, &observed.stdout, &observed.stderr);
        return;
    }
    match closest_reference(row, sockets, observed) {
        None => {
            text.push_str("    no reference\n");
            quote(text, name, &observed.stdout, &observed.stderr);
        }
        Some(reference) => {
            difference(text, "stdout", &reference.stdout, &observed.stdout);
            difference(text, "stderr", &reference.stderr, &observed.stderr);
        }
    }
}

/// The lines that only one of the two has, in their order.
fn difference(text: &mut String, what: &str, reference: &str, observed: &str) {
    if reference == observed {
        return;
    }
    let _ = writeln!(text, "    {what}:");
    let (left, right): (Vec<_>, Vec<_>) = (reference.lines().collect(), observed.lines().collect());
    for (sign, line) in changes(&left, &right).iter().take(40) {
        let _ = writeln!(text, "      {sign} {}", shortened(line));
    }
}

/// What is to be taken away and added to make the right lines of the left ones, by their longest common subsequence.
fn changes<'a>(left: &[&'a str], right: &[&'a str]) -> Vec<(char, &'a str)> {
    let mut common = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (at, line) in left.iter().enumerate().rev() {
        for (to, other) in right.iter().enumerate().rev() {
            common[at][to] =
                if line == other { common[at + 1][to + 1] + 1 } else { common[at + 1][to].max(common[at][to + 1]) };
        }
    }
    let (mut at, mut to, mut changes) = (0, 0, Vec::new());
    while at < left.len() || to < right.len() {
        if at < left.len() && to < right.len() && left[at] == right[to] {
            (at, to) = (at + 1, to + 1);
        } else if to == right.len() || (at < left.len() && common[at + 1][to] >= common[at][to + 1]) {
            changes.push(('-', left[at]));
            at += 1;
        } else {
            changes.push(('+', right[to]));
            to += 1;
        }
    }
    changes
}

fn quote(text: &mut String, name: &str, stdout: &str, stderr: &str) {
    for (what, lines) in [("stdout", stdout), ("stderr", stderr)] {
        for line in lines.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev() {
            let _ = writeln!(text, "      {name} {what}: {}", shortened(line));
        }
    }
}

fn shortened(line: &str) -> String {
    line.chars().take(300).collect()
}

fn cell(counts: &Counts) -> String {
    let parts: Vec<_> = counts.iter().map(|(verdict, count)| format!("{} {count}", verdict.word())).collect();
    parts.join(", ")
}

/// As a markdown table whose columns line up.
pub fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if at == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(code: i32, stdout: &str) -> Outcome {
        Outcome::Answer(Observed { code: Some(code), stdout: stdout.to_owned(), stderr: String::new() })
    }

    fn row(observed: Vec<Outcome>) -> Row {
        Row {
            client: "docker20".to_owned(),
            case: "run".to_owned(),
            step: "prints".to_owned(),
            exit: 0,
            exit_of_job: Some(0),
            deviation: None,
            later: false,
            observed,
        }
    }

    fn sockets() -> Vec<Socket> {
        let texts = ["old=unix:///o,reference", "new=unix:///n,reference", "ours=unix:///r"];
        texts.map(|text| text.parse().expect("it is well formed")).into()
    }

    #[test]
    fn an_answer_as_any_passing_reference_passes() {
        let row = row(vec![seen(0, "a"), seen(0, "b"), seen(0, "b")]);
        assert_eq!(verdict(&row, &sockets(), 2), Verdict::Pass);
    }

    #[test]
    fn a_job_may_have_an_exit_code_of_its_own() {
        let mut sockets = sockets();
        let row = Row {
            exit_of_job: Some(1),
            deviation: Some("none".to_owned()),
            ..row(vec![seen(0, "a"), seen(0, "a"), seen(1, "")])
        };
        assert_eq!(verdict(&row, &sockets, 2), Verdict::Fail);
        sockets[2].job = Some("ci".to_owned());
        assert_eq!(verdict(&row, &sockets, 2), Verdict::Deviates);
        let refused =
            |seen| Row { exit_of_job: None, observed: vec![self::seen(0, "a"), self::seen(0, "a"), seen], ..row };
        assert_eq!(verdict(&refused(seen(7, "no")), &sockets, 2), Verdict::Deviates);
    }

    #[test]
    fn an_answer_as_only_a_failing_reference_differs() {
        let row = row(vec![seen(0, "a"), seen(1, "b"), seen(0, "b")]);
        assert_eq!(verdict(&row, &sockets(), 2), Verdict::Differs);
    }

    #[test]
    fn summary_has_a_line_per_client() {
        let other = || Row { case: "exec".to_owned(), ..row(vec![seen(0, "a"), seen(1, ""), seen(0, "a")]) };
        let report = Report { rows: vec![row(vec![seen(0, "a"), seen(0, "a"), seen(0, "a")]), other()] };
        assert_eq!(report.table(&sockets()).lines().count(), 4);
        assert_eq!(
            report.summary(&sockets()).lines().collect::<Vec<_>>(),
            [
                "| client   | old    | new            | ours   |",
                "|----------|--------|----------------|--------|",
                "| docker20 | pass 2 | pass 1, FAIL 1 | pass 2 |"
            ]
        );
    }

    #[test]
    fn details_show_what_failed_and_no_reference_beside_one_that_passed() {
        let explained = row(vec![seen(0, "a"), seen(1, "too new"), seen(0, "a")]);
        let failed = row(vec![seen(0, "a"), seen(1, "too new"), seen(2, "b")]);
        let details = Report { rows: vec![explained, failed] }.details(&sockets());
        assert!(details.contains("FAIL on ours") && !details.contains("on new"), "{details}");
    }

    #[test]
    fn only_what_differs_is_shown() {
        assert_eq!(changes(&["a", "b", "c"], &["a", "x", "c", "d"]), [('-', "b"), ('+', "x"), ('+', "d")]);
    }

    #[test]
    fn an_absent_client_never_passes() {
        let report = Report { rows: vec![row(vec![Outcome::Absent, Outcome::Absent, Outcome::Absent])] };
        assert_eq!(report.counts(&sockets()), (0, 0, 1));
    }

    #[test]
    fn a_step_that_no_reference_passes_is_a_wrong_case() {
        let report = Report { rows: vec![row(vec![seen(1, ""), seen(2, ""), seen(0, "")])] };
        assert_eq!(report.wrong_cases(&sockets()).len(), 1);
    }

    #[test]
    fn all_references_are_asked_when_the_first_explains_nothing() {
        let (mut report, mut runs) = (Report::default(), Vec::new());
        let run = |asked| {
            runs.push(asked);
            let new = if asked == Asked::All { seen(0, "b") } else { Outcome::NotAsked };
            Ok(vec![
                row(vec![seen(0, "a"), Outcome::NotAsked, seen(0, "a")]),
                row(vec![seen(0, "a"), new, seen(0, "b")]),
            ])
        };
        report.add(&sockets(), run).expect("nothing fails here");
        assert_eq!(runs, [Asked::First, Asked::All]);
        assert_eq!(report.counts(&sockets()), (2, 0, 0));
        assert_eq!(report.verdicts(&report.rows[0], &sockets()), [Verdict::Pass, Verdict::NotAsked, Verdict::Pass]);
        assert!(matches!(report.rows[0].observed[1], Outcome::NotAsked), "what passed stays as it was");
    }

    #[test]
    fn a_deviation_that_no_reference_can_follow_is_none() {
        let row =
            Row { deviation: Some("dockerd cannot".to_owned()), ..row(vec![seen(1, ""), seen(2, ""), seen(0, "a")]) };
        assert!(!failed(&row, &sockets()));
        assert_eq!(Report { rows: vec![row] }.wrong_cases(&sockets()), Vec::<String>::new());
    }
}
