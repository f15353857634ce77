//! Tests of the example `recursive_fetch` as a program: output and exit status.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use crate::support::closed_port::ClosedPort;
use crate::support::example;
use crate::support::example::{ends, errors, only_timed_out, refuses, text, with_time};
use crate::support::site::{Answer, Site, answer, links};

fn crawler(arguments: &[&str]) -> Command {
    example::command("recursive_fetch", arguments)
}

fn run(arguments: &[&str]) -> Output {
    example::run(&mut crawler(arguments))
}

/// Returns status and size of each printed path, and checks that no path is printed twice.
fn pages(output: &Output, site: &Site) -> BTreeMap<String, (u16, u64)> {
    let text = text(output);
    let mut pages = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    let Some((_summary, lines)) = lines.split_last() else { panic!("{}", errors(output)) };
    for line in lines {
        let [status, size, url] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let path = url.strip_prefix(&site.url("")).expect("a page of the site").to_owned();
        let found = (status.parse().expect("a status"), size.parse().expect("a size"));
        assert!(pages.insert(path, found).is_none(), "{url} twice in {text}");
    }
    pages
}

fn paths(output: &Output, site: &Site) -> Vec<String> {
    pages(output, site).into_keys().collect()
}

/// Returns a tree of pages: each page but the leaves links to `width` others, and to the root.
fn tree(width: usize, depth: usize) -> Site {
    let mut pages = Vec::new();
    let mut level = vec!["/".to_owned()];
    for left in (0..=depth).rev() {
        let mut next = Vec::new();
        for path in level {
            let children = (0..if left > 0 { width } else { 0 }).map(|it| format!("{path}{it}/"));
            let children: Vec<String> = children.collect();
            let mut targets: Vec<&str> = children.iter().map(String::as_str).collect();
            targets.push("/");
            pages.push((path, links(&targets)));
            next.extend(children);
        }
        level = next;
    }
    Site::serve(pages)
}

/// Returns a chain of pages.
fn chain(length: usize) -> Site {
    Site::serve((0..length).map(|it| (format!("/{it}"), links(&[&format!("/{}", it + 1)]))))
}

#[test]
fn each_page_is_printed_once_with_status_and_size() {
    let site = Site::serve([
        ("/", links(&["/a", "/gone", "/a#b"])),
        ("/a", links(&["/", "/data", "/moved"])),
        ("/data", answer("200 OK\r\nContent-Type: application/octet-stream", "12345")),
        ("/moved", answer("301 Moved Permanently\r\nLocation: /a", "")),
    ]);
    let output = run(&[&site.url("/")]);
    ends(&output, 0);
    let expected =
        [("/", (200, 74)), ("/a", (200, 75)), ("/data", (200, 5)), ("/gone", (404, 21)), ("/moved", (301, 0))];
    assert_eq!(pages(&output, &site), expected.map(|(path, found)| (path.to_owned(), found)).into());
    assert_eq!(site.requested().len(), 5);
    let text = text(&output);
    assert!(text.lines().last().is_some_and(|last| last.starts_with("5 pages, 175 bytes in ")), "{text}");
}

#[test]
fn a_full_pool_does_not_deadlock() {
    let site = tree(3, 3);
    for pool in ["1", "2", "5"] {
        let output = run(&["--pool", pool, &site.url("/")]);
        ends(&output, 0);
        assert_eq!(paths(&output, &site).len(), 1 + 3 + 9 + 27);
    }
    assert_eq!(site.requested().len(), 3 * 40);
}

#[test]
fn pages_are_fetched_concurrently_up_to_the_size_of_the_pool() {
    let site = tree(4, 3);
    ends(&run(&["--pool", "6", &site.url("/")]), 0);
    assert!((2..=6).contains(&site.most_at_once()), "{}", site.most_at_once());
}

#[test]
fn it_follows_links_to_the_requested_depth() {
    let site = tree(2, 4);
    for (depth, expected) in [("0", 1), ("1", 3), ("2", 7)] {
        let output = run(&["--depth", depth, &site.url("/")]);
        ends(&output, 0);
        assert_eq!(paths(&output, &site).len(), expected);
    }
}

