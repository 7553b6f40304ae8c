//! Forgejo's answers, as far as they are read (`modules/structs/runner.go`, `action.go`).

use serde::Deserialize;

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

/// One of `GET …/actions/runners/jobs`, which waits or runs, or of `GET …/actions/runs/{run}/jobs`.
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
    /// 0 of one that no runner has yet.
    #[serde(default)]
    pub task_id: i64,
    pub status: String,
}

/// `POST …/actions/runners`.
#[derive(Deserialize)]
pub struct Registered {
    pub id: i64,
    pub uuid: String,
    pub token: String,
}

/// `GET /repos/{owner}/{repo}/actions/runs/{run}`.
#[derive(Deserialize)]
pub struct Run {
    pub html_url: String,
}
