//! async-tungstenite over green sockets.

use greenhub::spawn;

use crate::support::{every_way, run};
use crate::websocket_echo::{Client, serve};

#[test]
fn texts_of_many_clients_are_answered_by_green_threads() {
    run(&every_way(), |ticker| {
        let gate = ticker.gate();
        let (address, _server) = serve(move |text| {
            gate.pass();
            text.to_uppercase()
        })
        .expect("a port");
        let clients: Vec<_> = (0..10)
            .map(|number| {
                spawn(move || {
                    let mut client = Client::connect(address).expect("the server accepts");
                    for text in [format!("text {number}"), "x".repeat(100_000)] {
                        assert_eq!(client.ask(&text).expect("an answer"), text.to_uppercase());
                    }
                    client.close().expect("the server closes");
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("no panic"));
    });
}
