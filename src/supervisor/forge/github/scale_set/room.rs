//! How the room of a forge is shared among its scale sets: each is told on its own for how many jobs there is room.

use std::time::Duration;

/// How long what cannot be shared out evenly is some sets', before it is others'.
pub const TURN: Duration = Duration::from_secs(5);

/// For how many jobs each of several sets has room, of which each has so many `assigned` already; `total` is the room of all.
/// The sum is above `total` only if more are assigned already.
pub fn shares(total: usize, assigned: &[usize], turn: usize) -> Vec<usize> {
    let sets = assigned.len().max(1);
    let free = total.saturating_sub(assigned.iter().sum());
    let (each, rest) = (free / sets, free % sets);
    let first = turn.wrapping_mul(rest) % sets;
    let has_one_more = |number: usize| usize::from((number + sets - first) % sets < rest);
    assigned.iter().enumerate().map(|(number, own)| own + each + has_one_more(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_no_more_room_than_there_is_and_each_has_its_turn() {
        assert_eq!(shares(3, &[0], 7), [3]);
        assert_eq!(shares(5, &[1, 0], 0), [3, 2]);
        assert_eq!(shares(2, &[2, 1], 0), [2, 1], "no more than they have");
        assert!(shares(4, &[], 0).is_empty());
        for total in 1..3 {
            let turns: Vec<Vec<usize>> = (0..3).map(|turn| shares(total, &[0; 3], turn)).collect();
            assert!(turns.iter().all(|shares| shares.iter().sum::<usize>() == total), "{turns:?}");
            assert!((0..3).all(|set| turns.iter().any(|shares| shares[set] > 0)), "{turns:?}");
        }
    }
}
