//! Handlers for volumes.
