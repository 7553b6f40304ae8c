//! What a tenant's cache holds, and what of it is taken away, for clients that ask Docker's API: `Control/DiskUsage` and `Control/Prune`.

use std::sync::Arc;

use prost::Message;

use super::{BuildKit, build::request, front::lock, grpc, proxy::Upstream, remains::Remains, slot::Use};
use crate::{
    backend::builds::{BuildTenant, CacheFilter, CachePrune, CacheRecord},
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
            filters: vec![expression(&prune.filter)],
            all: prune.all,
            keep_duration: i64::try_from(prune.unused_for.as_nanos()).unwrap_or(i64::MAX),
            reserved_space: number(prune.room.reserved),
            max_used_space: number(prune.room.max_used),
            min_free_space: number(prune.room.min_free),
        }
    }
}

/// In containerd's language of filters, by the names of BuildKit's `adaptUsageInfo`. A truth is asked for by its name, and there is no
/// word for "not"; that no build has it needs none, since what one has is never taken away.
fn expression(filter: &CacheFilter) -> String {
    let of_text = [("id", "~=", &filter.id), ("parents", "~=", &filter.parent), ("type", "==", &filter.kind)];
    let of_text = of_text.into_iter().chain([("description", "==", &filter.description)]);
    let of_text = of_text.filter_map(|(name, is, value)| Some(format!("{name}{is}{}", value.as_ref()?)));
    let of_truth = [
        filter.in_use.filter(|in_use| *in_use).map(|_| "inuse"),
        filter.shared.map(|shared| if shared { "shared" } else { "private" }),
        filter.private.map(|private| if private { "private" } else { "shared" }),
    ];
    of_text.chain(of_truth.into_iter().flatten().map(str::to_owned)).collect::<Vec<_>>().join(",")
}

/// What a builder has.
pub(super) async fn usage(upstream: &Upstream) -> Result<Vec<CacheRecord>> {
    let answer = grpc::unary(upstream.call(request("DiskUsage", &[])).await).await?;
    let usage = DiskUsageResponse::decode(answer).map_err(malformed)?;
    Ok(usage.records.into_iter().map(Into::into).collect())
}

impl BuildKit {
    pub(super) async fn usage(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>) -> Result<Vec<CacheRecord>> {
        let Some((upstream, _used)) = self.connect_to_cache(tenant, of).await? else { return Ok(Vec::new()) };
        usage(&upstream).await
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
        let mut gone = Vec::new();
        grpc::each_message(answer, |message| {
            gone.push(UsageRecord::decode(message).map_err(malformed)?.into());
            Ok(())
        })
        .await?;
        Ok(gone)
    }

    /// One that has never built has no cache, and is not started to say so.
    async fn connect_to_cache(&self, tenant: &TenantId, of: Arc<dyn BuildTenant>) -> Result<Option<(Upstream, Use)>> {
        let is_known = lock(&self.slots).of.contains_key(tenant);
        if self.options.program.is_none()
            || !is_known && !Remains::of(&self.options, &self.runtime, tenant, &of.cache()).folders.root.exists()
        {
            return Ok(None);
        }
        self.slot(tenant, of)?.connect().await.map(Some)
    }
}

fn malformed(error: prost::DecodeError) -> Error {
    Error::system("what BuildKit says of its cache cannot be read").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_told_in_buildkits_language() {
        let text = |text: &str| Some(text.to_owned());
        let all = CacheFilter {
            id: text("a"),
            parent: text("b"),
            kind: text("regular"),
            description: text("d"),
            in_use: Some(true),
            shared: Some(false),
            private: Some(false),
        };
        assert_eq!(expression(&all), "id~=a,parents~=b,type==regular,description==d,inuse,private,shared");
        let none_has_it = CacheFilter { in_use: Some(false), ..CacheFilter::default() };
        assert_eq!((expression(&none_has_it), expression(&CacheFilter::default())), (String::new(), String::new()));
    }
}
