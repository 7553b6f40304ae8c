//! Handlers for images.
