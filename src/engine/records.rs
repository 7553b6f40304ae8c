//! Records that no containerd object holds: one JSON file each, in a folder of their kind. A file is there whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::model::{
    Result,
    error::Context,
    record::{self, Record},
};

/// The files of one kind of record.
pub(crate) struct RecordFolder(PathBuf);

impl RecordFolder {
    /// The folder of that name below `data_root`, made if it is not there.
    pub(crate) fn open(data_root: &Path, name: &str) -> Result<Self> {
        let folder = data_root.join(name);
        fs::create_dir_all(&folder).context(format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// All records. One that cannot be read is left alone and named in the log; what is half written, by a daemon that was killed,
    /// goes.
    pub(crate) fn read<T: Record>(&self) -> Result<Vec<T>> {
        let context = || format!("reading {}", self.0.display());
        let mut records = Vec::new();
        for file in fs::read_dir(&self.0).context(context())? {
            let path = file.context(context())?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                let _gone_already = fs::remove_file(&path);
                continue;
            }
            let json = fs::read(&path).map_err(|error| error.to_string());
            match json.and_then(|json| record::read(&json).map_err(|error| error.to_string())) {
                Ok(record) => records.push(record),
                Err(error) => warn!("reading the record of a {} in {}: {error}", T::KIND, path.display()),
            }
        }
        Ok(records)
    }

    /// Whether there is one, be it one that cannot be read.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.path(id).try_exists().unwrap_or(true)
    }

    /// Stores one, new or changed.
    pub(crate) fn write<T: Record>(&self, id: &str, record: &T) -> io::Result<()> {
        let half = self.0.join(format!("{id}.new"));
        fs::write(&half, record::write(record))?;
        fs::rename(half, self.path(id))
    }

    /// Takes one away. `NotFound` if it is not there.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        fs::remove_file(self.path(id))
    }

    /// Takes one away, if it is there.
    pub(crate) fn forget(&self, id: &str) -> io::Result<()> {
        match self.remove(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
