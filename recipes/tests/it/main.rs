//! The recipes as tests: each library is called as its example calls it, in each way in which it works, while another
//! green thread ticks.

#![allow(dead_code, reason = "a test uses a part of an example, and not its `main`")]

mod support;

mod hyper;
mod nested;
mod postgres;
mod redis;
mod reqwest;
mod smol;
mod tls;
mod twisted_style;
mod websocket;

#[path = "../../examples/hyper_explicit.rs"]
mod hyper_explicit;
#[path = "../../examples/hyper_implicit.rs"]
mod hyper_implicit;
#[path = "../../examples/hyper_without_tokio.rs"]
mod hyper_without_tokio;
#[path = "../../examples/postgres_client.rs"]
mod postgres_client;
#[path = "../../examples/redis_client.rs"]
mod redis_client;
#[path = "../../examples/reqwest_client.rs"]
mod reqwest_client;
#[path = "../../examples/smol_beside.rs"]
mod smol_beside;
#[path = "../../examples/tls.rs"]
mod tls_session;
#[path = "../../examples/websocket.rs"]
mod websocket_echo;
