//! `POST /containers/{id}/update`.

use std::sync::Arc;

use crate::{
    engine::{Engine, container::Container, tenants::Scope},
    model::{
        Error, Result,
        container::{ContainerRecord, HostConfig},
        record,
    },
    oci,
    policy::Asked,
};

impl Engine {
    /// Changes limits and restart policy. Zeros and empty texts leave what is; of a container that runs, limits change
    /// at once. Answers `Warnings`.
    pub async fn container_update(
        &self,
        scope: &Scope,
        reference: &str,
        mut wanted: HostConfig,
    ) -> Result<Vec<String>> {
        let mut warnings = oci::validate_update(&mut wanted, &self.host)?;
        warnings.extend(fixed_fields(&wanted));
        let container = self.containers.get(scope.tenant(), reference)?;
        let (engine, scope) = (self.clone(), scope.clone());
        self.run("container_update", async move {
            // A refusal by policy reads the same everywhere.
            let of_update = |error: Error| match error.refused_by() {
                Some(_) => error,
                None => Error::cannot_update(container.id().as_str(), error),
            };
            engine.update(&scope, &container, &wanted).await.map_err(of_update)
        })
        .await?;
        Ok(warnings)
    }

    async fn update(&self, scope: &Scope, container: &Arc<Container>, wanted: &HostConfig) -> Result<()> {
        let turn = container.turn().await?;
        if turn.is_being_removed() || turn.state().is_removing() {
            return Err(Error::system("container is marked for removal and cannot be \"update\""));
        }
        let mut changed: ContainerRecord = (*turn.record()).clone();
        apply(wanted, &mut changed.host_config)?;
        scope.permit(Asked::Update { before: &turn.record().host_config, after: &changed.host_config })?;
        turn.make_room(record::weight(wanted))?;
        if changed.state.is_running() {
            let resources = oci::updated_resources(wanted)?;
            self.backends.runtime.update_resources(turn.id(), &resources).await?;
        }
        turn.update(|record| record.host_config = changed.host_config);
        turn.store(&*self.backends.runtime).await?;
        self.events.container(&turn.record(), "update", &[]);
        Ok(())
    }
}

/// Lays what is wanted over what is, in dockerd's words where both do not fit.
fn apply(wanted: &HostConfig, present: &mut HostConfig) -> Result<()> {
    check_conflicts(wanted, present)?;
    let set = |from: i64, to: &mut i64| {
        if from != 0 {
            *to = from;
        }
    };
    set(wanted.cpu_shares, &mut present.cpu_shares);
    set(wanted.nano_cpus, &mut present.nano_cpus);
    set(wanted.cpu_period, &mut present.cpu_period);
    set(wanted.cpu_quota, &mut present.cpu_quota);
    set(wanted.cpu_realtime_period, &mut present.cpu_realtime_period);
    set(wanted.cpu_realtime_runtime, &mut present.cpu_realtime_runtime);
    set(wanted.memory, &mut present.memory);
    set(wanted.memory_swap, &mut present.memory_swap);
    set(wanted.memory_reservation, &mut present.memory_reservation);
    if wanted.blkio_weight != 0 {
        present.blkio_weight = wanted.blkio_weight;
    }
    if !wanted.cpuset_cpus.is_empty() {
        present.cpuset_cpus.clone_from(&wanted.cpuset_cpus);
    }
    if !wanted.cpuset_mems.is_empty() {
        present.cpuset_mems.clone_from(&wanted.cpuset_mems);
    }
    if let Some(limit) = wanted.pids_limit {
        present.pids_limit = Some(limit.max(0));
    }
    if !wanted.restart_policy.name.is_unset() {
        present.restart_policy.clone_from(&wanted.restart_policy);
    }
    Ok(())
}

