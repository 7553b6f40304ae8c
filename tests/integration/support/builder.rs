//! The real docker CLI with buildx, and the real buildkitd behind ringer.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{daemon::Daemon, part};

/// The CLI with buildx, in a folder of its own.
pub struct Buildx {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Buildx {
    /// `None` where it is absent, which CI does not let pass.
    pub fn new() -> Option<Self> {
        let (docker, buildx) = (part("RINGER_TEST_DOCKER")?, part("RINGER_TEST_BUILDX")?);
        let folder = tempfile::Builder::new().prefix("buildx-").tempdir().expect("a folder");
        let plugins = folder.path().join("cli-plugins");
        fs::create_dir(&plugins).expect("a folder in ours");
        let plugin = ["libexec/docker/cli-plugins", "lib/docker/cli-plugins"]
            .map(|place| buildx.join("usr").join(place).join("docker-buildx"))
            .into_iter()
            .find(|program| program.exists())
            .expect("buildx is in its package");
        symlink(plugin, plugins.join("docker-buildx")).expect("a link in our folder");
        Some(Self { program: docker.join("usr/bin/docker"), folder })
    }

    /// Its program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// That of buildx.
    pub fn plugin(&self) -> PathBuf {
        self.folder.path().join("cli-plugins/docker-buildx")
    }

    /// The CLI on a socket.
    pub fn docker(&self, host: &str, arguments: &[&str]) -> Command {
        let mut docker = Command::new(&self.program);
        docker
            .args(arguments)
            .env("DOCKER_HOST", host)
            .env("DOCKER_CONFIG", self.folder.path())
            .env("BUILDX_CONFIG", self.folder.path().join("buildx"))
            .env("BUILDKIT_PROGRESS", "plain")
            .env_remove("DOCKER_BUILDKIT");
        docker
    }

    /// Its configuration from now on.
    pub fn configure(&self, json: &str) {
        fs::write(self.folder.path().join("config.json"), json).expect("a file in our folder");
    }

    /// A folder with files, for a build.
    pub fn context(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder.path().join(name);
        for (path, content) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder above it")).expect("folders in ours");
            fs::write(path, content).expect("a file in our folder");
        }
        folder
    }
}

/// A daemon with BuildKit, the image `box`, and the CLI.
pub struct Builder {
    pub daemon: Daemon,
    pub cli: Buildx,
}

/// What a command said.
pub struct Said {
    pub succeeded: bool,
    /// Both streams.
    pub text: String,
}

impl Builder {
    /// `None` where a part is absent, which CI does not let pass.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with further flags of `ringer serve`.
    pub async fn start_with(flags: &[&str]) -> Option<Self> {
        Self::start_in(Daemon::folder_of_its_own(), flags).await
    }

    /// The same in a folder that a test has prepared.
    pub async fn start_in(folder: tempfile::TempDir, flags: &[&str]) -> Option<Self> {
        let (cli, flag) = (Buildx::new()?, flag()?);
        let daemon = Daemon::start_in(folder, &[&[flag.as_str()], flags].concat()).await;
        daemon.import_box().await;
        Some(Self { daemon, cli })
    }

    /// The same by a program that takes a command.
    pub async fn start_under(program: &[&str]) -> Option<Self> {
        let (cli, flag) = (Buildx::new()?, flag()?);
        let daemon = Daemon::start_under(program, &[&flag]).await;
        daemon.import_box().await;
        Some(Self { daemon, cli })
    }

    /// The CLI on its socket.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.cli.docker(&self.daemon.host(), arguments)
    }

    /// Runs it to its end.
    pub fn docker(&self, arguments: &[&str]) -> Said {
        said(&mut self.command(arguments))
    }

    /// The same, which must succeed; what it wrote to its output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the CLI is there");
        assert!(output.status.success(), "docker {arguments:?}: {}", both(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The CLI 20.10, which comes to BuildKit by `/build` and `/session`.
    pub fn old_docker(&self, arguments: &[&str]) -> Option<Said> {
        self.old_docker_at(&self.daemon.host(), arguments)
    }

    /// The same at another socket.
    pub fn old_docker_at(&self, host: &str, arguments: &[&str]) -> Option<Said> {
        self.old_command(host, arguments).map(|mut docker| said(&mut docker))
    }

    /// The same, to be run.
    pub fn old_command(&self, host: &str, arguments: &[&str]) -> Option<Command> {
        let mut docker = Command::new(part("RINGER_TEST_DOCKER_20")?.join("usr/bin/docker"));
        let config = self.cli.context("old-config", &[("config.json", "{}")]);
        docker.args(arguments).env("DOCKER_HOST", host).env("DOCKER_CONFIG", config);
        docker.env("BUILDKIT_PROGRESS", "plain").env_remove("DOCKER_BUILDKIT");
        Some(docker)
    }

    /// Builds a Dockerfile, with these files beside it.
    pub fn build(&self, flags: &[&str], dockerfile: &str, files: &[(&str, &str)]) -> Said {
        let context = self.context(dockerfile, files);
        self.docker(&[&["build"], flags, &[context.to_str().expect("a path")]].concat())
    }

    /// A folder with a Dockerfile and these files.
    pub fn context(&self, dockerfile: &str, files: &[(&str, &str)]) -> PathBuf {
        let name = format!("context-{:x}", dockerfile.len() * 31 + files.len());
        self.cli.context(&name, &[&[("Dockerfile", dockerfile)], files].concat())
    }
}

/// The flag by which ringer finds the real buildkitd.
pub fn flag() -> Option<String> {
    Some(format!("--buildkitd={}", part("RINGER_TEST_BUILDKITD")?.join("buildkitd").display()))
}

/// Runs a command to its end.
pub fn said(command: &mut Command) -> Said {
    let output = command.output().expect("the program is there");
    Said { succeeded: output.status.success(), text: both(&output) }
}

fn both(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Numbers of the processes whose command line has this in it.
pub fn processes_with(needle: &str) -> Vec<i32> {
    let numbers =
        fs::read_dir("/proc").expect("proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |pid: &i32| {
        let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(needle)
    };
    numbers.filter(has).collect()
}
