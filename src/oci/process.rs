//! The process part of a spec: arguments, environment, user, limits; for the first process and for execs.

use oci_spec::runtime::{
    BoxBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, User, UserBuilder,
};

use super::{
    SpecInput,
    caps::{self, CapabilitySet},
    host::{AppArmor, HostFacts},
    security_opt::SecurityOptions,
    user::ResolvedUser,
};
use crate::model::{
    Error, Result,
    container::{ContainerRecord, HostConfig, PidMode, Ulimit},
    path::clean_absolute,
};

/// Where the init program is seen in a container.
pub(super) const INIT_PATH: &str = "/sbin/docker-init";

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What becomes the process of an exec.
pub struct ExecInput<'a> {
    /// The container.
    pub record: &'a ContainerRecord,
    /// Its host name, as its first process has it.
    pub hostname: &'a str,
    /// Who runs it: the request's user, else the container's.
    pub user: &'a ResolvedUser,
    /// Program and arguments.
    pub command: &'a [String],
    /// The request's variables.
    pub env: &'a [String],
    /// The request's folder; empty for the container's.
    pub working_dir: &'a str,
    /// With a terminal.
    pub tty: bool,
    /// Height and width of the client's terminal, 0 if not known.
    pub console_size: [u32; 2],
    /// With all capabilities.
    pub privileged: bool,
    /// What the host can do.
    pub host: &'a HostFacts,
}

/// The process of an exec: limits and security of the container, the rest of the request.
pub fn exec_process(input: &ExecInput<'_>) -> Result<Process> {
    let record = input.record;
    let security = SecurityOptions::parse(record.host_config.security_opt.as_deref().unwrap_or_default())?;
    let capabilities =
        if input.privileged { input.host.bounding } else { caps::effective(&record.host_config, input.host.bounding)? };
    let mut env = environment(record, input.hostname, input.tty);
    replace_or_append(&mut env, input.env);
    let working_dir = if input.working_dir.is_empty() { &record.config.working_dir } else { input.working_dir };
    let mut process = base(record, &security, capabilities, input.host)?;
    process.set_args(Some(input.command.to_vec())).set_env(Some(env)).set_cwd(clean_absolute(working_dir).into());
    process.set_user(user(input.user));
    set_terminal(&mut process, input.tty, input.console_size);
    Ok(process)
}

/// The first process of a container.
pub(super) fn process(
    input: &SpecInput<'_>,
    security: &SecurityOptions,
    capabilities: CapabilitySet,
) -> Result<Process> {
    let record = input.record;
    let config = &record.config;
    let mut process = base(record, security, capabilities, input.host)?;
    let mut args = record.command.clone();
    if init_of(input).is_some() {
        args.splice(0..0, [INIT_PATH.to_owned(), "--".to_owned()]);
    }
    process.set_args(Some(args)).set_env(Some(environment(record, input.hostname, config.tty)));
    process.set_cwd(clean_absolute(&config.working_dir).into()).set_user(user(input.user));
    set_terminal(&mut process, config.tty, record.host_config.console_size);
    Ok(process)
}

/// The init program to lay into the container; with other containers' processes in sight it would reap none.
pub(super) fn init_of<'a>(input: &SpecInput<'a>) -> Option<&'a std::path::Path> {
    let private_pids = matches!(input.record.host_config.pid_mode, PidMode::Unset | PidMode::Private);
    input.init.filter(|_| private_pids)
}

fn base(
    record: &ContainerRecord,
    security: &SecurityOptions,
    capabilities: CapabilitySet,
    host: &HostFacts,
) -> Result<Process> {
    let host_config = &record.host_config;
    let rlimits = rlimits(host_config.ulimits.as_deref().unwrap_or_default())?;
    let mut process = ProcessBuilder::default().cwd("/").build().expect("every field has a default");
    process.set_terminal(None).set_no_new_privileges(security.no_new_privileges.then_some(true));
    process.set_capabilities(Some(capabilities.to_oci()));
    process.set_rlimits((!rlimits.is_empty()).then_some(rlimits));
    process.set_oom_score_adj(Some(host.least_oom_score_adj(host_config.oom_score_adj)));
    process.set_apparmor_profile(apparmor_profile(host_config, security, host));
    Ok(process)
}

