//! What agents and Woodpecker say to each other (`rpc/proto/woodpecker.proto`, version 16), as far as the stand-in reads or says it.

use std::collections::HashMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct AuthRequest {
    #[prost(string, tag = "1")]
    pub agent_token: String,
    #[prost(int64, tag = "2")]
    pub agent_id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct AuthResponse {
    #[prost(string, tag = "1")]
    pub status: String,
    #[prost(int64, tag = "2")]
    pub agent_id: i64,
    #[prost(string, tag = "3")]
    pub access_token: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct VersionResponse {
    #[prost(int32, tag = "1")]
    pub grpc_version: i32,
    #[prost(string, tag = "2")]
    pub server_version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct RegisterAgentResponse {
    #[prost(int64, tag = "1")]
    pub agent_id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReportHealthRequest {
    #[prost(string, tag = "1")]
    pub status: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Filter {
    #[prost(map = "string, string", tag = "1")]
    pub labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct NextRequest {
    #[prost(message, optional, tag = "1")]
    pub filter: Option<Filter>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Given {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(int64, tag = "2")]
    pub timeout: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct NextResponse {
    #[prost(message, optional, tag = "1")]
    pub workflow: Option<Given>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WorkflowState {
    #[prost(int64, tag = "1")]
    pub started: i64,
    #[prost(int64, tag = "2")]
    pub finished: i64,
    #[prost(string, tag = "3")]
    pub error: String,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
}

/// Of `Init` and `Done`; `Wait` and `Extend` have the number alone.
#[derive(Clone, PartialEq, Message)]
pub struct OfWorkflow {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub state: Option<WorkflowState>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StepState {
    #[prost(string, tag = "1")]
    pub step_uuid: String,
    #[prost(bool, tag = "4")]
    pub exited: bool,
    #[prost(int32, tag = "5")]
    pub exit_code: i32,
    #[prost(string, tag = "6")]
    pub error: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct UpdateRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub state: Option<StepState>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LogEntry {
    #[prost(string, tag = "1")]
    pub step_uuid: String,
    #[prost(bytes = "vec", tag = "5")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LogRequest {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<LogEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WaitResponse {
    #[prost(bool, tag = "1")]
    pub canceled: bool,
}
