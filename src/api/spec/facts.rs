//! What we know of Docker's specification and of who uses it: files in `api-spec/`.

use std::{fs, path::Path};

use indexmap::IndexMap;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// Of Docker's specification: what there is, by name and type.
#[derive(Deserialize)]
pub struct Facts {
    pub operations: Vec<Operation>,
    /// Fields of JSON bodies, by operationId: an object of fields, `[item]`, `{"*": value}`, or a type's name.
    pub bodies: IndexMap<String, Value>,
}

/// A call.
#[derive(Deserialize)]
pub struct Operation {
    pub method: String,
    pub path: String,
    pub operation: String,
    pub tag: String,
    #[serde(default)]
    pub query: Vec<String>,
    #[serde(default)]
    pub header: Vec<String>,
    /// `json` or `bytes`.
    pub body: Option<String>,
}

impl Facts {
    pub fn read() -> Self {
        serde_json::from_str(&read("docker-1.53.json")).unwrap()
    }

    pub fn operation(&self, name: &str) -> &Operation {
        self.operations.iter().find(|operation| operation.operation == name).unwrap_or_else(|| panic!("{name}"))
    }
}

/// Who calls what.
#[derive(Deserialize)]
pub struct Agents {
    /// Full names by short ones.
    pub agents: IndexMap<String, String>,
    /// By operationId.
    pub calls: IndexMap<String, Callers>,
}

/// Short names with spaces between.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Callers {
    pub needs: String,
    pub may: String,
}

impl Agents {
    pub fn read() -> Self {
        from_toml("agents.toml")
    }
}

/// Why calls are not carried out.
#[derive(Deserialize)]
pub struct Reasons {
    pub not_implemented: IndexMap<String, String>,
    pub refused: IndexMap<String, String>,
}

impl Reasons {
    pub fn read() -> Self {
        from_toml("reasons.toml")
    }
}

/// Whether a shape has no named fields: a plain value, a list of them, a map of them.
pub fn is_leaf(shape: &Value) -> bool {
    match shape {
        Value::Array(items) => is_leaf(&items[0]),
        Value::Object(fields) => fields.get("*").map_or(fields.is_empty(), is_leaf),
        _ => true,
    }
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("api-spec").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn from_toml<T: DeserializeOwned>(name: &str) -> T {
    toml::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