fn user(user: &ResolvedUser) -> User {
    let builder = UserBuilder::default().uid(user.uid).gid(user.gid);
    builder.additional_gids(user.additional_gids.clone()).build().expect("every field has a default")
}

fn set_terminal(process: &mut Process, tty: bool, [height, width]: [u32; 2]) {
    if !tty {
        return;
    }
    process.set_terminal(Some(true));
    if height > 0 && width > 0 {
        let size = BoxBuilder::default().height(u64::from(height)).width(u64::from(width)).build();
        process.set_console_size(Some(size.expect("every field has a default")));
    }
}

/// Docker's own variables with the container's laid over.
fn environment(record: &ContainerRecord, hostname: &str, tty: bool) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    replace_or_append(&mut env, record.config.env.as_deref().unwrap_or_default());
    env
}

/// A variable takes the place of one that was there before these; a name alone takes it away. Two of the same name
/// among `over` both stay, as in dockerd.
fn replace_or_append(env: &mut Vec<String>, over: &[String]) {
    let place_of = |env: &[Option<String>], name: &str| {
        env.iter().position(|entry| entry.as_ref().is_some_and(|entry| name_of(entry) == name))
    };
    let mut merged: Vec<Option<String>> = env.drain(..).map(Some).collect();
    let defaults = merged.len();
    for entry in over {
        match (entry.contains('='), place_of(&merged[..defaults], name_of(entry))) {
            (true, Some(place)) => merged[place] = Some(entry.clone()),
            (true, None) => merged.push(Some(entry.clone())),
            (false, Some(place)) => merged[place] = None,
            (false, None) => {}
        }
    }
    env.extend(merged.into_iter().flatten());
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn apparmor_profile(host_config: &HostConfig, security: &SecurityOptions, host: &HostFacts) -> Option<String> {
    if host.apparmor == AppArmor::Off {
        return None;
    }
    match security.apparmor.as_deref() {
        Some(profile) if !profile.is_empty() => Some(profile.to_owned()),
        _ if host_config.privileged => Some("unconfined".to_owned()),
        _ => (host.apparmor == AppArmor::WithDockerDefault).then(|| "docker-default".to_owned()),
    }
}

fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    ulimits.iter().map(rlimit).collect()
}

/// One limit; -1 is none. 400 for a name that Linux does not know.
pub(super) fn rlimit(ulimit: &Ulimit) -> Result<PosixRlimit> {
    let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
    let kind: PosixRlimitType =
        name.parse().map_err(|_| Error::invalid(format!("invalid ulimit type: {}", ulimit.name)))?;
    let number = |limit: i64| u64::from_ne_bytes(limit.to_ne_bytes());
    let builder = PosixRlimitBuilder::default().typ(kind).soft(number(ulimit.soft)).hard(number(ulimit.hard));
    Ok(builder.build().expect("every field has a default"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_take_their_places() {
        let mut env = vec!["PATH=/bin".to_owned(), "HOSTNAME=h".to_owned(), "TERM=xterm".to_owned()];
        let over = ["A=1", "TERM", "PATH=/x", "A=2", "GONE"].map(str::to_owned);
        replace_or_append(&mut env, &over);
        assert_eq!(env, ["PATH=/x", "HOSTNAME=h", "A=1", "A=2"]);
    }

    #[test]
    fn no_limit_is_the_largest_number() {
        let ulimit = Ulimit { name: "memlock".to_owned(), soft: -1, hard: -1 };
        assert_eq!(rlimit(&ulimit).unwrap().hard(), u64::MAX);
        let ulimit = Ulimit { name: "colour".to_owned(), soft: 1, hard: 1 };
        assert_eq!(rlimit(&ulimit).unwrap_err().message(), "invalid ulimit type: colour");
    }
}
