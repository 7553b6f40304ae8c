//! `remote`: a context that lies elsewhere. The URL of a tar, of a single Dockerfile, or of a Git repository
//! (`https://host/name.git#branch:folder`), which the `git` program fetches.

use std::{fs::File, path::Path, process::Stdio};

use futures_util::TryStreamExt;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio_util::io::StreamReader;

use super::{
    BuildMessage, BuildRequest,
    context::{Context, Fetched},
    files::TempFolder,
    message::Output,
};
use crate::{
    engine::{
        Engine,
        images::{Body, progress::Message},
        tenants::Scope,
    },
    model::{Error, Result, error::Context as _, limits, url::without_credentials},
    processes::{self, environment},
    rootfs::RootView,
};

/// ssh without the keys of root, for what jobs name.
const SSH_OF_NOBODY: &str =
    "ssh -F none -o IdentityFile=none -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes";

impl Engine {
    pub(super) async fn fetch_context(
        &self,
        scope: &Scope,
        request: &BuildRequest,
        body: Body,
        output: &Output,
    ) -> Result<Fetched> {
        let remote = request.remote.as_str();
        if remote.is_empty() {
            return Ok(Fetched::Archive(body));
        }
        if remote == "client-session" {
            return Err(Error::invalid(
                "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead",
            ));
        }
        if is_git(remote) {
            return self.clone_repository(scope, remote).await.map(Fetched::Checkout);
        }
        if !is_url(remote) {
            let shown = without_credentials(remote);
            return Err(Error::system(format!("remoteURL ({shown}) could not be recognized as URL")));
        }
        self.download_context(scope, remote, output).await
    }

    async fn download_context(&self, scope: &Scope, url: &str, output: &Output) -> Result<Fetched> {
        let (response, url) = (self.registry_for(scope).await?.fetch(url).await, without_credentials(url));
        let response = response.map_err(|error| error.context(format!("error downloading remote context {url}")))?;
        let length = response.content_length().unwrap_or_default();
        let kind = response.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        // dockerd has the two the wrong way round, and knows no total.
        let progress = Message::layer_progress("Downloading context", &url, length, 0);
        let detecting = |text: String| Error::system(format!("error detecting content type for remote {url}: {text}"));
        let is_text = kind.starts_with("text/plain");
        let is_unsure = kind.is_empty() || kind.starts_with("application/octet-stream");
        let tars = ["application/x-tar", "application/tar", "gzip", "bzip", "application/x-xz", "application/xz"];
        if !is_text && !is_unsure && !tars.iter().any(|tar| kind.contains(tar)) {
            return Err(detecting(format!("unsupported Content-Type {kind:?}")));
        }
        let mut stream = response.bytes_stream().map_err(std::io::Error::other);
        let Some(first) = stream.try_next().await.context("downloading the context")? else {
            return Err(detecting("empty response".to_owned()));
        };
        output.send(BuildMessage::Progress(progress)).await;
        let looks_as_text = is_text || is_unsure && !first.contains(&0) && std::str::from_utf8(&first).is_ok();
        let whole = futures_util::StreamExt::chain(futures_util::stream::iter([Ok(first)]), stream);
        if !looks_as_text {
            return Ok(Fetched::Archive(Box::pin(StreamReader::new(whole))));
        }
        let mut text = Vec::new();
        let mut whole = Box::pin(whole);
        while let Some(piece) = whole.try_next().await.context("downloading the Dockerfile")? {
            text.extend_from_slice(&piece);
            if text.len() > limits::DOCKERFILE {
                let largest = limits::mib(limits::DOCKERFILE);
                return Err(Error::invalid(format!("the Dockerfile is larger than {largest}")));
            }
        }
        Ok(Fetched::Dockerfile(text))
    }

