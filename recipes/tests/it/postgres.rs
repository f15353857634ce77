//! tokio-postgres with the real server.

use std::rc::Rc;
use std::sync::Arc;

use greenhub::spawn;
use recipes::server::Server;
use recipes::way::Way;
use recipes::web::AnyError;
use tokio_postgres::Client;

use crate::postgres_client::{connect, connect_over_green_socket, double, start};
use crate::support::{Ticker, run};

/// A way to connect to the server.
type Connect = fn(&Server) -> Result<Client, AnyError>;

#[test]
fn queries_of_green_threads_run_over_a_socket_of_tokio() {
    query_in(&[Way::IMPLICIT, Way::Explicit, Way::ExplicitThreads, Way::Beside("poll")], connect);
}

#[test]
fn queries_of_green_threads_run_over_a_green_socket() {
    query_in(&[Way::Hub("epoll"), Way::Hub("select")], connect_over_green_socket);
}

fn query_in(ways: &[Way], connect: Connect) {
    if !(crate::support::is_installed("postgres") && crate::support::is_installed("initdb")) {
        return;
    }
    let server = Arc::new(start().expect("the server starts"));
    run(ways, move |ticker| query(ticker, &server, connect));
}

fn query(ticker: &Ticker, server: &Server, connect: Connect) {
    let client = Rc::new(connect(server).expect("the server accepts"));
    let queries: Vec<_> = (0..5)
        .map(|number| {
            let client = Rc::clone(&client);
            spawn(move || double(&client, number))
        })
        .collect();
    // The server takes its time, in which the ticker ticks.
    ticker.gate().pass();
    for (number, query) in (0..).zip(queries) {
        assert_eq!(query.join().expect("no panic").expect("an answer"), 2 * number);
    }
}
