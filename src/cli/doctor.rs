//! `ringer doctor`: whether this machine, its programs and the forges are as `ringer run` needs them. One line each: `ok`, or what to do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::Args;
use ringer::{
    admin::ForgeAnswer,
    backend::projects::Projects,
    buildkit,
    model::{Error, time::rough},
    oci::HostFacts,
    registry::Registry,
    rootfs::LinuxProjects,
    supervisor::{check, settings::Settings},
};

use super::admin::AdminHost;
use crate::config::{self, Config, ServeOptions, run::RunSettings};

/// The oldest kernel: files are found by openat2, processes by their pidfd.
const KERNEL: (u32, u32) = (5, 10);

/// Of the data root's disk, what has to be free: so many bytes, or such a part of all.
const FREE: (u64, u64) = (10 << 30, 20);

/// A runner older than this may be refused: GitHub takes none for which a newer one has been there for 30 days.
const OLDEST: u64 = 30 * 24 * 3600;

/// `ringer doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    admin: AdminHost,
    /// TOML file with the forges
    #[arg(long, value_name = "PATH", default_value = "/etc/ringer/config.toml")]
    config: PathBuf,
}

/// What was found of one thing.
struct Finding {
    what: &'static str,
    /// How it is, or what to do.
    found: Result<String, String>,
}

