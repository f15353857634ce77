//! hyper 1, its server and its client, in three ways.

use std::convert::Infallible;

use greenhub::future::{AsyncIo, block_in_place, block_on};
use greenhub::net::TcpListener;
use greenhub::{spawn, spawn_n};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use recipes::way::Way;
use recipes::web::{post, read, response};

use crate::support::{EXPLICIT, Ticker, WITHOUT_TOKIO, every_way, run};
use crate::{hyper_explicit, hyper_implicit, hyper_without_tokio};

#[test]
fn server_and_client_run_in_the_implicit_mode() {
    run(&[Way::IMPLICIT], |ticker| {
        let gate = ticker.gate();
        let (address, _server) = hyper_implicit::serve(move |path, body| {
            gate.pass();
            format!("{path} {body}")
        })
        .expect("a port");
        let clients: Vec<_> =
            (0..20).map(|number| spawn(move || block_on(post(address, "/implicit", &number.to_string())))).collect();
        for (number, client) in clients.into_iter().enumerate() {
            let answered = client.join().expect("no panic").expect("an answer");
            assert_eq!(answered, format!("/implicit {number}"));
        }
    });
}

#[test]
fn server_and_client_run_in_the_explicit_mode() {
    run(EXPLICIT, |ticker| {
        let gate = ticker.gate();
        let server = hyper_explicit::serve(move |path, body| {
            gate.pass();
            format!("{path} {body}")
        });
        let address = block_on(server).expect("a port");
        let green = spawn(move || block_on(post(address, "/green", "thread")));
        let task = tokio::spawn(async move { post(address, "/tokio", "task").await });
        assert_eq!(green.join().expect("no panic").expect("an answer"), "/green thread");
        assert_eq!(block_on(task).expect("no panic").expect("an answer"), "/tokio task");
    });
}

#[test]
fn server_and_client_run_on_every_hub_without_tokio() {
    run(&every_way(), ask_over_green_sockets);
}

fn ask_over_green_sockets(ticker: &Ticker) {
    let gate = ticker.gate();
    let (address, _server) = recipes::web::serve(move |path, body| {
        gate.pass();
        format!("{path} {body}")
    })
    .expect("a port");
    let clients: Vec<_> = (0..20)
        .map(|number| spawn(move || hyper_without_tokio::post(address, "/green", &number.to_string())))
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        let answered = client.join().expect("no panic").expect("an answer");
        assert_eq!(answered, format!("/green {number}"));
    }
}

#[test]
fn a_panic_of_a_green_handler_is_a_response() {
    run(WITHOUT_TOKIO, |_| {
        let (address, _server) = recipes::web::serve(|path, _| {
            if path == "/wrong" {
                // Without the report of a panic.
                std::panic::resume_unwind(Box::new("a fault of the handler"));
            }
            "right".to_owned()
        })
        .expect("a port");
        assert!(hyper_without_tokio::post(address, "/wrong", "").is_err());
        assert_eq!(hyper_without_tokio::post(address, "/right", "").expect("an answer"), "right");
    });
}

#[test]
fn a_handler_that_blocks_in_place_holds_up_its_own_connection_only() {
    run(&[WITHOUT_TOKIO, EXPLICIT, &[Way::IMPLICIT]].concat(), |ticker| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("the listener has an address");
        let gate = ticker.gate();
        spawn_n(move || {
            while let Ok((stream, _)) = listener.accept() {
                let gate = gate.clone();
                let service = service_fn(move |request| {
                    let gate = gate.clone();
                    async move {
                        let (path, _) = read(request).await;
                        block_in_place(|| gate.pass());
                        Ok::<_, Infallible>(response(Ok(path)))
                    }
                });
                spawn_n(move || drop(block_on(http1::Builder::new().serve_connection(AsyncIo::new(stream), service))));
            }
        });
        let clients: Vec<_> = (0..5).map(|_| spawn(move || hyper_without_tokio::post(address, "/path", ""))).collect();
        for client in clients {
            assert_eq!(client.join().expect("no panic").expect("an answer"), "/path");
        }
    });
}
