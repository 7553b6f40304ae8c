//! Whether a pool launches, and for how long it is there.

use super::{Pool, lock};

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

    /// Launches nothing any more, since it is not configured so any more.
    pub fn retire(&self, is_replaced: bool) {
        self.stands(if is_replaced { Standing::Replaced } else { Standing::Retired });
    }

    fn stands(&self, now: Standing) {
        *lock(&self.standing) = now;
        self.wake.notify_one();
    }

    /// Whether there is nothing left to do, ever.
    pub(super) fn is_over(&self) -> bool {
        let standing = *lock(&self.standing);
        standing == Standing::Replaced || (standing == Standing::Retired && self.live().is_empty())
    }
}
