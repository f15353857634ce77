//! ureq in green threads, over the adapter `ureq-3`: 500 requests at once on one OS thread.
//!
//! `cargo run -p recipes --example ureq_client -- epoll` asks a server of its own.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use greenhub::net::{StopServe, TcpListener};
use greenhub::{GreenPool, scope, sleep, spawn_n};
use greenhub_adapters::http::Server;
use http::Response;
use recipes::web::AnyError;
use ureq::Agent;

fn main() -> ExitCode {
    recipes::way::main(|| {
        recipes::descriptors::raise_limit();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        spawn_n(move || {
            Server::new().serve(&StopServe::new(), &listener, &GreenPool::new(1000), |_, _| {
                sleep(Duration::from_millis(100));
                Response::new("hello")
            })
        });
        let begun = Instant::now();
        let answered = fetch_all(&agent(), &vec![url; 500])?;
        println!("{} responses in {:?}", answered.len(), begun.elapsed());
        Ok::<_, AnyError>(())
    })
}

/// Returns an agent with a time limit for each request as a whole.
pub(crate) fn agent() -> Agent {
    let config = Agent::config_builder().timeout_global(Some(Duration::from_secs(60)));
    // One pool of connections for all green threads.
    greenhub_adapters::ureq::agent(config.max_idle_connections_per_host(500).max_idle_connections(500).build())
}

/// Requests all URLs at once, each in a green thread, and returns the bodies in their order. Switches.
pub(crate) fn fetch_all(agent: &Agent, urls: &[String]) -> Result<Vec<String>, ureq::Error> {
    scope(|scope| {
        let fetch = |url| scope.spawn(move || agent.get(url).call()?.body_mut().read_to_string());
        let requests: Vec<_> = urls.iter().map(fetch).collect();
        requests.into_iter().map(|request| request.join().map_err(|error| ureq::Error::Io(error.into()))?).collect()
    })
}
