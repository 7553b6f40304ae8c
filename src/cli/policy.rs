//! `ringer policy`: what the built-in policies say, whether a file is one, and what a policy says to a request. Asks no daemon.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use clap::{Args, Subcommand};
use ringer::{
    api,
    engine::containers::effective,
    model::{
        Error, Result,
        error::Context,
        policy::{BuiltIn, Policy},
    },
    oci::HostFacts,
    policy::{self, Asked},
};

/// Policies: what clients of a job may do. These commands ask no daemon
#[derive(Args, Debug)]
pub struct PolicyCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say whether a file is a policy; an error names its line
    Check {
        /// A file, TOML
        file: PathBuf,
    },
    /// Print a policy with all its rules
    Show {
        /// trusted, ci, strict, or the path of a file (with a slash or .toml)
        policy: PolicySource,
    },
    /// Say what a policy refuses of a request to make a container, the JSON body of which is read from stdin
    Explain {
        /// ci, trusted, strict, or the path of a file (with a slash or .toml)
        #[arg(long, value_name = "NAME|FILE", default_value = "ci")]
        policy: PolicySource,
        /// Version of the API that the client speaks, such as 1.41 [default: the newest]
        #[arg(long, value_name = "VERSION")]
        api_version: Option<String>,
    },
}

/// A policy that is built in, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// By its name.
    Named(String),
    /// By its path.
    File(PathBuf),
}

impl FromStr for PolicySource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_path = text.contains('/') || text.ends_with(".toml");
        Ok(if is_path { Self::File(text.into()) } else { Self::Named(text.to_owned()) })
    }
}

impl PolicySource {
    /// The policy itself. The daemon's folder is not looked at.
    fn policy(&self) -> Result<Policy> {
        match self {
            Self::Named(name) => {
                let unknown =
                    || Error::not_found(format!("no such policy: {name}: trusted, ci and strict are built in"));
                BuiltIn::named(name).map(policy::built_in).ok_or_else(unknown)
            }
            Self::File(path) => policy::parse(&file_name(path), &read(path)?),
        }
    }
}

/// What a policy of a file is called.
pub fn file_name(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(format!("reading {}", path.display()))
}

impl PolicyCommand {
    /// Carries the verb out; the answer is the exit code: 1 also where something is refused.
    pub fn run(self) -> ExitCode {
        self.carry_out().unwrap_or_else(|error| {
            eprintln!("ringer: {}", error.chain());
            ExitCode::FAILURE
        })
    }

    fn carry_out(self) -> Result<ExitCode> {
        match self.verb {
            Verb::Check { file } => {
                let policy = PolicySource::File(file.clone()).policy()?;
                println!("{}: the policy {} on the base {}", file.display(), policy.name, policy.base.as_str());
            }
            Verb::Show { policy: PolicySource::Named(name) } if BuiltIn::named(&name).is_some() => {
                print!("{}", BuiltIn::named(&name).map_or("", policy::built_in_text));
            }
            Verb::Show { policy } => print!("{}", policy::to_toml(&policy.policy()?)),
            Verb::Explain { policy, api_version } => return explain(&policy.policy()?, api_version.as_deref()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn explain(policy: &Policy, version: Option<&str>) -> Result<ExitCode> {
    let mut body = Vec::new();
    std::io::stdin().lock().read_to_end(&mut body).context("reading stdin")?;
    let request = api::create_request(body, version)?;
    let effective = effective::alone(request, &HostFacts::detect())?;
    let refusals = policy::refusals(policy, Asked::Create(&effective));
    for refusal in &refusals {
        println!("{}", refusal.message());
    }
    if refusals.is_empty() {
        println!("the policy {} lets it pass", policy.name);
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
