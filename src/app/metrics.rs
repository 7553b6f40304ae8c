//! All numbers of the daemon in one registry: what its parts count by themselves, and what they have right now.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use ringer::{edge::measure::Measures, engine::Engine, supervisor::Supervisor};

/// What each name begins with.
const PREFIX: &str = "ringer";

/// The registry, and what counts the calls of APIs.
pub fn of(engine: &Engine, supervisor: Option<&Supervisor>) -> (Arc<Registry>, Arc<Measures>) {
    let mut registry = Registry::with_prefix(PREFIX);
    let measures = Measures::register(&mut registry);
    registry.register_collector(Box::new(OfEngine(engine.clone())));
    if let Some(supervisor) = supervisor {
        supervisor.tally().register(&mut registry);
        registry.register_collector(Box::new(OfForges(supervisor.clone())));
    }
    (Arc::new(registry), measures)
}

/// A number that can go down, for each of several labels.
fn gauges<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

struct OfEngine(Engine);

impl fmt::Debug for OfEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfEngine")
    }
}

impl Collector for OfEngine {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let traffic = self.0.traffic();
        counter(&mut encoder, "pulled_bytes", "Bytes of layers that pulls fetched", traffic.pulled())?;
        counter(&mut encoder, "shared_bytes", "Bytes of layers that pulls found here", traffic.shared())?;
        let jobs = self.0.job_objects();
        gauge(&mut encoder, "jobs", "Jobs that are there", jobs.len() as u64)?;
        let objects = jobs.iter().flat_map(|job| {
            let of = |kind, count: usize| (vec![("job", job.job.name.as_str()), ("kind", kind)], count as u64);
            [of("container", job.containers), of("network", job.networks), of("volume", job.volumes)]
        });
        gauges(&mut encoder, "job_objects", "What a job has", objects)?;
        let bytes = jobs.iter().flat_map(|job| {
            let of = |way, bytes| (vec![("job", job.job.name.as_str()), ("from", way)], bytes);
            [of("registry", job.pulled), of("here", job.shared)]
        });
        gauges(&mut encoder, "job_layer_bytes", "Bytes of layers that a job's pulls needed", bytes)
    }
}

struct OfForges(Supervisor);

impl fmt::Debug for OfForges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfForges")
    }
}

impl Collector for OfForges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let forges = self.0.forges();
        let of = |value: fn(&ringer::supervisor::ForgeView) -> u64| {
            forges.iter().map(move |forge| (vec![("forge", forge.name.as_str())], value(forge)))
        };
        gauges(
            &mut encoder,
            "forge_up",
            "Whether the last look at a forge was answered",
            of(|forge| u64::from(forge.trouble.is_none() && forge.looked.is_some())),
        )?;
        gauges(&mut encoder, "forge_launches", "Launches of which something is there", of(|forge| forge.live as u64))?;
        gauges(&mut encoder, "forge_concurrency", "Launches at once at most", of(|forge| forge.concurrency as u64))?;
        let queue = forges.iter().flat_map(|forge| {
            let ours = forge.queue.iter().filter(|waiting| waiting.why.is_none()).count();
            let count = |ours, count: usize| (vec![("forge", forge.name.as_str()), ("ours", ours)], count as u64);
            [count("true", ours), count("false", forge.queue.len() - ours)]
        });
        gauges(&mut encoder, "forge_queue", "Jobs that the last look saw waiting, ours to run or not", queue)
    }
}