    async fn clone_repository(&self, scope: &Scope, remote: &str) -> Result<Context> {
        let (url, reference, folder) = split(remote);
        if reference.starts_with('-') {
            return Err(Error::invalid(format!("invalid refspec: {reference}")));
        }
        let temporary = TempFolder::make(&self.config.data_root)?;
        let place = temporary.path().to_owned();
        let network = self.open_host(scope).await?;
        let shown = without_credentials(&url);
        let git = async |arguments: &[&str]| git(network.as_deref(), &place, arguments).await;
        git(&["init"]).await.map_err(|text| Error::system(format!("failed to init repo at {shown}: {text}")))?;
        git(&["remote", "add", "origin", &url])
            .await
            .map_err(|text| Error::system(format!("failed add origin repo at {shown}: {text}")))?;
        // A server that knows no shallow fetches gives all.
        let fetched = match git(&["fetch", "--depth", "1", "origin", "--", &reference]).await {
            Ok(()) => Ok(()),
            Err(_) => git(&["fetch", "origin", "--", &reference]).await,
        };
        fetched.map_err(|text| Error::system(format!("error fetching: {text}")))?;
        if let Err(text) = git(&["checkout", &reference]).await {
            let fetched = git(&["checkout", "FETCH_HEAD"]).await;
            fetched.map_err(|_| Error::system(format!("error checking out {reference}: {text}")))?;
        }
        git(&["submodule", "update", "--init", "--recursive", "--depth=1"])
            .await
            .map_err(|text| Error::system(format!("error initializing submodules: {text}")))?;
        let view = RootView::folder(&place)?;
        let outside = |error: std::io::Error| {
            Error::system(format!("error setting git context, \"{folder}\" not within git root: {error}"))
        };
        let inner = view.resolve(&format!("/{folder}")).map_err(outside)?;
        let inner = view.container_path(std::os::fd::AsFd::as_fd(&inner)).map_err(outside)?;
        let root = place.join(inner.trim_start_matches('/'));
        if !root.is_dir() {
            return Err(Error::system(format!("error setting git context, not a directory: {folder}")));
        }
        Ok(Context::new(temporary, root))
    }
}

/// Runs git, in a network namespace if there is one; the error is what it printed.
async fn git(network: Option<&Path>, folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut git = Command::new("git");
    crate::descriptors::give_back(git.as_std_mut());
    // Its own helpers are of the group.
    git.process_group(0).env_clear().envs(environment::handed_on(network.is_some()));
    // Nothing that is configured for root, nor what a repository has for it.
    git.env("HOME", "/nonexistent").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    if let Some(network) = network {
        File::open(network)
            .map(|namespace| processes::start_in_network(git.as_std_mut(), namespace))
            .map_err(|error| format!("running git in {}: {error}", network.display()))?;
        git.env("GIT_SSH_COMMAND", SSH_OF_NOBODY);
    }
    let child = git
        // Submodules of a stranger's repository must not read files of this machine.
        .args(["-c", "protocol.file.allow=never"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_PROTOCOL_FROM_USER", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("running git: {error}"))?;
    let group = Group::of(&child);
    let output = child.wait_with_output().await.map_err(|error| format!("running git: {error}"))?;
    group.has_ended();
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Err(match output.status.code() {
        Some(code) => format!("{text}: exit status {code}"),
        None => text,
    })
}

/// A program with all that it started: dropped before their end, they are killed.
struct Group(Option<Pid>);

impl Group {
    /// That of a child which leads one.
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ended_already = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Whether a source is fetched by URL.
pub(super) fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn is_git(remote: &str) -> bool {
    let place = remote.split('#').next().unwrap_or_default();
    is_url(remote) && place.ends_with(".git")
        || ["git://", "github.com/", "git@"].iter().any(|prefix| remote.starts_with(prefix))
}

/// URL, branch or commit, and folder of `URL#reference:folder`.
fn split(remote: &str) -> (String, String, String) {
    let (url, fragment) = remote.split_once('#').unwrap_or((remote, ""));
    let url = match url.contains("://") || url.starts_with("git@") {
        true => url.to_owned(),
        false => format!("https://{url}"),
    };
    let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
    let reference = if reference.is_empty() { "master" } else { reference };
    (url, reference.to_owned(), folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_urls_are_told_and_split() {
        for (remote, git) in [
            ("https://host/a.git", true),
            ("https://host/a.git#dev:sub", true),
            ("github.com/a/b", true),
            ("git@host:a", true),
            ("https://host/a.tar.gz", false),
        ] {
            assert_eq!(is_git(remote), git, "{remote}");
        }
        let parts = |text| {
            let (url, reference, folder) = split(text);
            format!("{url} {reference} {folder}")
        };
        assert_eq!(parts("github.com/a/b#:sub"), "https://github.com/a/b master sub");
        assert_eq!(parts("https://h/a.git#v1"), "https://h/a.git v1 ");
    }
}
