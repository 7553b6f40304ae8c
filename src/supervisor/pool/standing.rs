//! Whether a pool launches, and for how long it is there.

use std::sync::Arc;

use super::{Pool, Registration, lock};

/// What becomes of launches that are there when a pool begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// A daemon that has ended left them.
    Swept,
    /// They go on: the pool takes the place of another.
    GoesOn,
}

/// Whether a pool launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    #[default]
    Launches,
    /// Somebody said so for a while.
    Cordoned,
    /// It is not configured any more, and follows what it has launched.
    Retired,
    /// Another one has taken its place, and what it has launched.
    Replaced,
    /// It holds nothing at the forge any more.
    Left,
}

impl Standing {
    /// What becomes of it by somebody's word: nothing brings one back that another may have taken the place of.
    fn told(self, now: Self) -> Self {
        match (self, now) {
            (Self::Launches | Self::Cordoned, _) | (Self::Retired, Self::Replaced) => now,
            (Self::Retired | Self::Replaced, Self::Left) => now,
            (Self::Retired | Self::Replaced | Self::Left, _) => self,
        }
    }
}

impl Pool {
    /// Launches nothing for a while.
    pub fn cordon(&self) {
        self.stands(Standing::Cordoned);
    }

    /// Launches again.
    pub fn uncordon(&self) {
        self.stands(Standing::Launches);
    }

    /// Launches nothing any more, since it is not configured so any more; another pool may take its place.
    pub fn retire(&self, successor: Option<&Arc<Self>>) {
        if let Some(successor) = successor {
            self.forge.is_followed_by(&*successor.forge);
            let _the_first_stays = self.successor.set(successor.clone());
        }
        self.stands(if successor.is_some() { Standing::Replaced } else { Standing::Retired });
    }

    /// That which has taken its place, at last, or itself: what it knows the forge by may be good no more. One whose forge alone hears of
    /// the runner is in nobody's place.
    pub fn latest(self: &Arc<Self>, runner: Option<&Registration>) -> Arc<Self> {
        let mut latest = self.clone();
        while let Some(successor) = latest.successor.get().cloned() {
            if runner.is_some_and(|runner| latest.forge.holds(runner)) {
                break;
            }
            latest = successor;
        }
        latest
    }

    fn stands(&self, now: Standing) {
        let mut standing = lock(&self.standing);
        *standing = standing.told(now);
        self.wake.notify_one();
    }

    /// Whether it was told to launch nothing for a while.
    pub fn is_cordoned(&self) -> bool {
        *lock(&self.standing) == Standing::Cordoned
    }

    /// Whether it is not configured any more, and nothing is in its place.
    pub fn is_retired(&self) -> bool {
        *lock(&self.standing) == Standing::Retired
    }

    /// Whether there is nothing left to do, ever.
    pub fn is_over(&self) -> bool {
        match *lock(&self.standing) {
            Standing::Launches | Standing::Cordoned => false,
            Standing::Retired => self.live().is_empty(),
            Standing::Replaced | Standing::Left => true,
        }
    }

    /// Nothing is held at the forge any more.
    pub(super) fn has_left(&self) {
        self.stands(Standing::Left);
    }

    /// Whether that is so.
    pub fn is_left(&self) -> bool {
        *lock(&self.standing) == Standing::Left
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{Cordoned, Launches, Left, Replaced, Retired};

    #[test]
    fn nothing_brings_back_what_is_not_configured_any_more() {
        assert_eq!(Launches.told(Cordoned), Cordoned);
        assert_eq!(Cordoned.told(Launches), Launches);
        for now in [Launches, Cordoned, Retired, Replaced] {
            assert_eq!(Replaced.told(now), Replaced);
        }
        for now in [Launches, Cordoned, Retired] {
            assert_eq!(Retired.told(now), Retired);
        }
        assert_eq!(Retired.told(Replaced), Replaced, "its name is configured again");
        for before in [Retired, Replaced] {
            assert_eq!(before.told(Left), Left);
        }
        for now in [Launches, Cordoned, Retired, Replaced] {
            assert_eq!(Left.told(now), Left);
        }
    }
}
