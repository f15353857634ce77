//! The example `feed_service` as a separate process: the answers to its clients, and its exit status.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use crate::support::closed_port::ClosedPort;
use crate::support::example;
use crate::support::example::{ends, refuses, text};
use crate::support::site::{Answer, Site, answer};
use crate::support::web_server::WebServer;

/// The largest number of bytes in a request.
const LONGEST: usize = 64 << 10;

fn run(arguments: &[&str]) -> Output {
    example::run(&mut example::command("feed_service", arguments))
}

fn start(arguments: &[&str]) -> WebServer {
    WebServer::run(&mut example::command("feed_service", arguments))
}

/// Posts these URLs to the service, and returns the status and the body of the answer.
#[track_caller]
fn post(service: &WebServer, urls: &str) -> (String, String) {
    let answer =
        service.request(&format!("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n\r\n{urls}", urls.len()));
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).expect("a status");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    (status.to_owned(), body.to_owned())
}

/// Returns the answer of the service for a feed with this content.
fn title_of(content: &str) -> String {
    let site = Site::serve([("/feed", feed(content))]);
    let service = start(&[]);
    let (status, body) = post(&service, &site.url("/feed"));
    assert_eq!(status, "200 OK");
    let title = body.strip_prefix(&format!("{}\t", site.url("/feed"))).and_then(|rest| rest.strip_suffix('\n'));
    title.unwrap_or_else(|| panic!("no line of the feed: {body}")).to_owned()
}

fn feed(content: &str) -> Answer {
    answer(&format!("200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}", content.len()), content)
}

fn rss(title: &str) -> Answer {
    feed(&format!("<?xml version=\"1.0\"?>\n<rss><channel><title>{title}</title></channel></rss>"))
}

#[test]
fn titles_come_in_the_order_of_the_request() {
    let site = Site::serve((0..20).map(|it| (format!("/{it}"), rss(&format!("Feed {it}")))));
    let service = start(&["--pool", "7"]);
    let order: Vec<usize> = (0..20).map(|it| it * 7 % 20).collect();
    let urls: String = order.iter().map(|it| site.url(&format!("/{it}\r\n"))).collect();
    let expected: String = order.iter().map(|it| site.url(&format!("/{it}\tFeed {it}\n"))).collect();
    assert_eq!(post(&service, &urls), ("200 OK".to_owned(), expected));
    assert!((2..=7).contains(&site.most_at_once()), "{}", site.most_at_once());
    let output = service.interrupt();
    ends(&output, 0);
    assert_eq!(text(&output), "1 clients, 20 feeds, 20 titles\n");
}

#[test]
fn clients_share_the_pool() {
    let site = Site::serve((0..10).map(|it| (format!("/{it}"), rss("Title"))));
    let service = start(&["--pool", "3"]);
    let urls: String = (0..10).map(|it| site.url(&format!("/{it}\n"))).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(post(&service, &urls).1.lines().count(), 10));
        }
    });
    assert!((2..=3).contains(&site.most_at_once()), "{}", site.most_at_once());
    assert_eq!(text(&service.interrupt()), "4 clients, 40 feeds, 40 titles\n");
}

#[test]
fn errors_are_printed_in_the_order_given() {
    let site = Site::serve([
        ("/first", rss("First")),
        ("/early", answer("200 OK\r\nContent-Length: 100", "<rss><channel>")),
        ("/last", rss("Last")),
    ]);
    let closed = ClosedPort::new();
    let unused = closed.address;
    let service = start(&[]);
    let urls = [
        site.url("/first"),
        "nonsense".to_owned(),
        site.url("/gone"),
        site.url("/early"),
        format!("http://{unused}/"),
        site.url("/last"),
    ];
    let (status, body) = post(&service, &urls.join("\n"));
    assert_eq!(status, "200 OK");
    let lines: Vec<(&str, &str)> = body.lines().map(|line| line.split_once('\t').expect("a tab")).collect();
    assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), urls);
    let titles: Vec<&str> = lines.iter().map(|line| line.1).collect();
    assert_eq!((titles[0], titles[5]), ("First", "Last"));
    assert!(titles[1].starts_with("error: not of the form http://"), "{body}");
    assert_eq!(titles[2..4], ["error: status 404", "error: the page ended 86 bytes early"]);
    assert!(titles[4].starts_with("error: cannot connect: "), "{body}");
    assert_eq!(text(&service.interrupt()), "1 clients, 6 feeds, 2 titles\n");
}

