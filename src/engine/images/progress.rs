//! Messages of pull, load and import, field by field as dockerd writes them.

use serde::Serialize;

/// One message of a stream of progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Message {
    /// A line for the terminal, as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What is being done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How far it is; `{}` where that is not known.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
    /// The same as a drawn bar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Of which layer, or which tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What programs read: ids and digests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// Bytes done and to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// Done.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// All.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Message {
    /// A status of the whole.
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: Some(text.into()), ..Self::default() }
    }

    /// A status with the tag or reference it is about.
    pub fn about(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..Self::status(text) }
    }

    /// A step of a layer, which is named by the first digits of its digest.
    pub fn layer(id: &str, text: impl Into<String>) -> Self {
        Self { detail: Some(Detail::default()), ..Self::about(id, text) }
    }

    /// How far a layer is.
    pub fn layer_progress(id: &str, text: &str, current: u64, total: u64) -> Self {
        Self { detail: Some(Detail { current, total }), progress: Some(bar(current, total)), ..Self::about(id, text) }
    }

    /// What programs read of a push.
    pub fn aux(value: serde_json::Value) -> Self {
        Self { detail: Some(Detail::default()), aux: Some(value), ..Self::default() }
    }

    /// A line for the terminal.
    pub fn stream(line: impl Into<String>) -> Self {
        Self { stream: Some(line.into()), ..Self::default() }
    }

    /// Whether a later message of the same layer makes this one worthless.
    pub fn is_passing(&self) -> bool {
        self.progress.is_some()
    }
}

/// `[=====>     ]  36.45kB/1.064MB`
fn bar(current: u64, total: u64) -> String {
    if total == 0 {
        return format!("{:>8}", human_size(current));
    }
    let done = usize::try_from(u128::from(current.min(total)) * 50 / u128::from(total)).unwrap_or(50);
    let (equals, spaces) = ("=".repeat(done), " ".repeat(50 - done));
    format!("[{equals}>{spaces}] {:>8}/{}", human_size(current), human_size(total))
}

/// Decimal units with four significant digits (Go's `%.4g`), as docker prints sizes: `1.064MB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[allow(clippy::cast_precision_loss, reason = "four digits are printed")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit < UNITS.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    let before_point = if size >= 100.0 {
        3
    } else if size >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{size:.*}", 4 - before_point);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{}", if text.is_empty() { "0" } else { text }, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_looks_as_dockerds() {
        assert_eq!(bar(36445, 1_064_379), format!("[=>{}]  36.45kB/1.064MB", " ".repeat(49)));
        assert_eq!(bar(1_064_379, 1_064_379), format!("[{}>]  1.064MB/1.064MB", "=".repeat(50)));
        assert_eq!(bar(0, 10), format!("[>{}]       0B/10B", " ".repeat(50)));
    }

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (10, "10B"),
            (100, "100B"),
            (999, "999B"),
            (1000, "1kB"),
            (32768, "32.77kB"),
            (123_456, "123.5kB"),
            (5_000_000_000, "5GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn messages_are_dockerds() {
        let json = |message: &Message| serde_json::to_string(message).unwrap();
        assert_eq!(
            json(&Message::layer("ab", "Pulling fs layer")),
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"ab"}"#
        );
        assert_eq!(json(&Message::about("1", "Pulling from lib/x")), r#"{"status":"Pulling from lib/x","id":"1"}"#);
        assert_eq!(json(&Message::stream("Loaded image: x\n")), r#"{"stream":"Loaded image: x\n"}"#);
    }
}
