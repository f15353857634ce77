//! Tests of the example `producer_consumer` as a program: output and exit status.

use std::process::{Command, Output};

use crate::support::closed_port::ClosedPort;
use crate::support::example;
use crate::support::example::{ends, errors, only_timed_out, refuses, text, with_time};
use crate::support::site::{Answer, Site, answer, html, links};

fn checker(arguments: &[&str]) -> Command {
    example::command("producer_consumer", arguments)
}

fn run(arguments: &[&str]) -> Output {
    example::run(&mut checker(arguments))
}

/// Returns the lines about broken links: all but the last two.
fn broken(output: &Output) -> Vec<String> {
    let text = text(output);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.truncate(lines.len().checked_sub(2).unwrap_or_else(|| panic!("{text}{}", errors(output))));
    lines
}

/// Returns a site whose first page links to `count` pages, each with links back and to a neighbour.
fn wide(count: usize) -> Site {
    let targets: Vec<String> = (0..count).map(|number| format!("/{number}")).collect();
    let start = links(&targets.iter().map(String::as_str).collect::<Vec<_>>());
    let leaf = |number: usize| links(&["/", &format!("/{}", (number + 1) % count)]);
    Site::serve([("/".to_owned(), start)].into_iter().chain((0..count).map(|it| (format!("/{it}"), leaf(it)))))
}

#[test]
fn every_page_of_a_whole_site_is_fetched_once() {
    let site = Site::serve([
        ("/", links(&["/a", "b.html", "/a#part"])),
        ("/a", links(&["/", "sub/c"])),
        ("/b.html", links(&["/a"])),
        ("/sub/c", links(&["../b.html", "?query=1"])),
        ("/sub/?query=1", links(&[])),
        ("/sub/c?query=1", links(&[])),
    ]);
    let output = run(&[&site.url("/")]);
    ends(&output, 0);
    assert_eq!(site.requested(), ["/", "/a", "/b.html", "/sub/c", "/sub/c?query=1"]);
    assert!(broken(&output).is_empty());
    assert!(text(&output).starts_with("5 links checked, "), "{}", text(&output));
    assert!(text(&output).contains(": 0 broken\n"), "{}", text(&output));
}

#[test]
fn broken_links_are_reported_with_their_pages() {
    let site = Site::serve([
        ("/", links(&["/gone", "/a", "/late"])),
        ("/a", links(&["/gone"])),
        ("/late", answer("503 Service Unavailable", "")),
    ]);
    let output = run(&[&site.url("/")]);
    ends(&output, 1);
    let at = |path: &str| site.url(path);
    let expected = [
        format!("{}: status 404", at("/gone")),
        format!("    on {}", at("/")),
        format!("    on {}", at("/a")),
        format!("{}: status 503", at("/late")),
        format!("    on {}", at("/")),
    ];
    assert_eq!(broken(&output), expected);
}

#[test]
fn one_consumer_and_a_queue_of_one_do_not_deadlock() {
    let site = wide(60);
    let output = run(&["--queue", "1", "--consumers", "1", &site.url("/")]);
    ends(&output, 0);
    assert_eq!(site.requested().len(), 61);
    assert_eq!(site.most_at_once(), 1);
}

#[test]
fn the_requested_number_of_consumers_work_concurrently() {
    let site = wide(60);
    ends(&run(&["--consumers", "7", "--queue", "3", &site.url("/")]), 0);
    assert!((2..=7).contains(&site.most_at_once()), "{}", site.most_at_once());
}

#[test]
fn several_sites_share_the_consumers() {
    let (one, other) = (wide(3), Site::serve([("/start", links(&["/gone"]))]));
    let output = run(&[&one.url("/"), &other.url("/start"), &other.url("/start")]);
    ends(&output, 1);
    assert_eq!(
        broken(&output),
        [format!("{}: status 404", other.url("/gone")), format!("    on {}", other.url("/start"))]
    );
    assert_eq!((one.requested().len(), other.requested().len()), (4, 2));
}

#[test]
fn links_to_other_servers_are_counted_and_not_followed() {
    let site =
        Site::serve([("/", links(&["http://127.0.0.1:1/", "https://127.0.0.1/", "mailto:a@b", "//127.0.0.2/x"]))]);
    let output = run(&[&site.url("/")]);
    ends(&output, 0);
    assert!(text(&output).contains("not checked: 3 links to other servers, 0 links beyond"), "{}", text(&output));
}

