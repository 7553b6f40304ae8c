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
    model::{Error, Result, limits},
    rootfs::{Owner, Placing, RootView},
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
        let chown = sources.chown.clone();
        // What comes from another image keeps its owner.
        let keeps_owner = !sources.from.is_empty() && chown.is_empty();
        let place = move |view: &RootView| -> Result<()> {
            let owner = owner(view, &chown)
                .map_err(|error| error.context("unable to convert uid/gid chown string to host mapping"))?;
            let placing = Placing { owner: (!keeps_owner).then_some(owner), mode };
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
        let layer = self.on_pad(state.image.as_deref(), place).await?;
        self.commit(state, &command, Some(layer)).await
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

/// `--chown=user[:group]`, by the image's own user database; a user without group has the group of the same name.
fn owner(view: &RootView, text: &str) -> Result<Owner> {
    if text.is_empty() {
        return Ok(Owner::default());
    }
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    if group.contains(':') {
        return Err(Error::invalid(format!("invalid chown string format: {text}")));
    }
    let files = view.user_files(limits::SMALL_FILE)?;
    let number = |name: &str, file: &[u8], kind: &str, id: &str| {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        let number = file.split(|byte| *byte == b'\n').find_map(|line| {
            let line = str::from_utf8(line).ok()?;
            let mut fields = line.trim_end_matches('\r').split(':');
            (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())
        });
        let number = number.flatten();
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
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(folder.path().join("etc/passwd"), "www:x:33:33::/:\n").unwrap();
        std::fs::write(folder.path().join("etc/group"), "www:x:34:\n").unwrap();
        let view = RootView::folder(folder.path()).unwrap();
        assert_eq!(owner(&view, "www").unwrap(), Owner { uid: 33, gid: 34 });
        assert_eq!(owner(&view, "7:www").unwrap(), Owner { uid: 7, gid: 34 });
        assert_eq!(
            owner(&view, "nosuch").unwrap_err().message(),
            "can't find uid for user nosuch: no such user: nosuch"
        );
    }
}
