//! Shared parts of the recipes: the ways to run green threads beside Tokio, a local web server, and server programs.

pub mod descriptors;
pub mod server;
pub mod way;
pub mod web;
