//! Lines to nodes: parser directives, comments, continuation, flags, heredocs. What an instruction means is told by
//! [`super::instruction`].

use super::words::{self, is_blank};
use crate::model::{Error, Result, limits};

/// Longer lines are refused; dockerd's number.
const LONGEST_LINE: usize = 64 * 1024 - 1;

/// Instructions that read heredocs.
const WITH_HEREDOCS: [&str; 3] = ["add", "copy", "run"];

/// A document that follows an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// Its terminator, which is also its file name.
    pub name: String,
    /// Variables in it are replaced: its terminator was not quoted.
    pub expand: bool,
    /// `<<-`: tabs at the start of its lines do not count.
    pub chomp: bool,
    /// Its lines.
    pub content: String,
}

impl Heredoc {
    /// The content as it is meant.
    pub fn text(&self) -> String {
        match self.chomp {
            true => self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect(),
            false => self.content.clone(),
        }
    }

    /// The name as a file's, which must not lead out of its folder.
    pub fn file_name(&self) -> Result<&str> {
        if self.name.contains('/') || matches!(self.name.as_str(), "." | "..") {
            return Err(Error::invalid(format!("invalid heredoc name {:?}", self.name)));
        }
        Ok(&self.name)
    }
}

/// An instruction as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its first word, in the case it was written.
    pub keyword: String,
    /// The line, joined where it was continued.
    pub original: String,
    /// `--name=value` before the arguments.
    pub flags: Vec<String>,
    /// All after that.
    pub rest: String,
    /// Documents that its line names.
    pub heredocs: Vec<Heredoc>,
    /// Line of its beginning.
    pub line: usize,
}

/// A Dockerfile's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Instructions in their order.
    pub nodes: Vec<Node>,
    /// `\` or, by a directive, the grave accent.
    pub escape: char,
    /// What dockerd warns of.
    pub warnings: Vec<String>,
}

/// Reads a whole file.
pub fn parse(text: &str) -> Result<Parsed> {
    let mut lines = Lines::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    let (mut nodes, mut warnings) = (Vec::new(), Vec::new());
    while let Some(first) = lines.next()? {
        let stripped = first.trim_end_matches(['\r', '\n']).trim_start();
        lines.directive(stripped)?;
        let begin = lines.number;
        let (start, mut goes_on) = lines.continued(if stripped.starts_with('#') { "" } else { stripped });
        let mut line = start.to_owned();
        if !goes_on && line.is_empty() {
            continue;
        }
        let mut has_empty = false;
        while goes_on {
            let Some(next) = lines.next()? else { break };
            let next = next.trim_end_matches(['\r', '\n']);
            if next.trim_start().starts_with('#') {
                continue;
            }
            if next.trim().is_empty() {
                has_empty = true;
                continue;
            }
            let (part, further) = lines.continued(next);
            line.push_str(part);
            if line.len() > limits::INSTRUCTION {
                return Err(too_much(begin, &format!("is longer than {}", limits::mib(limits::INSTRUCTION))));
            }
            goes_on = further;
        }
        if has_empty {
            warnings.push(format!("[WARNING]: Empty continuation line found in: {line}"));
        }
        let mut node = node(&line, lines.escape, begin)?;
        if node.may_have_heredocs(lines.escape)? && line.contains("<<") {
            let announced = announced_heredocs(&line, lines.escape);
            if announced.len() > limits::HEREDOCS {
                return Err(too_much(begin, &format!("names more than {} documents", limits::HEREDOCS)));
            }
            for announced in announced {
                let heredoc = lines.heredoc(announced)?;
                node.heredocs.push(heredoc);
            }
        }
        nodes.push(node);
        if nodes.len() > limits::INSTRUCTIONS {
            return Err(Error::invalid(format!("there are more than {} instructions", limits::INSTRUCTIONS)));
        }
    }
    if nodes.is_empty() {
        return Err(Error::invalid("file with no instructions"));
    }
    if !warnings.is_empty() {
        warnings.push("[WARNING]: Empty continuation lines will become errors in a future release.".to_owned());
    }
    Ok(Parsed { nodes, escape: lines.escape, warnings })
}

