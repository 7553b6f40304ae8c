//! Handlers for containers and execs.
