//! `$name`, `${name:-word}` and their like, quotes and escapes, in the words of an instruction.
//!
//! Whoever wrote the text may be a stranger: how deep substitutions go, what they become and what they cost is bounded.

use std::{
    iter::Peekable,
    str::Chars,
    sync::atomic::{AtomicUsize, Ordering},
};

use indexmap::IndexMap;
use regex::{Captures, Regex, RegexBuilder};

use crate::model::{Error, Result, limits};

/// Variables by name, as one instruction sees them.
#[derive(Debug, Default)]
pub struct Variables {
    values: IndexMap<String, String>,
    /// What their replacement has cost so far.
    spent: AtomicUsize,
}

impl Variables {
    /// From `KEY=value` lines; later ones win.
    pub fn of_lines<'a>(lines: impl IntoIterator<Item = &'a String>) -> Self {
        let pair = |line: &String| {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            (key.to_owned(), value.to_owned())
        };
        Self { values: lines.into_iter().map(pair).collect(), spent: AtomicUsize::new(0) }
    }

    fn get(&self, name: &str) -> Option<&String> {
        self.values.get(name)
    }

    /// Counts bytes that are moved or looked through: a few letters may ask for a value of a MiB, again and again.
    fn spend(&self, bytes: usize) -> Result<()> {
        let before = self.spent.fetch_add(bytes, Ordering::Relaxed);
        match before.saturating_add(bytes) > limits::EXPANDING {
            true => Err(Error::invalid(format!("variables take more than {}", limits::mib(limits::EXPANDING)))),
            false => Ok(()),
        }
    }
}

/// The word with variables replaced, quotes and escapes taken off.
pub fn expand(text: &str, escape: char, variables: &Variables) -> Result<String> {
    run(text, escape, variables).map(|(whole, _)| whole)
}

/// The same, split where unquoted space is; also space that came out of a variable.
pub fn expand_words(text: &str, escape: char, variables: &Variables) -> Result<Vec<String>> {
    run(text, escape, variables).map(|(_, words)| words)
}

/// The text with variables replaced and nothing else: quotes and escapes stay.
pub fn expand_document(text: &str, escape: char, variables: &Variables) -> Result<String> {
    let mut scan = Scan::new(text, escape, variables);
    let mut whole = String::new();
    while let Some(&character) = scan.rest.peek() {
        if character == '$' {
            whole.push_str(&scan.dollar()?);
            fits(whole.len(), text.len() + limits::EXPANDED)?;
            continue;
        }
        scan.rest.next();
        whole.push(character);
        if character == escape {
            whole.extend(scan.rest.next());
        }
    }
    Ok(whole)
}

fn run(text: &str, escape: char, variables: &Variables) -> Result<(String, Vec<String>)> {
    let failed = |error: Error| error.context(format!("failed to process {:?}", limits::shown(text, limits::SHOWN)));
    let (whole, words) = Scan::new(text, escape, variables).until(None, false).map_err(failed)?;
    Ok((whole, words.finish()))
}

fn fits(length: usize, longest: usize) -> Result<()> {
    match length > longest {
        true => Err(Error::invalid(format!("variables become more than {}", limits::mib(limits::EXPANDED)))),
        false => Ok(()),
    }
}

/// Text that is cut into words as it comes.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: Option<String>,
}

impl Words {
    fn push(&mut self, character: char) {
        self.word.get_or_insert_default().push(character);
    }