#[test]
fn no_more_links_are_checked_than_requested() {
    let site = wide(60);
    let output = run(&["--max-links", "10", &site.url("/")]);
    ends(&output, 0);
    assert_eq!(site.requested().len(), 10);
    // 51 links of the first page, and the neighbour link of the last checked page.
    assert!(text(&output).contains(", 52 links beyond --max-links"), "{}", text(&output));
}

#[test]
fn redirections_are_links() {
    let site = Site::serve([
        ("/", answer("302 Found\r\nLocation: /new", "")),
        ("/new", answer("301 Moved Permanently\r\nLocation: http://127.0.0.1:1/", "")),
    ]);
    let output = run(&[&site.url("/")]);
    ends(&output, 0);
    assert_eq!(site.requested(), ["/", "/new"]);
}

#[test]
fn links_are_taken_from_elements_only() {
    let site = Site::serve([
        ("/", html("<base href='/sub/'><IMG SRC=i.png><!-- <a href=x> --><script>'<a href=y>'</script><a name=z>")),
        ("/sub/i.png", answer("200 OK\r\nContent-Type: image/png", "<a href=/never>")),
    ]);
    ends(&run(&[&site.url("/")]), 0);
    assert_eq!(site.requested(), ["/", "/sub/i.png"]);
}

#[test]
fn servers_that_fail_make_broken_links() {
    let site = Site::serve([
        ("/", links(&["/early", "/nothing", "/other", "/silent", "/coded", "/endless"])),
        ("/early", answer("200 OK\r\nContent-Type: text/html\r\nContent-Length: 100", "only this")),
        ("/nothing", Answer::Bytes(Vec::new())),
        ("/other", Answer::Bytes(b"220 mail.example.org ESMTP\r\n\r\n".to_vec())),
        ("/silent", Answer::Silence),
        ("/coded", answer("200 OK\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        ("/endless", Answer::Bytes([b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 100_000][..]].concat())),
    ]);
    let (limit, output) = with_time(
        |limit| run(&["--timeout", limit, &site.url("/")]),
        |output| only_timed_out(&text(output), &site.url("/silent")),
    );
    ends(&output, 1);
    let printed = broken(&output);
    let reasons: Vec<&str> = printed.iter().filter_map(|line| line.strip_prefix(&site.url(""))).collect();
    let expected = [
        "/coded: unsupported transfer coding chunked in a response to HTTP/1.0",
        "/early: the page ended 91 bytes early",
        "/endless: the head of the answer has more than 65536 bytes",
        "/nothing: the answer ended within its head",
        "/other: invalid HTTP response: invalid HTTP version",
        &format!("/silent: timed out after {limit} seconds"),
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn an_unreachable_server_is_a_broken_link_without_a_page() {
    let closed = ClosedPort::new();
    let unused = closed.address;
    let output = run(&[&format!("http://{unused}/")]);
    ends(&output, 1);
    let [printed] = &broken(&output)[..] else { panic!("{}", text(&output)) };
    assert!(printed.contains("cannot connect") && printed.contains("refused"), "{printed}");
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"]);
    ends(&output, 0);
    assert!(text(&output).contains("--consumers"));
}

#[test]
fn wrong_arguments_are_refused_with_status_2() {
    let url = "http://127.0.0.1:1/";
    refuses(&run(&[]), 2, &["<URL>", "--help"]);
    refuses(&run(&["nonsense"]), 2, &["nonsense", "http://host"]);
    refuses(&run(&["localhost:8000"]), 2, &["localhost:8000", "http://host"]);
    refuses(&run(&["https://127.0.0.1/"]), 2, &["https", "only http"]);
    refuses(&run(&["--consumers", "0", url]), 2, &["--consumers", "1..=500"]);
    refuses(&run(&["--consumers", "501", url]), 2, &["--consumers", "1..=500"]);
    refuses(&run(&["--queue", "0", url]), 2, &["--queue"]);
    refuses(&run(&["--max-links", "0", url]), 2, &["--max-links"]);
    refuses(&run(&["--timeout", "-1", url]), 2, &["--timeout"]);
    refuses(&run(&["--colour", url]), 2, &["--colour"]);
}

#[test]
fn an_unknown_hub_is_refused_with_status_2() {
    refuses(&run(&["--hub", "nope", "http://127.0.0.1:1/"]), 2, &["nope"]);
    let output = example::run(checker(&["http://127.0.0.1:1/"]).env("GREENHUB_HUB", "nope"));
    refuses(&output, 2, &["nope", "GREENHUB_HUB"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_unwritable_report_fails_the_run() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full exists");
    let site = Site::serve([("/", links(&[]))]);
    let output = example::run(checker(&[&site.url("/")]).stdout(full));
    refuses(&output, 1, &["report", "space"]);
}
