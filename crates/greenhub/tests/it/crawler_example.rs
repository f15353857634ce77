//! The example `crawler` as a separate process: its output and its exit status.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::support::closed_port::ClosedPort;
use crate::support::example;
use crate::support::example::{ends, errors, refuses, text, with_time};
use crate::support::site::{Answer, Site, answer, html};

fn crawler(arguments: &[&str]) -> Command {
    example::command("crawler", arguments)
}

fn run(arguments: &[&str]) -> Output {
    example::run(&mut crawler(arguments))
}

/// Runs the crawler with this standard input, which must fit in a pipe's buffer.
fn run_with_input(arguments: &[&str], input: &[u8]) -> Output {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(input).expect("the pipe has room");
    drop(writer);
    example::run(crawler(arguments).stdin(Stdio::from(reader)))
}

/// Returns the printed lines without their times, which must parse.
#[track_caller]
fn lines(output: &Output) -> Vec<String> {
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["error", ..] => line.to_owned(),
        [status, size, took, "s", url] if took.parse::<f64>().is_ok() => format!("{status} {size} {url}"),
        _ => panic!("{line:?}; {}", errors(output)),
    };
    text(output).lines().map(line).collect()
}

/// Returns a site of `count` pages. The page `/n` has `n` bytes.
fn pages(count: usize) -> Site {
    Site::serve((0..count).map(|size| (format!("/{size}"), html(&"x".repeat(size)))))
}

