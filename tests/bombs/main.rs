//! What one request can cost: each bomb is sent to a daemon that has a limit, and the daemon lives on.

#[path = "../support/boxes.rs"]
mod boxes;
#[path = "../support/daemon.rs"]
mod daemon;
mod deep;
mod descriptors;
mod dockerfiles;
mod fort;
mod holds;
