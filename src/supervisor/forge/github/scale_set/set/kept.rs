//! What is kept of a scale set on disk: its number, and the session that we have.

use tracing::warn;

use super::ScaleSet;
use crate::{model::Result, supervisor::kept_sets::KeptSet};

impl ScaleSet {
    /// Its number is known.
    pub(super) fn note_id(&self, id: i64) {
        self.state().id = Some(id);
        if self.kept().is_none_or(|kept| kept.id != id) {
            self.keep(id, None);
        }
    }

    pub(super) fn kept(&self) -> Option<KeptSet> {
        self.common.kept.as_ref()?.get(&self.common.github.settings, &self.scope)
    }

    /// The next life finds the set, and ends the session if we could not. Without it a session that is left ends later.
    pub(super) fn keep(&self, id: i64, session: Option<&str>) {
        let Some(kept) = &self.common.kept else { return };
        let set = KeptSet {
            forge: self.common.forge().to_owned(),
            url: self.common.url().to_owned(),
            scope: self.scope.clone(),
            name: self.common.set_name(self.common.name().unwrap_or_default()),
            id,
            session: session.map(ToOwned::to_owned),
        };
        if let Err(error) = kept.keep(set) {
            warn!(forge = self.common.forge(), "{}", error.chain());
        }
    }

    /// Nothing is kept of it any more.
    pub(super) fn forget_kept(&self) -> Result<()> {
        self.common.kept.as_ref().map_or(Ok(()), |kept| kept.forget(&self.common.github.settings, &self.scope))
    }
}
