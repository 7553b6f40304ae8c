//! Pauses that grow.

use std::time::Duration;

/// After so many `times`, at least one: the first pause, doubled each time, up to the longest.
pub fn growing((first, longest): (Duration, Duration), times: u32) -> Duration {
    (first * 2u32.saturating_pow(times.min(16) - 1)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let of = |times| growing((Duration::from_secs(5), Duration::from_secs(300)), times).as_secs();
        assert_eq!([1, 2, 3, 7, 16, u32::MAX].map(of), [5, 10, 20, 300, 300, 300]);
    }
}
