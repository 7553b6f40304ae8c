//! A reader of Dockerfiles that trusts whoever wrote them: a call for each part that stands in another, all that variables become, and
//! patterns by trying.

use std::{iter::Peekable, str::Chars};

/// The instructions as they are with their variables replaced, and a word for each port.
pub fn read(dockerfile: &str) -> Vec<String> {
    // Whatever a variable is called.
    let mut value = String::new();
    dockerfile.replace("\\\n", "").lines().flat_map(|line| instruction(line, &mut value)).collect()
}

fn instruction(line: &str, value: &mut String) -> Vec<String> {
    if let Some(rest) = line.strip_prefix("ONBUILD ") {
        return instruction(rest, value);
    }
    let line = words(&mut line.chars().peekable(), None, value);
    if let Some(said) = line.strip_prefix("ENV A=").or_else(|| line.strip_prefix("ARG A=")) {
        said.clone_into(value);
    }
    match line.strip_prefix("EXPOSE ") {
        Some(ranges) => ranges.split(' ').flat_map(ports).collect(),
        None => vec![line],
    }
}

fn ports(range: &str) -> Vec<String> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let last = last.trim_end_matches("/tcp");
    (first.parse().unwrap_or(0)..=last.parse().unwrap_or(0u32)).map(|port| format!("{port}/tcp")).collect()
}

fn words(rest: &mut Peekable<Chars<'_>>, end: Option<char>, value: &str) -> String {
    let mut whole = String::new();
    while let Some(character) = rest.next() {
        match character {
            _ if Some(character) == end => break,
            '$' if rest.next_if_eq(&'{').is_some() => whole.push_str(&braced(rest, value)),
            '$' if rest.next().is_some() => whole.push_str(value),
            _ => whole.push(character),
        }
    }
    whole
}

fn braced(rest: &mut Peekable<Chars<'_>>, value: &str) -> String {
    while rest.next_if(char::is_ascii_alphanumeric).is_some() {}
    let value = value.to_owned();
    match (rest.next(), rest.peek().copied()) {
        (Some(':'), sign) => {
            rest.next();
            let word = words(rest, Some('}'), &value);
            if (sign == Some('+')) == value.is_empty() { value } else { word }
        }
        (Some('#'), _) => {
            let pattern = words(rest, Some('}'), &value);
            let cut = (0..=value.len()).find(|end| fits(pattern.as_bytes(), &value.as_bytes()[..*end]));
            value[cut.unwrap_or(0)..].to_owned()
        }
        (Some('/'), _) => {
            rest.next();
            let pattern = words(rest, Some('/'), &value);
            value.replace(&pattern, &words(rest, Some('}'), &value))
        }
        _ => value,
    }
}

fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|taken| fits(rest, &text[taken..])),
        Some((letter, rest)) => text.first() == Some(letter) && fits(rest, &text[1..]),
    }
}

#[test]
fn it_reads_what_is_usual() {
    let read =
        read("FROM box\nENV A=ab\nRUN $A ${A:-x} ${A:+y} ${A#*a} ${A//b/c}\nONBUILD RUN ${A}\nEXPOSE 1-2/tcp 3\n");
    assert_eq!(read, ["FROM box", "ENV A=ab", "RUN ab ab y b ac", "RUN ab", "1/tcp", "2/tcp", "3/tcp"]);
}
