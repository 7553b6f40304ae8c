//! What gitlab-runner hands to each call in its environment, and the exit codes that it understands (`executors/custom` of its sources,
//! 12.1 to 18).

use std::{
    env,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use ringer::{
    model::{Error, ErrorKind, Result, error::Context},
    processes::ends,
};
use rustix::process::{getpgrp, getpid, getppid};
use serde_json::{Value, json};

use super::response::JobResponse;

/// Bytes of a job's description: GitLab's own are some 100 KiB with all their variables.
const DESCRIPTION: u64 = 16 << 20;

/// Where a job's sources are in its containers, as with gitlab-runner's docker executor.
pub const BUILDS: &str = "/builds";

/// Where GitLab's caches are.
pub const CACHE: &str = "/cache";

/// The answer to `config_exec`. The scripts have to be ones for a shell, whatever the runner's own default is.
pub fn configuration() -> Value {
    json!({
        "builds_dir": BUILDS,
        "cache_dir": CACHE,
        "builds_dir_is_shared": false,
        "driver": {"name": "ringer", "version": env!("CARGO_PKG_VERSION")},
        "shell": "bash",
    })
}

/// What the environment says. Its names are not prefixed with `CUSTOM_ENV_`, so that no variable of a job can set them.
pub struct Contract {
    response: Option<PathBuf>,
    exit_code: Option<PathBuf>,
    build_failure: u8,
    system_failure: u8,
}

impl Contract {
    /// Reads it.
    pub fn of_environment() -> Self {
        let path = |name: &str| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let code = |name: &str, usual| env::var(name).ok().and_then(|code| code.parse().ok()).unwrap_or(usual);
        Self {
            response: path("JOB_RESPONSE_FILE"),
            exit_code: path("BUILD_EXIT_CODE_FILE"),
            build_failure: code("BUILD_FAILURE_EXIT_CODE", 1),
            system_failure: code("SYSTEM_FAILURE_EXIT_CODE", 2),
        }
    }

    /// The job as GitLab described it.
    pub fn response(&self) -> Result<JobResponse> {
        let path = self.response.as_ref().ok_or_else(|| {
            Error::invalid(
                "JOB_RESPONSE_FILE is not set: this is called by gitlab-runner 13.0 or later (docs/forges/gitlab.md)",
            )
        })?;
        JobResponse::read(&read(path, DESCRIPTION).map_err(|error| error.context("JOB_RESPONSE_FILE"))?)
    }

    /// A script has ended so. gitlab-runner reads the number of a failure for `allow_failure: exit_codes`.
    pub fn ended(&self, code: i64) -> Result<ExitCode> {
        if code == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(path) = &self.exit_code {
            fs::write(path, code.to_string()).context("writing BUILD_EXIT_CODE_FILE")?;
        }
        Ok(ExitCode::from(self.build_failure))
    }

    /// What we could not do is tried again by gitlab-runner; what a job may not do would be refused again.
    pub fn failure(&self, error: &Error) -> ExitCode {
        ExitCode::from(if error.kind() == ErrorKind::Forbidden { self.build_failure } else { self.system_failure })
    }
}

/// A file of gitlab-runner's, of so many bytes at most.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = File::open(path).context(format!("opening {}", path.display()))?;
    file.take(most + 1).read_to_end(&mut content).context(format!("reading {}", path.display()))?;
    match content.len() as u64 > most {
        true => Err(Error::invalid(format!("{} is longer than {most} bytes", path.display()))),
        false => Ok(content),
    }
}

/// The process of gitlab-runner, with which a job ends: it makes a process group for each call, whose first process it has started itself,
/// also where that is a script around us.
pub fn runner() -> Result<i32> {
    let group = getpgrp();
    if group == getpid() {
        return owner(getppid().map(|pid| pid.as_raw_nonzero().get()));
    }
    owner(ends::parent(group.as_raw_nonzero().get()))
}

/// A parent that ends hands its children to process 1, and one of another container's has no number here: a job would not end with either.
fn owner(parent: Option<i32>) -> Result<i32> {
    parent.filter(|pid| *pid > 1).ok_or_else(|| {
        Error::unavailable("gitlab-runner is not there any more, or runs in another container's processes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_a_runner_that_lives() {
        assert_eq!(owner(Some(2)).unwrap(), 2);
        for nobody in [None, Some(0), Some(1)] {
            assert!(owner(nobody).is_err(), "{nobody:?}");
        }
    }
}