impl Doctor {
    /// 0 if all is well, 1 if something is to be done.
    pub fn run(self) -> ExitCode {
        super::in_runtime(async move {
            let host = HostFacts::detect();
            let mut findings = vec![kernel(&host), cgroups(&host), containerd(), runtime()];
            match config::run::resolve(&self.config, ServeOptions::default()) {
                Ok((config, RunSettings { settings, .. })) => {
                    let data_root = there(&config.engine.data_root);
                    findings.extend([
                        mtu(config.engine.mtu),
                        disk(data_root),
                        limit_of_disk(data_root),
                        builder(&config),
                    ]);
                    findings.extend(registries(&config, &settings).await);
                    findings.extend(forges(&settings).await);
                }
                Err(error) => findings.push(Finding { what: "configuration", found: Err(error.chain()) }),
            }
            findings.extend(self.runner_images().await);
            for Finding { what, found } in &findings {
                match found {
                    Ok(how) => println!("ok   {what}: {how}"),
                    Err(fix) => println!("FIX  {what}: {fix}"),
                }
            }
            let is_well = findings.iter().all(|finding| finding.found.is_ok());
            Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }

    /// Those that the daemon has launched runners of.
    async fn runner_images(&self) -> Vec<Finding> {
        let what = "daemon";
        let forges = match self.admin.client() {
            Ok(client) => client.forges().await,
            Err(error) => Err(error),
        };
        match forges {
            Ok(forges) => forges.iter().flat_map(ages).collect(),
            Err(error) => vec![Finding { what, found: Err(format!("start it (`ringer run`): {}", error.chain())) }],
        }
    }
}

fn ages(forge: &ForgeAnswer) -> Vec<Finding> {
    let what = "runner image";
    let age = |image: &ringer::admin::RunnerImage| {
        let age = image.created.elapsed();
        let told = format!("{} of {} is {} old", image.image, forge.name, rough(age));
        let found = if age.as_secs() <= OLDEST {
            Ok(told)
        } else {
            Err(format!("{told}: name a newer one in runner_image or job_image, since forges refuse old runners"))
        };
        Finding { what, found }
    };
    forge.runner_images.iter().map(age).collect()
}

fn kernel(host: &HostFacts) -> Finding {
    let text = read("/proc/sys/kernel/osrelease");
    let (release, (major, minor)) = (text.trim(), host.kernel);
    let found = if (major, minor) < KERNEL {
        Err(format!("{release} is too old: {}.{} or later is needed", KERNEL.0, KERNEL.1))
    } else if !read("/proc/filesystems").contains("overlay") && !Path::new("/sys/module/overlay").exists() {
        Err("overlayfs is not there: modprobe overlay".to_owned())
    } else {
        Ok(release.to_owned())
    };
    Finding { what: "kernel", found }
}

fn cgroups(host: &HostFacts) -> Finding {
    let features = &host.features;
    let all = [("memory", features.memory), ("cpu", features.cpu_cfs), ("pids", features.pids)];
    let missing: Vec<&str> = all.iter().filter(|(_, is_there)| !is_there).map(|(name, _)| *name).collect();
    let version = format!("v{}", host.cgroup.number());
    let found = if missing.is_empty() {
        Ok(version)
    } else {
        Err(format!(
            "{version} without {}: limits of jobs need them (a kernel's command line may switch them off)",
            missing.join(", ")
        ))
    };
    Finding { what: "cgroups", found }
}

fn containerd() -> Finding {
    let found = version_of("containerd").ok_or_else(|| "install it: apt-get install containerd".to_owned());
    Finding { what: "containerd", found }
}

fn runtime() -> Finding {
    let found = ["crun", "runc"].into_iter().find_map(version_of);
    Finding { what: "runtime", found: found.ok_or_else(|| "install one: apt-get install crun".to_owned()) }
}

/// The first line of `PROGRAM --version`.
fn version_of(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
}

/// Larger packets than the uplink takes are lost on the way, and connections of containers hang.
fn mtu(configured: Option<u32>) -> Finding {
    let found = match (uplink(), configured) {
        (None, _) => Err("there is no default route: jobs reach nothing outside".to_owned()),
        (Some((link, mtu)), Some(ours)) if ours > mtu => {
            Err(format!("mtu = {ours} is more than the {mtu} of {link}: leave it out, or lower it"))
        }
        (Some((link, mtu)), Some(ours)) => Ok(format!("{ours}, and {mtu} of {link}")),
        (Some((link, mtu)), None) => Ok(format!("{mtu} of {link}, which networks take")),
    };
    Finding { what: "MTU", found }
}

/// The link of the default route, and its MTU.
fn uplink() -> Option<(String, u32)> {
    let routes = read("/proc/net/route");
    let is_default = |line: &&str| line.split('\t').nth(1) == Some("00000000");
    let link = routes.lines().skip(1).find(is_default)?.split('\t').next()?.to_owned();
    let mtu = read(&format!("/sys/class/net/{link}/mtu")).trim().parse().ok()?;
    Some((link, mtu))
}

/// A folder that may be made only at the first start, or the one above it.
fn there(folder: &Path) -> &Path {
    folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// What `--disk` of a job does; both are well.
fn limit_of_disk(there: &Path) -> Finding {
    let told = if LinuxProjects.are_limited(there) {
        "what is more than a job's `disk` is refused, by project quota"
    } else {
        "a job's `disk` is watched: project quota (ext4 with prjquota, XFS with pquota) would refuse what is more"
    };
    Finding { what: "limit of the disk", found: Ok(format!("{told}, at {}", there.display())) }
}

fn disk(there: &Path) -> Finding {
    let found = match rustix::fs::statvfs(there) {
        Ok(stat) => {
            let (free, all) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
            let told = format!("{} GiB free of {} at {}", free >> 30, all >> 30, there.display());
            if is_little(free, all) { Err(format!("{told}: make room, or lower cache-max-bytes")) } else { Ok(told) }
        }
        Err(error) => Err(format!("{}: {error}", there.display())),
    };
    Finding { what: "disk", found }
}

/// A twentieth of a big disk is plenty, and few disks of little machines have 10 GiB to spare.
fn is_little(free: u64, all: u64) -> bool {
    free < FREE.0 && free < all / FREE.1
}

fn builder(config: &Config) -> Finding {
    let found = match buildkit::find(config.buildkitd.as_deref()) {
        Ok(Some(program)) => Ok(program.display().to_string()),
        Ok(None) => {
            Err("it is not in PATH: `docker build` works without BuildKit only; name it by buildkitd in [daemon]"
                .to_owned())
        }
        Err(error) => Err(error.chain()),
    };
    Finding { what: "buildkitd", found }
}

async fn registries(config: &Config, settings: &Settings) -> Vec<Finding> {
    let registry = match Registry::new(config.engine.registry()) {
        Ok(registry) => registry,
        Err(error) => return vec![Finding { what: "registries", found: Err(error.chain()) }],
    };
    let checked = check::check_registries(&settings.registries, &registry).await.into_iter();
    let told = |(host, login): (&str, Result<(), _>)| match login {
        Ok(()) => Ok(format!("{host} takes the credentials")),
        Err(error) => Err(format!("{host}: {}", Error::chain(&error))),
    };
    checked.map(|login| Finding { what: "registry", found: told(login) }).collect()
}

async fn forges(settings: &Settings) -> Vec<Finding> {
    let checked = check::check(settings).await;
    checked.iter().map(|forge| Finding { what: "forge", found: told(forge) }).collect()
}

fn told(forge: &check::Checked<'_>) -> Result<String, String> {
    match &forge.greeting {
        Ok(greeting) => Ok(format!("{}: {greeting}", forge.settings.name)),
        Err(error) => Err(format!("{}: {}", forge.settings.name, error.chain())),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::is_little;

    #[test]
    fn little_room_is_little_of_itself_and_of_the_disk() {
        let gib = |number: u64| number << 30;
        assert!(is_little(gib(4), gib(100)));
        assert!(!is_little(gib(6), gib(100)), "a twentieth");
        assert!(!is_little(gib(11), gib(1000)), "enough for what is fetched next");
        assert!(is_little(gib(9), gib(1000)));
    }
}
