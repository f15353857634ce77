//! redis's asynchronous client with the real server.

use std::sync::Arc;

use greenhub::future::block_on;
use greenhub::spawn;
use recipes::server::Server;
use recipes::way::Way;
use recipes::web::AnyError;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::redis_client::{connect, connect_over_green_socket, pop, start};
use crate::support::{Ticker, WITH_TOKIO, every_way, run};

/// A way to connect to the server.
type Connect = fn(&Server) -> Result<MultiplexedConnection, AnyError>;

#[test]
fn a_green_thread_waits_for_an_item_over_a_socket_of_tokio() {
    wait_for_an_item(WITH_TOKIO, connect);
}

#[test]
fn a_green_thread_waits_for_an_item_over_a_green_socket() {
    wait_for_an_item(&every_way(), connect_over_green_socket);
}

fn wait_for_an_item(ways: &[Way], connect: Connect) {
    if !crate::support::is_installed("redis-server") {
        return;
    }
    let server = Arc::new(start().expect("the server starts"));
    run(ways, move |ticker| wait_here(ticker, &server, connect));
}

fn wait_here(ticker: &Ticker, server: &Server, connect: Connect) {
    let (waiting, connection) = (connect(server), connect(server));
    let (waiting, mut connection) = (waiting.expect("the server accepts"), connection.expect("the server accepts"));
    let queue = format!("{:?}", std::thread::current().id());
    let name = queue.clone();
    let waiter = spawn(move || pop(waiting, &name));
    ticker.gate().pass();
    assert!(!waiter.is_finished());
    block_on(connection.lpush::<_, _, ()>(queue, "an item")).expect("the server answers");
    assert_eq!(waiter.join().expect("no panic").expect("the server answers"), "an item");
}

#[test]
fn commands_of_many_green_threads_share_a_connection() {
    if !crate::support::is_installed("redis-server") {
        return;
    }
    run(&[Way::IMPLICIT, Way::Explicit], |_| {
        let server = start().expect("the server starts");
        let connection = connect(&server).expect("the server accepts");
        let adders: Vec<_> = (1..=100)
            .map(|number: i64| {
                let mut connection = connection.clone();
                spawn(move || block_on(connection.incr::<_, _, i64>("sum", number)))
            })
            .collect();
        for adder in adders {
            adder.join().expect("no panic").expect("the server answers");
        }
        let mut connection = connection;
        assert_eq!(block_on(connection.get::<_, i64>("sum")).expect("the server answers"), 5050);
    });
}