fn too_much(line: usize, text: &str) -> Error {
    Error::invalid(format!("the instruction on line {line} {text}"))
}

/// One line as an instruction.
pub fn node(line: &str, escape: char, number: usize) -> Result<Node> {
    let node = cut(line, escape, number);
    node.check_words(escape)?;
    Ok(node)
}

fn cut(line: &str, escape: char, number: usize) -> Node {
    let trimmed = line.trim();
    let (keyword, rest) = trimmed.split_once(is_blank).unwrap_or((trimmed, ""));
    let (flags, rest) = split_flags(rest.trim_start_matches(is_blank), escape);
    let rest = rest.trim().to_owned();
    Node { keyword: keyword.to_owned(), original: line.to_owned(), flags, rest, heredocs: Vec::new(), line: number }
}

impl Node {
    /// What dockerd finds wrong already when it cuts the line.
    fn check_words(&self, escape: char) -> Result<()> {
        let keyword = self.keyword.to_lowercase();
        match keyword.as_str() {
            "env" | "label" => words::pairs(&self.keyword.to_uppercase(), &self.rest, escape).map(drop),
            "add" | "copy" | "cmd" | "entrypoint" | "run" | "shell" | "volume" => {
                words::json_list(&self.rest).map(drop)
            }
            "onbuild" => match self.trigger(escape) {
                // A trigger of a trigger is refused as such, whatever it says.
                Some(inner) if !inner.is_trigger() => inner.check_words(escape),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn is_trigger(&self) -> bool {
        self.keyword.eq_ignore_ascii_case("onbuild")
    }

    /// What follows `ONBUILD`.
    fn trigger(&self, escape: char) -> Option<Self> {
        (self.is_trigger() && !self.rest.is_empty()).then(|| cut(&self.rest, escape, self.line))
    }

    fn may_have_heredocs(&self, escape: char) -> Result<bool> {
        if let Some(inner) = self.trigger(escape) {
            return Ok(!inner.is_trigger() && inner.may_have_heredocs(escape)?);
        }
        let reads = WITH_HEREDOCS.iter().any(|keyword| self.keyword.eq_ignore_ascii_case(keyword));
        Ok(reads && words::json_list(&self.rest)?.is_none())
    }
}

/// The text's lines with their ends, and what directives have said.
struct Lines<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    number: usize,
    escape: char,
    /// Directives stand at the very beginning.
    directives: Option<Vec<String>>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.split_inclusive('\n'), number: 0, escape: '\\', directives: Some(Vec::new()) }
    }

    fn next(&mut self) -> Result<Option<&'a str>> {
        let Some(line) = self.rest.next() else { return Ok(None) };
        self.number += 1;
        if line.len() > LONGEST_LINE {
            return Err(Error::invalid(format!("dockerfile line greater than max allowed size of {LONGEST_LINE}")));
        }
        Ok(Some(line))
    }

    /// `# escape=…` and its like, as long as nothing else has come.
    fn directive(&mut self, line: &str) -> Result<()> {
        let Some(known) = &mut self.directives else { return Ok(()) };
        let directive = line.strip_prefix('#').and_then(|comment| comment.split_once('='));
        let Some((name, value)) = directive.map(|(name, value)| (name.trim().to_lowercase(), value.trim())) else {
            self.directives = None;
            return Ok(());
        };
        if !["escape", "syntax", "check"].contains(&name.as_str()) || value.is_empty() {
            self.directives = None;
            return Ok(());
        }
        if known.contains(&name) {
            return Err(Error::invalid(format!("only one {name} parser directive can be used")));
        }
        if name == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    return Err(Error::invalid(format!("invalid escape token '{other}' does not match ` or \\")));
                }
            };
        }
        known.push(name);
        Ok(())
    }

    /// The line without the escape at its end, and whether there was one that is not itself escaped.
    fn continued<'l>(&self, line: &'l str) -> (&'l str, bool) {
        let Some(before) = line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) else { return (line, false) };
        if before.ends_with(self.escape) { (line, false) } else { (before, true) }
    }

    fn heredoc(&mut self, mut heredoc: Heredoc) -> Result<Heredoc> {
        while let Some(line) = self.next()? {
            let end = line.trim_end_matches(['\r', '\n']);
            let end = if heredoc.chomp { end.trim_start_matches('\t') } else { end };
            if end == heredoc.name {
                return Ok(heredoc);
            }
            heredoc.content.push_str(line);
        }
        Err(Error::invalid("unterminated heredoc"))
    }
}

