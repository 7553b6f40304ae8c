//! What a death leaves: daemons that are killed in the middle of something, and what the next one makes of it.

mod hung;
mod jams;

#[path = "../support/boxes.rs"]
mod boxes;
#[path = "../support/daemon.rs"]
mod daemon;
