//! Secrets: in the file, in a file of their own, in an environment variable, or among the credentials that systemd hands over.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use ringer::{
    model::{Error, Result, error::Context},
    supervisor::secret::Secret,
};

/// The folder in which systemd puts a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

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

/// The same three keys.
#[derive(Clone, Debug, Default)]
pub struct OwnedTold {
    /// `KEY`.
    pub value: Option<Secret>,
    /// `KEY_file`.
    pub file: Option<PathBuf>,
    /// `KEY_env`.
    pub env: Option<String>,
}

impl OwnedTold {
    /// To be read.
    pub fn told(&self) -> Told<'_> {
        Told { value: &self.value, file: &self.file, env: &self.env }
    }
}

impl Told<'_> {
    /// Whether it is told in any way. `of` is the name of its section.
    pub fn is_set(&self, of: &str, key: &str) -> bool {
        self.value.is_some() || self.file.is_some() || self.env.is_some() || credential(of, key).is_some()
    }

    /// The secret `key` of a section.
    pub fn read(&self, of: &str, key: &str) -> Result<Secret> {
        let secret = match (self.value, self.file, self.env) {
            (Some(value), None, None) => value.clone(),
            (None, Some(file), None) => read_file(file, &format!("{key}_file"))?,
            (None, None, Some(name)) => Secret::new(
                env::var(name).map_err(|_| Error::invalid(format!("{key}_env: the variable {name} is not set")))?,
            ),
            (None, None, None) => match credential(of, key) {
                Some(file) => read_file(&file, "the credential")?,
                None => return Err(Error::invalid(format!("{key}, {key}_file or {key}_env is missing"))),
            },
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

fn read_file(file: &Path, what: &str) -> Result<Secret> {
    let context = || format!("reading {what}, {}", file.display());
    if fs::metadata(file).context(context())?.len() > LONGEST {
        return Err(Error::invalid(format!("{}: longer than {LONGEST} bytes", context())));
    }
    Ok(Secret::new(fs::read_to_string(file).context(context())?))
}

/// What `LoadCredential=SECTION.KEY:…` of a unit hands over, if it does.
fn credential(of: &str, key: &str) -> Option<PathBuf> {
    credential_in(Path::new(&env::var_os(CREDENTIALS)?), of, key)
}

fn credential_in(folder: &Path, of: &str, key: &str) -> Option<PathBuf> {
    // systemd has no colons in their names, as a registry with a port does.
    let of = of.replace([':', '/'], "_");
    Some(folder.join(format!("{of}.{key}"))).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_named_after_section_and_key() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("registry.example_5000.password"), "s3cr3t\n").unwrap();
        let found = credential_in(folder.path(), "registry.example:5000", "password").unwrap();
        assert_eq!(read_file(&found, "the credential").unwrap().reveal(), "s3cr3t");
        assert_eq!(credential_in(folder.path(), "../registry.example:5000", "password"), None);
    }
}
