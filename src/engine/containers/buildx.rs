//! Builders that buildx makes itself (driver `docker-container`, which docker/setup-buildx-action asks for if it is not told otherwise):
//! a privileged container with buildkitd in it, to which buildx speaks by `buildctl dial-stdio` in an exec. A client that may not have
//! that gets a container in whose place of that buildkitd's socket is the tenant's own, behind which is the tenant's BuildKit. What it
//! asks for beyond that is refused or said, in `Warnings` and in the container's log.
//!
//! What buildx asks for: `driver/docker-container/driver.go` of docker/buildx, seen with 0.29.

use tracing::info;

use crate::{
    engine::{Engine, tenants::Scope},
    model::{
        Error, Result,
        container::{
            Config, ContainerCreateRequest, HostConfig, MountKind, MountPoint, MountRequest, NetworkMode, SourceRoot,
        },
        image::ImageConfig,
        policy::Key,
    },
    policy::{self, Asked},
};

/// How buildx calls them.
pub(super) const PREFIX: &str = "buildx_buildkit_";

/// The volume that each has for its cache, by what follows its name, and where it is.
const STATE: (&str, &str) = ("_state", "/var/lib/buildkit");

/// Where `buildctl` looks for buildkitd, and the variable that says otherwise.
const SOCKET: &str = "/run/buildkit/buildkitd.sock";
const ELSEWHERE: &str = "BUILDKIT_HOST";

/// Where buildx puts them on machines with `cgroupfs` if its user does not choose.
const CGROUP: &str = "/docker/buildx";

/// By which buildkitd is told what builds may ask for.
const ENTITLEMENT: &str = "--allow-insecure-entitlement";

/// Says its arguments and waits for its end. The first process of a container hears no signal that it does not wait for.
const IDLE: &str = r#"trap 'exit 0' TERM INT; printf '%s\n' "$@" >&2; while :; do sleep 86400 & wait $!; done"#;

/// The first line of its log.
const GREETING: &str = "This builder is the BuildKit of the daemon that serves your socket, without privileges.";

/// What a builder asks for that the tenant's BuildKit does not do.
#[derive(Debug, Default)]
struct Beyond {
    /// Without which it would be another builder.
    refused: Vec<String>,
    /// Without which builds go on, or fail with a sentence of their own when they need it.
    said: Vec<String>,
}

impl Engine {
    /// What is made of a request: what stands in for a builder, or the request as it came.
    pub(super) fn stand_in_for_builder(
        &self,
        scope: &Scope,
        request: ContainerCreateRequest,
        image: &ImageConfig,
    ) -> Result<ContainerCreateRequest> {
        let has_builder = || self.backends.builders.is_here() && self.permit_builder(scope.tenant()).is_ok();
        let has_privileges = || policy::allows_all(&scope.policy(), Key::Privileged);
        if !is_builder(&request) || has_privileges() || !has_builder() || scope.socket().is_none() {
            return Ok(request);
        }
        let beyond = beyond(&request, image, |host_config| scope.permit(Asked::Build(host_config)).is_ok());
        if let Some(what) = beyond.refused.first() {
            return Err(Error::beyond_our_builder(&scope.policy().name, what));
        }
        info!("{} is made without privileges, for BuildKit of ours", request.name.as_deref().unwrap_or_default());
        Ok(stand_in(request, beyond.said))
    }
}

/// Whether buildx asks for a builder: by its name, its privileges, its volume, and the program of its image.
fn is_builder(request: &ContainerCreateRequest) -> bool {
    let Some(name) = request.name.as_deref().filter(|name| name.starts_with(PREFIX)) else { return false };
    let state = state_of(name);
    request.host_config.privileged
        && request.config.entrypoint.is_none()
        && request.host_config.mounts.iter().flatten().any(|mount| *mount == state)
}

fn state_of(name: &str) -> MountRequest {
    MountRequest {
        kind: "volume".to_owned(),
        source: format!("{name}{}", STATE.0),
        target: STATE.1.to_owned(),
        ..MountRequest::default()
    }
}

