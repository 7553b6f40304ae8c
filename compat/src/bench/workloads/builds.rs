//! Builds with BuildKit. Daemons are asked by `POST /build?version=2` with the context in its body: every one takes that, and no
//! client is in the loop.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, ensure};

use super::{Bench, Measured};
use crate::http::Body;

/// What a build is given: its Dockerfile and the sizes of files beside it.
pub struct Project {
    dockerfile: &'static str,
    files: fn() -> Vec<(String, usize)>,
    archive: OnceLock<Vec<u8>>,
    /// Where a BuildKit fetches it that is asked alone.
    pub served: OnceLock<SocketAddr>,
}

impl Project {
    const fn new(dockerfile: &'static str, files: fn() -> Vec<(String, usize)>) -> Self {
        Self { dockerfile, files, archive: OnceLock::new(), served: OnceLock::new() }
    }

    /// All of it as a tar. Its files hold what does not get smaller when it is packed.
    pub fn archive(&self) -> anyhow::Result<&[u8]> {
        if let Some(archive) = self.archive.get() {
            return Ok(archive);
        }
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, "Dockerfile", self.dockerfile.as_bytes())?;
        for (seed, (name, size)) in (1..).zip((self.files)()) {
            append(&mut builder, &name, &noise(seed, size))?;
        }
        Ok(self.archive.get_or_init(|| builder.into_inner().unwrap_or_default()))
    }
}

/// Four commands and a copy.
pub static FIVE: Project = Project::new(
    "FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\nCOPY file /\nRUN echo 3 > /3\nRUN echo 4 > /4\n",
    || vec![("file".to_owned(), 1 << 20)],
);
/// What a step costs beside its command.
pub static EMPTY: Project = Project::new(
    "FROM busybox\nRUN true\nRUN true #2\nRUN true #3\nRUN true #4\nRUN true #5\nRUN true #6\nRUN true #7\nRUN true #8\n\
     RUN true #9\nRUN true #10\n",
    Vec::new,
);
/// A large layer.
pub static LARGE: Project = Project::new("FROM busybox\nCOPY file /\n", || vec![("file".to_owned(), 150_000_000)]);
/// Many small files.
pub static MANY: Project =
    Project::new("FROM busybox\nCOPY . /all\n", || (0..5000).map(|n| (format!("d{}/f{n}", n % 50), 1024)).collect());

/// A build of a project.
pub struct Build {
    /// What it is given.
    pub project: &'static Project,
    /// Whether steps that were done before are taken from the cache.
    pub is_kept: bool,
}

impl Build {
    /// Of all steps.
    pub const fn anew(project: &'static Project) -> Self {
        Self { project, is_kept: false }
    }

    /// Of none.
    pub const fn again(project: &'static Project) -> Self {
        Self { project, is_kept: true }
    }
}

impl Bench {
    /// Does it once.
    pub fn build(&mut self, build: &Build) -> Measured {
        let archive = build.project.archive()?;
        let target = format!("/v1.41/build?version=2&t=bench/built&nocache={}", u8::from(!build.is_kept));
        let clock = Instant::now();
        let answer = self.client.request("POST", &target, Body::Tar(archive))?.success()?;
        let taken = clock.elapsed();
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(text.contains("moby.image.id"), "{}", text.lines().last().context("an empty answer")?);
        Ok(vec![("", taken)])
    }
}

fn append(builder: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    Ok(builder.append_data(&mut header, name, content)?)
}

/// The same bytes for the same seed (xorshift64).
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(size.div_ceil(8)).flatten().collect();
    bytes.truncate(size);
    bytes
}
