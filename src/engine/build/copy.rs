//! `COPY` and `ADD`: sources are copied onto the stage's files; the history and the cache know them by their content.

use sha2::{Digest as _, Sha256};

use super::{
    builder::Builder,
    files::TempFolder,
    pad::Pad,
    remote::is_url,
    sources::{Found, Place, hashed, look_up},
    stage::StageState,
};
use crate::{
    dockerfile::{
        CopySources, changes,
        expand::{Variables, expand_document},
    },
    model::{Error, Result},
    oci::user,
    rootfs::{self, Owner, Placing, RootView, UserFiles},
    work::blocking,
};

/// What a step has made and must take away.
#[derive(Default)]
pub(super) struct Made {
    pub folders: Vec<TempFolder>,
    pad: Option<Pad>,
}

impl Builder<'_> {
    pub(super) async fn copy(
        &mut self,
        state: &mut StageState,
        sources: &CopySources,
        keyword: &'static str,
        variables: &Variables,
    ) -> Result<()> {
        if let Some(flag) = &sources.beyond {
            return Err(Error::requires_buildkit(flag));
        }
        let mut made = Made::default();
        let copied = self.copy_with(state, sources, keyword, variables, &mut made).await;
        if let Some(pad) = made.pad {
            self.take_away(pad).await;
        }
        for folder in made.folders {
            folder.remove().await;
        }
        copied
    }

    async fn copy_with(
        &mut self,
        state: &mut StageState,
        sources: &CopySources,
        keyword: &'static str,
        variables: &Variables,
        made: &mut Made,
    ) -> Result<()> {
        let mode = mode(&sources.chmod)?;
        let found = self.sources(state, sources, keyword, variables, made).await?;
        if found.len() > 1 && !sources.destination.ends_with('/') {
            return Err(Error::invalid(format!(
                "When using {keyword} with more than one source file, the destination must be a directory and end with \
                 a /"
            )));
        }
        let told = told(keyword, sources, &found);
        let command = [changes::shell(&state.config), vec![format!("#(nop) {told}")]].concat();
        if self.find(state, &command).await? {
            return Ok(());
        }
        let destination = destination(&state.config.working_dir, &sources.destination);
        let pad = self.pad(state.image.as_deref()).await?;
        let copied = self.copy_onto(&pad, found, sources, destination, mode).await;
        let layer = self.stored(pad, copied).await?;
        self.commit(state, &command, Some(layer)).await
    }

    async fn copy_onto(
        &self,
        pad: &Pad,
        found: Vec<Found>,
        sources: &CopySources,
        destination: String,
        mode: Option<u32>,
    ) -> Result<()> {
        let placing = Placing { owner: self.owner(pad, sources).await?, mode };
        let place = move |view: &RootView| -> Result<()> {
            for source in &found {
                let from = source.place.view()?;
                let placed = match source.unpack {
                    true => view.unpack_from(&from, &source.path, &destination),
                    false => view.copy_from(&from, &source.path, &destination, placing),
                };
                placed.map_err(|error| error.context("failed to copy files"))?;
            }
            Ok(())
        };
        self.work_on(pad, place).await
    }

    /// Whose the copies are, by the image's own user database; `None` leaves them whose they were.
    async fn owner(&self, pad: &Pad, sources: &CopySources) -> Result<Option<Owner>> {
        if sources.chown.is_empty() {
            // What comes from another image keeps its owner.
            return Ok(sources.from.is_empty().then(Owner::default));
        }
        let read = |most| {
            let mounts = pad.mounts.clone();
            blocking(move || rootfs::user_files(&mounts, most))
        };
        let owner = UserFiles::held(read).await.and_then(|(files, _place)| owner(&sources.chown, &files));
        owner.map(Some).map_err(|error| error.context("unable to convert uid/gid chown string to host mapping"))
    }

    /// All sources; an error if there is none.
    async fn sources(
        &self,
        state: &StageState,
        sources: &CopySources,
        keyword: &'static str,
        variables: &Variables,
        made: &mut Made,
    ) -> Result<Vec<Found>> {
        let failed = |error: Error| error.context(format!("{keyword} failed"));
        let place = self.place(state, sources, made).await?;
        let is_add = keyword == "ADD";
        let mut found = Vec::new();
        for source in &sources.sources {
            if is_url(source) {
                if !is_add {
                    return Err(failed(Error::invalid("source can't be a URL for COPY")));
                }
                found.push(self.download(source, &sources.destination, made).await.map_err(failed)?);
                continue;
            }
            let place = place.clone().ok_or_else(|| failed(Error::system("missing build context")))?;
            let source = source.clone();
            found.extend(self.long(move || look_up(&place, &source, is_add)).await.map_err(failed)?);
        }
        for document in &sources.documents {
            let name = document.file_name().map_err(failed)?;
            let text = match document.expand {
                true => expand_document(&document.text(), self.escape, variables)?,
                false => document.text(),
            };
            let folder = TempFolder::with_file(&self.engine.config.data_root, name, &text, 0o644)?;
            found.push(hashed(Place::Made(folder.path().to_owned()), name, false)?);
            made.folders.push(folder);
        }
        if found.is_empty() {
            return Err(failed(Error::invalid("no source files were specified")));
        }
        Ok(found)
    }

    async fn place(&self, state: &StageState, sources: &CopySources, made: &mut Made) -> Result<Option<Place>> {
        if sources.from.is_empty() {
            return Ok(self.context.map(|context| Place::Context(context.root().to_owned())));
        }
        let image = self.copied_image(&sources.from, &state.platform).await;
        let image = image.map_err(|error| error.context(format!("invalid from flag value {}", sources.from)))?;
        let pad = self.pad(image.as_deref()).await?;
        let mounts = pad.mounts.clone();
        made.pad = Some(pad);
        Ok(Some(Place::Image(mounts)))
    }
}

