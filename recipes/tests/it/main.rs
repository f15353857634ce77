//! The recipes as tests: each library is called as its example calls it, in each way in which it works, while another
//! green thread ticks.

#![allow(dead_code, reason = "a test uses a part of an example, and not its `main`")]

mod support;

mod blocked;
mod costs;
mod file_locks;
mod http_server;
mod hyper;
mod lints;
mod mysql;
#[cfg(feature = "native-tls")]
mod native_tls;
mod nested;
mod postgres;
mod postgres_in_tpool;
mod redis;
mod redis_adapter;
mod reqwest;
mod rustls;
mod smol;
mod tls;
mod tungstenite;
mod twisted_style;
mod ureq;
mod websocket;

#[path = "../../examples/blocked_hub.rs"]
mod blocked_hub;
#[path = "../../examples/costs.rs"]
mod costs_example;
#[path = "../../examples/file_lock.rs"]
mod file_lock;
#[path = "../../examples/http_server.rs"]
mod http_server_example;

#[path = "../../examples/hyper_explicit.rs"]
mod hyper_explicit;
#[path = "../../examples/hyper_implicit.rs"]
mod hyper_implicit;
#[path = "../../examples/hyper_without_tokio.rs"]
mod hyper_without_tokio;
#[path = "../../examples/mysql_client.rs"]
mod mysql_client;
#[cfg(feature = "native-tls")]
#[path = "../../examples/native_tls.rs"]
mod native_tls_session;
#[path = "../../examples/postgres_client.rs"]
mod postgres_client;
#[path = "../../examples/postgres_pool.rs"]
mod postgres_pool;
#[path = "../../examples/redis_client.rs"]
mod redis_client;
#[path = "../../examples/redis_pool.rs"]
mod redis_pool;
#[path = "../../examples/reqwest_client.rs"]
mod reqwest_client;
#[path = "../../examples/rustls_https.rs"]
mod rustls_https;
#[path = "../../examples/smol_beside.rs"]
mod smol_beside;
#[path = "../../examples/tls.rs"]
mod tls_session;
#[path = "../../examples/tungstenite_echo.rs"]
mod tungstenite_echo;
#[path = "../../examples/ureq_client.rs"]
mod ureq_client;
#[path = "../../examples/websocket.rs"]
mod websocket_echo;
