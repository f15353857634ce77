//! The example `hyper_server` as a program: its answers to curl, and its exit status.

use std::process::Command;
use std::time::Instant;

use crate::support::example;
use crate::support::example::{errors, refuses, text};

fn start(options: &[&str]) -> (example::Server, String) {
    let arguments = [&["127.0.0.1:0"], options].concat();
    let server = example::Server::start(&mut example::command("hyper_server", &arguments));
    let url = server.greeting.split([' ', ';']).nth(1).expect("the address").to_owned();
    (server, url)
}

/// Returns the standard output of curl, or `None` if it is not installed.
fn curl(arguments: &[&str]) -> Option<String> {
    let output = Command::new("curl").args(["--silent", "--show-error", "--max-time", "60"]).args(arguments).output();
    let Ok(output) = output else {
        eprintln!("curl is not installed: this test is skipped");
        return None;
    };
    assert!(output.status.success(), "{}", errors(&output));
    Some(text(&output))
}

#[test]
fn the_server_answers_curl_and_reports_after_an_interrupt() {
    let (server, url) = start(&[]);
    let Some(first) = curl(&[&url, &url]) else { return };
    assert_eq!(first, "1 requests\n2 requests\n");
    assert_eq!(curl(&["--data", "hello", &format!("{url}echo")]).as_deref(), Some("hello"));
    let status = curl(&["--output", "/dev/null", "--write-out", "%{http_code}", &format!("{url}nothing")]);
    assert_eq!(status.as_deref(), Some("404"));
    let output = server.interrupt();
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), "3 connections, 4 requests\n"));
}

#[test]
fn a_slow_request_does_not_hold_the_others_up() {
    let (_server, url) = start(&[]);
    let slow = format!("{url}sleep");
    let begun = Instant::now();
    let sleeper = std::thread::spawn(move || (curl(&[&slow]), begun.elapsed()));
    for _ in 0..5 {
        if curl(&[&url]).is_none() {
            return;
        }
    }
    let asked = begun.elapsed();
    let (slept, ended) = sleeper.join().expect("no panic");
    assert_eq!(slept.as_deref(), Some("slept for a second\n"));
    assert!(ended.as_secs() >= 1);
    // A busy machine may delay the five requests beyond the end of the slow one.
    assert!(asked < ended || asked.as_secs() >= 1, "the others took {asked:?}, the slow one {ended:?}");
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let (_server, url) = start(&[]);
    let body = std::env::temp_dir().join(format!("greenhub-hyper-body-{}", std::process::id()));
    std::fs::write(&body, vec![b'x'; 2 << 20]).expect("a file");
    let data = format!("@{}", body.display());
    let arguments = ["--output", "/dev/null", "--write-out", "%{http_code}", "--data-binary", &data];
    let status = curl(&[&arguments[..], &[&format!("{url}echo")]].concat());
    std::fs::remove_file(body).expect("the file");
    assert!(status.is_none_or(|status| status == "413"));
}

#[test]
fn wrong_usage_is_refused_in_one_line() {
    let run = |arguments: &[&str]| example::run(&mut example::command("hyper_server", arguments));
    refuses(&run(&[]), 2, &["hyper_server: ", "<ADDRESS>"]);
    refuses(&run(&["nowhere"]), 2, &["nowhere", "<ADDRESS>"]);
    refuses(&run(&["127.0.0.1:0", "--most", "0"]), 2, &["--most"]);
    refuses(&run(&["127.0.0.1:0", "--client-timeout", "-1"]), 2, &["--client-timeout"]);
    refuses(&run(&["127.0.0.1:0", "--hub", "nonsense"]), 2, &["nonsense"]);
}

#[test]
fn an_address_in_use_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("the listener has an address").to_string();
    let output = example::run(&mut example::command("hyper_server", &[&address]));
    refuses(&output, 1, &["cannot listen on", &address]);
}