/// The heredocs that a line names: words of the form `<<EOF`, `<<-"EOF"`, `3<<EOF`.
fn announced_heredocs(line: &str, escape: char) -> Vec<Heredoc> {
    let mut words = words::split(line, escape).into_iter().peekable();
    let mut found = Vec::new();
    while let Some(mut word) = words.next() {
        // The shell allows space before the terminator.
        if word.ends_with("<<") || word.ends_with("<<-") {
            word.extend(words.peek().map(String::as_str));
        }
        found.extend(heredoc_of(&word));
    }
    found
}

/// The heredoc that a word names, still without content.
pub fn heredoc_of(word: &str) -> Option<Heredoc> {
    let (descriptor, rest) = word.split_once("<<")?;
    if !descriptor.chars().all(|digit| digit.is_ascii_digit()) || rest.contains('<') {
        return None;
    }
    let (chomp, raw) = match rest.strip_prefix('-') {
        Some(raw) => (true, raw),
        None => (false, rest),
    };
    let words = words::split(raw, '\\');
    let [word] = &words[..] else { return None };
    let is_quote = |character: char| matches!(character, '"' | '\'');
    let name: String = word.chars().filter(|&character| !is_quote(character) && character != '\\').collect();
    (!name.is_empty()).then(|| Heredoc { expand: !word.contains(is_quote), name, chomp, content: String::new() })
}

