//! `GET /containers/json`.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    engine::{Engine, container::Container, tenants::Scope},
    model::{
        Error, Result,
        container::{ContainerRecord, ContainerState, HealthStatus, MountKind},
        filters::Filters,
        network::Port,
    },
};

const KNOWN_FILTERS: [&str; 17] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
    "annotation",
];

const STATUSES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// Which containers are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The newest this many, whether they run or not.
    pub limit: Option<usize>,
    /// Conditions.
    pub filters: Filters,
}

impl Engine {
    /// Containers of the tenant that match, newest first.
    pub fn container_list(&self, scope: &Scope, options: &ListOptions) -> Result<Vec<Arc<Container>>> {
        let wanted = Wanted::new(self, scope, options)?;
        let mut containers: Vec<_> =
            self.containers.list(scope.tenant()).into_iter().map(|container| (container.record(), container)).collect();
        containers.sort_by_key(|(record, _)| std::cmp::Reverse(record.created));
        let matching = containers.into_iter().filter(|(record, _)| wanted.matches(record)).map(|(_, found)| found);
        Ok(matching.take(options.limit.unwrap_or(usize::MAX)).collect())
    }
}

/// Filters with the things they name looked up.
struct Wanted<'a> {
    filters: &'a Filters,
    running_only: bool,
    before: Option<Arc<ContainerRecord>>,
    since: Option<Arc<ContainerRecord>>,
    exited: BTreeSet<i64>,
    /// Image ids and names that `ancestor` means.
    ancestors: Option<Vec<String>>,
}

impl<'a> Wanted<'a> {
    fn new(engine: &Engine, scope: &Scope, options: &'a ListOptions) -> Result<Self> {
        let filters = &options.filters;
        filters.allow_only(&KNOWN_FILTERS)?;
        let named = |filter: &str| -> Result<Option<Arc<ContainerRecord>>> {
            filters.get(filter).last().map(|name| Ok(engine.containers.get(scope.tenant(), name)?.record())).transpose()
        };
        if let Some(bad) = filters.get("status").iter().find(|status| !STATUSES.contains(&status.as_str())) {
            return Err(Error::invalid(format!("invalid filter 'status={bad}'")));
        }
        let health = ["none", "starting", "healthy", "unhealthy"];
        if let Some(bad) = filters.get("health").iter().find(|status| !health.contains(&status.as_str())) {
            return Err(Error::invalid(format!("invalid filter 'health={bad}'")));
        }
        let code = |code: &String| code.parse().map_err(|_| Error::invalid(format!("invalid filter 'exited={code}'")));
        let exited: BTreeSet<i64> = filters.get("exited").iter().map(code).collect::<Result<_>>()?;
        let states_asked = filters.contains("status") || filters.contains("exited");
        let running_only = !options.all && options.limit.is_none() && !states_asked;
        Ok(Self {
            filters,
            // `before` and `since` reach stopped containers too.
            running_only: running_only && !filters.contains("before") && !filters.contains("since"),
            before: named("before")?,
            since: named("since")?,
            exited,
            ancestors: filters.contains("ancestor").then(|| filters.get("ancestor").to_vec()),
        })
    }

    fn matches(&self, record: &ContainerRecord) -> bool {
        (!self.running_only || record.state.counts_as_running())
            && self.filters.matches_prefix("id", record.id.as_str())
            && self.matches_name(record)
            && self.filters.matches_exact("status", record.state.as_str())
            && self.filters.matches_labels(|key| record.label(key))
            && self.filters.matches_exact("health", health_word(record))
            && self.before.as_ref().is_none_or(|before| record.created < before.created)
            && self.since.as_ref().is_none_or(|since| record.created > since.created)
            && self.matches_exit(record)
            && self.matches_ancestor(record)
            && self.matches_volume(record)
            && self.matches_network(record)
            && self.matches_port("expose", || exposed_ports(record))
            && self.matches_port("publish", || published_ports(record))
            && self.filters.matches_exact("is-task", "false")
    }

    /// With and without the slash that names have on the wire.
    fn matches_name(&self, record: &ContainerRecord) -> bool {
        let wire = format!("/{}", record.name);
        self.filters.matches_pattern("name", &record.name) || self.filters.matches_pattern("name", &wire)
    }

    fn matches_exit(&self, record: &ContainerRecord) -> bool {
        let code = match &record.state {
            ContainerState::Exited(ended) if !ended.started_at.is_zero() => Some(ended.exit_code),
            _ => None,
        };
        self.exited.is_empty() || code.is_some_and(|code| self.exited.contains(&code))
    }

    fn matches_ancestor(&self, record: &ContainerRecord) -> bool {
        let Some(ancestors) = &self.ancestors else { return true };
        let id = record.image_id.as_str();
        let normal = |name: &str| {
            crate::model::reference::Reference::parse(name).map(|reference| reference.or_latest().to_string()).ok()
        };
        let image = normal(&record.config.image);
        ancestors.iter().any(|wanted| {
            id == wanted
                || (wanted.len() >= 4 && record.image_id.hex().starts_with(wanted.trim_start_matches("sha256:")))
                || (image.is_some() && normal(wanted) == image)
        })
    }

    fn matches_volume(&self, record: &ContainerRecord) -> bool {
        !self.filters.contains("volume")
            || self.filters.get("volume").iter().any(|wanted| {
                record.mounts.iter().any(|mount| {
                    mount.destination == *wanted
                        || match mount.kind {
                            MountKind::Volume | MountKind::Image => mount.name == *wanted,
                            MountKind::Bind | MountKind::Tmpfs => mount.source == *wanted,
                        }
                })
            })
    }

    fn matches_network(&self, record: &ContainerRecord) -> bool {
        !self.filters.contains("network")
            || self.filters.get("network").iter().any(|wanted| {
                record
                    .networking
                    .attachments
                    .iter()
                    .any(|network| network.name == *wanted || network.network.as_str() == wanted)
            })
    }

    fn matches_port(&self, filter: &str, ports: impl Fn() -> Vec<Port>) -> bool {
        !self.filters.contains(filter) || {
            let ports = ports();
            self.filters.get(filter).iter().any(|wanted| ports.iter().any(|port| port_matches(wanted, *port)))
        }
    }
}

fn health_word(record: &ContainerRecord) -> &'static str {
    record.health.as_ref().map_or("none", |health| HealthStatus::as_str(health.status))
}

fn exposed_ports(record: &ContainerRecord) -> Vec<Port> {
    record.config.exposed_ports.iter().flatten().filter_map(|(port, _)| port.parse().ok()).collect()
}

/// The host's ports that were asked for, which is what dockerd's filter looks at.
fn published_ports(record: &ContainerRecord) -> Vec<Port> {
    let bindings = record.host_config.port_bindings.iter().flatten();
    let asked = bindings.filter_map(|(port, hosts)| Some((port.parse::<Port>().ok()?, hosts.as_deref()?)));
    asked
        .flat_map(|(port, hosts)| {
            hosts.iter().filter_map(move |host| Some(Port { number: host.host_port.parse().ok()?, ..port }))
        })
        .collect()
}

/// `80`, `80/tcp`, `8000-8010/tcp`.
fn port_matches(wanted: &str, port: Port) -> bool {
    let (numbers, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return false };
    protocol == port.protocol.as_str() && (first..=last).contains(&port.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::Protocol;

    #[test]
    fn port_patterns_know_ranges() {
        let port = Port { number: 80, protocol: Protocol::Tcp };
        assert!(port_matches("80", port));
        assert!(port_matches("79-81/tcp", port));
        assert!(!port_matches("80/udp", port));
    }
}
