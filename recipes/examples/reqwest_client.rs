//! reqwest's client, unchanged, in green threads.
//!
//! `cargo run -p recipes --example reqwest_client` takes the hub `tokio`. `-- explicit` runs it inside of a Tokio
//! program, and `-- beside` on the default hub beside a runtime on another OS thread.

use std::process::ExitCode;
use std::time::Duration;

use greenhub::future::block_on;
use greenhub::{sleep, spawn};
use recipes::web::{AnyError, serve};
use reqwest::Client;

fn main() -> ExitCode {
    recipes::way::main(|| {
        // reqwest's own message is a panic.
        tokio::runtime::Handle::try_current()?;
        let (address, _server) = serve(|path, body| {
            sleep(Duration::from_millis(10)); // parks the green thread of this request
            format!("{path} {body}")
        })?;
        let client = Client::new();
        let requests: Vec<_> = (1..=3)
            .map(|number| {
                let client = client.clone();
                spawn(move || post(&client, &format!("http://{address}/{number}"), "a body"))
            })
            .collect();
        for request in requests {
            println!("{}", request.join()??);
        }
        Ok::<_, AnyError>(())
    })
}

/// Sends a request, and returns the body of the response. Switches.
pub(crate) fn post(client: &Client, url: &str, body: &'static str) -> reqwest::Result<String> {
    let response = block_on(client.post(url).body(body).send())?;
    block_on(response.error_for_status()?.text())
}
