//! `$name`, `${name:-word}` and their like, quotes and escapes, in the words of an instruction.

use std::{iter::Peekable, str::Chars};

use indexmap::IndexMap;
use regex::Regex;

use crate::model::{Error, Result};

/// Variables by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(IndexMap<String, String>);

impl Variables {
    /// From `KEY=value` lines; later ones win.
    pub fn of_lines<'a>(lines: impl IntoIterator<Item = &'a String>) -> Self {
        let pair = |line: &String| {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            (key.to_owned(), value.to_owned())
        };
        Self(lines.into_iter().map(pair).collect())
    }

    fn get(&self, name: &str) -> Option<&String> {
        self.0.get(name)
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
    let mut scan = Scan { rest: text.chars().peekable(), escape, variables };
    let mut whole = String::new();
    while let Some(&character) = scan.rest.peek() {
        if character == '$' {
            whole.push_str(&scan.dollar()?);
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
    let mut scan = Scan { rest: text.chars().peekable(), escape, variables };
    let (whole, words) =
        scan.until(None, false).map_err(|error| error.context(format!("failed to process {text:?}")))?;
    Ok((whole, words.finish()))
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
}

impl Scan<'_> {
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
                Some('$') => text.push_str(&self.dollar()?),
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

    fn dollar(&mut self) -> Result<String> {
        self.rest.next();
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            let value = if name.is_empty() { Some("$".to_owned()) } else { self.variables.get(&name).cloned() };
            return Ok(value.unwrap_or_default());
        }
        self.rest.next();
        match self.rest.peek() {
            None => return Err(Error::invalid("syntax error: missing '}'")),
            Some('{' | '}' | ':') => return Err(Error::invalid("syntax error: bad substitution")),
            Some(_) => {}
        }
        let name = self.name();
        let value = self.variables.get(&name).cloned();
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
        let whole = pattern_regex(pattern, "^", "$")?;
        let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
        if (end == '#') == longest {
            cuts.reverse();
        }
        let kept = cuts.into_iter().find_map(|at| {
            let (before, after) = value.split_at(at);
            let (part, kept) = if end == '#' { (before, after) } else { (after, before) };
            whole.is_match(part).then_some(kept)
        });
        Ok(kept.unwrap_or(value).to_owned())
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
        let pattern = pattern_regex(&pattern, "", "")?;
        let word = regex::NoExpand(&word);
        Ok(if all { pattern.replace_all(value, word) } else { pattern.replace(value, word) }.into_owned())
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

/// `*` and `?` as in a shell; `\` takes the next character as it is.
fn pattern_regex(pattern: &str, before: &str, after: &str) -> Result<Regex> {
    let mut text = format!("(?s){before}");
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' => text.push_str(".*"),
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
    Regex::new(&text)
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
    fn documents_keep_their_quotes() {
        assert_eq!(expand_document("'$A' \"x\" \\$A", '\\', &variables()).unwrap(), "'b' \"x\" \\$A");
    }

    #[test]
    fn space_of_variables_splits_and_quoted_does_not() {
        assert_eq!(expand_words("$P 22", '\\', &variables()).unwrap(), ["80", "443", "22"]);
        assert_eq!(expand_words("'a b' c", '\\', &variables()).unwrap(), ["a b", "c"]);
    }
}
