//! tungstenite's blocking WebSocket over green sockets.

use greenhub::spawn;

use crate::support::{MANY, run_many};
use crate::tungstenite_echo::{ask, connect, serve};

#[test]
fn conversations_of_many_green_threads_overlap() {
    run_many(|ticker| {
        let gate = ticker.gate();
        let answer = move |text: &str| {
            gate.pass();
            text.to_uppercase()
        };
        let (address, _server) = serve(answer).expect("a port");
        let clients: Vec<_> = (0..MANY)
            .map(|number| {
                spawn(move || {
                    let mut socket = connect(address).expect("the server accepts");
                    for round in 0..3 {
                        let text = format!("text {number} {round} {}", "long".repeat(round * 1000));
                        assert_eq!(ask(&mut socket, &text).expect("an answer"), text.to_uppercase());
                    }
                    socket.close(None).expect("the server reads");
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("no panic"));
    });
}