#[test]
fn pages_are_printed_in_the_order_given() {
    let site = pages(30);
    let order: Vec<usize> = (0..30).map(|it| it * 7 % 30).collect();
    let urls: Vec<String> = order.iter().map(|size| site.url(&format!("/{size}"))).collect();
    let output = run(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    ends(&output, 0);
    let expected: Vec<String> = order.iter().zip(&urls).map(|(size, url)| format!("200 {size} {url}")).collect();
    assert_eq!(lines(&output), expected);
}

#[test]
fn pages_are_fetched_side_by_side_up_to_the_size_of_the_pool() {
    let site = pages(40);
    let urls: Vec<String> = (0..40).map(|size| site.url(&format!("/{size}"))).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    ends(&run(&[&["--pool", "6"], &urls[..]].concat()), 0);
    assert!((2..=6).contains(&site.most_at_once()), "{}", site.most_at_once());
}

#[test]
fn a_url_given_twice_is_printed_twice() {
    let site = pages(1);
    let url = site.url("/0");
    let output = run(&[&url, &url]);
    ends(&output, 0);
    assert_eq!(lines(&output).len(), 2);
    assert_eq!(site.requested().len(), 2);
}

#[test]
fn a_redirect_is_not_followed() {
    let moved = answer("301 Moved Permanently\r\nLocation: /1\r\nContent-Length: 4", "gone");
    let site = Site::serve([("/0", moved), ("/1", html(""))]);
    let url = site.url("/0");
    let output = run(&[&url]);
    ends(&output, 0);
    assert_eq!(lines(&output), [format!("301 4 {url}")]);
    assert_eq!(site.requested(), ["/0"]);
}

#[test]
fn a_failure_status_of_a_page_fails_the_run() {
    let site = Site::serve([("/", html("")), ("/broken", answer("500 Internal Server Error", "sorry"))]);
    let (well, gone, broken) = (site.url("/"), site.url("/gone"), site.url("/broken"));
    let output = run(&[&gone, &well, &broken]);
    ends(&output, 1);
    assert_eq!(lines(&output), [format!("404 21 {gone}"), format!("200 0 {well}"), format!("500 5 {broken}")]);
}

#[test]
fn errors_are_printed_in_the_order_given() {
    let site = Site::serve([
        ("/early", answer("200 OK\r\nContent-Length: 100", "only this")),
        ("/nonsense", Answer::Bytes(b"what?\r\n\r\n".to_vec())),
        ("/well", html("12345")),
    ]);
    let closed = ClosedPort::new();
    let unused = closed.address;
    let (early, nonsense, well) = (site.url("/early"), site.url("/nonsense"), site.url("/well"));
    let output = run(&[&early, &format!("http://{unused}/"), &well, &nonsense]);
    ends(&output, 1);
    let lines = lines(&output);
    assert_eq!(lines[0], format!("error {early}: the page ended 91 bytes early"));
    assert!(lines[1].starts_with(&format!("error http://{unused}/: cannot connect: ")), "{lines:?}");
    assert_eq!(lines[2], format!("200 5 {well}"));
    assert!(lines[3].starts_with(&format!("error {nonsense}: invalid HTTP response: ")), "{lines:?}");
    assert_eq!(lines.len(), 4);
}

#[test]
fn a_silent_server_times_out() {
    let site = Site::serve([("/silent", Answer::Silence), ("/well", html(""))]);
    let (silent, well) = (site.url("/silent"), site.url("/well"));
    let late = format!("error {well}: timed out");
    let (limit, output) =
        with_time(|limit| run(&["--timeout", limit, &silent, &well]), |output| !text(output).contains(&late));
    ends(&output, 1);
    assert_eq!(lines(&output), [format!("error {silent}: timed out after {limit} seconds"), format!("200 0 {well}")]);
}

#[test]
fn a_dash_stands_for_the_urls_on_standard_input() {
    let site = pages(4);
    let url = |size: usize| site.url(&format!("/{size}"));
    let input = format!("{}\r\n\n  {}", url(2), url(1));
    let output = run_with_input(&[&url(3), "-", &url(0)], input.as_bytes());
    ends(&output, 0);
    assert_eq!(lines(&output), [3, 2, 1, 0].map(|size| format!("200 {size} {}", url(size))));
}

#[test]
fn an_invalid_url_on_standard_input_is_an_error_in_order() {
    let site = pages(2);
    let (first, last) = (site.url("/0"), site.url("/1"));
    let output = run_with_input(&["-"], format!("{first}\nhttps://127.0.0.1/\n{last}\n").as_bytes());
    ends(&output, 1);
    let https = "error https://127.0.0.1/: https is not supported, only http".to_owned();
    assert_eq!(lines(&output), [format!("200 0 {first}"), https, format!("200 1 {last}")]);
}

#[test]
fn empty_standard_input_prints_nothing() {
    let output = run_with_input(&["-"], b"");
    ends(&output, 0);
    assert_eq!(text(&output), "");
}

#[test]
fn standard_input_that_is_not_utf_8_fails_the_run() {
    refuses(&run_with_input(&["-"], b"http://\xff/\n"), 1, &["cannot read standard input", "UTF-8"]);
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"]);
    ends(&output, 0);
    assert!(text(&output).contains("--timeout"));
}

#[test]
fn wrong_arguments_are_a_one_line_error() {
    let url = "http://127.0.0.1:1/";
    refuses(&run(&[]), 2, &["<URL>", "--help"]);
    refuses(&run(&[url, "nonsense"]), 2, &["nonsense", "http://host"]);
    refuses(&run(&["https://127.0.0.1/"]), 2, &["https is not supported"]);
    refuses(&run(&["--pool", "0", url]), 2, &["--pool", "1..=10000"]);
    refuses(&run(&["--pool", "10001", url]), 2, &["--pool", "1..=10000"]);
    refuses(&run(&["--timeout", "0", url]), 2, &["--timeout"]);
    refuses(&run(&["--timeout", "-1", url]), 2, &["--timeout"]);
    refuses(&run(&["--colour", url]), 2, &["--colour"]);
}

#[test]
fn an_unknown_hub_is_refused_with_status_2() {
    refuses(&run(&["--hub", "nope", "http://127.0.0.1:1/"]), 2, &["nope"]);
    let output = example::run(crawler(&["http://127.0.0.1:1/"]).env("GREENHUB_HUB", "nope"));
    refuses(&output, 2, &["nope", "GREENHUB_HUB"]);
}

#[cfg(target_os = "linux")]
#[test]
fn lines_that_cannot_be_written_end_the_run() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full exists");
    let site = pages(20);
    let urls: Vec<String> = (0..20).map(|size| site.url(&format!("/{size}"))).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let output = example::run(crawler(&[&["--pool", "1"], &urls[..]].concat()).stdout(full));
    refuses(&output, 1, &["write", "space"]);
    assert_eq!(site.requested(), ["/0"]);
}
