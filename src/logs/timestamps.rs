//! The time in front of a line: RFC 3339 with all nine digits. Lines of one second share the first part.

use crate::model::time::Timestamp;

const NANOS: i64 = 1_000_000_000;

/// Writes times, remembering the last second.
#[derive(Debug, Default)]
pub struct TimestampWriter {
    second: Option<i64>,
    /// `2026-11-24T03:28:50.`
    prefix: String,
}

impl TimestampWriter {
    /// Appends `2026-11-24T03:28:50.433421631Z `.
    pub fn write(&mut self, into: &mut Vec<u8>, nanos: i64) {
        let second = nanos.div_euclid(NANOS);
        if self.second != Some(second) {
            self.prefix = Timestamp::from_unix(second, 0).fixed_nanos();
            self.prefix.truncate(self.prefix.len() - "000000000Z".len());
            self.second = Some(second);
        }
        into.extend_from_slice(self.prefix.as_bytes());
        let mut digits = *b"000000000Z ";
        let mut fraction = nanos.rem_euclid(NANOS);
        for digit in digits[..9].iter_mut().rev() {
            *digit = b'0' + u8::try_from(fraction % 10).expect("a digit");
            fraction /= 10;
        }
        into.extend_from_slice(&digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_digits_are_always_written() {
        let mut writer = TimestampWriter::default();
        let mut text = Vec::new();
        for nanos in [1, 1_000_000_000, 1_000_000_120] {
            writer.write(&mut text, nanos);
        }
        let expected = "1970-01-01T00:00:00.000000001Z 1970-01-01T00:00:01.000000000Z 1970-01-01T00:00:01.000000120Z ";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
