//! The client's side of a WebSocket (RFC 6455), as little of it as one message in and all messages out need.

/// What the request says besides its path.
pub const HEADERS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://docker\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// One text message, masked with zeros, which changes nothing. Its text is short.
pub fn message(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a test's message is short");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// What the daemon sent: all of a kind together, since where a message ends is chance, and the code of the close.
pub fn messages(body: &[u8]) -> Option<Vec<String>> {
    let mut messages: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (&[first, second], after) = rest.split_first_chunk()?;
        let (length, after) = match second {
            126 => after.split_first_chunk().map(|(length, after)| (u64::from(u16::from_be_bytes(*length)), after))?,
            127 => after.split_first_chunk().map(|(length, after)| (u64::from_be_bytes(*length), after))?,
            length => (u64::from(length), after),
        };
        let (payload, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        let kind = match first & 0x0f {
            0 => messages.last()?.0,
            1 => "text",
            2 => "binary",
            8 => "close",
            9 => "ping",
            _ => "pong",
        };
        match messages.last_mut() {
            Some((last, bytes)) if *last == kind => bytes.extend_from_slice(payload),
            _ => messages.push((kind, payload.to_vec())),
        }
        rest = after;
    }
    let line = |(kind, bytes): &(&str, Vec<u8>)| match (*kind, &bytes[..]) {
        ("close", &[high, low, ..]) => format!("close: {}", u16::from_be_bytes([high, low])),
        _ => format!("{kind}: {:?}", String::from_utf8_lossy(bytes)),
    };
    Some(messages.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_joined_and_the_close_has_its_code() {
        let body = [&[0x82, 1][..], b"a", &[0x82, 126, 0, 1], b"b", &[0x88, 2, 3, 232]].concat();
        assert_eq!(messages(&body), Some(vec!["binary: \"ab\"".to_owned(), "close: 1000".to_owned()]));
        assert_eq!(messages(&[0x82, 5, 1]), None);
    }

    #[test]
    fn a_message_is_masked() {
        assert_eq!(message("hi"), [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    }
}
