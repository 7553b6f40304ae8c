//! `GET /system/df`. Before 1.52 the answer lists everything; since then it has sums, and the lists if asked for.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    api::{
        ApiState, answer::Json, compat::ApiVersion, containers::list::summary, images::SummaryBody, query::Query,
        volumes::VolumeBody,
    },
    backend::builds::CacheRecord,
    engine::{
        containers::view::ContainerSize,
        images::ImageSummary,
        system::{DiskUsage, UsageTypes, VolumeUsage},
        tenants::Scope,
    },
    model::{Result, container::ContainerRecord},
};

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct UsageQuery {
    #[serde(rename = "type")]
    types: Vec<String>,
    verbose: bool,
}

/// `GET /system/df`
pub async fn system_data_usage(
    State(api): State<ApiState>,
    scope: Scope,
    version: ApiVersion,
    Query(query): Query<UsageQuery>,
) -> Result<Json<Value>> {
    let types = if version.has_usage_types() { UsageTypes::parse(&query.types)? } else { UsageTypes::ALL };
    let usage = api.engine.system_data_usage(&scope, types).await?;
    let lists = Lists::new(&usage, version);
    Ok(Json(match version.has_usage_sums() {
        true => sums(&usage, lists, query.verbose),
        false => legacy(&usage, lists, version),
    }))
}

/// The things themselves as JSON; `None` if they were not asked for.
struct Lists {
    images: Option<Vec<Value>>,
    containers: Option<Vec<Value>>,
    volumes: Option<Vec<Value>>,
    build_cache: Option<Vec<Value>>,
}

impl Lists {
    fn new(usage: &DiskUsage, version: ApiVersion) -> Self {
        let image = |(image, users): &(ImageSummary, usize)| {
            let mut body = json!(SummaryBody::new(image.clone(), version));
            body["Containers"] = json!(users);
            for names in ["RepoDigests", "RepoTags"] {
                if body[names].as_array().is_some_and(Vec::is_empty) {
                    body[names] = Value::Null;
                }
            }
            body
        };
        let images = usage.images.as_ref().map(|images| images.iter().map(image).collect());
        let containers = usage.containers.as_ref().map(|containers| {
            let body = |(record, size): &(Arc<ContainerRecord>, ContainerSize)| summary(record, Some(*size), version);
            containers.iter().map(body).collect()
        });
        let volumes = usage.volumes.as_ref().map(|volumes| {
            let body = |volume: &VolumeUsage| {
                let mut body = json!(VolumeBody::from(volume.info.clone()));
                body["UsageData"] = json!({ "RefCount": volume.references, "Size": volume.size });
                body
            };
            volumes.iter().map(body).collect()
        });
        let build_cache = usage.build_cache.as_ref().map(|records| records.iter().map(cache_record).collect());
        Self { images, containers, volumes, build_cache }
    }
}

fn legacy(usage: &DiskUsage, lists: Lists, version: ApiVersion) -> Value {
    let mut answer = json!({
        "LayersSize": usage.layers_size,
        "Images": lists.images,
        "Containers": lists.containers,
        "Volumes": lists.volumes,
        "BuildCache": lists.build_cache,
    });
    let builder_size: u64 = usage.build_cache.iter().flatten().map(|record| record.size).sum();
    if version.has_builder_size() && builder_size > 0 {
        answer["BuilderSize"] = json!(builder_size);
    }
    answer
}

fn cache_record(record: &CacheRecord) -> Value {
    let mut body = json!({
        "ID": record.id,
        "Type": record.kind,
        "Description": record.description,
        "InUse": record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "CreatedAt": record.created,
        "LastUsedAt": record.last_used,
        "UsageCount": record.usage_count,
    });
    if !record.parents.is_empty() {
        body["Parents"] = json!(record.parents);
    }
    body
}

/// The sums of one kind; what is zero is left out, as Go's `omitempty` does.
fn sum(active: usize, total: usize, size: u64, reclaimable: u64, items: Option<Vec<Value>>) -> Value {
    let mut fields = Map::new();
    let mut add = |name: &str, number: u64| {
        if number > 0 {
            fields.insert(name.to_owned(), json!(number));
        }
    };
    add("ActiveCount", active as u64);
    add("TotalCount", total as u64);
    add("Reclaimable", reclaimable);
    add("TotalSize", size);
    if let Some(items) = items.filter(|items| !items.is_empty()) {
        fields.insert("Items".to_owned(), Value::Array(items));
    }
    Value::Object(fields)
}

fn sums(usage: &DiskUsage, lists: Lists, verbose: bool) -> Value {
    let items = |list: Option<Vec<Value>>| list.filter(|_| verbose);
    let mut answer = Map::new();
    if let Some(images) = &usage.images {
        let active: Vec<_> = images.iter().filter(|(_, users)| *users > 0).collect();
        let own = |image: &ImageSummary| image.size.saturating_sub(image.shared_size.unwrap_or_default());
        let used: u64 = active.iter().map(|(image, _)| own(image)).sum();
        let free = usage.layers_size.saturating_sub(used);
        let sum = sum(active.len(), images.len(), usage.layers_size, free, items(lists.images));
        answer.insert("ImageUsage".to_owned(), sum);
    }
    if let Some(containers) = &usage.containers {
        let (mut active, mut size, mut free) = (0, 0, 0);
        for (record, own) in containers {
            size += own.writable;
            if record.state.counts_as_running() { active += 1 } else { free += own.writable }
        }
        answer.insert("ContainerUsage".to_owned(), sum(active, containers.len(), size, free, items(lists.containers)));
    }
    if let Some(volumes) = &usage.volumes {
        let (mut active, mut size, mut free) = (0, 0, 0);
        for volume in volumes {
            size += volume.size;
            if volume.references > 0 { active += 1 } else { free += volume.size }
        }
        answer.insert("VolumeUsage".to_owned(), sum(active, volumes.len(), size, free, items(lists.volumes)));
    }
    if let Some(records) = &usage.build_cache {
        let active = records.iter().filter(|record| record.in_use).count();
        let size = records.iter().map(|record| record.size).sum();
        let free = records.iter().filter(|record| !record.in_use && !record.shared).map(|record| record.size).sum();
        let sum = sum(active, records.len(), size, free, items(lists.build_cache));
        answer.insert("BuildCacheUsage".to_owned(), sum);
    }
    Value::Object(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::testing;

    #[tokio::test]
    async fn lists_became_sums_with_1_52() {
        let (state, _folder) = testing::state().await;
        let (status, old) = testing::get(&state, "/v1.41/system/df?type=bogus").await;
        let nothing = json!({"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []});
        assert_eq!((status, &old), (200, &nothing), "1.41 knows no types");
        let (_, some) = testing::get(&state, "/v1.44/system/df?type=volume").await;
        assert_eq!((&some["Images"], &some["Volumes"]), (&json!(null), &json!([])));
        let (_, new) = testing::get(&state, "/v1.53/system/df?type=image&type=build-cache").await;
        assert_eq!(new, json!({"ImageUsage": {}, "BuildCacheUsage": {}}));
        let (status, refused) = testing::get(&state, "/v1.44/system/df?type=bogus").await;
        assert_eq!((status, refused), (400, json!({"message": "unknown object type: bogus"})));
    }
}
