//! Forgejo's answers, as far as they are read (`modules/structs/runner.go`, `action.go`).

use serde::{Deserialize, Deserializer};

/// `GET /api/forgejo/v1/version`.
#[derive(Deserialize)]
pub struct Version {
    pub version: String,
}

/// `GET /repositories/{id}`.
#[derive(Deserialize)]
pub struct Repository {
    pub full_name: String,
}

/// One of `GET …/actions/runners/jobs`.
#[derive(Deserialize)]
pub struct Job {
    pub id: i64,
    #[serde(default)]
    pub run_id: i64,
    pub handle: String,
    pub repo_id: i64,
    #[serde(default)]
    pub name: String,
    pub runs_on: Option<Vec<String>>,
    pub task_id: Option<i64>,
    pub status: String,
}

/// `POST …/actions/runners`.
#[derive(Deserialize)]
pub struct Registered {
    pub id: i64,
    pub uuid: String,
    pub token: String,
}

/// One of `GET …/actions/runners`.
#[derive(Clone, Deserialize)]
pub struct Runner {
    pub id: i64,
    #[serde(default)]
    pub name: String,
}

/// `GET …/actions/runners`: a bare list, in an object for some versions before 15.
pub struct Runners(pub Vec<Runner>);

impl<'de> Deserialize<'de> for Runners {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bare(Option<Vec<Runner>>),
            Named { runners: Option<Vec<Runner>> },
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Bare(runners) | Either::Named { runners } => Self(runners.unwrap_or_default()),
        })
    }
}

/// `GET /repos/…/actions/tasks`.
#[derive(Deserialize)]
pub struct Tasks {
    pub workflow_runs: Option<Vec<Task>>,
}

/// One of them.
#[derive(Deserialize)]
pub struct Task {
    pub id: i64,
    pub status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_bare_named_or_as_null() {
        let count = |json: &str| serde_json::from_str::<Runners>(json).unwrap().0.len();
        assert_eq!(count(r#"[{"id": 1, "name": "a"}]"#), 1);
        assert_eq!(count(r#"{"total_count": 1, "runners": [{"id": 1}]}"#), 1);
        assert_eq!(count("null"), 0);
    }
}
