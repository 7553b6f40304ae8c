//! What a container changed on its image: as a list, and as a layer.
//!
//! Of overlayfs the upper folder alone is read, which holds nothing else; other snapshotters keep whole trees,
//! which are compared. What [`super::prepare`] made is no change of the container's, as long as it is as it was made.

mod upper;
mod walk;

use std::{collections::HashMap, ffi::CStr, io, os::fd::BorrowedFd};

use bytes::Bytes;
use rustix::fs::Stat;
use tokio::sync::mpsc;

use self::{
    upper::Upper,
    walk::{Measure, Walk},
};
use super::{
    archive::{ArchiveWriter, Sink, tell},
    header::kind_of,
    layer::MARK,
    view::RootView,
};
use crate::{
    backend::runtime::RootfsMount,
    model::{
        Result,
        container::{Change, ChangeKind},
        error::Context,
    },
};

/// A container's files beside those of its image.
pub struct Changes {
    base: RootView,
    /// All that the container sees, or overlayfs's upper folder.
    own: RootView,
    /// What is known of the upper folder, if `own` is one.
    upper: Option<Upper>,
}

/// One entry that differs.
struct Entry<'a> {
    path: &'a [u8],
    kind: ChangeKind,
    /// Where it is and what it is; `None` if it was deleted.
    own: Option<(BorrowedFd<'a>, &'a CStr, &'a Stat)>,
}

impl Changes {
    /// `base` are the mounts of the image's files, `own` those of the container's.
    pub fn open(base: &[RootfsMount], own: &[RootfsMount]) -> Result<Self> {
        let base = RootView::layers(base)?;
        match Upper::of(own) {
            Some(upper) => Ok(Self { base, own: upper.open()?, upper: Some(upper) }),
            None => Ok(Self { base, own: RootView::layers(own)?, upper: None }),
        }
    }

    /// Everything that changed, folders before what they hold.
    pub fn list(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        self.walk(Measure::Listed, &mut |entry| {
            changes.push(Change { path: format!("/{}", String::from_utf8_lossy(entry.path)), kind: entry.kind });
            Ok(())
        })
        .context("comparing the container with its image")?;
        Ok(changes)
    }

    /// The changes as a layer's tar. Ends early when the receiver is gone.
    pub fn layer(&self, sender: &mpsc::Sender<Result<Bytes>>) {
        let mut writer = ArchiveWriter { view: &self.own, sink: Sink::new(sender), links: HashMap::new() };
        let written =
            self.walk(Measure::Packed, &mut |entry| write(&mut writer, entry)).and_then(|()| writer.sink.finish());
        tell(written, sender);
    }

    fn walk(&self, measure: Measure, report: &mut dyn FnMut(&Entry<'_>) -> io::Result<()>) -> io::Result<()> {
        Walk::new(self.upper.as_ref(), measure, report).run(&self.own, &self.base)
    }
}

/// Hands an entry over as a tar has it: what is gone as `.wh.NAME`.
fn write(writer: &mut ArchiveWriter<'_>, entry: &Entry<'_>) -> io::Result<()> {
    // Such a name would take another file away where the layer is unpacked. dockerd writes it and loses that file.
    if entry.path.split(|byte| *byte == b'/').any(|name| name.starts_with(MARK)) {
        tracing::debug!("{} has a name that no layer can hold", String::from_utf8_lossy(entry.path));
        return Ok(());
    }
    match entry.own {
        // A socket cannot be in a layer; what it replaced is gone nevertheless.
        Some((_, _, stat)) if kind_of(stat).is_none() => match entry.kind {
            ChangeKind::Added => Ok(()),
            ChangeKind::Modified | ChangeKind::Deleted => write_mark(writer, entry.path),
        },
        Some((folder, name, _)) => match writer.single(folder, name, entry.path.to_vec()) {
            // It went away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        None => write_mark(writer, entry.path),
    }
}

fn write_mark(writer: &mut ArchiveWriter<'_>, path: &[u8]) -> io::Result<()> {
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (folder, name) = path.split_at(start);
    writer.empty_file(&[folder, MARK, name].concat())
}
