//! The newest of what was heard.

use std::collections::{BTreeMap, VecDeque};

/// So many are remembered.
const REMEMBERED: usize = 1000;

/// The newest so many of a kind.
pub struct Recent<K, V> {
    all: BTreeMap<K, V>,
    oldest_first: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), oldest_first: VecDeque::new() }
    }
}

impl<K: Ord + Clone, V> Recent<K, V> {
    /// The one of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.all.get(key)
    }

    /// Remembers one; the oldest is forgotten for it.
    pub fn insert(&mut self, key: K, value: V) {
        if self.all.insert(key.clone(), value).is_none() {
            self.oldest_first.push_back(key);
        }
        if self.all.len() > REMEMBERED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, key: &K) {
        if self.all.remove(key).is_some() {
            self.oldest_first.retain(|known| known != key);
        }
    }
}
