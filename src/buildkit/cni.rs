//! buildkitd's network plugin, which is ringer's own program by another name. It makes nothing: buildkitd has a network namespace made
//! for each step and asks a plugin to wire it; the containers get theirs by [`super::facade`] instead, so that a step is in the
//! tenant's network whatever its build says. A namespace that was made for nothing costs a millisecond, and buildkitd keeps some.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::fs::symlink,
    path::Path,
};

use serde_json::{Value, json};

use crate::model::{Result, error::Context};

/// What the program is called then. The second one is asked beside each other one.
pub const NAMES: [&str; 2] = ["ringer-steps", "loopback"];

/// The file that names the plugin.
pub(super) const CONFIGURATION: &str = "ringer.conf";

/// A configuration is short.
const CONFIGURATION_BYTES: u64 = 1 << 20;

/// Puts configuration and programs into a folder; `program` is ours.
pub(super) fn install(folder: &Path, program: &Path) -> Result<()> {
    let writing = || format!("writing {}", folder.display());
    fs::create_dir_all(folder).context(writing())?;
    let configuration = json!({"cniVersion": "1.0.0", "name": "ringer", "type": NAMES[0]});
    fs::write(folder.join(CONFIGURATION), configuration.to_string()).context(writing())?;
    for name in NAMES {
        let link = folder.join(name);
        let _not_there = fs::remove_file(&link);
        symlink(program, &link).context(writing())?;
    }
    Ok(())
}

/// Whether a program's first argument says that it was called as the plugin.
pub fn is_plugin(called: Option<&OsStr>) -> bool {
    let name = called.and_then(|called| Path::new(called).file_name());
    name.is_some_and(|name| NAMES.iter().any(|plugin| name == *plugin))
}

/// Answers as the plugin: what it was called for is in the environment, its configuration on its input.
pub fn answer() -> io::Result<String> {
    let mut configuration = String::new();
    io::stdin().take(CONFIGURATION_BYTES).read_to_string(&mut configuration)?;
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    Ok(answer_to(&of("CNI_COMMAND"), &of("CNI_NETNS"), &of("CNI_IFNAME"), &configuration))
}

fn answer_to(command: &str, namespace: &str, interface: &str, configuration: &str) -> String {
    let configuration: Value = serde_json::from_str(configuration).unwrap_or_default();
    let version = configuration["cniVersion"].as_str().unwrap_or("0.3.1");
    match command {
        "ADD" => {
            let interfaces = json!([{"name": interface, "sandbox": namespace}]);
            json!({"cniVersion": version, "interfaces": interfaces, "ips": [], "dns": {}}).to_string()
        }
        "VERSION" => json!({"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}).to_string(),
        // There is nothing to take away or to check.
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_in_the_version_that_it_is_asked_in() {
        let answer = answer_to("ADD", "/run/netns/a", "eth0", r#"{"cniVersion":"0.3.1","name":"x"}"#);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["cniVersion"], "0.3.1");
        assert_eq!(answer["interfaces"][0], json!({"name": "eth0", "sandbox": "/run/netns/a"}));
        assert_eq!(answer_to("DEL", "/run/netns/a", "eth0", "{}"), "");
    }

    #[test]
    fn it_is_known_by_the_name_that_it_is_called_by() {
        for (called, is) in
            [("/run/x/cni/ringer-steps", true), ("loopback", true), ("/usr/bin/ringer", false), ("", false)]
        {
            assert_eq!(is_plugin(Some(OsStr::new(called))), is, "{called}");
        }
        assert!(!is_plugin(None));
    }
}
