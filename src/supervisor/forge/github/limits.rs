//! GitHub's rate limits: a bucket for each kind of call, and a further one that says with `retry-after` when to come back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};

use super::super::http::Answer;
use crate::model::{Error, time::Timestamp};

/// Most calls.
pub const CORE: &str = "core";

/// The calls that register runners.
pub const REGISTRATION: &str = "actions_runner_registration";

/// When a limit says nothing of its end.
const UNKNOWN: Duration = Duration::from_secs(60);

/// The longest that is waited on one word of the server.
const LONGEST: Duration = Duration::from_secs(3700);

/// What is known of the limits.
#[derive(Default)]
pub struct Limits(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// What is left in which bucket, and until when.
    left: BTreeMap<String, (u64, Instant)>,
    /// Nothing may be asked before.
    blocked: BTreeMap<String, Block>,
}

#[derive(Clone)]
struct Block {
    until: Instant,
    words: String,
}

impl Limits {
    /// Whether a call may be made now.
    pub fn check(&self, bucket: &str) -> Result<(), Error> {
        let now = Instant::now();
        let known = self.lock();
        let block = [bucket, ""].into_iter().filter_map(|name| known.blocked.get(name)).find(|block| block.until > now);
        block.map_or(Ok(()), |block| Err(Error::forbidden(block.words.clone())))
    }

    /// Reads what an answer says of limits; the error if that is what it is.
    pub fn note(&self, bucket: &str, answer: &Answer) -> Result<(), Error> {
        let headers = &answer.headers;
        let bucket = text(headers, "x-ratelimit-resource").unwrap_or(bucket).to_owned();
        let (remaining, reset) = (number(headers, "x-ratelimit-remaining"), number(headers, "x-ratelimit-reset"));
        let until_reset = reset.map(|reset| wait_until(reset, headers));
        if let (Some(remaining), Some(wait)) = (remaining, until_reset) {
            self.lock().left.insert(bucket.clone(), (remaining, Instant::now() + wait));
        }
        if !matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
            return Ok(());
        }
        // The secondary limits are of all calls together.
        let (bucket, wait, what) = match number(headers, "retry-after") {
            Some(seconds) => (String::new(), Duration::from_secs(seconds), "asks us to come back later"),
            None if remaining == Some(0) => {
                (bucket, until_reset.unwrap_or(UNKNOWN), "has answered as often as it does in an hour")
            }
            None if answer.status == StatusCode::TOO_MANY_REQUESTS || is_secondary(answer) => {
                (String::new(), UNKNOWN, "asks us to come back later")
            }
            None => return Ok(()),
        };
        let wait = wait.min(LONGEST);
        let time = Timestamp::from_unix(Timestamp::now().unix() + i64::try_from(wait.as_secs()).unwrap_or(0), 0);
        let of = if bucket.is_empty() { String::new() } else { format!(" (its limit {bucket})") };
        let words = format!("GitHub {what}{of}: nothing is asked before {time}");
        self.lock().blocked.insert(bucket, Block { until: Instant::now() + wait, words: words.clone() });
        Err(Error::forbidden(words))
    }

    /// How long to wait between looks that cost so many calls, so that what is left lasts.
    pub fn pause(&self, cost: u64) -> Duration {
        let known = self.lock();
        let Some((left, until)) = known.left.get(CORE) else { return Duration::ZERO };
        let time = until.saturating_duration_since(Instant::now());
        // Some of it is for what has to be done besides.
        let looks = (left / 2).checked_div(cost).unwrap_or(u64::MAX).max(1);
        time.checked_div(u32::try_from(looks).unwrap_or(u32::MAX)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// By the server's own clock: ours may differ.
fn wait_until(reset: u64, headers: &HeaderMap) -> Duration {
    let date = text(headers, "date").and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok());
    let now = date.map_or_else(|| Timestamp::now().unix(), |date| date.timestamp());
    Duration::from_secs(reset.saturating_sub(u64::try_from(now).unwrap_or(0)))
}

fn is_secondary(answer: &Answer) -> bool {
    String::from_utf8_lossy(&answer.body).contains("secondary rate limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: headers.collect(), body: bytes::Bytes::new() }
    }

    #[test]
    fn a_bucket_that_is_empty_stops_its_own_calls_alone() {
        let limits = Limits::default();
        let date = "Fri, 27 Nov 2026 18:00:00 GMT";
        let empty = answer(
            403,
            &[
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1795802460"),
                ("x-ratelimit-resource", REGISTRATION),
                ("date", date),
            ],
        );
        let error = limits.note(REGISTRATION, &empty).unwrap_err();
        assert!(error.message().contains(REGISTRATION), "{}", error.message());
        assert!(limits.check(REGISTRATION).is_err());
        assert!(limits.check(CORE).is_ok());
    }

    #[test]
    fn retry_after_stops_all_and_a_plain_403_none() {
        let limits = Limits::default();
        assert!(limits.note(CORE, &answer(403, &[("x-ratelimit-remaining", "10")])).is_ok());
        assert!(limits.check(CORE).is_ok());
        assert!(limits.note(CORE, &answer(429, &[("retry-after", "30")])).is_err());
        assert!(limits.check(CORE).is_err() && limits.check(REGISTRATION).is_err());
    }

    #[test]
    fn looks_are_spread_over_what_is_left() {
        let limits = Limits::default();
        assert_eq!(limits.pause(10), Duration::ZERO, "nothing is known yet");
        let date = "Fri, 27 Nov 2026 18:00:00 GMT";
        let headers = [("x-ratelimit-remaining", "200"), ("x-ratelimit-reset", "1795806000"), ("date", date)];
        limits.note(CORE, &answer(200, &headers)).unwrap();
        let hour = chrono::DateTime::parse_from_rfc2822(date).unwrap().timestamp() + 3600;
        assert_eq!(hour, 1_795_806_000, "an hour later");
        let pause = limits.pause(10);
        assert!(pause > Duration::from_secs(350) && pause <= Duration::from_secs(360), "{pause:?}");
        assert!(limits.pause(0) < Duration::from_secs(1), "what costs nothing needs no pause");
    }
}