#[test]
fn a_silent_server_costs_its_own_feed_only() {
    let site = Site::serve([("/silent", Answer::Silence), ("/well", rss("Well"))]);
    let (silent, well) = (site.url("/silent"), site.url("/well"));
    let ask = |limit: &str| {
        let service = start(&["--timeout", limit]);
        let answer = post(&service, &format!("{silent}\n{well}\n"));
        ends(&service.interrupt(), 0);
        answer
    };
    let (limit, answer) = example::with_time(ask, |(_, body)| !body.contains(&format!("{well}\terror: timed out")));
    let expected = format!("{silent}\terror: timed out after {limit} seconds\n{well}\tWell\n");
    assert_eq!(answer, ("200 OK".to_owned(), expected));
}

#[test]
fn titles_of_items_and_images_are_ignored() {
    let content = "<rss><channel><link/><image><title>Image</title></image><item><title>Item</title></item>\
                   <title>Channel</title></channel></rss>";
    assert_eq!(title_of(content), "Channel");
}

#[test]
fn the_title_of_an_atom_feed_is_found() {
    let content = "<feed xmlns='http://www.w3.org/2005/Atom'><entry><title>Entry</title></entry>\
                   <title type='xhtml'><div>An <b>Atom</b> feed</div></title></feed>";
    assert_eq!(title_of(content), "An Atom feed");
}

#[test]
fn a_title_is_printed_in_one_line() {
    let content = "<rss><channel><title>\n\tTwo\u{1b}\n lines &amp; &#8211;\u{a0}more </title></channel></rss>";
    assert_eq!(title_of(content), "Two lines & – more");
}

#[test]
fn a_title_may_be_in_cdata() {
    let content = "<rss><channel><title><![CDATA[1 > 0 & <b>so on</b>]]></title></channel></rss>";
    assert_eq!(title_of(content), "1 > 0 & <b>so on</b>");
}

#[test]
fn unclosed_elements_hide_no_title() {
    assert_eq!(title_of("<rss><channel><item><p>text<br></item><title>Sloppy</title>"), "Sloppy");
}

#[test]
fn a_long_title_is_cut() {
    let title = "ä".repeat(1000);
    assert_eq!(title_of(&format!("<feed><title>{title}</title></feed>")), "ä".repeat(300));
}

#[test]
fn a_feed_without_a_title_is_an_error() {
    let none = "error: no feed with a title";
    assert_eq!(title_of(""), none);
    assert_eq!(title_of("<html><head><title>A page</title></head></html>"), none);
    assert_eq!(title_of("<rss><channel><title> </title></channel></rss>"), none);
    assert_eq!(title_of("<rss><channel><title>It does not end"), none);
    assert_eq!(title_of(&format!("{}<feed><title>Deep</title>", "<a>".repeat(200))), none);
}

#[test]
fn a_feed_is_not_read_to_its_end() {
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n<feed><title>Early</title><entry></entry>";
    let site = Site::serve([("/", Answer::Bytes(endless.into()))]);
    let service = start(&[]);
    assert_eq!(post(&service, &site.url("/")).1, format!("{}\tEarly\n", site.url("/")));
}

#[test]
fn a_title_far_into_a_feed_is_not_looked_for() {
    let far = format!("<feed><!--{}--><title>Far</title></feed>", "x".repeat(1 << 20));
    assert_eq!(title_of(&far), "error: no feed with a title");
}

#[test]
fn a_request_without_urls_is_refused_with_400() {
    let service = start(&[]);
    for body in ["", "\r\n \n"] {
        let (status, reply) = post(&service, body);
        assert_eq!((status.as_str(), reply.contains("no URL")), ("400 Bad Request", true), "{reply}");
    }
}

#[test]
fn a_malformed_request_is_refused_with_400() {
    let service = start(&[]);
    for request in ["what?\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"] {
        let answer = service.request(request);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    }
}

#[test]
fn a_body_that_is_not_utf_8_is_refused_with_400() {
    let service = start(&[]);
    let mut stream = service.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n\xff\n").expect("the peer reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the peer sends UTF-8");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("UTF-8"), "{answer}");
}

