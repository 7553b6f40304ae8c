//! What meets in time: verbs that come while another is under way, and jobs that change what is being looked at.

#[path = "../support/boxes.rs"]
mod boxes;
#[path = "../support/daemon.rs"]
mod daemon;

mod paths;
mod verbs;
mod volume_filling;