fn check_conflicts(wanted: &HostConfig, present: &HostConfig) -> Result<()> {
    let cpus = |new: &str, old: &str| {
        Err(Error::conflict(format!("Conflicting options: {new} cannot be updated as {old} has already been set")))
    };
    if wanted.nano_cpus > 0 && present.cpu_period > 0 {
        return cpus("Nano CPUs", "CPU Period");
    }
    if wanted.nano_cpus > 0 && present.cpu_quota > 0 {
        return cpus("Nano CPUs", "CPU Quota");
    }
    if wanted.cpu_period > 0 && present.nano_cpus > 0 {
        return cpus("CPU Period", "NanoCPUs");
    }
    if wanted.cpu_quota > 0 && present.nano_cpus > 0 {
        return cpus("CPU Quota", "NanoCPUs");
    }
    if wanted.memory != 0 && wanted.memory_swap == 0 && wanted.memory > present.memory_swap {
        return Err(Error::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    if present.auto_remove && wanted.restart_policy.name.restarts() {
        return Err(Error::conflict(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ));
    }
    Ok(())
}

/// Warnings for what was given and is fixed for a container's life. dockerd passes over it without a word.
fn fixed_fields(wanted: &HostConfig) -> Vec<String> {
    let mut rest = HostConfig::default();
    let mut without = wanted.clone();
    // What can be changed does not count.
    without.restart_policy = std::mem::take(&mut rest.restart_policy);
    (without.cpu_shares, without.nano_cpus, without.cpu_period, without.cpu_quota) = (0, 0, 0, 0);
    (without.cpu_realtime_period, without.cpu_realtime_runtime) = (0, 0);
    (without.memory, without.memory_swap, without.memory_reservation, without.blkio_weight) = (0, 0, 0, 0);
    without.cpuset_cpus.clear();
    without.cpuset_mems.clear();
    without.pids_limit = None;
    let fields = |config: &HostConfig| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let unset = fields(&rest);
    let is_set = |(key, value): &(String, serde_json::Value)| {
        let is_empty = value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty);
        !is_empty && unset.get(key) != Some(value)
    };
    let warning = |(key, _): (String, serde_json::Value)| format!("{key} cannot be updated: it is ignored");
    fields(&without).into_iter().filter(is_set).map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ErrorKind,
        container::{RestartMode, RestartPolicy},
    };

    fn refusal(wanted: &HostConfig, mut present: HostConfig) -> String {
        let error = apply(wanted, &mut present).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        error.message().to_owned()
    }

    #[test]
    fn zeros_leave_what_is() {
        let mut present = HostConfig { memory: 1 << 26, cpuset_cpus: "0".to_owned(), ..HostConfig::default() };
        let before = present.clone();
        apply(&HostConfig::default(), &mut present).unwrap();
        assert_eq!(present, before);
        let wanted = HostConfig { pids_limit: Some(-1), memory_swap: -1, ..HostConfig::default() };
        apply(&wanted, &mut present).unwrap();
        assert_eq!((present.pids_limit, present.memory_swap, present.memory), (Some(0), -1, 1 << 26));
    }

    /// Texts as dockerd 20 and 28 answered them.
    #[test]
    fn limits_that_do_not_fit_are_conflicts() {
        let memory = HostConfig { memory: 1 << 27, ..HostConfig::default() };
        let text = refusal(&memory, HostConfig { memory_swap: 1 << 26, ..HostConfig::default() });
        assert!(text.contains("should be smaller than already set memoryswap limit"), "{text}");
        let quota = HostConfig { cpu_quota: 50_000, ..HostConfig::default() };
        let text = refusal(&quota, HostConfig { nano_cpus: 1, ..HostConfig::default() });
        assert_eq!(text, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
        let policy = RestartPolicy { name: RestartMode::Always, maximum_retry_count: 0 };
        let always = HostConfig { restart_policy: policy, ..HostConfig::default() };
        let text = refusal(&always, HostConfig { auto_remove: true, ..HostConfig::default() });
        assert_eq!(text, "Restart policy cannot be updated because AutoRemove is enabled for the container");
    }

    #[test]
    fn what_cannot_be_changed_is_named() {
        let sent_by_the_cli = HostConfig {
            memory: 1 << 27,
            devices: Some(Vec::new()),
            restart_policy: RestartPolicy { name: RestartMode::No, maximum_retry_count: 0 },
            ..HostConfig::default()
        };
        assert_eq!(fixed_fields(&sent_by_the_cli), Vec::<String>::new());
        let wanted = HostConfig { privileged: true, ..sent_by_the_cli };
        assert_eq!(fixed_fields(&wanted), ["Privileged cannot be updated: it is ignored"]);
    }
}
