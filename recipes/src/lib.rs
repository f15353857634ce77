//! Shared parts of the recipes: the ways to run green threads beside Tokio, and a local web server.

pub mod server;
pub mod way;
pub mod web;
