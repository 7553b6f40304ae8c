//! Protobuf as it lies on the wire. Fields are read, changed and added one by one, and all others stay as they came: types of our own
//! would drop what a newer client or buildkitd says in fields that they do not know.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use crate::model::{Error, Result};

/// One field of a message.
pub(super) struct Field<'a> {
    /// Its number.
    pub(super) number: u32,
    /// What it holds, if that is bytes: a text, or a message.
    pub(super) content: Option<&'a [u8]>,
    /// All of it, as it stands in the message.
    whole: &'a [u8],
}

/// What becomes of a field.
pub(super) enum Change {
    Keep,
    Drop,
    /// The same number with other bytes.
    Into(Vec<u8>),
}

/// The fields of a message, in their order; after an error there are no more. One by one: a message of some MiB may have as many
/// millions of them.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>> {
    let begin = *rest;
    let (number, kind) = decode_key(rest).map_err(malformed)?;
    let content = match kind {
        WireType::Varint => decode_varint(rest).map_err(malformed).map(|_| None)?,
        WireType::SixtyFourBit => take(rest, 8).map(|_| None)?,
        WireType::ThirtyTwoBit => take(rest, 4).map(|_| None)?,
        WireType::LengthDelimited => {
            let length = decode_varint(rest).map_err(malformed)?;
            Some(take(rest, usize::try_from(length).map_err(malformed)?)?)
        }
        WireType::StartGroup | WireType::EndGroup => return Err(malformed("a group")),
    };
    Ok(Field { number, content, whole: &begin[..begin.len() - rest.len()] })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length).ok_or_else(|| malformed("it breaks off"))?;
    *rest = left;
    Ok(taken)
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("malformed message: {why}"))
}

/// The message with what `change` makes of each field.
pub(super) fn edited(message: &[u8], mut change: impl FnMut(&Field<'_>) -> Result<Change>) -> Result<Vec<u8>> {
    let mut edited = Vec::with_capacity(message.len());
    for field in fields(message) {
        let field = field?;
        match change(&field)? {
            Change::Keep => edited.extend_from_slice(field.whole),
            Change::Drop => {}
            Change::Into(content) => put(&mut edited, field.number, &content),
        }
    }
    Ok(edited)
}

/// Adds a field of bytes.
pub(super) fn put(message: &mut Vec<u8>, number: u32, content: &[u8]) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_varint(content.len() as u64, message);
    message.extend_from_slice(content);
}

/// A field's text.
pub(super) fn text(content: &[u8]) -> Result<&str> {
    std::str::from_utf8(content).map_err(malformed)
}

/// The text of a field that a message has once; the last one counts.
pub(super) fn text_of(message: &[u8], number: u32) -> Result<String> {
    let mut found: &[u8] = &[];
    for field in fields(message) {
        let field = field?;
        if field.number == number {
            found = field.content.unwrap_or_default();
        }
    }
    Ok(text(found)?.to_owned())
}

/// Key and value of a map's entry, which is a message with these two fields.
pub(super) fn entry(content: &[u8]) -> Result<(String, String)> {
    Ok((text_of(content, 1)?, text_of(content, 2)?))
}

/// A map's entry.
pub(super) fn entry_of(key: &str, value: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    put(&mut entry, 1, key.as_bytes());
    put(&mut entry, 2, value.as_bytes());
    entry
}

/// Adds an entry to a map.
pub(super) fn put_entry(message: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    put(message, number, &entry_of(key, value));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A varint, eight bytes, four bytes, and a text: numbers 1, 99, 3 and 4.
    fn message() -> Vec<u8> {
        let mut message = vec![0x08, 0x96, 0x01];
        encode_key(99, WireType::SixtyFourBit, &mut message);
        message.extend([7; 8]);
        encode_key(3, WireType::ThirtyTwoBit, &mut message);
        message.extend([8; 4]);
        put(&mut message, 4, b"text");
        message
    }

    #[test]
    fn what_nobody_touches_stays_byte_by_byte() {
        let message = message();
        assert_eq!(edited(&message, |_| Ok(Change::Keep)).unwrap(), message);
        let other = edited(&message, |field| {
            Ok(match field.number {
                1 | 3 => Change::Drop,
                4 => Change::Into(b"other".to_vec()),
                _ => Change::Keep,
            })
        });
        let other = other.unwrap();
        assert_eq!(fields(&other).map(|field| field.unwrap().number).collect::<Vec<_>>(), [99, 4]);
        assert_eq!(text_of(&other, 4).unwrap(), "other");
    }

    #[test]
    fn an_entry_is_two_texts() {
        let mut message = Vec::new();
        put_entry(&mut message, 7, "name", "x:1");
        put_entry(&mut message, 7, "", "");
        let entries: Vec<_> = fields(&message).map(|field| entry(field.unwrap().content.unwrap()).unwrap()).collect();
        assert_eq!(entries, [("name".to_owned(), "x:1".to_owned()), (String::new(), String::new())]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let whole = message();
        // A group, a length beyond the end and beyond all memory, half a number.
        for broken in [&[0x0b][..], &[0x22, 5, 1], &[0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &[0x80]]
        {
            assert!(edited(broken, |_| Ok(Change::Keep)).is_err(), "{broken:?}");
        }
        assert!(edited(&whole[..whole.len() - 1], |_| Ok(Change::Keep)).is_err());
    }
}
