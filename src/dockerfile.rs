//! Level 1: Dockerfile instructions that change an image's configuration.

pub mod changes;
