//! Syntax errors of JSON in the words of Go's decoder, which clients show to their users.

use serde_json::error::Category;

use crate::model::Error;

/// The 400 for `text`, which serde_json could not read.
pub fn syntax(error: &serde_json::Error, text: &[u8]) -> Error {
    let told = error.to_string();
    if told.starts_with("trailing characters") {
        return Error::invalid("unexpected content after JSON");
    }
    if error.classify() == Category::Eof {
        return Error::invalid("invalid JSON: unexpected EOF");
    }
    let at = offset(error, text);
    if let Some(literal) = literal_before(&text[..=at]) {
        return Error::invalid(format!("invalid JSON: {literal}"));
    }
    let character = String::from_utf8_lossy(&text[at..]).chars().next().unwrap_or('\u{fffd}');
    if told.starts_with("invalid escape") {
        return Error::invalid(format!("invalid JSON: invalid escape sequence `\\{character}` in string"));
    }
    let place = match told.split(" at line").next().unwrap_or_default() {
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "key must be a string" => "looking for beginning of object key string",
        "trailing comma" if text[at] == b'}' => "looking for beginning of object key string",
        "invalid number" => "in numeric literal",
        told if told.starts_with("control character") => "in string literal",
        _ => "looking for beginning of value",
    };
    Error::invalid(format!("invalid JSON: invalid character {character:?} {place}"))
}

/// Index of the character that the error is about.
fn offset(error: &serde_json::Error, text: &[u8]) -> usize {
    let line_start: usize =
        text.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (line_start + error.column().saturating_sub(1)).min(text.len() - 1)
}

/// If the text up to and with the offending character breaks off a `true`, `false` or `null`.
fn literal_before(text: &[u8]) -> Option<String> {
    let (&wrong, before) = text.split_last()?;
    let letters = before.iter().rev().take_while(|byte| byte.is_ascii_lowercase()).count();
    let begun = &before[before.len() - letters..];
    let literal = ["true", "false", "null"]
        .into_iter()
        .find(|word| !begun.is_empty() && begun.len() < word.len() && word.as_bytes().starts_with(begun))?;
    let expected = char::from(literal.as_bytes()[begun.len()]);
    Some(format!("invalid character {:?} in literal {literal} (expecting {expected:?})", char::from(wrong)))
}
