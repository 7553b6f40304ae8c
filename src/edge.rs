//! Level 3: sockets, connections and routes of any HTTP API of ours; knows none.
//!
//! `server` owns listeners and connections, `route` finds a request's handler in a table, `extract` says who asks and
//! about what, `takeover` gives a connection away from HTTP, `error` maps failures to statuses, `audit` writes down
//! who changed what, `measure` counts, both also what is asked `within` a connection that was taken over, and `turns` lets one door have no
//! more than its part of the processors.

pub mod answer;
pub mod audit;
pub mod error;
pub mod extract;
pub mod measure;
pub mod route;
pub mod server;
pub mod takeover;
pub mod turns;
pub mod within;
