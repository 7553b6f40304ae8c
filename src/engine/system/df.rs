//! `GET /system/df`: what the tenant's things take on disk.

use std::sync::Arc;

use crate::{
    backend::builds::CacheRecord,
    engine::{
        Engine,
        containers::{list::ListOptions as ContainerListOptions, view::ContainerSize},
        images::{ImageSummary, ListOptions, prune::SizesByName},
        tenants::Scope,
        volumes::VolumeInfo,
    },
    model::{Error, Result, container::ContainerRecord, filters::Filters},
    rootfs::folder_size,
};

/// Of which kinds of things the usage is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageTypes {
    /// Images.
    pub images: bool,
    /// Containers.
    pub containers: bool,
    /// Volumes.
    pub volumes: bool,
    /// The cache of builds.
    pub build_cache: bool,
}

impl UsageTypes {
    /// Everything.
    pub const ALL: Self = Self { images: true, containers: true, volumes: true, build_cache: true };

    /// The words of the query; none mean everything.
    pub fn parse(words: &[String]) -> Result<Self> {
        if words.is_empty() {
            return Ok(Self::ALL);
        }
        let mut types = Self { images: false, containers: false, volumes: false, build_cache: false };
        for word in words {
            match word.as_str() {
                "image" => types.images = true,
                "container" => types.containers = true,
                "volume" => types.volumes = true,
                "build-cache" => types.build_cache = true,
                other => return Err(Error::invalid(format!("unknown object type: {other}"))),
            }
        }
        Ok(types)
    }
}

/// What was asked for; `None` for the rest.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    /// Bytes of all images, what they share counted once.
    pub layers_size: u64,
    /// Images with the number of their containers.
    pub images: Option<Vec<(ImageSummary, usize)>>,
    /// Containers with what they take.
    pub containers: Option<Vec<(Arc<ContainerRecord>, ContainerSize)>>,
    /// Volumes.
    pub volumes: Option<Vec<VolumeUsage>>,
    /// What is kept of builds.
    pub build_cache: Option<Vec<CacheRecord>>,
}

/// A volume with its use.
#[derive(Clone, Debug)]
pub struct VolumeUsage {
    /// It.
    pub info: VolumeInfo,
    /// How many containers have it.
    pub references: usize,
    /// Bytes in it.
    pub size: u64,
}

impl Engine {
    /// Measures.
    pub async fn system_data_usage(&self, scope: &Scope, types: UsageTypes) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        if types.images {
            let (images, size) = self.image_usage(scope).await?;
            (usage.images, usage.layers_size) = (Some(images), size);
        }
        if types.containers {
            usage.containers = Some(self.container_usage(scope).await?);
        }
        if types.volumes {
            usage.volumes = Some(self.volume_usage(scope).await?);
        }
        if types.build_cache {
            usage.build_cache = Some(self.build_cache_usage(scope).await?);
        }
        Ok(usage)
    }

    async fn image_usage(&self, scope: &Scope) -> Result<(Vec<(ImageSummary, usize)>, u64)> {
        let options = ListOptions { shared_size: true, ..ListOptions::default() };
        let images = self.image_list(scope, &options).await?;
        let mut sizes = SizesByName::default();
        for found in self.images.all(scope.tenant()).await? {
            let is_listed = images.iter().any(|image| image.id == *found.id());
            if is_listed && let Ok(tree) = self.images.known_tree(&found).await {
                self.images.add_sizes(&tree, &mut sizes).await;
            }
        }
        let records: Vec<_> = self.containers.list(scope.tenant()).iter().map(|container| container.record()).collect();
        let users = |image: &ImageSummary| records.iter().filter(|record| record.image_id == image.id).count();
        let counted = images.into_iter().map(|image| {
            let users = users(&image);
            (image, users)
        });
        Ok((counted.collect(), sizes.total()))
    }

    async fn container_usage(&self, scope: &Scope) -> Result<Vec<(Arc<ContainerRecord>, ContainerSize)>> {
        let options = ContainerListOptions { all: true, ..ContainerListOptions::default() };
        let mut containers = Vec::new();
        for container in self.container_list(scope, &options)? {
            let record = container.record();
            // One that is being removed has no layer any more.
            if let Ok(size) = self.container_size(&record).await {
                containers.push((record, size));
            }
        }
        Ok(containers)
    }

    async fn volume_usage(&self, scope: &Scope) -> Result<Vec<VolumeUsage>> {
        let volumes = self.volume_list(scope, &Filters::default()).await?;
        let records: Vec<_> = self.containers.list(scope.tenant()).iter().map(|container| container.record()).collect();
        let mut usages = Vec::new();
        // What has options may be a server's that does not answer; dockerd leaves it out, too.
        for info in volumes.into_iter().filter(|info| info.volume.is_plain()) {
            let uses =
                |record: &&Arc<ContainerRecord>| record.mounts.iter().any(|point| point.name == info.volume.name);
            let references = records.iter().filter(uses).count();
            let folder = info.mountpoint.clone();
            let measured = tokio::task::spawn_blocking(move || folder_size(&folder)).await;
            let measured = measured.map_err(|panic| Error::system("measuring a volume failed").with_source(panic))?;
            // One that was removed meanwhile takes nothing.
            let size = measured.unwrap_or_default();
            usages.push(VolumeUsage { info, references, size });
        }
        Ok(usages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_dockerds_words() {
        let parse =
            |words: &[&str]| UsageTypes::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]).unwrap(), UsageTypes::ALL);
        let some = parse(&["volume", "build-cache"]).unwrap();
        assert_eq!((some.images, some.volumes, some.build_cache), (false, true, true));
        assert_eq!(parse(&["bogus"]).unwrap_err().message(), "unknown object type: bogus");
    }
}
