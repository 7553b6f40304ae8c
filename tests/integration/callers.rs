//! Clients inside containers: the daemon's socket is bound into one, and the paths that a client names there are what it sees there.

pub mod client;
mod hostile;
mod jobs;
mod paths;
mod rights;
mod socket;
