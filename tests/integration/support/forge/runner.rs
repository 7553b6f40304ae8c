//! The stand-in of Gitea's runner as a plain process on some Docker socket.

use std::{
    fs,
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{Gitea, LIMIT, part, run};

/// A registered runner that runs.
pub struct Runner {
    folder: tempfile::TempDir,
    process: Child,
}

impl Runner {
    /// Registers one that is good for one job, for `admin` or another scope, and starts it; `None` where it is absent, which CI does not
    /// let pass. `misbehave` is a word of `forges/gitea-runner/misbehave.go`, or empty.
    pub async fn start(gitea: &Gitea, name: &str, labels: &str, docker_host: &str, misbehave: &str) -> Option<Self> {
        let program = part("RINGER_TEST_GITEA_RUNNER")?.join("gitea-runner");
        let folder = tempfile::Builder::new().prefix("gitea-runner-").tempdir().expect("a folder");
        let config = "runner: {fetch_interval: 500ms}\ncontainer: {valid_volumes: ['**']}\n";
        fs::write(folder.path().join("config.yml"), config).expect("a file in our folder");
        let command = || {
            let mut command = gitea.place().command(&program);
            command.args(["--config", "config.yml"]).current_dir(folder.path()).env("HOME", folder.path());
            command
        };
        let token = gitea.registration_token("admin").await;
        run(command()
            .args(["register", "--no-interactive", "--ephemeral", "--instance", &gitea.url(), "--token", &token])
            .args(["--name", name, "--labels", labels]));
        let log = fs::File::create(folder.path().join("log")).expect("a log file");
        let process = command()
            .arg("daemon")
            .env("DOCKER_HOST", docker_host)
            .env("STAND_IN_MISBEHAVE", misbehave)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file again"))
            .stderr(log)
            .spawn()
            .expect("nsenter is there");
        Some(Self { folder, process })
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// If it still runs.
    pub fn runs(&mut self) -> bool {
        self.process.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the runner does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the runner's log:\n{}", self.log());
        }
        let _ended_already = self.process.kill();
        let _reaped_already = self.process.wait();
    }
}
