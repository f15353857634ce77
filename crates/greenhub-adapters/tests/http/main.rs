//! The HTTP server with clients that send raw bytes.

mod ends;
mod limits;
mod requests;
mod support;