#[test]
fn a_shorter_path_found_later_counts() {
    // A single worker follows the path over /a and /b first, which ends at /c.
    let site = Site::serve([
        ("/", links(&["/a", "/c"])),
        ("/a", links(&["/b"])),
        ("/b", links(&["/c"])),
        ("/c", links(&["/d"])),
        ("/d", links(&["/e"])),
        ("/e", links(&["/f"])),
    ]);
    let output = run(&["--pool", "1", "--depth", "3", &site.url("/")]);
    ends(&output, 0);
    assert_eq!(paths(&output, &site), ["/", "/a", "/b", "/c", "/d", "/e"]);
}

#[test]
fn a_stack_has_room_for_the_greatest_depth() {
    let site = chain(60);
    let output = run(&["--pool", "1", "--depth", "50", &site.url("/0")]);
    ends(&output, 0);
    assert_eq!(paths(&output, &site).len(), 51);
}

#[test]
fn pages_of_other_servers_are_not_fetched() {
    let other = chain(1);
    let site = Site::serve([("/", links(&[&other.url("/0"), "https://127.0.0.1/", "mailto:a@b"]))]);
    let output = run(&[&site.url("/")]);
    ends(&output, 0);
    assert_eq!(paths(&output, &site), ["/"]);
    assert!(other.requested().is_empty());
}

#[test]
fn a_failed_page_fails_the_run_and_no_other_page() {
    let early = answer("200 OK\r\nContent-Length: 100", "only this");
    let site = Site::serve([
        ("/", links(&["/early", "/silent", "/well"])),
        ("/early", early),
        ("/silent", Answer::Silence),
        ("/well", links(&["/deeper"])),
    ]);
    let (limit, output) = with_time(
        |limit| run(&["--timeout", limit, &site.url("/")]),
        |output| only_timed_out(&errors(output), &site.url("/silent")),
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(paths(&output, &site), ["/", "/deeper", "/well"]);
    let printed = errors(&output);
    assert!(printed.contains(&format!("{}: the page ended 91 bytes early\n", site.url("/early"))), "{printed}");
    assert!(printed.contains(&format!("{}: timed out after {limit} seconds\n", site.url("/silent"))), "{printed}");
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(text(&output).ends_with("2 not fetched\n"), "{}", text(&output));
}

#[test]
fn an_unreachable_server_fails_the_run() {
    let closed = ClosedPort::new();
    let unused = closed.address;
    let output = run(&[&format!("http://{unused}/")]);
    assert_eq!(output.status.code(), Some(1));
    let printed = errors(&output);
    assert!(
        printed.contains("cannot connect") && printed.contains("refused") && printed.lines().count() == 1,
        "{printed}"
    );
}

#[test]
fn names_are_looked_up() {
    let site = chain(1);
    let url = site.url("/0").replace("127.0.0.1", "localhost");
    let output = run(&[&url, "--depth", "0"]);
    ends(&output, 0);
    assert!(text(&output).contains(&url), "{}", text(&output));
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"]);
    ends(&output, 0);
    assert!(text(&output).contains("--depth"));
}

#[test]
fn wrong_arguments_are_refused_with_status_2() {
    let url = "http://127.0.0.1:1/";
    refuses(&run(&[]), 2, &["<URL>", "--help"]);
    refuses(&run(&["nonsense"]), 2, &["nonsense", "http://host"]);
    refuses(&run(&[url, url]), 2, &["unexpected argument"]);
    refuses(&run(&["--pool", "0", url]), 2, &["--pool", "1..=500"]);
    refuses(&run(&["--pool", "501", url]), 2, &["--pool", "1..=500"]);
    refuses(&run(&["--depth", "51", url]), 2, &["--depth", "50"]);
    refuses(&run(&["--timeout", "0", url]), 2, &["--timeout"]);
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
    let site = tree(3, 3);
    let output = example::run(crawler(&["--pool", "1", &site.url("/")]).stdout(full));
    refuses(&output, 1, &["write", "space"]);
    assert_eq!(site.requested(), ["/"]);
}
