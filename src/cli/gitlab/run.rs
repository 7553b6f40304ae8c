//! `run_exec`: a script in one of a job's containers. A container is started for each script and ends with it, as with gitlab-runner's
//! docker executor; what the script leaves in its files, the next one finds.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use ringer::model::{Error, Result};

use super::{
    BUILD, HELPER,
    contract::{self, Contract},
    docker::{self, Docker},
    terminated,
};
use crate::cli::admin::AdminClient;

/// Bytes of a script. It has each variable of the job in it, and its lines twice.
const SCRIPT: u64 = 64 << 20;

/// The stages whose scripts are gitlab-runner's own and need git and gitlab-runner (`common/build.go`). All others are the user's, also
/// those that a later gitlab-runner has.
const HELPERS: [&str; 11] = [
    "prepare_executor",
    "prepare_script",
    "get_sources",
    "clear_worktree",
    "restore_cache",
    "download_artifacts",
    "archive_cache",
    "archive_cache_on_failure",
    "upload_artifacts_on_success",
    "upload_artifacts_on_failure",
    "cleanup_file_variables",
];

/// What gitlab-runner says after its `run_args`.
#[derive(Args, Debug)]
pub struct Run {
    /// The script's file
    script: PathBuf,
    /// What it is for
    stage: String,
}

impl Run {
    /// Runs it; the answer is its exit code, in the contract's words.
    pub async fn carry_out(self, admin: &AdminClient, contract: &Contract) -> Result<ExitCode> {
        let script = contract::read(&self.script, SCRIPT)?;
        let name = contract.response()?.name();
        let job = admin.inspect(&name).await?;
        let docker = Docker::at(&job.socket);
        let container = container_of(&self.stage);
        let terminated = terminated()?;
        let ended = async {
            docker.end_leftover(container).await?;
            docker.run(container, &script).await
        };
        tokio::select! {
            ended = ended => contract.ended(ended?),
            error = terminated => {
                let stopped = tokio::time::timeout(docker::GRACE * 2, docker.stop(container)).await;
                stopped.unwrap_or_else(|_| Err(Error::unavailable("the job's container does not end")))?;
                Err(error)
            }
        }
    }
}

fn container_of(stage: &str) -> &'static str {
    if HELPERS.contains(&stage) { HELPER } else { BUILD }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_that_nobody_knows_are_the_users() {
        for stage in ["build_script", "step_script", "step_release", "after_script", "of_tomorrow"] {
            assert_eq!(container_of(stage), BUILD, "{stage}");
        }
        assert_eq!(container_of("get_sources"), HELPER);
    }
}
