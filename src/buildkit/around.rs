//! What a job's containers find around them the steps of its builds find too: names with their addresses, variables, a file. It is laid
//! around a step when that is made, so nothing of it is in what BuildKit remembers, or in images.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde_json::{Value, json};

use crate::{
    backend::builds::{Around, AroundFile},
    model::{Result, error::Context, limits},
};

const HOSTS: &str = "/etc/hosts";

/// Where the names of one step are.
pub(super) struct Names<'a> {
    /// The folder of its builder's cache, in whose folders for workers buildkitd keeps such files.
    pub(super) root: &'a Path,
    /// Where its own are to be.
    pub(super) file: PathBuf,
}

/// Lays it around a step.
pub(super) fn lay(spec: &mut Value, around: &Around, names: &Names<'_>) -> Result<()> {
    add_variables(spec, &around.env);
    if let Some(file) = &around.file {
        add_file(spec, file);
    }
    if !around.hosts.is_empty() {
        add_names(spec, &around.hosts, names).context("telling a step the names that its job knows")?;
    }
    Ok(())
}

/// Those that the step does not set itself.
fn add_variables(spec: &mut Value, variables: &[String]) {
    let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) else { return };
    let env = process.entry("env").or_insert_with(|| json!([]));
    let Some(env) = env.as_array_mut() else { return };
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let own: HashSet<String> = env.iter().filter_map(Value::as_str).map(name).collect();
    env.extend(variables.iter().filter(|variable| !own.contains(&name(variable))).map(|variable| json!(variable)));
}

/// Unless the step has something of its own where the file would be.
fn add_file(spec: &mut Value, file: &AroundFile) {
    let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) else { return };
    let place = Path::new(&file.destination);
    let is_above = |mount: &Value| mount["destination"].as_str().is_some_and(|above| place.starts_with(above));
    if mounts.iter().any(|mount| is_above(mount) && mount["type"] != "tmpfs") {
        return;
    }
    mounts.push(json!({
        "destination": file.destination,
        "type": "bind",
        "source": file.source,
        "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
    }));
    add_variables(spec, &file.env);
}

/// In a file of the step's own, with what buildkitd tells it before. A file that its build mounts there stays.
fn add_names(spec: &mut Value, hosts: &[(String, IpAddr)], names: &Names<'_>) -> io::Result<()> {
    let mounts = spec.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten();
    for mount in mounts.filter(|mount| mount["destination"] == HOSTS) {
        let source = PathBuf::from(mount["source"].as_str().unwrap_or_default());
        if !is_buildkitds(&source, names.root) {
            continue;
        }
        let mut text = read(&source)?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.extend(hosts.iter().map(|(name, address)| format!("{address}\t{name}\n")));
        fs::write(&names.file, text)?;
        mount["source"] = json!(names.file);
    }
    Ok(())
}

/// Whether nobody but buildkitd writes there: `ROOT/WORKER/hosts`, or with more after that name. Builds reach what lies deeper.
fn is_buildkitds(source: &Path, root: &Path) -> bool {
    let is_named = source.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hosts"));
    let worker = source.parent().filter(|worker| worker.parent() == Some(root));
    is_named
        && worker.and_then(Path::file_name).is_some_and(|worker| worker.to_string_lossy().starts_with("containerd-"))
}

fn read(path: &Path) -> io::Result<String> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = fs::File::options().read(true).custom_flags(flags).open(path)?;
    let mut text = String::new();
    file.take(limits::SMALL_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::SMALL_FILE {
        return Err(io::Error::other(format!("it is larger than {}", limits::mib(text.len()))));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Around {
        Around {
            env: vec!["http_proxy=http://p".to_owned(), "A=given".to_owned()],
            hosts: vec![("forge.test".to_owned(), "10.0.0.1".parse().unwrap())],
            file: Some(AroundFile {
                source: "/data/a.pem".into(),
                destination: "/dev/a.pem".to_owned(),
                env: vec!["SSL_CERT_FILE=/dev/a.pem".to_owned()],
                machines: None,
            }),
            ..Around::default()
        }
    }

    fn laid(mounts: &Value) -> (Value, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let worker = folder.path().join("containerd-overlayfs");
        fs::create_dir(&worker).unwrap();
        fs::write(worker.join("hosts.1"), "127.0.0.1\tlocalhost").unwrap();
        let mounts = mounts.to_string().replace("ROOT", folder.path().to_str().unwrap());
        let mounts: Value = serde_json::from_str(&mounts).unwrap();
        let mut spec = json!({"process": {"env": ["A=own"]}, "mounts": mounts});
        lay(&mut spec, &around(), &Names { root: folder.path(), file: folder.path().join("own") }).unwrap();
        (spec, folder)
    }

    #[test]
    fn a_step_finds_what_containers_find_and_its_own_goes_before() {
        let mounts = json!([
            {"destination": "/dev", "type": "tmpfs"},
            {"destination": "/etc/hosts", "type": "bind", "source": "ROOT/containerd-overlayfs/hosts.1"},
        ]);
        let (spec, folder) = laid(&mounts);
        assert_eq!(spec["process"]["env"], json!(["A=own", "http_proxy=http://p", "SSL_CERT_FILE=/dev/a.pem"]));
        assert_eq!(spec["mounts"][2]["source"], "/data/a.pem");
        let own = folder.path().join("own");
        assert_eq!(spec["mounts"][1]["source"], json!(own));
        assert_eq!(fs::read_to_string(own).unwrap(), "127.0.0.1\tlocalhost\n10.0.0.1\tforge.test\n");
    }

    #[test]
    fn a_mount_of_a_name_that_begins_alike_is_not_in_the_way() {
        let (spec, _folder) = laid(&json!([{"destination": "/d", "type": "bind", "source": "x"}]));
        assert_eq!(spec["mounts"][1]["destination"], "/dev/a.pem");
    }

    #[test]
    fn what_a_build_mounts_itself_stays() {
        for source in [
            "ROOT/tmp/mount/hosts",
            "ROOT/hosts",
            "/d/io.containerd.snapshotter.v1.overlayfs/1/fs/hosts",
            "ROOT/tmp/hosts",
        ] {
            let mounts = json!([
                {"destination": "/dev", "type": "bind", "source": "x"},
                {"destination": "/etc/hosts", "type": "bind", "source": source},
            ]);
            let (spec, folder) = laid(&mounts);
            assert_eq!(spec["mounts"].as_array().unwrap().len(), 2);
            assert_eq!(spec["mounts"][1]["source"], source.replace("ROOT", folder.path().to_str().unwrap()));
            assert_eq!(spec["process"]["env"].as_array().unwrap().len(), 2, "no file, no variable that names it");
        }
    }
}
