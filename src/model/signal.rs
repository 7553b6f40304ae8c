//! Signals as clients write them: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.

use super::{Error, Result};

/// First and last real-time signal of Linux, as the C library leaves them to programs.
const REAL_TIME: std::ops::RangeInclusive<u32> = 34..=64;

/// Names without `SIG`, for the numbers from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Second names.
const ALIASES: [(&str, u32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// A signal that Linux knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(u32);

impl Signal {
    /// What `kill` sends if nothing else was asked for.
    pub const KILL: Self = Self(9);
    /// What `stop` sends if the image says nothing else.
    pub const TERM: Self = Self(15);

    /// Reads a name with or without `SIG`, in any case, or a number. `InvalidParameter` in dockerd's words otherwise.
    pub fn parse(text: &str) -> Result<Self> {
        let number = match text.parse::<i64>() {
            Ok(number) => u32::try_from(number).ok().filter(|number| *number != 0),
            Err(_) => number_of(text),
        };
        number.map(Self).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
    }

    /// The same for `POST /containers/{id}/kill`, where a number that Linux does not know is refused too.
    pub fn parse_known(text: &str) -> Result<Self> {
        let unsupported = |number: i64| Error::invalid(format!("the linux daemon does not support signal {number}"));
        if let Some(negative) = text.parse().ok().filter(|number| *number < 0) {
            return Err(unsupported(negative));
        }
        let signal = Self::parse(text)?;
        if signal.is_known() { Ok(signal) } else { Err(unsupported(signal.0.into())) }
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    fn is_known(self) -> bool {
        (self.0 as usize) <= NAMES.len() || REAL_TIME.contains(&self.0)
    }
}

fn number_of(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return u32::try_from(index + 1).ok();
    }
    if let Some((_, number)) = ALIASES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    real_time_number(name)
}

/// `RTMIN`, `RTMIN+1` … `RTMIN+15`, `RTMAX-14` … `RTMAX-1`, `RTMAX`.
fn real_time_number(name: &str) -> Option<u32> {
    let (first, last) = (*REAL_TIME.start(), *REAL_TIME.end());
    match name {
        "RTMIN" => return Some(first),
        "RTMAX" => return Some(last),
        _ => {}
    }
    let offset = |text: &str, limit: u32| text.parse::<u32>().ok().filter(|offset| (1..=limit).contains(offset));
    if let Some(text) = name.strip_prefix("RTMIN+") {
        return offset(text, 15).map(|offset| first + offset);
    }
    offset(name.strip_prefix("RTMAX-")?, 14).map(|offset| last - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        let table = [
            ("SIGTERM", 15),
            ("term", 15),
            ("15", 15),
            ("SIGUSR1", 10),
            ("sigwinch", 28),
            ("IO", 29),
            ("POLL", 29),
            ("SYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-14", 50),
            ("SIGRTMAX", 64),
            ("99", 99),
        ];
        for (text, number) in table {
            assert_eq!(Signal::parse(text).unwrap().number(), number, "{text}");
        }
    }

    #[test]
    fn others_are_refused_in_dockers_words() {
        for text in ["BLUE", "", "0", "-1", "RTMIN+16", "RTMAX-15", "SIGSIGTERM"] {
            assert_eq!(Signal::parse(text).unwrap_err().message(), format!("invalid signal: {text}"));
        }
        let error = Signal::parse_known("99").unwrap_err();
        assert_eq!(error.message(), "the linux daemon does not support signal 99");
        let error = Signal::parse_known("-1").unwrap_err();
        assert_eq!(error.message(), "the linux daemon does not support signal -1");
        assert!(Signal::parse_known("64").is_ok());
    }
}
