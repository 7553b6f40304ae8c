//! Telling of what a walk finds: of the folders on the way only if something in them is told of.

use std::{ffi::CStr, io, os::fd::BorrowedFd};

use rustix::fs::Stat;

use super::{Entry, Own};
use crate::model::container::ChangeKind;

/// Where a walk tells what it finds.
pub struct Report<'a> {
    /// From the top down.
    pub pending: Vec<Pending>,
    /// Who is told.
    pub report: &'a mut dyn FnMut(&Entry<'_>) -> io::Result<()>,
}

/// A folder on the way to where the walk is that is told of as soon as something in it is.
pub struct Pending {
    /// How many folders below the root it is.
    pub depth: usize,
    /// How much of the path is its own.
    pub path: usize,
    /// What it is.
    pub stat: Stat,
    /// What became of it.
    pub kind: ChangeKind,
}

impl Report<'_> {
    /// Tells of the folders that lead to an entry, then of the entry.
    pub fn tell(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        for Pending { path, kind, stat, .. } in self.pending.drain(..) {
            (self.report)(&Entry { path: &entry.path[..path], kind, own: Some(Own::Folder(&stat)) })?;
        }
        (self.report)(entry)
    }

    /// Tells of what is no folder, if it changed.
    pub fn file(
        &mut self,
        changed: bool,
        path: &[u8],
        kind: ChangeKind,
        (folder, name, stat): (BorrowedFd<'_>, &CStr, &Stat),
    ) -> io::Result<()> {
        match changed {
            true => self.tell(&Entry { path, kind, own: Some(Own::File { folder, name, stat }) }),
            false => Ok(()),
        }
    }

    /// Folders that are deeper than where the walk is lead to nothing more.
    pub fn forget_below(&mut self, depth: usize) {
        self.pending.retain(|pending| pending.depth <= depth);
    }
}