/// What it asks for beyond its usual form.
fn beyond(request: &ContainerCreateRequest, image: &ImageConfig, may: impl Fn(&HostConfig) -> bool) -> Beyond {
    let mut beyond = Beyond::default();
    beyond.flags(request.config.cmd.as_deref().unwrap_or_default(), may);
    for variable in request.config.env.iter().flatten() {
        beyond.variable(variable.split('=').next().unwrap_or_default());
    }
    match &request.host_config.network_mode {
        NetworkMode::Unset | NetworkMode::Default => {}
        NetworkMode::Host => beyond.said.push("network=host for steps: they have the network of containers".to_owned()),
        mode => beyond.refused.push(format!("network={mode}")),
    }
    let is_for_root = matches!(image.user.split(':').next().unwrap_or_default(), "" | "root" | "0");
    if !is_for_root {
        beyond.refused.push("an image for another user than root".to_owned());
    }
    if image.env.iter().any(|variable| variable.split('=').next() == Some(ELSEWHERE)) {
        beyond.refused.push(format!("an image whose buildctl looks elsewhere for buildkitd ({ELSEWHERE})"));
    }
    if !is_usual(request) {
        beyond.refused.push("limits, devices, mounts or a cgroup of its own".to_owned());
    }
    beyond
}

impl Beyond {
    fn flags(&mut self, flags: &[String], may: impl Fn(&HostConfig) -> bool) {
        let mut flags = flags.iter().map(String::as_str);
        while let Some(flag) = flags.next() {
            let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            match name {
                ENTITLEMENT => self.entitlement(value.or_else(|| flags.next()).unwrap_or_default(), &may),
                "--debug" | "--trace" => self.said.push(name.to_owned()),
                "--config" => self.refused.push("a configuration of buildkitd (--config)".to_owned()),
                _ => self.refused.push(format!("the flag {name} of buildkitd")),
            }
        }
    }

    /// Builds may ask for it: what they get is the policy's to say then.
    fn entitlement(&mut self, name: &str, may: impl Fn(&HostConfig) -> bool) {
        let host = HostConfig { network_mode: NetworkMode::Host, ..HostConfig::default() };
        if name != "network.host" || !may(&host) {
            self.said.push(format!("{ENTITLEMENT} {name}: no build is granted it"));
        }
    }

    /// Values may be secrets.
    fn variable(&mut self, name: &str) {
        match name {
            "BUILDKIT_STEP_LOG_MAX_SIZE" | "BUILDKIT_STEP_LOG_MAX_SPEED" => self.said.push(format!("env.{name}")),
            _ => self.refused.push(format!("the variable {name} of buildkitd (env.{name})")),
        }
    }
}

/// Whether there is nothing in a request but what [`beyond`] looks at and what changes nothing.
fn is_usual(request: &ContainerCreateRequest) -> bool {
    let (config, host_config) = (&request.config, &request.host_config);
    let usual_config =
        Config { image: config.image.clone(), env: config.env.clone(), cmd: config.cmd.clone(), ..Config::default() };
    let usual_host_config = HostConfig {
        privileged: true,
        init: host_config.init,
        restart_policy: host_config.restart_policy.clone(),
        network_mode: host_config.network_mode.clone(),
        memory_swappiness: host_config.memory_swappiness.filter(|swappiness| *swappiness == -1),
        cgroup_parent: if host_config.cgroup_parent.is_empty() { "" } else { CGROUP }.to_owned(),
        mounts: request.name.as_deref().map(|name| vec![state_of(name)]),
        ..HostConfig::default()
    };
    *config == usual_config && *host_config == usual_host_config
}

