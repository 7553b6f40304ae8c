//! Stats.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::{
    api::{ApiState, answer::Json, compat::ApiVersion, extract::Path, query::Query, stream::JsonStream},
    engine::tenants::Scope,
    model::{
        Error, Result,
        stats::{BlockCounter, ContainerStats, CpuReading, LinkUsage, MemoryUsage, ResourceUsage},
        time::Timestamp,
    },
};

/// Query of stats.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct StatsQuery {
    stream: bool,
    one_shot: bool,
}

impl Default for StatsQuery {
    fn default() -> Self {
        Self { stream: true, one_shot: false }
    }
}

/// `GET /containers/{id}/stats`
pub async fn container_stats(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Path(container): Path,
    Query(query): Query<StatsQuery>,
    answer: JsonStream,
) -> Result<Response> {
    let one_shot = query.one_shot && version.has_one_shot_stats();
    if !query.stream {
        let stats = api.engine.container_stats(&scope, &container, one_shot).await?;
        let body = if one_shot { StatsBody::single(version, stats) } else { StatsBody::new(version, stats) };
        return Ok(Json(body).into_response());
    }
    if one_shot {
        return Err(Error::invalid("cannot have stream=true and one-shot=true"));
    }
    let stats = api.engine.container_stats_stream(&scope, &container)?;
    Ok(answer.objects(stats.map(move |stats| Ok(StatsBody::new(version, stats)))))
}

/// A reading as dockerd writes it.
#[derive(Serialize)]
struct StatsBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    os_type: Option<&'static str>,
    read: Timestamp,
    preread: Timestamp,
    pids_stats: PidsBody,
    blkio_stats: BlockBody,
    /// Windows only, as the next.
    num_procs: u32,
    storage_stats: Empty,
    cpu_stats: CpuBody,
    precpu_stats: CpuBody,
    memory_stats: MemoryBody,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<String, LinkBody>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct PidsBody {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Default, Serialize)]
struct BlockBody {
    io_service_bytes_recursive: Option<Vec<BlockCounterBody>>,
    io_serviced_recursive: Option<Vec<BlockCounterBody>>,
    // The rest is told by a scheduler that no kernel has any more; on cgroup v1 dockerd writes empty lists.
    io_queue_recursive: Option<[(); 0]>,
    io_service_time_recursive: Option<[(); 0]>,
    io_wait_time_recursive: Option<[(); 0]>,
    io_merged_recursive: Option<[(); 0]>,
    io_time_recursive: Option<[(); 0]>,
    sectors_recursive: Option<[(); 0]>,
}

#[derive(Serialize)]
struct BlockCounterBody {
    major: u64,
    minor: u64,
    op: String,
    value: u64,
}

#[derive(Serialize)]
struct CpuBody {
    cpu_usage: CpuUsageBody,
    #[serde(skip_serializing_if = "is_zero")]
    system_cpu_usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    online_cpus: u64,
    throttling_data: ThrottlingBody,
}

#[derive(Serialize)]
struct CpuUsageBody {
    total_usage: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_usage: Vec<u64>,
    usage_in_kernelmode: u64,
    usage_in_usermode: u64,
}

#[derive(Serialize)]
struct ThrottlingBody {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Default, Serialize)]
struct MemoryBody {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_usage: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stats: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    failcnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Serialize)]
struct LinkBody {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl StatsBody {
    fn new(version: ApiVersion, stats: ContainerStats) -> Self {
        let usage = stats.usage.unwrap_or_default();
        let runs = !stats.read.is_zero();
        Self {
            name: stats.name,
            id: stats.id,
            os_type: version.has_stats_os_type().then_some("linux"),
            read: stats.read,
            preread: stats.read_before,
            pids_stats: PidsBody { current: usage.pids.current, limit: usage.pids.limit },
            blkio_stats: if runs { BlockBody::from(&usage) } else { BlockBody::default() },
            num_procs: 0,
            storage_stats: Empty {},
            cpu_stats: stats.cpu.into(),
            precpu_stats: stats.cpu_before.into(),
            memory_stats: usage.memory.into(),
            networks: stats.links.into_iter().map(|(name, link)| (name, link.into())).collect(),
        }
    }

