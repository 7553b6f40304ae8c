//! Level 1: the language of Dockerfiles: lines, words, variables, instructions, `.dockerignore`.
//!
//! It is read here and not by a crate from crates.io: `dockerfile-parser` and `parse-dockerfile` keep source positions for
//! tools that show or rewrite files, but expand no variables, know no heredocs or flags, and say what is wrong in
//! words of their own. A build needs dockerd's words (clients show them), dockerd's splitting before expansion, and the
//! same reading for `--change` and `ONBUILD`, where there is no file.

pub mod args;
pub mod changes;
pub mod expand;
mod flags;
mod health;
pub mod ignore;
pub mod instruction;
pub mod parser;
pub mod ports;
pub mod stages;
mod suggest;
mod words;

pub use instruction::{CommandLine, CopySources, Instruction, Step};
pub use stages::{Dockerfile, Stage};