/// The same container without privileges, with an idle process in it and the tenant's socket in the place of buildkitd's.
fn stand_in(mut request: ContainerCreateRequest, said: Vec<String>) -> ContainerCreateRequest {
    let said: Vec<_> = said.into_iter().map(|what| format!("Not carried out: {what}")).collect();
    let words = ["sh", "-c", IDLE, "builder", GREETING].map(str::to_owned);
    request.config.entrypoint = Some(words.to_vec());
    request.config.cmd = Some(said.clone());
    request.config.env = None;
    request.host_config.privileged = false;
    request.host_config.init = Some(false);
    request.host_config.cgroup_parent = String::new();
    request.own_mounts.push(MountPoint {
        kind: MountKind::Bind,
        root: SourceRoot::Socket,
        source: super::own_socket::USUAL[0].to_owned(),
        destination: SOCKET.to_owned(),
        rw: true,
        propagation: "rprivate".to_owned(),
        ..MountPoint::default()
    });
    request.warnings.extend(said);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As buildx 0.29 sends it for docker/setup-buildx-action.
    fn asked() -> ContainerCreateRequest {
        let flags = [ENTITLEMENT, "security.insecure", "--allow-insecure-entitlement=network.host"];
        ContainerCreateRequest {
            name: Some("buildx_buildkit_b0".to_owned()),
            config: serde_json::from_value(serde_json::json!({"Image": "moby/buildkit", "Cmd": flags})).unwrap(),
            host_config: serde_json::from_value(serde_json::json!({
                "Privileged": true, "Init": true, "RestartPolicy": {"Name": "unless-stopped"},
                "CgroupParent": "/docker/buildx",
                "Mounts": [{"Type": "volume", "Source": "buildx_buildkit_b0_state", "Target": "/var/lib/buildkit"}],
            }))
            .unwrap(),
            ..ContainerCreateRequest::default()
        }
    }

    fn of(change: impl FnOnce(&mut ContainerCreateRequest)) -> Beyond {
        let mut request = asked();
        change(&mut request);
        beyond(&request, &ImageConfig::default(), |_| true)
    }

    #[test]
    fn a_builder_is_known_by_all_that_buildx_says() {
        assert!(is_builder(&asked()));
        let changes: [fn(&mut ContainerCreateRequest); 5] = [
            |request| request.name = Some("buildx".to_owned()),
            |request| request.name = Some("buildx_buildkit_other".to_owned()),
            |request| request.host_config.privileged = false,
            |request| request.config.entrypoint = Some(vec!["sh".to_owned()]),
            |request| request.host_config.mounts = None,
        ];
        for change in changes {
            let mut request = asked();
            change(&mut request);
            assert!(!is_builder(&request));
        }
    }

    #[test]
    fn what_changes_no_build_is_said() {
        let said = of(|_| ());
        assert_eq!(said.said, ["--allow-insecure-entitlement security.insecure: no build is granted it"]);
        assert!(said.refused.is_empty(), "{said:?}");
        assert_eq!(beyond(&asked(), &ImageConfig::default(), |_| false).said.len(), 2);
        assert_eq!(of(|request| request.host_config.network_mode = NetworkMode::Host).said.len(), 2);
        let more = of(|request| request.config.env = Some(vec!["BUILDKIT_STEP_LOG_MAX_SIZE=1".to_owned()]));
        assert_eq!((more.said.len(), more.refused.len()), (2, 0));
    }

    #[test]
    fn what_would_make_another_builder_is_refused_and_no_value_is_told() {
        let flag = |flag: &'static str| {
            move |request: &mut ContainerCreateRequest| {
                request.config.cmd = Some(vec![flag.to_owned(), "x".to_owned()]);
            }
        };
        for (beyond, told) in [
            (of(flag("--config")), "--config"),
            (of(flag("--oci-worker-gc=false")), "--oci-worker-gc"),
            (of(|request| request.config.env = Some(vec!["TOKEN=geheim".to_owned()])), "env.TOKEN"),
            (of(|request| request.host_config.network_mode = "own".into()), "network=own"),
            (of(|request| request.host_config.memory = 1), "limits"),
            (of(|request| request.host_config.cgroup_parent = "/mine".to_owned()), "cgroup"),
            (of(|request| request.host_config.binds = Some(vec!["/:/x".to_owned()])), "mounts"),
            (of(|request| request.host_config.cap_add = Some(vec!["ALL".to_owned()])), "limits"),
        ] {
            let first = beyond.refused.first().expect(told);
            assert!(first.contains(told) && !first.contains("geheim"), "{first}");
        }
        let rootless = ImageConfig { user: "1000:1000".to_owned(), ..ImageConfig::default() };
        assert!(beyond(&asked(), &rootless, |_| true).refused[0].contains("another user"));
        let variable = |variable: &str| ImageConfig { env: vec![variable.to_owned()], ..ImageConfig::default() };
        let elsewhere = beyond(&asked(), &variable("BUILDKIT_HOST=unix:///x"), |_| true).refused;
        assert!(elsewhere[0].contains("BUILDKIT_HOST") && !elsewhere[0].contains("user"), "{elsewhere:?}");
        assert!(beyond(&asked(), &variable("BUILDKIT_HOSTNAME=x"), |_| true).refused.is_empty());
    }

    #[test]
    fn what_stands_in_has_no_privileges_and_says_what_is_left_out() {
        let made = stand_in(asked(), vec!["--debug".to_owned()]);
        assert!(!made.host_config.privileged);
        assert_eq!(
            (made.config.cmd.unwrap(), made.warnings),
            (vec!["Not carried out: --debug".to_owned()], vec!["Not carried out: --debug".to_owned()])
        );
        assert_eq!(
            (made.own_mounts[0].root.clone(), made.own_mounts[0].destination.as_str()),
            (SourceRoot::Socket, SOCKET)
        );
    }
}
