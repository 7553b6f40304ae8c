//! What runners and Forgejo say to each other (`runner.v1`, actions-proto 0.8), as far as the stand-in reads or says it.

use std::collections::HashMap;

use prost::Message;
use prost_types::{Struct, Timestamp};

/// `RESULT_UNSPECIFIED`: it runs.
pub const RUNS: i32 = 0;

/// The words of the API for results, by their number.
pub const RESULTS: [&str; 5] = ["running", "success", "failure", "cancelled", "skipped"];

#[derive(Clone, PartialEq, Message)]
pub struct Ping {
    #[prost(string, tag = "1")]
    pub data: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Runner {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(string, tag = "2")]
    pub uuid: String,
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(string, tag = "8")]
    pub version: String,
    #[prost(string, repeated, tag = "9")]
    pub labels: Vec<String>,
    #[prost(bool, tag = "10")]
    pub ephemeral: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeclareRequest {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, repeated, tag = "2")]
    pub labels: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeclareResponse {
    #[prost(message, optional, tag = "1")]
    pub runner: Option<Runner>,
}

#[derive(Clone, PartialEq, Message)]
pub struct FetchSingleTaskRequest {
    #[prost(int64, tag = "1")]
    pub tasks_version: i64,
    #[prost(string, optional, tag = "2")]
    pub handle: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct FetchTaskRequest {
    #[prost(int64, tag = "1")]
    pub tasks_version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct FetchTaskResponse {
    #[prost(message, optional, tag = "1")]
    pub task: Option<Task>,
    #[prost(int64, tag = "2")]
    pub tasks_version: i64,
}

/// Its fields stand the other way round than `FetchTask`'s.
#[derive(Clone, PartialEq, Message)]
pub struct FetchSingleTaskResponse {
    #[prost(int64, tag = "1")]
    pub tasks_version: i64,
    #[prost(message, optional, tag = "2")]
    pub task: Option<Task>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Task {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(bytes = "vec", tag = "2")]
    pub workflow_payload: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub context: Option<Struct>,
    #[prost(map = "string, string", tag = "4")]
    pub secrets: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct UpdateTaskRequest {
    #[prost(message, optional, tag = "1")]
    pub state: Option<TaskState>,
    #[prost(map = "string, string", tag = "2")]
    pub outputs: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct UpdateTaskResponse {
    #[prost(message, optional, tag = "1")]
    pub state: Option<TaskState>,
    #[prost(string, repeated, tag = "2")]
    pub sent_outputs: Vec<String>,
}

/// Steps are passed over.
#[derive(Clone, PartialEq, Message)]
pub struct TaskState {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(int32, tag = "2")]
    pub result: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct UpdateLogRequest {
    #[prost(int64, tag = "1")]
    pub task_id: i64,
    #[prost(int64, tag = "2")]
    pub index: i64,
    #[prost(message, repeated, tag = "3")]
    pub rows: Vec<LogRow>,
    #[prost(bool, tag = "4")]
    pub no_more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct LogRow {
    #[prost(message, optional, tag = "1")]
    pub time: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub content: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct UpdateLogResponse {
    #[prost(int64, tag = "1")]
    pub ack_index: i64,
}
