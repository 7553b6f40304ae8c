//! What a death leaves: daemons that are killed in the middle of something, and what the next one makes of it.

mod cgroups;
mod execs;
mod hung;
mod jams;
mod leases;
mod logs;
mod many;
mod remains;
mod starts;

pub use remains::gone as remains_gone;