    fn push_splitting(&mut self, text: &str) {
        for character in text.chars() {
            match character.is_whitespace() {
                true => self.done.extend(self.word.take()),
                false => self.push(character),
            }
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.done.extend(self.word.take());
        self.done.retain(|word| !word.is_empty());
        self.done
    }
}

struct Scan<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    variables: &'a Variables,
    /// Substitutions around this place.
    depth: usize,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str, escape: char, variables: &'a Variables) -> Self {
        Self { rest: text.chars().peekable(), escape, variables, depth: 0 }
    }

    /// Up to `stop`, which is taken; `None` is the end. `raw` leaves escapes as they are, for patterns.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Result<(String, Words)> {
        let (mut whole, mut words) = (String::new(), Words::default());
        while let Some(&character) = self.rest.peek() {
            if Some(character) == stop {
                self.rest.next();
                return Ok((whole, words));
            }
            match character {
                '\'' => {
                    let text = self.single_quoted()?;
                    words.word.get_or_insert_default().push_str(&text);
                    whole.push_str(&text);
                }
                '"' => {
                    let text = self.double_quoted(raw)?;
                    words.word.get_or_insert_default().push_str(&text);
                    whole.push_str(&text);
                }
                '$' => {
                    let text = self.dollar()?;
                    fits(whole.len() + text.len(), limits::EXPANDED)?;
                    words.push_splitting(&text);
                    whole.push_str(&text);
                }
                _ if character == self.escape => {
                    self.rest.next();
                    if raw {
                        words.push(character);
                        whole.push(character);
                    }
                    let Some(escaped) = self.rest.next() else { break };
                    words.push(escaped);
                    whole.push(escaped);
                }
                _ => {
                    self.rest.next();
                    words.push_splitting(character.encode_utf8(&mut [0; 4]));
                    whole.push(character);
                }
            }
        }
        match stop {
            None => Ok((whole, words)),
            Some(stop) => Err(Error::invalid(format!("unexpected end of statement while looking for matching {stop}"))),
        }
    }

    fn single_quoted(&mut self) -> Result<String> {
        self.rest.next();
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(text),
                Some(character) => text.push(character),
                None => return Err(unmatched("single")),
            }
        }
    }

    fn double_quoted(&mut self, raw: bool) -> Result<String> {
        self.rest.next();
        let mut text = String::new();
        loop {
            match self.rest.peek().copied() {
                None => return Err(unmatched("double")),
                Some('"') => {
                    self.rest.next();
                    return Ok(text);
                }
                Some('$') => {
                    text.push_str(&self.dollar()?);
                    fits(text.len(), limits::EXPANDED)?;
                }
                Some(character) if character == self.escape => {
                    self.rest.next();
                    if raw {
                        text.push(character);
                    }
                    match self.rest.peek().copied() {
                        None => {}
                        // Before all others the escape stands for itself.
                        Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.escape => {
                            self.rest.next();
                            text.push(escaped);
                        }
                        Some(_) => text.push(character),
                    }
                }
                Some(character) => {
                    self.rest.next();
                    text.push(character);
                }
            }
        }
    }

    /// What stands for a `$` and its name or braces.
    fn dollar(&mut self) -> Result<String> {
        self.rest.next();
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            let value = if name.is_empty() { Some("$".to_owned()) } else { self.value(&name)? };
            return Ok(value.unwrap_or_default());
        }
        if self.depth == limits::SUBSTITUTIONS {
            let deepest = limits::SUBSTITUTIONS;
            return Err(Error::invalid(format!("substitutions are nested more than {deepest} deep")));
        }
        self.depth += 1;
        let text = self.braces();
        self.depth -= 1;
        text
    }

    fn value(&self, name: &str) -> Result<Option<String>> {
        let value = self.variables.get(name);
        // A word that only asks costs something as well.
        self.variables.spend(1 + value.map_or(0, String::len))?;
        Ok(value.cloned())
    }

    /// What stands for `{…}`; its beginning is taken.
    fn braces(&mut self) -> Result<String> {
        match self.rest.peek() {
            None => return Err(Error::invalid("syntax error: missing '}'")),
            Some('{' | '}' | ':') => return Err(Error::invalid("syntax error: bad substitution")),
            Some(_) => {}
        }
        let name = self.name();
        let value = self.value(&name)?;
        match self.rest.next() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => {
                let modifier = self.rest.next();
                match modifier {
                    Some(modifier @ ('-' | '+' | '?')) => self.alternative(&name, value, modifier, true),
                    None | Some('}') => Err(Error::invalid("syntax error: missing '}'")),
                    Some(other) => Err(unsupported(&format!(":{other}"))),
                }
            }
            Some(modifier @ ('-' | '+' | '?')) => self.alternative(&name, value, modifier, false),
            Some(end @ ('#' | '%')) => self.trimmed(&value.unwrap_or_default(), end),
            Some('/') => self.replaced(&value.unwrap_or_default()),
            Some(other) => Err(unsupported(&other.to_string())),
            // dockerd prints what Go makes of the end of a text.
            None => Err(unsupported("\u{fffd}")),
        }
    }

    /// `${name:-word}`, `${name:+word}`, `${name:?word}`; without the colon an empty value counts as one.
    fn alternative(
        &mut self,
        name: &str,
        value: Option<String>,
        modifier: char,
        empty_is_unset: bool,
    ) -> Result<String> {
        let word = self.braced_word(false)?;
        let usable = value.clone().filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, usable) {
            ('-', usable) => Ok(usable.unwrap_or(word)),
            ('+', usable) => Ok(usable.map(|_| word).unwrap_or_default()),
            (_, Some(usable)) => Ok(usable),
            (_, None) => {
                let usual = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                Err(Error::invalid(format!("{name}: {}", if word.is_empty() { usual } else { &word })))
            }
        }
    }

    fn braced_word(&mut self, raw: bool) -> Result<String> {
        match self.until(Some('}'), raw) {
            Ok((word, _)) => Ok(word),
            Err(_) if self.rest.peek().is_none() => Err(Error::invalid("syntax error: missing '}'")),
            Err(error) => Err(error),
        }
    }

    /// `${name#pattern}`, `${name%pattern}`; doubled for the longest match.
    fn trimmed(&mut self, value: &str, end: char) -> Result<String> {
        let word = self.braced_word(true)?;
        let (pattern, longest) = match word.strip_prefix(end) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        // Of several cuts the pattern's own greed takes the one that is meant, in one pass.
        let regex = match (end, longest) {
            ('#', false) => pattern_regex(pattern, ".*?", "^", "(?P<kept>.*)$"),
            ('#', true) => pattern_regex(pattern, ".*", "^", "(?P<kept>.*?)$"),
            (_, false) => pattern_regex(pattern, ".*", "^(?P<kept>.*)", "$"),
            (_, true) => pattern_regex(pattern, ".*", "^(?P<kept>.*?)", "$"),
        }?;
        self.variables.spend(value.len().saturating_mul(1 + pattern.len()))?;
        let kept = regex.captures(value).and_then(|cut: Captures<'_>| cut.name("kept"));
        Ok(kept.map_or(value, |kept| kept.as_str()).to_owned())
    }

    /// `${name/pattern/word}`, `${name//pattern/word}`.
    fn replaced(&mut self, value: &str) -> Result<String> {
        let all = self.rest.next_if_eq(&'/').is_some();
        let pattern = match self.until(Some('/'), true) {
            Ok((pattern, _)) => pattern,
            Err(_) if self.rest.peek().is_none() => return Err(Error::invalid("syntax error: missing '/' in ${}")),
            Err(error) => return Err(error),
        };
        let word = self.braced_word(true)?;
        let regex = pattern_regex(&pattern, ".*", "", "")?;
        self.variables.spend(value.len().saturating_mul(1 + pattern.len()))?;
        let (mut text, mut done) = (String::new(), 0);
        for found in regex.find_iter(value).take(if all { usize::MAX } else { 1 }) {
            text.push_str(&value[done..found.start()]);
            text.push_str(&word);
            done = found.end();
            self.variables.spend(word.len())?;
            fits(text.len(), limits::EXPANDED)?;
        }
        text.push_str(&value[done..]);
        Ok(text)
    }

    /// A name, a number, or one of the shell's special signs.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            name.push(digit);
            while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
                name.push(digit);
            }
            return name;
        }
        if let Some(special) = self.rest.next_if(|character| "@*#?-$!".contains(*character)) {
            return special.to_string();
        }
        while let Some(character) = self.rest.next_if(|character| character.is_alphanumeric() || *character == '_') {
            name.push(character);
        }
        name
    }
}

