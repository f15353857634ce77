//! A program that names only items of `hub-core`, and mentions the facade once, gets the facade's hubs.

use std::env;
use std::time::Duration;

use greenhub as _;

#[test]
fn a_program_of_core_names_gets_the_hub_of_the_facade() {
    let green = hub_core::spawn(|| {
        hub_core::sleep(Duration::from_millis(1));
        7
    });
    assert_eq!(green.join().unwrap(), 7);
    let name = hub_core::get_hub().name();
    match env::var("GREENHUB_HUB").or_else(|_| env::var("EVENTLET_HUB")) {
        Ok(chosen) => assert_eq!(name, chosen),
        Err(_) => assert!(["epoll", "kqueue", "poll", "select"].contains(&name), "{name}"),
    }
}
