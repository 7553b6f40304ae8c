//! What is only shown of images: containerd is not waited for again and again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::silence::Silence;
use crate::model::{Error, ErrorKind, Result};

/// How long what is only worth showing waits for containerd.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sizes of layers that are remembered.
const SIZES: usize = 8192;

/// Questions whose answers are only shown: a containerd that is silent holds them up once, not each.
#[derive(Default)]
pub struct Patience {
    silence: Silence,
    sizes: Mutex<HashMap<String, u64>>,
}

impl Patience {
    /// Asks, for a while. `Unavailable` if nobody answers, or nobody did just now.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        if self.silence.is_now() {
            return Err(Error::containerd_is_silent());
        }
        let answer = tokio::time::timeout(PATIENCE, question).await;
        let answer = answer.unwrap_or_else(|_| Err(Error::containerd_is_silent()));
        if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            self.silence.begin();
        }
        answer
    }

    /// A size that does not change any more once it is known; 0 if it is not.
    pub(crate) async fn size(&self, name: &str, measuring: impl Future<Output = Result<u64>>) -> u64 {
        if let Some(size) = self.known_size(name) {
            return size;
        }
        let Ok(size) = self.ask(measuring).await else { return 0 };
        self.remember_size(name, size);
        size
    }

    /// A size that changes and may take long to measure: as it is now, or as it was when containerd last answered. `any_question`
    /// tells whether it does.
    pub(crate) async fn latest_size(
        &self,
        name: &str,
        any_question: impl Future<Output = Result<()>>,
        measuring: impl Future<Output = Result<u64>>,
    ) -> Result<u64> {
        let measured = match self.ask(any_question).await {
            Ok(()) => measuring.await,
            Err(error) => Err(error),
        };
        match measured {
            Ok(size) => {
                self.remember_size(name, size);
                Ok(size)
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(self.known_size(name).unwrap_or_default()),
            Err(error) => Err(error),
        }
    }

    fn known_size(&self, name: &str) -> Option<u64> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn remember_size(&self, name: &str, size: u64) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.len() >= SIZES {
            sizes.clear();
        }
        sizes.insert(name.to_owned(), size);
    }
}
