//! ringer
