//! A build's context: the tar of the body, or what its URL names, unpacked into a folder of its own.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, OFlags};
use tokio_util::io::ReaderStream;

use super::{
    BuildRequest,
    files::{self, TempFolder},
    message::Output,
    sources::leads_out,
};
use crate::{
    dockerfile::{Dockerfile, ignore::Ignore},
    engine::{Engine, images::Body, tenants::Scope},
    model::{Error, Result, error::Context as _, limits},
    rootfs::{ExtractOptions, RootView, remove_folder},
    work::{Stop, Worker, blocking},
};

/// Bytes that travel at once.
const CHUNK: usize = 256 << 10;

/// The files of a build.
pub struct Context {
    folder: TempFolder,
    /// Of a Git repository a folder of it may be the context.
    root: PathBuf,
}

/// What a URL gave.
pub(super) enum Fetched {
    /// A tar.
    Archive(Body),
    /// A single Dockerfile, without context.
    Dockerfile(Vec<u8>),
    /// A folder that is there already.
    Checkout(Context),
}

impl Context {
    pub(super) fn new(folder: TempFolder, root: PathBuf) -> Self {
        Self { folder, root }
    }

    /// Where the files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The files, whose links stay inside.
    pub fn view(&self) -> Result<RootView> {
        RootView::folder(&self.root)
    }

    /// Takes the files away.
    pub async fn remove(self) {
        self.folder.remove().await;
    }
}

impl Engine {
    /// Reads the context and its Dockerfile. A single Dockerfile has no context.
    pub(super) async fn build_context(
        &self,
        scope: &Scope,
        request: &BuildRequest,
        body: Body,
        output: &Output,
        stop: Stop,
    ) -> Result<(Option<Context>, Dockerfile)> {
        let context = match self.fetch_context(scope, request, body, output).await? {
            Fetched::Dockerfile(text) => return Ok((None, Dockerfile::parse("Dockerfile", &text)?)),
            Fetched::Checkout(context) => context,
            Fetched::Archive(body) => {
                let folder = TempFolder::make(&self.config.data_root)?;
                let (worker, body) = Worker::receive(stop, ReaderStream::with_capacity(body, CHUNK)).await?;
                worker
                    .run("context", move || {
                        let root = folder.path().to_owned();
                        RootView::folder(&root)?.extract("/", "", body, ExtractOptions::default())?;
                        Ok(Context::new(folder, root))
                    })
                    .await?
            }
        };
        let name = request.dockerfile_name().to_owned();
        blocking(move || {
            let dockerfile = dockerfile(&context, &name)?;
            Ok((Some(context), dockerfile))
        })
        .await
    }
}

/// Folders of a daemon that was killed.
pub(crate) fn tidy(data_root: &Path) {
    let folder = files::all(data_root);
    if let Err(error) = remove_folder(&folder) {
        tracing::warn!("removing {}: {error}", folder.display());
    }
}

/// Reads the Dockerfile, and takes it away where `.dockerignore` says so: the client sends both even then.
fn dockerfile(context: &Context, name: &str) -> Result<Dockerfile> {
    if leads_out(name) {
        return Err(Error::outside_build_context(name));
    }
    let view = context.view()?;
    let (name, bytes) = match read(&view, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && name == "Dockerfile" => {
            let lower = name.to_lowercase();
            let bytes = read(&view, &lower);
            (lower, bytes)
        }
        read => (name.to_owned(), read),
    };
    let bytes = bytes.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let shown = if name == "dockerfile" { "Dockerfile" } else { &name };
            Error::system(format!("Cannot locate specified Dockerfile: {shown}"))
        }
        _ => Error::system(format!("reading {name}: {error}")).with_source(error),
    })?;
    let dockerfile = Dockerfile::parse(&name, &bytes)?;
    if let Ok(ignore) = read(&view, ".dockerignore") {
        let ignore = Ignore::parse(&String::from_utf8_lossy(&ignore));
        for file in [".dockerignore", &name] {
            if ignore.matches(file) {
                remove(&view, file).context(format!("removing {file}"))?;
            }
        }
    }
    Ok(dockerfile)
}

fn read(view: &RootView, path: &str) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let cleaned = format!("/{path}");
    let file = view.open(&cleaned, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let mut bytes = Vec::new();
    file.take(limits::DOCKERFILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limits::DOCKERFILE {
        return Err(io::Error::other(format!("larger than {}", limits::mib(limits::DOCKERFILE))));
    }
    Ok(bytes)
}

fn remove(view: &RootView, path: &str) -> io::Result<()> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = view.resolve(&format!("/{folder}"))?;
    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
