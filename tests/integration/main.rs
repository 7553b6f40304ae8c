//! Everything that is tested for real, as one program: each suite is a module, and `cargo test --test integration bombs::` is one of
//! them. Tests run side by side, as many as there are cores, so each has its own daemon, folders and network
//! namespace, and none changes what belongs to the whole process (its environment, its limits) or counts what is the machine's.

mod artifacts;
mod attacks;
mod audit;
mod bombs;
mod build;
mod buildkit;
mod callers;
mod containerd_child;
mod containerd_runtime;
mod containers;
mod daemon_restart;
mod deaths;
mod forges;
mod gitlab_custom;
mod hard_moments;
mod hard_moments_clients;
mod image_mounts;
mod images;
mod jobs;
mod layers;
mod network;
mod packaging;
mod races;
mod reference_images;
mod supervisor;
mod supervisor_forgejo;
mod supervisor_github;
mod supervisor_gitlab;
mod supervisor_life;
mod supervisor_waiting;
mod supervisor_woodpecker;
mod support;
mod system;
mod tcp;
mod typed_client;
mod unread_input;
mod volume_parts;
mod web;
