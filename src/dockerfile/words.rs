//! Splitting the rest of a line into words, before any variable is looked at: quotes and escapes stay.

use serde_json::Value;

use crate::model::{Error, Result, limits};

/// Words with their quotes; space inside quotes does not split. An empty pair of quotes is a word.
pub fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match quote {
            None if character.is_whitespace() => {
                words.extend(word.take());
                continue;
            }
            None if character == '\'' || character == '"' => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ => {}
        }
        if character == escape && quote != Some('\'') {
            // One at the very end counts for nothing.
            let Some(escaped) = characters.next() else { break };
            word.get_or_insert_default().extend([character, escaped]);
            continue;
        }
        word.get_or_insert_default().push(character);
    }
    words.extend(word);
    words
}

/// Words between spaces and tabs, quotes being nothing special.
pub fn split_plain(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Space within a line.
pub fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// `["a", "b"]`. `None` for what is no JSON list, which is then text; an error for a list of other things than texts.
pub fn json_list(text: &str) -> Result<Option<Vec<String>>> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else { return Ok(None) };
    let texts = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        _ => Err(Error::invalid("when using JSON array syntax, arrays must be comprised of strings only")),
    });
    texts.collect::<Result<_>>().map(Some)
}

/// A name with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
}

impl Pair {
    /// As the history shows it.
    pub fn shown(&self) -> String {
        format!("{}={}", self.key, self.value)
    }
}

/// `a=b c="d e"`, or the old form: a name, and the rest of the line is its value.
pub fn pairs(instruction: &str, text: &str, escape: char) -> Result<Vec<Pair>> {
    let words = split(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (key, value) = text
            .split_once(is_blank)
            .ok_or_else(|| Error::invalid(format!("{instruction} must have two arguments")))?;
        let value = value.trim_start_matches(is_blank).to_owned();
        return Ok(vec![Pair { key: key.to_owned(), value }]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) => Ok(Pair { key: key.to_owned(), value: value.to_owned() }),
        None => {
            let word = limits::shown(word, limits::SHOWN);
            Err(Error::invalid(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")))
        }
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_words_together_and_stay() {
        assert_eq!(split(r#"a "b c"d  'e f' g\ h ''"#, '\\'), ["a", r#""b c"d"#, "'e f'", r"g\ h", "''"]);
        assert_eq!(split(r"a \", '\\'), ["a"]);
    }

    #[test]
    fn lists_are_json_or_text() {
        assert_eq!(json_list(r#" ["a", "b"]"#).unwrap().unwrap(), ["a", "b"]);
        assert!(json_list("[a]").unwrap().is_none());
        assert!(json_list("[1]").is_err());
    }

    #[test]
    fn pairs_have_two_forms() {
        let shown = |text| pairs("ENV", text, '\\').unwrap().iter().map(Pair::shown).collect::<Vec<_>>();
        assert_eq!(shown(r#"A=b C="d e""#), ["A=b", r#"C="d e""#]);
        assert_eq!(shown("A  other words"), ["A=other words"]);
        assert_eq!(pairs("ENV", "A", '\\').unwrap_err().message(), "ENV must have two arguments");
        assert!(pairs("ENV", "A=b c", '\\').unwrap_err().message().starts_with("Syntax error - can't find = in \"c\""));
    }
}
