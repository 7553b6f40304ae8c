//! `ringer gitlab`: what a GitLab Runner of the user's own calls for its custom executor. Each job of GitLab's is a job of ours, and these
//! are clients of the admin socket and of that job's Docker socket; GitLab itself is never asked anything.
//!
//! `contract` is what the runner says and wants to hear, `response` the job as GitLab describes it, `variables` its variables, `logins` its
//! registries. `prepare` makes everything, of which `services` a part, `run` carries a script out; `docker` is the API that both use.

mod contract;
mod docker;
mod logins;
mod prepare;
mod response;
mod run;
mod services;
mod variables;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ringer::model::{Error, Result, error::Context};
use tokio::signal::unix::{SignalKind, signal};

use self::{contract::Contract, prepare::Prepare, run::Run};
use super::{
    admin::{AdminClient, AdminHost},
    in_runtime,
};

/// The network of a job's containers.
const NETWORK: &str = "ringer-job";

/// Runs the steps that the user wrote, in the image that the job names.
const BUILD: &str = "ringer-build";

/// Runs the stages that gitlab-runner wrote: sources, caches, artifacts.
const HELPER: &str = "ringer-helper";

/// The four calls of GitLab Runner's custom executor (docs/forges/gitlab.md)
#[derive(Args, Debug)]
pub struct GitlabCommand {
    #[command(flatten)]
    admin: AdminHost,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Tell gitlab-runner where a job's files are (config_exec)
    Config,
    /// Make a job with the containers of its image, of its helper and of its services (prepare_exec)
    Prepare(Box<Prepare>),
    /// Run a script of the job in its container (run_exec)
    Run(Run),
    /// Remove the job with everything in it (cleanup_exec)
    Cleanup,
}

impl GitlabCommand {
    /// Carries the verb out; the answer is the exit code, in the words of the contract.
    pub fn run(self) -> ExitCode {
        let contract = Contract::of_environment();
        in_runtime(async {
            Ok(match self.carry_out(&contract).await {
                Ok(code) => code,
                Err(error) => {
                    eprintln!("ringer: {}", error.chain());
                    contract.failure(&error)
                }
            })
        })
    }

    async fn carry_out(self, contract: &Contract) -> Result<ExitCode> {
        let admin = self.admin.client()?;
        match self.verb {
            Verb::Config => println!("{}", contract::configuration()),
            Verb::Prepare(prepare) => prepare.carry_out(&admin, contract).await?,
            Verb::Run(run) => return run.carry_out(&admin, contract).await,
            Verb::Cleanup => {
                if let Some(removed) = remove(&admin, &contract.response()?.name()).await? {
                    println!("{removed}");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Removes a job by its name, if it is there; what was removed.
async fn remove(admin: &AdminClient, name: &str) -> Result<Option<String>> {
    let Some(job) = admin.list().await?.into_iter().find(|job| job.name == name) else { return Ok(None) };
    let removed = admin.delete(&job.id).await?;
    Ok(Some(format!("ringer: job {name}: {}", super::job::told(&removed))))
}

/// gitlab-runner ends a stage by a TERM to all its processes, and by a KILL minutes later. Caught from now on, told when it is waited for.
fn terminated() -> Result<impl Future<Output = Error>> {
    let mut terminate = signal(SignalKind::terminate()).context("catching signals")?;
    Ok(async move {
        terminate.recv().await;
        Error::unavailable("gitlab-runner has ended this stage")
    })
}
