//! hyper, unchanged, in the explicit mode: a Tokio program whose handlers of requests are green threads.
//!
//! `cargo run -p recipes --example hyper_explicit`

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::hub::Remote;
use greenhub::sleep;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use recipes::web::{AnyError, post, read, response};
use tokio::net::TcpListener;
use tokio::runtime;

fn main() -> Result<(), AnyError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // Without `run_until` this is a usual Tokio program.
    runtime.block_on(hub_tokio::run_until(program()))?
}

async fn program() -> Result<(), AnyError> {
    let address = serve(|path, body| {
        sleep(Duration::from_millis(10)); // parks the green thread of this request
        format!("{path} {body}")
    })
    .await?;
    println!("{}", post(address, "/task", "awaited").await?);
    let green = defer_to_green_thread(move || block_on(post(address, "/green", "waited for")));
    println!("{}", green.await??);
    Ok(())
}

/// Starts a server as a Tokio program does. Only the handler of a request is a green thread.
pub(crate) async fn serve<A>(answer: A) -> Result<SocketAddr, AnyError>
where
    A: Fn(&str, &str) -> String + Clone + Send + 'static,
{
    // Its futures are `Send`, which `tokio::spawn` asks for.
    let remote: Remote = greenhub::get_hub().remote();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (remote, answer) = (remote.clone(), answer.clone());
            let service = service_fn(move |request| {
                let (remote, answer) = (remote.clone(), answer.clone());
                async move {
                    let (path, body) = read(request).await;
                    let answered =
                        remote.defer(move || answer(&path, &body)).expect("the hub lives as long as the tasks");
                    Ok::<_, Infallible>(response(answered.await))
                }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    Ok(address)
}
