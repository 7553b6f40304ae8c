//! A BuildKit that nobody stands before: what a daemon's build cannot take less than. It is asked by its own client, whose start is
//! not counted, and fetches its contexts by HTTP, as daemons have their BuildKit do with a context that came in a request.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::workloads::{
    Measured,
    builds::{Build, Project},
};

/// One under the clock.
pub struct BuildKit {
    address: String,
    program: PathBuf,
    /// Builds so far: each has a URL of its own, so that none is known from an earlier one.
    builds: usize,
}

impl BuildKit {
    /// At a socket, by its client `buildctl`.
    pub fn at(socket: &Path, program: &Path) -> Self {
        Self { address: format!("unix://{}", socket.display()), program: program.to_owned(), builds: 0 }
    }

    /// Does a build once, with the options that ringer gives to its BuildKit.
    pub fn build(&mut self, build: &Build) -> Measured {
        self.builds += 1;
        let context = format!("context=http://{}/{}", serve(build.project)?, self.builds);
        let own = self.client(&["debug", "info"])?;
        let mut arguments = vec!["build", "--progress", "plain", "--frontend", "dockerfile.v0", "--opt", &context];
        arguments.extend(["--opt", "image-resolve-mode=local", "--output"]);
        arguments.push("type=image,name=docker.io/bench/built:latest,compression-level=1");
        if !build.is_kept {
            arguments.push("--no-cache");
        }
        Ok(vec![("", self.client(&arguments)?.saturating_sub(own))])
    }

    /// How long its client takes.
    fn client(&self, arguments: &[&str]) -> anyhow::Result<Duration> {
        let clock = Instant::now();
        let output = Command::new(&self.program).arg("--addr").arg(&self.address).args(arguments).output();
        let (output, taken) = (output.context("running buildctl")?, clock.elapsed());
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "buildctl: {}", said.lines().last().unwrap_or("it said nothing"));
        Ok(taken)
    }
}

/// What its client says that it is of.
pub fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or("unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where a project is served, until this process ends.
fn serve(project: &'static Project) -> anyhow::Result<SocketAddr> {
    if let Some(address) = project.served.get() {
        return Ok(*address);
    }
    let archive = project.archive()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("serving contexts")?;
    let address = listener.local_addr().context("serving contexts")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // It is the build that fails then, and says why.
            let _client_left = answer(stream, archive);
        }
    });
    Ok(*project.served.get_or_init(|| address))
}

fn answer(mut stream: TcpStream, archive: &[u8]) -> std::io::Result<()> {
    for line in BufReader::new(&stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", archive.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(archive)
}
