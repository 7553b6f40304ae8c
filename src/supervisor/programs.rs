//! The programs of upstream runners: found by looking into images, and taken out of them for jobs whose own image has none.

mod interpreter;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::TryStreamExt;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tracing::info;

pub use self::interpreter::interpreter_of;
use super::runner::Runner;
use crate::{
    engine::{Engine, tenants::Scope},
    model::{ErrorKind, Result, error::Context},
    work::blocking,
};

/// The longest program that is taken out of an image.
const LONGEST: u64 = 1 << 30;

/// The longest folder, as an archive.
const LONGEST_FOLDER: u64 = 4 << 30;

/// What is known of programs in images. Clones share it.
#[derive(Clone)]
pub struct Programs(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    /// Where which image has its program, by the image's id.
    known: Mutex<BTreeMap<String, Option<&'static str>>>,
    /// What an image has not, by its id and what was looked for.
    missing: Mutex<BTreeMap<String, Option<String>>>,
    taking: tokio::sync::Mutex<()>,
}

impl Programs {
    /// What is taken out is kept in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        let (known, missing, taking) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { folder, known, missing, taking }))
    }

    /// The first of these programs that is in an image that was pulled.
    pub async fn find(
        &self,
        runner: &Runner,
        image: &str,
        candidates: &'static [&'static str],
    ) -> Result<Option<&'static str>> {
        let id = runner.image_id(image).await?;
        let known = self.known().get(&id).copied();
        if let Some(found) = known {
            return Ok(found);
        }
        let found = runner
            .with_probe(image, async |engine, scope, probe| {
                for program in candidates {
                    if is_there(engine, scope, probe, program).await? {
                        return Ok(Some(*program));
                    }
                }
                Ok(None)
            })
            .await?;
        match found {
            Some(program) => info!("{image} is {id}, with the runner {program}"),
            None => info!("{image} is {id}, without a runner"),
        }
        self.known().insert(id, found);
        Ok(found)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<&'static str>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of these paths that is not in an image that was pulled.
    pub async fn missing(&self, runner: &Runner, image: &str, paths: &[String]) -> Result<Option<String>> {
        let key = format!("{} {}", runner.image_id(image).await?, paths.join(" "));
        let lock = || self.0.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let look = async |engine: &Engine, scope: &Scope, probe: &str| {
            for path in paths {
                if !is_there(engine, scope, probe, path).await? {
                    return Ok(Some(path.clone()));
                }
            }
            Ok(None)
        };
        let missing = runner.with_probe(image, look).await?;
        lock().insert(key, missing.clone());
        Ok(missing)
    }

    /// A program of an image as a file of the machine, taken out once per image.
    pub async fn take(&self, runner: &Runner, image: &str, program: &str) -> Result<PathBuf> {
        self.take_out(runner, image, program, "", unpack).await
    }

    /// A folder of an image as one of the machine, taken out once per image.
    pub async fn take_folder(&self, runner: &Runner, image: &str, folder: &str) -> Result<PathBuf> {
        self.take_out(runner, image, folder, "-folder", unpack_folder).await
    }

    /// Takes away whatever was taken out.
    pub async fn clear(&self) -> Result<()> {
        let _one_at_a_time = self.0.taking.lock().await;
        let folder = self.0.folder.clone();
        let doing = format!("removing what is in {}", folder.display());
        blocking(move || {
            for entry in fs::read_dir(&folder).context(doing.clone())? {
                let path = entry.context(doing.clone())?.path();
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.context(doing.clone())?;
            }
            Ok(())
        })
        .await
    }

    async fn take_out(
        &self,
        runner: &Runner,
        image: &str,
        program: &str,
        suffix: &str,
        unpack: fn(Archive, &Path) -> io::Result<()>,
    ) -> Result<PathBuf> {
        let _one_at_a_time = self.0.taking.lock().await;
        let id = runner.image_id(image).await?;
        let path = self.0.folder.join(format!("{}{suffix}", id.trim_start_matches("sha256:")));
        if path.exists() {
            return Ok(path);
        }
        let doing = || format!("taking {program} out of {image}");
        let taken = path.clone();
        let take = async |engine: &Engine, scope: &Scope, probe: &str| {
            let (_, archive) = engine.container_archive(scope, probe, program).await?;
            let reader = StreamReader::new(archive.map_err(io::Error::other));
            // The bridge has to know the runtime before it is in a thread without one.
            let reader: Archive = Box::new(SyncIoBridge::new(Box::pin(reader)));
            blocking(move || unpack(reader, &taken).context("unpacking")).await
        };
        runner.with_probe(image, take).await.map_err(|error| error.context(doing()))?;
        Ok(path)
    }
}

async fn is_there(engine: &Engine, scope: &Scope, probe: &str, path: &str) -> Result<bool> {
    match engine.container_archive_info(scope, probe, path).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What comes out of an image, tar.
type Archive = Box<dyn Read + Send>;

/// The one folder of an archive. It is there whole or not at all.
fn unpack_folder(archive: Archive, path: &Path) -> io::Result<()> {
    let half = path.with_extension("part");
    if let Err(error) = fs::remove_dir_all(&half)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    fs::create_dir(&half)?;
    // Paths that lead out of it are left out.
    tar::Archive::new(archive.take(LONGEST_FOLDER)).unpack(&half)?;
    let mut made = fs::read_dir(&half)?;
    let folder = made.next().ok_or_else(|| io::Error::other("the archive is empty"))??;
    fs::rename(folder.path(), path)?;
    fs::remove_dir_all(&half)
}

/// The one file of an archive. It is there whole or not at all.
fn unpack(archive: Archive, path: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries()?;
    let entry = entries.next().ok_or_else(|| io::Error::other("the archive is empty"))??;
    if !entry.header().entry_type().is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let half = path.with_extension("part");
    let mut file = fs::File::create(&half)?;
    if io::copy(&mut entry.take(LONGEST + 1), &mut file)? > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
    }
    fs::set_permissions(&half, fs::Permissions::from_mode(0o755))?;
    fs::rename(&half, path)?;
    Ok(())
}
