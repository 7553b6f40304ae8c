//! Layers that stand for themselves: writable layers in the runtime's store that belong to no container of their own.

use serde::{Deserialize, Serialize};

use super::{id::ContainerId, record::Record};

/// A layer as it is stored, where a container has its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "kebab-case")]
pub enum LayerRecord {
    /// A step of a build writes onto it; one that a daemon left is of no use to the next.
    Build,
    /// An image is seen through it in this container; ringer 0.1 did not note in which.
    ImageMount {
        /// The container.
        container: Option<ContainerId>,
    },
}

impl Record for LayerRecord {
    const KIND: &'static str = "layer";
}

impl LayerRecord {
    /// Reads what ringer 0.1 stored in place of a container's record.
    pub fn of_0_1(record: &[u8]) -> Option<Self> {
        match record {
            b"{\"BuildPad\":true}" => Some(Self::Build),
            b"{\"ImageMount\":true}" => Some(Self::ImageMount { container: None }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record;

    #[test]
    fn layers_are_read_in_both_forms() {
        let mount = LayerRecord::ImageMount { container: Some(ContainerId::from_stored("c")) };
        let json = r#"{"kind":"layer","version":1,"purpose":"image-mount","container":"c"}"#;
        assert_eq!(record::write(&mount), json.as_bytes());
        assert_eq!(record::read::<LayerRecord>(json.as_bytes()).unwrap(), mount);
        assert_eq!(LayerRecord::of_0_1(b"{\"BuildPad\":true}"), Some(LayerRecord::Build));
        assert_eq!(LayerRecord::of_0_1(b"{}"), None);
    }
}
