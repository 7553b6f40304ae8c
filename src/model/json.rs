//! How much a JSON text holds, before anything is made of it: `[{},{},…]` takes a hundred times its length in memory.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;

use super::{Error, Result, limits};

/// Names, as Go's `map[string]struct{}`: what a client puts into the empty objects is not kept. For `deserialize_with`.
pub fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IndexMap<String, Value>>, D::Error> {
    let names = Option::<IndexMap<String, IgnoredAny>>::deserialize(deserializer)?;
    Ok(names.map(|names| names.into_iter().map(|(name, _)| (name, Value::Object(serde_json::Map::new()))).collect()))
}

/// Refuses a text with more values than `most`, or that nests deeper than anybody needs. Whether it is JSON at all is
/// for its reader to find out.
pub fn check(text: &[u8], most: usize) -> Result<()> {
    count(text, most).map(drop)
}

/// How many values a text of ours has.
pub fn values(text: &[u8]) -> usize {
    count(text, usize::MAX).unwrap_or_default()
}

fn count(text: &[u8], most: usize) -> Result<usize> {
    let (mut values, mut depth, mut bytes) = (0_usize, 0_usize, text.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                values += 1;
                depth += 1;
            }
            b',' => values += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if values > most {
            return Err(Error::invalid(format!("there are more than {most} values")));
        }
        if depth > limits::JSON_DEPTH {
            return Err(Error::invalid(format!("it is nested more than {} deep", limits::JSON_DEPTH)));
        }
    }
    Ok(values)
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_names_only_the_keys_are_kept() {
        #[derive(Deserialize)]
        struct Holder {
            #[serde(default, deserialize_with = "names")]
            ports: Option<IndexMap<String, Value>>,
        }
        let ports = |text| serde_json::from_str::<Holder>(text).unwrap().ports.map(|ports| serde_json::json!(ports));
        assert_eq!(ports(r#"{"ports":{"80/tcp":{"a":{"b":[1]}}}}"#), Some(serde_json::json!({"80/tcp": {}})));
        assert_eq!((ports("{}"), ports(r#"{"ports":null}"#)), (None, None));
    }

    #[test]
    fn values_and_depth_are_counted_outside_of_strings() {
        let told = |text: &str, most| check(text.as_bytes(), most).err().map(|error| error.message().to_owned());
        assert_eq!(told(r#"{"a":[1,2,"[[[,,,\",,"],"b":{}}"#, 6), None);
        assert_eq!(told(r#"[1,2,3,4]"#, 3).unwrap(), "there are more than 3 values");
        assert_eq!(told(&"[".repeat(65), 1_000).unwrap(), "it is nested more than 64 deep");
        assert_eq!(told(&"[]".repeat(100), 1_000), None);
        assert_eq!(told("\"", 0), None);
    }
}