/// `COPY file:… in /place `, with the space that dockerd leaves at its end.
fn told(keyword: &str, sources: &CopySources, found: &[Found]) -> String {
    let hash = match found {
        [one] => one.hash.clone(),
        several => {
            let hashes: Vec<&str> = several.iter().map(|found| found.hash.as_str()).collect();
            let sum: String = Sha256::digest(hashes.join(",")).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("multi:{sum}")
        }
    };
    let flag = |name: &str, value: &str| if value.is_empty() { String::new() } else { format!("--{name}={value} ") };
    let (chown, chmod) = (flag("chown", &sources.chown), flag("chmod", &sources.chmod));
    format!("{keyword} {chown}{chmod}{hash} in {} ", sources.destination)
}

/// Relative to the working directory; a slash at the end stays.
fn destination(working_dir: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{}/{path}", working_dir.trim_matches('/')) }
}

/// `--chmod` in octal digits.
fn mode(text: &str) -> Result<Option<u32>> {
    if text.is_empty() {
        return Ok(None);
    }
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.map(Some).ok_or_else(|| {
        Error::invalid(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"))
    })
}

/// `--chown=user[:group]`; a user without group has the group of the same name.
fn owner(text: &str, files: &UserFiles) -> Result<Owner> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    if group.contains(':') {
        return Err(Error::invalid(format!("invalid chown string format: {text}")));
    }
    let number = |name: &str, file: &[u8], kind: &str, id: &str| {
        let number = name.parse().ok().or_else(|| user::id_of(name, file));
        number.ok_or_else(|| Error::invalid(format!("can't find {id} for {kind} {name}: no such {kind}: {name}")))
    };
    Ok(Owner { uid: number(user, &files.passwd, "user", "uid")?, gid: number(group, &files.group, "group", "gid")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_is_relative_to_the_working_directory() {
        assert_eq!(destination("/w", "x/"), "/w/x/");
        assert_eq!(destination("", "."), "//.");
        assert_eq!(destination("/w", "/x"), "/x");
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("755").unwrap(), Some(0o755));
        assert!(mode("u+x").is_err() && mode("77777").is_err());
    }

    #[test]
    fn owner_is_looked_up_in_the_image() {
        let files = UserFiles { passwd: b"www:x:33:33::/:\n".to_vec(), group: b"www:x:34:\n".to_vec() };
        assert_eq!(owner("www", &files).unwrap(), Owner { uid: 33, gid: 34 });
        assert_eq!(owner("7:www", &files).unwrap(), Owner { uid: 7, gid: 34 });
        assert_eq!(
            owner("nosuch", &files).unwrap_err().message(),
            "can't find uid for user nosuch: no such user: nosuch"
        );
    }
}
