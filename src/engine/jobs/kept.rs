//! What outlives jobs, for people.

use crate::{engine::Engine, model::time::Timestamp};

/// A cache that jobs find as another one has left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCache {
    /// Whose it is; none of jobs without a key.
    pub key: Option<String>,
    /// What jobs call the volume; none is the cache of BuildKit.
    pub volume: Option<String>,
    /// When a job last began or ended to use it.
    pub used: Timestamp,
    /// What it took of the disk when a job had last ended to use it.
    pub bytes: u64,
    /// Whether a job has it now.
    pub is_in_use: bool,
}

impl Engine {
    /// All of them, the last used first.
    pub fn kept_caches(&self) -> Vec<KeptCache> {
        let mut all = self.kept_volumes();
        all.extend(self.kept_build_caches());
        all.sort_by_key(|cache| std::cmp::Reverse(cache.used));
        all
    }
}
