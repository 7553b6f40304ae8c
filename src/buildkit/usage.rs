//! What a tenant's cache holds, and what of it is taken away, for clients that ask Docker's API: `Control/DiskUsage` and `Control/Prune`.

use std::sync::Arc;

use prost::Message;

use super::{BuildKit, build::request, front::lock, grpc, proxy::Upstream, remains::Remains, slot::Use};
use crate::{
    backend::builds::{BuildTenant, CachePrune, CacheRecord},
    model::{Error, Result, id::TenantId, time::Timestamp},
};

/// `moby.buildkit.v1.UsageRecord`.
#[derive(Clone, PartialEq, Message)]
struct UsageRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bool, tag = "3")]
    in_use: bool,
    #[prost(int64, tag = "4")]
    size: i64,
    #[prost(message, optional, tag = "6")]
    created: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "7")]
    last_used: Option<prost_types::Timestamp>,
    #[prost(int64, tag = "8")]
    usage_count: i64,
    #[prost(string, tag = "9")]
    description: String,
    #[prost(string, tag = "10")]
    kind: String,
    #[prost(bool, tag = "11")]
    shared: bool,
    #[prost(string, repeated, tag = "12")]
    parents: Vec<String>,
}

/// `moby.buildkit.v1.DiskUsageResponse`.
#[derive(Clone, PartialEq, Message)]
struct DiskUsageResponse {
    #[prost(message, repeated, tag = "1")]
    records: Vec<UsageRecord>,
}

/// `moby.buildkit.v1.PruneRequest`.
#[derive(Clone, PartialEq, Message)]
struct PruneRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
    #[prost(bool, tag = "2")]
    all: bool,
    /// Nanoseconds.
    #[prost(int64, tag = "3")]
    keep_duration: i64,
    #[prost(int64, tag = "4")]
    reserved_space: i64,
    #[prost(int64, tag = "5")]
    max_used_space: i64,
    #[prost(int64, tag = "6")]
    min_free_space: i64,
}

impl From<UsageRecord> for CacheRecord {
    fn from(record: UsageRecord) -> Self {
        let time = |time: prost_types::Timestamp| {
            Timestamp::from_unix(time.seconds, u32::try_from(time.nanos).unwrap_or_default())
        };
        Self {
            id: record.id,
            parents: record.parents,
            kind: record.kind,
            description: record.description,
            in_use: record.in_use,
            shared: record.shared,
            size: u64::try_from(record.size).unwrap_or_default(),
            created: record.created.map_or_else(Timestamp::zero, time),
            last_used: record.last_used.map(time),
            usage_count: u64::try_from(record.usage_count).unwrap_or_default(),
        }
    }
}

impl From<&CachePrune> for PruneRequest {
    fn from(prune: &CachePrune) -> Self {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            filters: vec![prune.filter.clone()],
            all: prune.all,
            keep_duration: i64::try_from(prune.unused_for.as_nanos()).unwrap_or(i64::MAX),
            reserved_space: number(prune.reserved),
            max_used_space: number(prune.max_used),
            min_free_space: number(prune.min_free),
        }
    }
}

impl BuildKit {
    pub(super) async fn usage(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>) -> Result<Vec<CacheRecord>> {
        let Some((upstream, _used)) = self.connect_to_cache(tenant, of).await? else { return Ok(Vec::new()) };
        let answer = grpc::unary(upstream.call(request("DiskUsage", &[])).await).await?;
        let usage = DiskUsageResponse::decode(answer).map_err(malformed)?;
        Ok(usage.records.into_iter().map(Into::into).collect())
    }

    pub(super) async fn prune(
        &self,
        tenant: &TenantId,
        of: Arc<dyn BuildTenant>,
        prune: &CachePrune,
    ) -> Result<Vec<CacheRecord>> {
        let Some((upstream, _used)) = self.connect_to_cache(tenant, of).await? else { return Ok(Vec::new()) };
        let asked = PruneRequest::from(prune).encode_to_vec();
        let answer = upstream.call(request("Prune", &asked)).await;
        let messages = grpc::messages(answer).await?;
        let record = |message| Ok(UsageRecord::decode(message).map_err(malformed)?.into());
        messages.into_iter().map(record).collect()
    }

    /// One that has never built has no cache, and is not started to say so.
    async fn connect_to_cache(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>) -> Result<Option<(Upstream, Use)>> {
        let is_known = lock(&self.slots).of.contains_key(tenant);
        if self.options.program.is_none()
            || !is_known && !Remains::of(&self.options, &self.runtime, tenant).folders.root.exists()
        {
            return Ok(None);
        }
        self.slot(tenant, of)?.connect().await.map(Some)
    }
}

fn malformed(error: prost::DecodeError) -> Error {
    Error::system("what BuildKit says of its cache cannot be read").with_source(error)
}
