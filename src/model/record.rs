//! The envelope of what is stored: of which kind it is, and in which version of its form, `{"kind": "volume", "version": 1, …}`.
//!
//! The fields of a record stand beside those two. Records of ringer 0.1 have neither and are read as version 1. One of a newer
//! version is not read: what it says beyond what is known here would be lost with the next storing.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::json;

/// What can be stored.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is called in its envelope.
    const KIND: &'static str;

    /// The version of its form that is written; older ones are read too.
    const VERSION: u32 = 1;
}

/// Why a record was not read.
#[derive(Debug)]
pub enum Unread {
    /// It is of another kind.
    Other(String),
    /// A later ringer wrote it.
    Newer(u32),
    /// It is no record.
    Broken(serde_json::Error),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(kind) => write!(f, "it is a record of a {kind}"),
            Self::Newer(version) => {
                write!(f, "version {version} of its form is newer than this ringer: it is left alone")
            }
            Self::Broken(error) => error.fmt(f),
        }
    }
}

#[derive(Deserialize)]
struct Head {
    kind: Option<String>,
    version: Option<u32>,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    kind: &'a str,
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

/// A record in its envelope.
pub fn write<T: Record>(record: &T) -> Vec<u8> {
    let envelope = Envelope { kind: T::KIND, version: T::VERSION, record };
    serde_json::to_vec(&envelope).expect("a record is always valid JSON")
}

/// About the memory that a stored record takes: its texts, what holds each of them, and what stands beside them.
pub fn weigh(json: &[u8]) -> usize {
    size_of::<[usize; 128]>() + json.len() + size_of::<[usize; 4]>() * json::values(json)
}

/// The same of a record, or of a part of one, that is not written yet.
pub fn weight(part: &impl Serialize) -> usize {
    weigh(&serde_json::to_vec(part).expect("a record is always valid JSON"))
}

/// Reads a record out of its envelope.
pub fn read<T: Record>(json: &[u8]) -> Result<T, Unread> {
    let head: Head = serde_json::from_slice(json).map_err(Unread::Broken)?;
    if let Some(kind) = head.kind.filter(|kind| kind != T::KIND) {
        return Err(Unread::Other(kind));
    }
    if let Some(version) = head.version.filter(|version| *version > T::VERSION) {
        return Err(Unread::Newer(version));
    }
    serde_json::from_slice(json).map_err(Unread::Broken)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{container::ContainerRecord, network::NetworkRecord, volume::Volume};

    /// As ringer 0.1 stored them.
    const CONTAINER: &str = include_str!("record/samples/container-0.1.json");
    const NETWORK: &str = include_str!("record/samples/network-0.1.json");
    const VOLUME: &str = include_str!("record/samples/volume-0.1.json");

    /// Reads a record without an envelope, and finds in what is written all that stood there.
    fn keeps_all<T: Record>(stored: &str) {
        let before: Value = serde_json::from_str(stored).unwrap();
        let record: T = read(stored.as_bytes()).unwrap();
        let after: Value = serde_json::from_slice(&write(&record)).unwrap();
        assert_eq!((&after["kind"], &after["version"]), (&json!(T::KIND), &json!(T::VERSION)));
        check_kept(T::KIND, &before, &after);
        let again: T = read(&write(&record)).unwrap();
        assert_eq!(write(&again), write(&record));
    }

    /// Fields that came later may stand beside those of 0.1.
    fn check_kept(place: &str, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Object(fields), Value::Object(_)) => {
                fields.iter().for_each(|(key, value)| check_kept(&format!("{place}.{key}"), value, &after[key]));
            }
            (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
                items.iter().zip(others).for_each(|(item, other)| check_kept(&format!("{place}[]"), item, other));
            }
            _ => assert_eq!(after, before, "{place}"),
        }
    }

    #[test]
    fn records_of_version_0_1_are_read_and_keep_what_they_say() {
        keeps_all::<ContainerRecord>(CONTAINER);
        keeps_all::<NetworkRecord>(NETWORK);
        keeps_all::<Volume>(VOLUME);
    }

    #[test]
    fn newer_and_foreign_records_are_told_from_broken_ones() {
        let mut json: Value = serde_json::from_str(VOLUME).unwrap();
        json["version"] = json!(2);
        let newer = read::<Volume>(json.to_string().as_bytes()).unwrap_err();
        assert!(matches!(newer, Unread::Newer(2)), "{newer}");
        let network: NetworkRecord = read(NETWORK.as_bytes()).unwrap();
        let other = read::<Volume>(&write(&network)).unwrap_err();
        assert!(matches!(&other, Unread::Other(kind) if kind == "network"), "{other}");
        assert!(matches!(read::<Volume>(b"{\"name\":").unwrap_err(), Unread::Broken(_)));
    }
}
