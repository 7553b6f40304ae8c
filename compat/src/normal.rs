//! Makes two answers comparable: what must differ between two daemons (ids, times, addresses, free ports) becomes a
//! word in angle brackets; everything else stays as it is.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

/// Replaces ids, times, addresses and the step's own folder in what a step printed.
pub fn normal(text: &str, folder: &Path, socket: &Path) -> String {
    let text = text.replace(&*socket.to_string_lossy(), "<socket>").replace(&*folder.to_string_lossy(), "<folder>");
    let mut text = text.replace('\r', "");
    for (pattern, word) in PATTERNS.iter() {
        text = pattern.replace_all(&text, *word).into_owned();
    }
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Addresses of the documentation ranges (192.0.2, 198.51.100, 203.0.113) stay, so cases that ask for an address use those.
static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    const DURATION: &str =
        r"(?:[Ll]ess than a second|[Aa]bout an? (?:minute|hour)|\d+ (?:second|minute|hour|day|week|month|year)s?)";
    [
        (r"\b[0-9a-f]{64}\b".to_owned(), "<id>"),
        // Not a zero time: that means "never", which is an answer.
        (
            r"\b(?:[1-9]\d{3}|0[1-9]\d\d)-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| ?[+-]\d\d:?\d\d(?: UTC)?)"
                .to_owned(),
            "<time>",
        ),
        // The client cuts long names off.
        (r"\b[0-9a-f]{14}…".to_owned(), "<id>"),
        (r"\b[0-9a-f]{12}\b".to_owned(), "<id>"),
        (format!("{DURATION} ago"), "<ago>"),
        (format!(r"Up {DURATION}"), "Up <for>"),
        (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b".to_owned(), "<mac>"),
        (
            r"\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01])|169\.254)(?:\.\d{1,3}){2,3}(?:/\d{1,2})?\b".to_owned(),
            "<address>",
        ),
        (r":(?:3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|60[0-8]\d\d)\b".to_owned(), ":<port>"),
        (r#""HostPort": ?"\d{5}""#.to_owned(), "\"HostPort\":\"<port>\""),
        // Columns are as wide as their widest cell.
        (r"[ \t]{2,}|\t".to_owned(), " "),
    ]
    .into_iter()
    .map(|(pattern, word)| (Regex::new(&pattern).expect("the patterns are fixed"), word))
    .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        normal(text, Path::new("/tmp/here"), Path::new("/tmp/d.sock"))
    }

    #[test]
    fn ids_times_and_addresses_become_words() {
        assert_eq!(of("0123456789ab  Up 3 seconds   172.17.0.2/16"), "<id> Up <for> <address>");
        assert_eq!(of("2026-11-24T03:22:23.123456789Z x"), "<time> x");
        assert_eq!(of("2026-11-24 03:22:23 +0000 UTC"), "<time>");
        assert_eq!(of("Exited (0) Less than a second ago"), "Exited (0) <ago>");
        assert_eq!(of("02:42:ac:11:00:02 /tmp/here/a"), "<mac> <folder>/a");
        assert_eq!(of("0.0.0.0:32770->80/tcp"), "0.0.0.0:<port>->80/tcp");
    }

    #[test]
    fn what_is_an_answer_stays() {
        for text in ["0001-01-01T00:00:00Z", "198.51.100.7", "127.0.0.11", "exit code 3", "8080/tcp", "1048576"] {
            assert_eq!(of(text), text);
        }
    }
}
