//! `GET /containers/{id}/stats`.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until};

use crate::{
    engine::{Engine, container::Container, host::Host, tenants::Scope},
    model::{
        Result,
        container::ContainerRecord,
        stats::{ContainerStats, CpuReading, LinkUsage},
        time::Timestamp,
    },
};

/// Time between two readings.
const INTERVAL: Duration = Duration::from_secs(1);

/// The kernel counts `/proc/stat` in these.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

impl Engine {
    /// One reading: with `one_shot` at once, else with a reading of a second before to compare with. A container that
    /// does not run answers zeros at once.
    pub async fn container_stats(&self, scope: &Scope, reference: &str, one_shot: bool) -> Result<ContainerStats> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let first = self.read_stats(&container, &ContainerStats::default()).await;
        if one_shot || first.usage.is_none() {
            return Ok(first);
        }
        tokio::time::sleep(INTERVAL).await;
        Ok(self.read_stats(&container, &first).await)
    }

    /// Readings, one a second, until the container is removed. While it does not run they are zeros.
    pub fn container_stats_stream(
        &self,
        scope: &Scope,
        reference: &str,
    ) -> Result<impl Stream<Item = ContainerStats> + Send + use<>> {
        let container = self.containers.get(scope.tenant(), reference)?;
        let removed = {
            let container = container.clone();
            async move { drop(container.wait_for(|now| now.removed).await) }
        };
        let engine = self.clone();
        let readings = stream::unfold((ContainerStats::default(), Instant::now()), move |(before, due)| {
            let (engine, container) = (engine.clone(), container.clone());
            async move {
                sleep_until(due).await;
                let stats = engine.read_stats(&container, &before).await;
                Some((stats.clone(), (stats, due + INTERVAL)))
            }
        });
        Ok(readings.take_until(removed).take_until(self.stopping().cancelled_owned()))
    }

    /// Reads once. One that ends meanwhile does not run.
    async fn read_stats(&self, container: &Arc<Container>, before: &ContainerStats) -> ContainerStats {
        let record = container.record();
        let mut stats = ContainerStats {
            id: record.id.to_string(),
            name: format!("/{}", record.name),
            read_before: before.read,
            cpu_before: before.cpu.clone(),
            ..ContainerStats::default()
        };
        let Some(live) = record.state.live() else { return stats };
        let Ok(mut usage) = self.backends.runtime.stats(&record.id).await else { return stats };
        usage.memory.limit = usage.memory.limit.min(Host::get().memory);
        let (system, online) = system_time(&fs::read_to_string("/proc/stat").unwrap_or_default());
        stats.read = Timestamp::now();
        stats.cpu = CpuReading { usage: usage.cpu.clone(), system, online };
        stats.links = self.links(&record, live.pid);
        stats.usage = Some(usage);
        stats
    }

    /// Counters of the container's endpoints. Links that it made for itself are not told, as with dockerd.
    fn links(&self, record: &ContainerRecord, pid: u32) -> BTreeMap<String, LinkUsage> {
        let owner = record.host_config.network_mode.container();
        let owner = owner.and_then(|name| self.containers.get(&record.tenant, name).ok());
        let networking = owner.map_or_else(|| record.networking.clone(), |owner| owner.record().networking.clone());
        let endpoints = networking.attachments.iter().filter_map(|attachment| attachment.endpoint.as_ref());
        let names: Vec<&str> = endpoints.map(|endpoint| endpoint.interface.as_str()).collect();
        // A process that has just ended has no links.
        let counters = link_counters(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default());
        counters.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect()
    }
}

/// Time of all CPUs since the machine's start, and how many there are, from `/proc/stat`.
fn system_time(text: &str) -> (u64, u32) {
    let mut cpus = text.lines().take_while(|line| line.starts_with("cpu"));
    let sum = cpus.next().unwrap_or_default();
    // Guest time is part of user time already.
    let ticks: u64 = sum.split_whitespace().skip(1).take(7).filter_map(|word| word.parse::<u64>().ok()).sum();
    (ticks * NANOSECONDS_A_TICK, u32::try_from(cpus.count()).unwrap_or(u32::MAX))
}

/// `/proc/PID/net/dev`: two lines of headings, then eight counters in and eight out for each link.
fn link_counters(text: &str) -> BTreeMap<String, LinkUsage> {
    let link = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let four = |at: usize| counters.get(at..at + 4)?.try_into().ok();
        Some((name.trim().to_owned(), LinkUsage { received: four(0)?, sent: four(8)? }))
    };
    text.lines().skip(2).filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_the_machine_leaves_guests_out() {
        let text = "cpu  1 2 3 4 5 6 7 100 100 100\ncpu0 1 1\ncpu1 1 1\nintr 5\n";
        assert_eq!(system_time(text), (280_000_000, 2));
    }

    #[test]
    fn counters_of_links_are_found_by_column() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n  \
                    eth0:     266       3    1    2    0     0          0         0       84       5    6    7    0     0       0          0\n";
        assert_eq!(link_counters(text)["eth0"], LinkUsage { received: [266, 3, 1, 2], sent: [84, 5, 6, 7] });
    }
}
