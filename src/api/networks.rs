//! Handlers for networks.
