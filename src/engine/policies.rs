//! Which policy a job gets: one that is built in, one of the daemon's folder, or one that comes with the request.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    engine::{Engine, config::EngineConfig},
    model::{
        Error, Result,
        id::TenantId,
        job,
        path::clean_absolute,
        policy::{BuiltIn, Policy, PolicyRef},
    },
    policy,
};

/// No file of a policy is longer.
const LIMIT: u64 = 64 * 1024;

impl Engine {
    /// The policy that is named or given; without, that of jobs.
    pub(crate) fn find_policy(&self, wanted: Option<&PolicyRef>) -> Result<Policy> {
        match wanted {
            None => default_policy(&self.config),
            Some(PolicyRef::Named(name)) => named(&self.config, name),
            Some(PolicyRef::Text { name, toml }) => policy::parse(name, toml),
        }
    }
}

impl Engine {
    /// Paths that a job is given beside its policy. 400 if one is none, or would give away what no job may have.
    pub(crate) fn check_binds(&self, binds: Vec<String>) -> Result<Vec<String>> {
        let default = self.tenants.get(&TenantId::default_tenant())?;
        let folders = [self.config.data_root.as_path(), self.config.exec_root.as_path()];
        // Paths of binds are without links.
        let own = folders.into_iter().chain(default.socket());
        let own: Vec<PathBuf> = own.map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned())).collect();
        for bind in &binds {
            let path = bind.strip_suffix(":ro").unwrap_or(bind);
            if path == "/" || !path.starts_with('/') || clean_absolute(path) != path {
                return Err(Error::invalid(format!(
                    "invalid path for a job to bind ({bind}): expected a path below the root"
                )));
            }
            if let Some(own) = own.iter().find(|own| own.starts_with(path) || Path::new(path).starts_with(own)) {
                return Err(Error::invalid(format!(
                    "invalid path for a job to bind ({bind}): ringer's own files are there ({}); \
                     ringer job run takes its working directory for one unless there is --no-bind",
                    own.display()
                )));
            }
        }
        Ok(binds)
    }
}

/// The name of the policy that jobs have which are given this one, or none. Fails where there is no such policy, or it cannot be read.
pub fn of_jobs(config: &EngineConfig, given: Option<&str>) -> Result<String> {
    let name = given.unwrap_or_else(|| default_name(config));
    named(config, name).map(|_| name.to_owned())
}

/// The policy of jobs that are given none.
pub(crate) fn default_policy(config: &EngineConfig) -> Result<Policy> {
    named(config, default_name(config))
}

fn default_name(config: &EngineConfig) -> &str {
    match config.job_policy.as_str() {
        "" => BuiltIn::Ci.as_str(),
        name => name,
    }
}

fn named(config: &EngineConfig, name: &str) -> Result<Policy> {
    if let Some(built_in) = BuiltIn::named(name) {
        return Ok(policy::built_in(built_in));
    }
    let unknown = || Error::invalid(format!("no such policy: {name}"));
    // A name is no path.
    job::check_name(name).map_err(|_| unknown())?;
    let folder = config.policy_dir.as_ref().ok_or_else(unknown)?;
    let path = folder.join(format!("{name}.toml"));
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => unknown(),
        _ => Error::system(format!("reading {}: {error}", path.display())).with_source(error),
    };
    if fs::metadata(&path).map_err(unreadable)?.len() > LIMIT {
        return Err(Error::invalid(format!("{} is longer than {LIMIT} bytes", path.display())));
    }
    policy::parse(name, &fs::read_to_string(&path).map_err(unreadable)?)
}
