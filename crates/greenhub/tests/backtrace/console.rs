//! Backtraces in the answers of the debug console.

use std::io::{Read, Write};

use crate::support::green::{SHORT, ticker};
use crate::support::in_child;
use greenhub::debug::console;
use greenhub::os::unix::net::UnixStream;
use greenhub::sleep;

#[test]
fn other_green_threads_run_while_the_names_of_a_dump_are_looked_up() {
    // In this process no name was looked up before.
    in_child(|| {
        let path = std::env::temp_dir().join(format!("greenhub-{}-names", std::process::id()));
        let _console = console(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let mut greeting = Vec::new();
        while !greeting.ends_with(b"\n> ") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            greeting.push(byte[0]);
        }
        let ticks = ticker();
        sleep(SHORT);
        let before = ticks.get();
        client.write_all(b"dump\nquit\n").unwrap();
        client.read_exact(&mut [0]).unwrap();
        let meanwhile = ticks.get() - before;
        assert!(meanwhile > 20, "{meanwhile} ticks");
        let mut dump = String::new();
        client.read_to_string(&mut dump).unwrap();
        assert!(dump.contains("\"console client 0\"") && dump.contains("green.rs"), "{dump}");
    });
}
