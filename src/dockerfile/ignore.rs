//! `.dockerignore`: which paths of a context do not count. The last pattern that matches a path, or a folder above it,
//! decides.

use regex::Regex;

use crate::model::path::clean_absolute;

/// The patterns of a file.
#[derive(Clone, Debug, Default)]
pub struct Ignore(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    /// `!`: what matches counts again.
    counts: bool,
    regex: Regex,
}

impl Ignore {
    /// Reads a file. A pattern that is none is left out, as it can match nothing.
    pub fn parse(text: &str) -> Self {
        let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
        let patterns = lines.filter_map(|line| {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let (counts, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            Some(Pattern { counts, regex: regex_of(&clean(pattern))? })
        });
        Self(patterns.collect())
    }

    /// Whether `path`, relative to the context, is left out.
    pub fn matches(&self, path: &str) -> bool {
        let path = clean(path);
        let above = path.match_indices('/').map(|(slash, _)| &path[..slash]);
        let paths: Vec<&str> = above.chain([path.as_str()]).collect();
        let mut ignored = false;
        for pattern in &self.0 {
            // Only what would change the answer needs a look.
            if pattern.counts == ignored && paths.iter().any(|path| pattern.regex.is_match(path)) {
                ignored = !pattern.counts;
            }
        }
        ignored
    }
}

/// Without a slash at the beginning or end, `.` and `..` resolved.
fn clean(path: &str) -> String {
    clean_absolute(path).split_off(1)
}

/// Go's `filepath.Match`, and `**` for any number of folders.
fn regex_of(pattern: &str) -> Option<Regex> {
    if pattern.is_empty() {
        return None;
    }
    let mut text = "(?s)^".to_owned();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                let slash = rest.next_if_eq(&'/').is_some();
                text.push_str(match (rest.peek().is_none(), slash) {
                    (true, false) => ".*",
                    _ => "(.*/)?",
                });
            }
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '[' => {
                text.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    text.push('^');
                }
                loop {
                    match rest.next()? {
                        ']' => break,
                        '\\' => text.push_str(&regex::escape(rest.next()?.encode_utf8(&mut [0; 4]))),
                        '-' => text.push('-'),
                        other => text.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
                    }
                }
                text.push(']');
            }
            '\\' => text.push_str(&regex::escape(rest.next()?.encode_utf8(&mut [0; 4]))),
            other => text.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    text.push('$');
    Regex::new(&text).ok()
}

/// Go's `filepath.Match`: a pattern against a whole path; `None` for a pattern that is none.
pub fn glob(pattern: &str) -> Option<Regex> {
    // Two stars are one here.
    let mut single = String::with_capacity(pattern.len());
    for character in pattern.chars() {
        if !(character == '*' && single.ends_with('*')) {
            single.push(character);
        }
    }
    regex_of(&single)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_match_decides() {
        for (file, path, ignored) in [
            ("a", "a", true),
            ("a", "b/a", false),
            ("a", "a/b/c", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "x.md", true),
            ("!README.md\n*.md", "README.md", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/z", "a/z", true),
            ("**", "anything/at/all", true),
            ("**\n!keep/this", "keep/this/too", false),
            ("# a\n\n  b  ", "b", true),
            ("/a/", "a", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            (r"\*", "*", true),
            ("[", "[", false),
        ] {
            assert_eq!(Ignore::parse(file).matches(path), ignored, "{file:?} {path}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        crate::model::fuzz::each(&[b"*.o\n!a/**/b\n# c\n[a-c]?\n", b"/x/\n\\!y\n{a,b}"], |input| {
            Ignore::parse(&String::from_utf8_lossy(input)).matches("a/x/b.o");
        });
    }
}
