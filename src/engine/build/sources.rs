//! Where the sources of `COPY` and `ADD` lie, what they name, and what they are known by.

use std::path::PathBuf;

use futures_util::StreamExt;
use rustix::fs::{Timespec, Timestamps};
use tokio::io::AsyncWriteExt;

use super::{BuildMessage, builder::Builder, cancelled_error, copy::Made, files::TempFolder};
use crate::{
    backend::runtime::RootfsMount,
    dockerfile::ignore::glob,
    engine::images::progress::Message,
    model::{Error, Result, error::Context as _, url::without_credentials},
    rootfs::{ContentHash, RootView},
    work::Disk,
};

/// A download whose URL has no name goes by this.
const UNNAMED: &str = "__unnamed__";

/// Where sources lie.
#[derive(Clone)]
pub(super) enum Place {
    /// The build's context.
    Context(PathBuf),
    /// Another image.
    Image(Vec<RootfsMount>),
    /// Files that were made for this step.
    Made(PathBuf),
}

impl Place {
    pub fn view(&self) -> Result<RootView> {
        match self {
            Self::Context(path) | Self::Made(path) => RootView::folder(path),
            Self::Image(mounts) => RootView::stopped(mounts, true, &[]),
        }
    }
}

/// A source that is there.
pub(super) struct Found {
    pub place: Place,
    pub path: String,
    /// `file:…` or `dir:…`.
    pub hash: String,
    /// `ADD` unpacks it.
    pub unpack: bool,
}

impl Builder<'_> {
    /// A file from a URL, which is not unpacked.
    pub(super) async fn download(&self, url: &str, destination: &str, made: &mut Made) -> Result<Found> {
        let (response, shown) =
            (self.engine.registry_for(self.scope).await?.fetch(url).await?, without_credentials(url));
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or("", |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        let mut name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if matches!(name.as_str(), "." | "..") {
            name.clear();
        }
        if name.is_empty() {
            name = disposition(response.headers()).unwrap_or_default();
        }
        if name.is_empty() {
            if destination.ends_with('/') {
                return Err(Error::invalid(format!("cannot determine filename for source {shown}")));
            }
            UNNAMED.clone_into(&mut name);
        }
        let modified = response.headers().get(http::header::LAST_MODIFIED).and_then(|value| value.to_str().ok());
        let modified =
            modified.and_then(|text| chrono::DateTime::parse_from_rfc2822(text).ok()).map_or(0, |at| at.timestamp());
        let folder = TempFolder::make(&self.engine.config.data_root)?;
        let downloading = || format!("downloading {shown}");
        let mut file = tokio::fs::File::create(folder.path().join(&name)).await.context(downloading())?;
        let mut disk = Disk::of(folder.path());
        let (mut size, mut body) = (0, response.bytes_stream());
        loop {
            let piece = tokio::select! {
                () = self.cancelled.cancelled() => return Err(cancelled_error()),
                piece = body.next() => piece,
            };
            let Some(piece) = piece else { break };
            let piece = piece.context(downloading())?;
            size += piece.len() as u64;
            disk.step(piece.len()).map_err(|error| error.context(downloading()))?;
            file.write_all(&piece).await.context(downloading())?;
        }
        file.flush().await.context(downloading())?;
        let file = file.into_std().await;
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600)).context(downloading())?;
        let time = Timespec { tv_sec: modified, tv_nsec: 0 };
        rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })
            .context(downloading())?;
        let progress = Message { id: None, ..Message::layer_progress("", "Downloading", size, size) };
        self.output.send(BuildMessage::Progress(progress)).await;
        self.output.say("\n").await;
        let place = Place::Made(folder.path().to_owned());
        made.folders.push(folder);
        self.long(move || hashed(place, &name, false)).await
    }
}

/// The name a server gives a download.
fn disposition(headers: &http::HeaderMap) -> Option<String> {
    let value = headers.get(http::header::CONTENT_DISPOSITION)?.to_str().ok()?;
    let name = value.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    let name = name.trim_matches('"').rsplit('/').next()?;
    (!name.is_empty() && name != "." && name != "..").then(|| name.to_owned())
}

/// What a source names, patterns resolved.
pub(super) fn look_up(place: &Place, source: &str, is_add: bool) -> Result<Vec<Found>> {
    if leads_out(source) {
        return Err(Error::outside_build_context(source));
    }
    let path = source.trim_start_matches('/');
    let path = path.strip_prefix("./").unwrap_or(path);
    if !has_wildcards(path) {
        return Ok(vec![hashed(place.clone(), path, is_add)?]);
    }
    let Some(pattern) = glob(path) else { return Ok(Vec::new()) };
    let depth = path.matches('/').count() + 1;
    let view = place.view()?;
    let matching = view.matching(depth, &|path| pattern.is_match(path)).context("reading the build context")?;
    matching.iter().map(|path| hashed(place.clone(), path, is_add)).collect()
}

/// One that is there.
pub(super) fn hashed(place: Place, path: &str, is_add: bool) -> Result<Found> {
    let view = place.view()?;
    let hash = view.content_hash(path).map_err(|error| match (error.kind(), &place) {
        (std::io::ErrorKind::NotFound, Place::Context(_)) => Error::not_found(format!(
            "file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
        )),
        (std::io::ErrorKind::NotFound, _) => Error::not_found(format!("stat {path}: file does not exist")),
        _ => Error::system(format!("stat {path}: {error}")).with_source(error),
    })?;
    let (hash, is_file) = match hash {
        ContentHash::File(hash) => (format!("file:{hash}"), true),
        ContentHash::Folder(hash) => (format!("dir:{hash}"), false),
    };
    let absolute = format!("/{path}");
    let unpack = is_add && is_file && view.is_archive(&absolute).context(format!("reading {path}"))?;
    Ok(Found { place, path: absolute, hash, unpack })
}

/// Whether a path leads above the context's root, links not looked at.
pub(super) fn leads_out(source: &str) -> bool {
    if source.starts_with('/') {
        return false;
    }
    let mut depth = 0;
    source.split('/').any(|part| {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        depth < 0
    })
}

fn has_wildcards(path: &str) -> bool {
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_are_told() {
        for (path, out) in [("../x", true), ("a/../../x", true), ("a/../x", false), ("/../x", false), (".", false)] {
            assert_eq!(leads_out(path), out, "{path}");
        }
    }
}