/// Words with `--` at the beginning, quotes and escapes taken off, and the rest of the line. A `--` alone ends them.
fn split_flags(line: &str, escape: char) -> (Vec<String>, String) {
    let mut flags = Vec::new();
    let mut rest = line;
    while rest.starts_with("--") {
        let mut flag = String::new();
        let mut quote = None;
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, character)) = characters.next() {
            match quote {
                None if character.is_whitespace() => {
                    end = at;
                    break;
                }
                None if character == '\'' || character == '"' => quote = Some(character),
                Some(open) if open == character => quote = None,
                _ if character == escape => flag.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => flag.push(character),
            }
        }
        rest = &rest[end..];
        if flag == "--" {
            break;
        }
        flags.push(flag);
        rest = rest.trim_start();
    }
    (flags, rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_images_are_read() {
        let keywords =
            |text: &str| parse(text).unwrap().nodes.into_iter().map(|node| node.keyword).collect::<Vec<_>>().join(" ");
        let windows = include_str!("../../images/windows/Dockerfile");
        assert_eq!(keywords(windows), "ARG FROM SHELL COPY COPY COPY ENV RUN");
        let parsed = parse(windows).unwrap();
        assert_eq!(parsed.escape, '`');
        assert!(parsed.nodes[7].rest.ends_with("};     rustc --version"), "{}", parsed.nodes[7].rest);
        assert_eq!(keywords(include_str!("../../images/macos/Dockerfile")), "FROM COPY COPY COPY");
        let linux = "ARG FROM ARG USER RUN COPY COPY COPY RUN USER";
        assert_eq!(keywords(include_str!("../../images/linux/Dockerfile")), linux);
    }

    fn lines(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().nodes.into_iter().map(|node| (node.keyword, node.rest)).collect()
    }

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().message().to_owned()
    }

    #[test]
    fn lines_are_joined_and_comments_left_out() {
        let text = "\u{feff}# c\nFROM x\r\nRUN a \\\n# inside\n  b \\ \n\tc\n\n  run d \\\\\n";
        let expected = [("FROM", "x"), ("RUN", "a   b \tc"), ("run", r"d \\")];
        assert_eq!(lines(text), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(parse(text).unwrap().nodes[1].line, 3);
    }

    #[test]
    fn escape_is_a_directive_of_the_first_lines() {
        let parsed = parse("# syntax=docker/dockerfile:1\n# escape=`\nFROM x\nRUN a `\n b\\\n").unwrap();
        assert_eq!((parsed.escape, parsed.nodes[1].rest.as_str()), ('`', "a  b\\"));
        assert_eq!(parse("# a comment\n# escape=`\nFROM x").unwrap().escape, '\\');
        assert_eq!(refused("# escape=x\nFROM x"), "invalid escape token 'x' does not match ` or \\");
        assert_eq!(refused("# escape=\\\n# escape=\\\nFROM x"), "only one escape parser directive can be used");
        assert_eq!(refused("# only this\n"), "file with no instructions");
    }

    #[test]
    fn empty_lines_within_one_are_warned_of() {
        let parsed = parse("FROM x\nRUN a \\\n\n b\n").unwrap();
        assert_eq!(parsed.warnings[0], "[WARNING]: Empty continuation line found in: RUN a  b");
        assert_eq!(parsed.warnings.len(), 2);
    }

    #[test]
    fn flags_are_cut_off() {
        let parsed = parse("COPY --from=a --chown=\"b c\" -- --x y").unwrap();
        assert_eq!(parsed.nodes[0].flags, ["--from=a", "--chown=b c"]);
        assert_eq!(parsed.nodes[0].rest, "--x y");
    }

    #[test]
    fn what_nobody_writes_is_refused() {
        let chained = parse(&format!("FROM x\n{}RUN x\n", "ONBUILD ".repeat(8_000))).unwrap();
        let said = crate::dockerfile::instruction::instruction(&chained.nodes[1], '\\').unwrap_err();
        assert_eq!(said.message(), "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
        let long = format!("RUN {}\n", "x \\\n".repeat(1 << 20));
        assert_eq!(refused(&long), "the instruction on line 1 is longer than 1 MiB");
        assert_eq!(refused(&"USER a\n".repeat(20_000)), "there are more than 10000 instructions");
        let many = format!("COPY {}/x\n", "<<a ".repeat(1_000));
        assert_eq!(refused(&many), "the instruction on line 1 names more than 256 documents");
    }

    #[test]
    fn heredocs_follow_their_line() {
        let parsed = parse("RUN <<EOF cat - 3<<-'X'\n$a\nEOF\n\tb\n\tX\nCMD [\"<<A\"]\n").unwrap();
        let [a, b] = &parsed.nodes[0].heredocs[..] else { panic!("two heredocs") };
        assert_eq!((a.text().as_str(), a.expand, a.name.as_str()), ("$a\n", true, "EOF"));
        assert_eq!((b.text().as_str(), b.expand, b.name.as_str()), ("b\n", false, "X"));
        assert_eq!(refused("COPY <<E /x\nhi\n"), "unterminated heredoc");
        let names = |text| heredoc_of(text).map(|heredoc| (heredoc.name, heredoc.expand));
        assert_eq!(names("<<- 'a b'"), Some(("a b".to_owned(), false)));
        assert_eq!(names(r"<<\EOF"), Some(("EOF".to_owned(), true)));
        assert_eq!(["<<a b", "<<", "<<''", "<<a<<b", "x<<a"].map(names), [const { None }; 5]);
    }
}
