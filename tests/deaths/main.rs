//! What a death leaves: daemons that are killed in the middle of something, and what the next one makes of it.

mod execs;
mod hung;
mod jams;
mod logs;
mod many;
mod starts;

#[path = "../support/boxes.rs"]
mod boxes;
mod cgroups;
#[path = "../support/daemon.rs"]
mod daemon;
mod leases;
