//! Secrets: in the file, in a file of their own, or in an environment variable.

use std::{env, fs, path::PathBuf};

use ringer::{
    model::{Error, Result, error::Context},
    supervisor::secret::Secret,
};

/// The longest file that is read.
const LONGEST: u64 = 64 << 10;

/// The three keys of a secret, of which one is set.
pub struct Told<'a> {
    /// `KEY`.
    pub value: &'a Option<Secret>,
    /// `KEY_file`.
    pub file: &'a Option<PathBuf>,
    /// `KEY_env`.
    pub env: &'a Option<String>,
}

impl Told<'_> {
    /// Whether any of them is set.
    pub fn is_set(&self) -> bool {
        self.value.is_some() || self.file.is_some() || self.env.is_some()
    }

    /// The secret; `key` is for errors.
    pub fn read(&self, key: &str) -> Result<Secret> {
        let secret = match (self.value, self.file, self.env) {
            (Some(value), None, None) => value.clone(),
            (None, Some(file), None) => {
                let context = || format!("reading {key}_file, {}", file.display());
                if fs::metadata(file).context(context())?.len() > LONGEST {
                    return Err(Error::invalid(format!("{}: longer than {LONGEST} bytes", context())));
                }
                Secret::new(fs::read_to_string(file).context(context())?)
            }
            (None, None, Some(name)) => Secret::new(
                env::var(name).map_err(|_| Error::invalid(format!("{key}_env: the variable {name} is not set")))?,
            ),
            (None, None, None) => {
                return Err(Error::invalid(format!("{key}, {key}_file or {key}_env is missing")));
            }
            _ => {
                return Err(Error::invalid(format!("only one of {key}, {key}_file and {key}_env can be set")));
            }
        };
        if secret.reveal().is_empty() {
            return Err(Error::invalid(format!("{key} is empty")));
        }
        Ok(secret)
    }
}