    /// A reading that is not compared with another. dockerd 28 leaves the names out there, unless the container does not run.
    fn single(version: ApiVersion, stats: ContainerStats) -> Self {
        let runs = stats.usage.is_some();
        let body = Self::new(version, stats);
        if runs { Self { name: String::new(), id: String::new(), ..body } } else { body }
    }
}

impl From<&ResourceUsage> for BlockBody {
    fn from(usage: &ResourceUsage) -> Self {
        let body = |counters: &[BlockCounter]| -> Vec<BlockCounterBody> {
            let counter = |counter: &BlockCounter| BlockCounterBody {
                major: counter.major,
                minor: counter.minor,
                op: counter.operation.clone(),
                value: counter.value,
            };
            counters.iter().map(counter).collect()
        };
        let bytes = body(&usage.block.bytes);
        match &usage.block.operations {
            Some(operations) => Self {
                io_service_bytes_recursive: Some(bytes),
                io_serviced_recursive: Some(body(operations)),
                io_queue_recursive: Some([]),
                io_service_time_recursive: Some([]),
                io_wait_time_recursive: Some([]),
                io_merged_recursive: Some([]),
                io_time_recursive: Some([]),
                sectors_recursive: Some([]),
            },
            None => {
                Self { io_service_bytes_recursive: Some(bytes).filter(|bytes| !bytes.is_empty()), ..Self::default() }
            }
        }
    }
}

impl From<CpuReading> for CpuBody {
    fn from(reading: CpuReading) -> Self {
        let usage = reading.usage;
        Self {
            cpu_usage: CpuUsageBody {
                total_usage: usage.total,
                percpu_usage: usage.per_cpu,
                usage_in_kernelmode: usage.kernel,
                usage_in_usermode: usage.user,
            },
            system_cpu_usage: reading.system,
            online_cpus: reading.online.into(),
            throttling_data: ThrottlingBody {
                periods: usage.periods,
                throttled_periods: usage.throttled_periods,
                throttled_time: usage.throttled_time,
            },
        }
    }
}

impl From<MemoryUsage> for MemoryBody {
    fn from(memory: MemoryUsage) -> Self {
        Self {
            usage: memory.usage,
            max_usage: memory.max_usage,
            stats: memory.details,
            failcnt: memory.failures,
            limit: memory.limit,
        }
    }
}

impl From<LinkUsage> for LinkBody {
    fn from(link: LinkUsage) -> Self {
        let ([rx_bytes, rx_packets, rx_errors, rx_dropped], [tx_bytes, tx_packets, tx_errors, tx_dropped]) =
            (link.received, link.sent);
        Self { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 28 answered for a container that was never started.
    #[test]
    fn a_container_that_does_not_run_is_all_zeros() {
        let stats = ContainerStats { id: "1".to_owned(), name: "/cr".to_owned(), ..ContainerStats::default() };
        let body = serde_json::to_string(&StatsBody::new(ApiVersion::v1(51), stats)).unwrap();
        let zeros = r#"{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}}"#;
        let expected = format!(
            r#"{{"name":"/cr","id":"1","read":"0001-01-01T00:00:00Z","preread":"0001-01-01T00:00:00Z","pids_stats":{{}},"blkio_stats":{{"io_service_bytes_recursive":null,"io_serviced_recursive":null,"io_queue_recursive":null,"io_service_time_recursive":null,"io_wait_time_recursive":null,"io_merged_recursive":null,"io_time_recursive":null,"sectors_recursive":null}},"num_procs":0,"storage_stats":{{}},"cpu_stats":{zeros},"precpu_stats":{zeros},"memory_stats":{{}}}}"#
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn single_reading_of_what_runs_has_no_names() {
        let has_names = |body: StatsBody| {
            let body = serde_json::to_value(body).unwrap();
            (body.get("name").is_some(), body.get("id").is_some())
        };
        let stopped = ContainerStats { id: "0123".into(), name: "/c".into(), ..ContainerStats::default() };
        let running = ContainerStats { usage: Some(ResourceUsage::default()), ..stopped.clone() };
        let version = ApiVersion::v1(51);
        assert_eq!(has_names(StatsBody::single(version, running.clone())), (false, false));
        assert_eq!(has_names(StatsBody::new(version, running)), (true, true));
        assert_eq!(has_names(StatsBody::single(version, stopped)), (true, true));
        assert!(!ApiVersion::v1(40).has_one_shot_stats() && version.has_one_shot_stats());
    }
}
