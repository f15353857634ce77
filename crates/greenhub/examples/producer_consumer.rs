//! A link checker: producers put links into a queue, and a fixed number of consumers takes them out.
//!
//! `cargo run --release --example producer_consumer -- http://127.0.0.1:8000/` fetches that page and, recursively, the
//! pages on the same server that it links to. Then it lists the broken links and the pages that contain them.
//!
//! The queue is bounded. A consumer that put links into the queue could deadlock, because only consumers make room. So
//! each page has a producer of its own: a green thread that puts the links and waits for room. A link counts as done
//! when the producer of its page has finished. So `join` returns when the queue is empty and no producer is left.

mod cli;
mod web;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use greenhub::GreenPool;
use greenhub::sync::{PutError, Queue};
use url::Url;

use crate::cli::Failure;
use crate::web::Fetch;

/// Checks the links of sites: fetches pages and, recursively, the pages on the same server that they link to.
///
/// Links to other servers, and links with other schemes than http, are counted but not checked.
///
/// Exit status: 0 if no link is broken, 1 if a link is broken or after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "producer_consumer")]
struct Options {
    /// Pages to start from
    #[arg(value_name = "URL", required = true, value_parser = web::url)]
    starts: Vec<Url>,

    /// Number of links checked at the same time, up to 500
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=500))]
    consumers: u16,

    /// Capacity of the queue; producers wait while it is full
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,

    /// Maximum number of links to check; others are counted
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_links: u32,

    /// Time limit for one response, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = cli::seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Hub to use [default: the one in GREENHUB_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// The state that producers and consumers share.
struct Check {
    fetch: Fetch,
    starts: Vec<Url>,
    max_links: usize,
    /// The links to fetch.
    queue: Queue<Url>,
    /// All links that were ever put into the queue.
    links: RefCell<BTreeMap<Url, Link>>,
    /// The number of bytes read.
    bytes: Cell<u64>,
    /// The number of unchecked links to other servers.
    elsewhere: Cell<u64>,
    /// The number of unchecked links beyond `max_links`.
    beyond: Cell<u64>,
}

#[derive(Default)]
struct Link {
    /// The pages that contain the link.
    pages: Vec<Rc<Url>>,
    /// Why the link is broken, if it is.
    broken: Option<String>,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    let began = Instant::now();
    let check = Rc::new(Check {
        fetch: Fetch { timeout: options.timeout, only_html: true },
        starts: options.starts.clone(),
        max_links: options.max_links as usize,
        queue: Queue::bounded(options.queue as usize),
        links: RefCell::default(),
        bytes: Cell::new(0),
        elsewhere: Cell::new(0),
        beyond: Cell::new(0),
    });
    let consumers = GreenPool::new(options.consumers.into());
    for _ in 0..options.consumers {
        let check = Rc::clone(&check);
        consumers.spawn_n(move || check.consume()).map_err(Failure::doing("cannot begin"))?;
    }
    check.produce(None, options.starts).map_err(Failure::doing("cannot begin"))?;
    check.queue.join().map_err(Failure::doing("waiting for the last link"))?;
    // The consumers wait for more links: end them.
    consumers.kill_all();
    consumers.wait_all().map_err(Failure::doing("waiting for the consumers"))?;
    let whole = check.report(began.elapsed()).map_err(Failure::doing("cannot write the report"))?;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Check {
    /// Takes links from the queue and fetches them, until the green thread is killed.
    fn consume(self: &Rc<Check>) {
        while let Ok(url) = self.queue.get() {
            let done = Done(Rc::clone(self));
            match self.fetch.page(&url) {
                Ok(page) if page.status >= 400 => self.broken(&url, format!("status {}", page.status)),
                Ok(page) => {
                    add(&self.bytes, page.size);
                    let check = Rc::clone(self);
                    greenhub::spawn_n(move || {
                        let _done = done;
                        check.produce(Some(Rc::new(url)), page.links)
                    });
                }
                Err(error) => self.broken(&url, error.to_string()),
            }
        }
    }

    /// Puts the new links of a page into the queue. Waits while the queue is full.
    fn produce(&self, page: Option<Rc<Url>>, links: Vec<Url>) -> Result<(), io::Error> {
        for url in links {
            if !self.starts.iter().any(|start| start.origin() == url.origin()) {
                add(&self.elsewhere, 1);
            } else if self.is_new(&url, page.as_ref()) {
                self.queue.put(url).map_err(cannot_wait)?;
            }
        }
        Ok(())
    }

    /// Notes that `page` contains the link, and returns whether the link is new and to be checked.
    fn is_new(&self, url: &Url, page: Option<&Rc<Url>>) -> bool {
        let mut links = self.links.borrow_mut();
        let is_new = !links.contains_key(url);
        if is_new && links.len() >= self.max_links {
            add(&self.beyond, 1);
            return false;
        }
        links.entry(url.clone()).or_default().pages.extend(page.cloned());
        is_new
    }

    fn broken(&self, url: &Url, reason: String) {
        self.links.borrow_mut().entry(url.clone()).or_default().broken = Some(reason);
    }

    /// Prints the broken links and the totals, and returns whether no link is broken.
    fn report(&self, took: Duration) -> io::Result<bool> {
        let links = self.links.borrow();
        let mut out = io::stdout().lock();
        let mut count = 0;
        for (url, link) in links.iter() {
            let Some(reason) = &link.broken else { continue };
            count += 1;
            writeln!(out, "{url}: {reason}")?;
            let mut pages = link.pages.clone();
            pages.sort_unstable();
            for page in pages {
                writeln!(out, "    on {page}")?;
            }
        }
        let (bytes, took) = (self.bytes.get(), took.as_secs_f64());
        writeln!(out, "{} links checked, {bytes} bytes read in {took:.2} s: {count} broken", links.len())?;
        let (elsewhere, beyond) = (self.elsewhere.get(), self.beyond.get());
        writeln!(out, "not checked: {elsewhere} links to other servers, {beyond} links beyond --max-links")?;
        Ok(count == 0)
    }
}

/// Marks a link from the queue as done when it is dropped, be it by a return, a panic or a kill.
struct Done(Rc<Check>);

impl Drop for Done {
    fn drop(&mut self) {
        // `task_done` fails only if it is called more often than links were taken, and each link has one `Done`.
        let _ = self.0.queue.task_done();
    }
}

fn add(sum: &Cell<u64>, more: u64) {
    sum.set(sum.get() + more);
}

fn cannot_wait(error: PutError<Url>) -> io::Error {
    io::Error::other(error.to_string())
}