#[test]
fn other_methods_are_refused_with_405() {
    let service = start(&[]);
    for method in ["GET", "HEAD", "PUT"] {
        let answer = service.request(&format!("{method} / HTTP/1.1\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
        assert!(answer.contains("\r\nAllow: POST\r\n"), "{answer}");
    }
}

#[test]
fn a_body_without_a_length_is_refused_with_411() {
    let service = start(&[]);
    let answer = service.request("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 411 Length Required\r\n"), "{answer}");
}

#[test]
fn a_body_over_the_limit_is_refused_with_413() {
    let service = start(&[]);
    let longest = format!("nonsense{}", " ".repeat(LONGEST - 8));
    assert_eq!(post(&service, &longest).0, "200 OK");
    let (status, reply) = post(&service, &format!("{longest} "));
    assert_eq!(status, "413 Content Too Large");
    assert!(reply.contains(&LONGEST.to_string()), "{reply}");
    let mut stream = service.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n").expect("the peer reads");
    let mut answer = String::new();
    // The answer comes before any part of the body.
    stream.read_to_string(&mut answer).expect("the peer sends UTF-8");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn a_client_that_expects_100_gets_it() {
    let service = start(&[]);
    let mut stream = service.connect();
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
    let head = b"POST / HTTP/1.1\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).expect("the peer reads");
    let mut go = [0; 25];
    stream.read_exact(&mut go).expect("a word");
    assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"nonsense").expect("the peer reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the peer sends UTF-8");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("nonsense\terror: "), "{answer}");
}

#[test]
fn an_unfinished_request_times_out() {
    let service = start(&["--client-timeout", "0.2"]);
    let mut slow = service.connect();
    slow.write_all(b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\nnon").expect("the peer reads");
    assert_eq!(slow.read(&mut [0]).expect("the end"), 0);
    ends(&service.interrupt(), 0);
}

#[test]
fn a_started_request_is_answered_when_the_service_ends() {
    // The request for the silent page is observed, and keeps the service busy until its timeout.
    let site = Site::serve([("/silent", Answer::Silence), ("/well", rss("Well"))]);
    let (silent, well) = (site.url("/silent"), site.url("/well"));
    let body = format!("{silent}\n{well}");
    let ask = |limit: &str| {
        let (service, before) = (start(&["--timeout", limit]), site.requested().len());
        let mut client = service.connect();
        write!(client, "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("the peer reads");
        let mut answer = String::new();
        let output = std::thread::scope(|scope| {
            let reading = scope.spawn(|| client.read_to_string(&mut answer).expect("the peer sends UTF-8"));
            while site.requested().len() < before + 2 && !reading.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            service.interrupt()
        });
        (answer, output)
    };
    // On a busy machine the other page or the answer may be late too.
    let (limit, (answer, output)) = example::with_time(ask, |(answer, _)| answer.ends_with("\tWell\n"));
    let expected = format!("\r\n\r\n{silent}\terror: timed out after {limit} seconds\n{well}\tWell\n");
    assert!(answer.ends_with(&expected), "{answer}");
    ends(&output, 0);
    assert_eq!(text(&output), "1 clients, 2 feeds, 1 titles\n");
}

#[test]
fn a_silent_client_does_not_delay_the_end_of_the_service() {
    let service = start(&["--timeout", "0.1"]);
    let mut silent = service.connect();
    // The service has accepted the silent client by then.
    assert_eq!(post(&service, "nonsense").0, "200 OK");
    let output = service.interrupt();
    ends(&output, 0);
    assert_eq!(silent.read(&mut [0]).expect("the end"), 0);
    assert_eq!(text(&output), "2 clients, 1 feeds, 0 titles\n");
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"]);
    ends(&output, 0);
    assert!(text(&output).contains("--client-timeout"));
}

#[test]
fn wrong_arguments_are_a_one_line_error() {
    refuses(&run(&["nonsense"]), 2, &["nonsense", "--help"]);
    refuses(&run(&["--pool", "0"]), 2, &["--pool", "1..=10000"]);
    refuses(&run(&["--timeout", "0"]), 2, &["--timeout"]);
    refuses(&run(&["--client-timeout", "soon"]), 2, &["--client-timeout", "soon"]);
    for address in ["nowhere", ":80", "127.0.0.1:http"] {
        refuses(&run(&["--listen", address]), 2, &[address, "HOST:PORT"]);
    }
    refuses(&run(&["--hub", "carrier pigeon"]), 2, &["carrier pigeon"]);
}

#[test]
fn a_port_in_use_is_refused_with_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("the listener has an address").to_string();
    refuses(&run(&["--listen", &address]), 1, &["cannot listen on", &address, "in use"]);
}