/// `*` and `?` as in a shell; `\` takes the next character as it is. `any` is what a `*` becomes.
fn pattern_regex(pattern: &str, any: &str, before: &str, after: &str) -> Result<Regex> {
    if pattern.len() > limits::PATTERN {
        return Err(Error::invalid(format!("a pattern is longer than {}", limits::mib(limits::PATTERN))));
    }
    let mut text = format!("(?s){before}");
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' => text.push_str(any),
            '?' => text.push('.'),
            '\\' => {
                let escaped = characters
                    .next()
                    .ok_or_else(|| Error::invalid(format!("invalid pattern ({pattern}) in substitution")))?;
                text.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
            }
            other => text.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    text.push_str(after);
    RegexBuilder::new(&text)
        .size_limit(1 << 20)
        .dfa_size_limit(1 << 20)
        .build()
        .map_err(|error| Error::invalid(format!("invalid pattern ({pattern}) in substitution")).with_source(error))
}

fn unmatched(quote: &str) -> Error {
    Error::invalid(format!("unexpected end of statement while looking for matching {quote}-quote"))
}

fn unsupported(modifier: &str) -> Error {
    Error::invalid(format!("unsupported modifier ({modifier}) in substitution"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables::of_lines(&["A=b".to_owned(), "E=".to_owned(), "P=80 443".to_owned(), "F=/a/b.tar.gz".to_owned()])
    }

    #[test]
    fn words_are_expanded_as_dockerd_does() {
        for (text, expanded) in [
            ("plain", "plain"),
            ("$A-${A}x$nosuch", "b-bx"),
            ("${E:-d}${E-d}${no-d}${no:-$A}", "ddb"),
            ("${A:+x}${E:+x}${E+y}${no+z}", "xy"),
            (r"\$A \\ \x", r"$A \ x"),
            (r#""a $A 'q' \" \x""#, r#"a b 'q' " \x"#),
            ("'$A \"'", "$A \""),
            ("a$", "a$"),
            ("$1x", "x"),
            ("${F#*/} ${F##*/} ${F%.*} ${F%%.*}", "a/b.tar.gz b.tar.gz /a/b.tar /a/b"),
            ("${F/a/X} ${F//a/X}", "/X/b.tar.gz /X/b.tXr.gz"),
            ("${A:-'}'}", "b"),
        ] {
            assert_eq!(expand(text, '\\', &variables()).unwrap(), expanded, "{text}");
        }
        assert_eq!(expand("`$A \\x", '`', &variables()).unwrap(), "$A \\x");
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_dockerds_words() {
        for (text, error) in [
            ("${b:?}", "b: is not allowed to be unset"),
            ("${E:?}", "E: is not allowed to be empty"),
            ("${b?my words}", "b: my words"),
            ("${b:}", "syntax error: missing '}'"),
            ("${b", "unsupported modifier (\u{fffd}) in substitution"),
            ("${}", "syntax error: bad substitution"),
            ("${b:=x}", "unsupported modifier (:=) in substitution"),
            ("'x", "unexpected end of statement while looking for matching single-quote"),
            ("\"x", "unexpected end of statement while looking for matching double-quote"),
        ] {
            let said = expand(text, '\\', &variables()).unwrap_err();
            assert_eq!(said.message(), format!("failed to process {text:?}: {error}"));
        }
    }

    #[test]
    fn cuts_are_as_short_or_as_long_as_was_asked_for() {
        let variables = Variables::of_lines(&["V=a.b.a.c".to_owned()]);
        for (text, expanded) in [
            ("${V#*.}", "b.a.c"),
            ("${V##*.}", "c"),
            ("${V%.*}", "a.b.a"),
            ("${V%%.*}", "a"),
            ("${V#a*a}", ".c"),
            ("${V##a*a}", ".c"),
            ("${V%a*c}", "a.b."),
            ("${V%%a*c}", ""),
            ("${V#?}", ".b.a.c"),
            ("${V#x}", "a.b.a.c"),
            ("${V#}", "a.b.a.c"),
            ("${V%*}", "a.b.a.c"),
            ("${V##*}", ""),
            ("${V/a*b/X}", "X.a.c"),
            ("${V//?./-}", "---c"),
            ("${V//./}", "abac"),
        ] {
            assert_eq!(expand(text, '\\', &variables).unwrap(), expanded, "{text}");
        }
    }

    fn nested(depth: usize) -> String {
        format!("{}x{}", "${N:-".repeat(depth), "}".repeat(depth))
    }

    #[test]
    fn nesting_has_an_end_and_no_stack_is_needed_for_it() {
        assert_eq!(expand(&nested(limits::SUBSTITUTIONS), '\\', &variables()).unwrap(), "x");
        let quoted = format!("{}x{}", "\"${N:-".repeat(5_000), "}\"".repeat(5_000));
        for text in
            [nested(limits::SUBSTITUTIONS + 1), nested(13_000), "${N#".repeat(16_000), "${N/".repeat(9_000), quoted]
        {
            let said = expand(&text, '\\', &variables()).unwrap_err();
            assert!(said.message().ends_with(": substitutions are nested more than 100 deep"), "{}", said.message());
            assert!(said.message().len() < 2 * limits::SHOWN, "{}", said.message().len());
        }
    }

    #[test]
    fn what_variables_become_and_what_that_costs_is_bounded() {
        let large = |name: &str| format!("{name}={}", "a".repeat(limits::EXPANDED - 8));
        let told = |text: &str| {
            let variables = Variables::of_lines(&[large("L"), "S=aaaa".to_owned()]);
            let document = expand_document(text, '\\', &variables).err();
            let said = document.or_else(|| expand(text, '\\', &variables).err()).expect("refused");
            said.message().rsplit(": ").next().unwrap_or_default().to_owned()
        };
        for text in ["$L$L".to_owned(), "\"$L$L\"".to_owned(), "${L//a/$S}".to_owned(), "$L".repeat(30_000)] {
            assert_eq!(told(&text), "variables become more than 1 MiB");
        }
        // Words that are thrown away, and values that are only looked through.
        for text in ["${S:+}${L:+}", "${S:-$L}", "${L#b*b}", "${S:-${L:-$L$L}}"] {
            let said = told(&text.repeat(5_000));
            assert!(said.starts_with("variables take") || said.starts_with("variables become"), "{said}");
        }
        assert_eq!(told(&format!("${{S#{}}}", "?".repeat(5_000))), "a pattern is longer than 1 KiB");
    }

    #[test]
    fn documents_keep_their_quotes() {
        assert_eq!(expand_document("'$A' \"x\" \\$A", '\\', &variables()).unwrap(), "'b' \"x\" \\$A");
    }

    #[test]
    fn space_of_variables_splits_and_quoted_does_not() {
        assert_eq!(expand_words("$P 22", '\\', &variables()).unwrap(), ["80", "443", "22"]);
        assert_eq!(expand_words("'a b' c", '\\', &variables()).unwrap(), ["a b", "c"]);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let lines = ["A=one".to_owned(), "B=*x".to_owned()];
        let variables = Variables::of_lines(&lines);
        let good: [&[u8]; 4] = [b"$A/${B:-x}", b"${A%%*n}", b"\"a $A\" 'b'", b"${A/#o/${B:+c}}\\$"];
        crate::model::fuzz::each(&good, |input| {
            let text = String::from_utf8_lossy(input);
            drop(expand(&text, '\\', &variables));
            drop(expand_words(&text, '`', &variables));
            drop(expand_document(&text, '\\', &variables));
        });
    }
}
