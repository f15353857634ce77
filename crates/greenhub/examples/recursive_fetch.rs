//! A recursive crawler: each green thread of a pool fetches a page, and spawns a green thread into the same pool for
//! each link of the page.
//!
//! `cargo run --release --example recursive_fetch -- http://127.0.0.1:8000/ --depth 2` fetches that page and the pages
//! on the same server that are up to two links away, and prints each once.
//!
//! A full pool does not deadlock: a green thread of the pool that would have to wait for room runs the new function
//! itself, at once and on its own stack. These calls nest up to `--depth` levels, so the stacks are sized for it.

mod cli;
mod web;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use greenhub::GreenPool;
use url::Url;

use crate::cli::Failure;
use crate::web::Fetch;

/// Fetches a page and, recursively, the pages on the same server that it links to. Prints the status, size and URL of
/// each.
///
/// Exit status: 0 if every page was fetched, with any HTTP status; 1 if a page was not; 2 for wrong usage.
#[derive(Parser)]
#[command(name = "recursive_fetch")]
struct Options {
    /// Page to start from
    #[arg(value_name = "URL", value_parser = web::url)]
    start: Url,

    /// Maximum number of links from the start to a page, up to 50
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=50))]
    depth: u32,

    /// Number of pages fetched at the same time, up to 500
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=500))]
    pool: u16,

    /// Time limit for one page, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = cli::seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Hub to use [default: the one in GREENHUB_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// The stack for fetching a page, in a build without optimization.
const STACK: usize = 256 << 10;
/// The part of the stack that stays in use for each level of nested calls.
const STACK_PER_LINK: usize = 12 << 10;

/// The state that the green threads of the pool share.
struct Crawl {
    fetch: Fetch,
    depth: u32,
    pool: GreenPool,
    pages: RefCell<HashMap<Url, Reached>>,
    bytes: Cell<u64>,
    failed: Cell<usize>,
    /// The failure that ends the crawl.
    failure: RefCell<Option<Failure>>,
}

/// A page that was found.
struct Reached {
    /// The length of the shortest known path from the start.
    depth: u32,
    /// The links of the page. Empty until it is fetched.
    links: Rc<[Url]>,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    greenhub::greenthread::set_default_stack_size(STACK + options.depth as usize * STACK_PER_LINK)
        .map_err(Failure::doing("cannot have stacks for this depth"))?;
    let began = Instant::now();
    let crawl = Rc::new(Crawl {
        fetch: Fetch { timeout: options.timeout, only_html: false },
        depth: options.depth,
        pool: GreenPool::new(options.pool.into()),
        pages: RefCell::default(),
        bytes: Cell::new(0),
        failed: Cell::new(0),
        failure: RefCell::default(),
    });
    crawl.reach(options.start, 0);
    crawl.pool.wait_all().map_err(Failure::doing("waiting for the last page"))?;
    if let Some(failure) = crawl.failure.take() {
        return Err(failure);
    }
    let (pages, failed) = (crawl.pages.borrow().len() - crawl.failed.get(), crawl.failed.get());
    let (bytes, seconds) = (crawl.bytes.get(), began.elapsed().as_secs_f64());
    writeln!(io::stdout(), "{pages} pages, {bytes} bytes in {seconds:.2} s; {failed} not fetched")
        .map_err(Failure::doing("cannot write"))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Crawl {
    /// Notes that a path of length `depth` leads to a page, and fetches the page if it is new.
    fn reach(self: &Rc<Crawl>, url: Url, depth: u32) {
        let mut pages = self.pages.borrow_mut();
        match pages.entry(url) {
            Entry::Vacant(place) => {
                let url = place.key().clone();
                place.insert(Reached { depth, links: Rc::default() });
                drop(pages);
                let crawl = Rc::clone(self);
                if let Err(error) = self.pool.spawn_n(move || crawl.visit(url)) {
                    self.stop(Failure::doing("cannot begin a page")(error));
                }
            }
            // A longer path may have hit the limit at this page or behind it: follow the links again.
            Entry::Occupied(mut place) if depth < place.get().depth => {
                place.get_mut().depth = depth;
                let links = Rc::clone(&place.get().links);
                drop(pages);
                self.follow(&links, depth);
            }
            Entry::Occupied(_) => (),
        }
    }

    /// Follows the links of a page at `depth`, if the limit allows.
    fn follow(self: &Rc<Crawl>, links: &[Url], depth: u32) {
        if depth < self.depth {
            links.iter().for_each(|link| self.reach(link.clone(), depth + 1));
        }
    }

    /// Fetches a page and follows its links.
    fn visit(self: &Rc<Crawl>, url: Url) {
        if self.failure.borrow().is_some() {
            return;
        }
        let page = match self.fetch.page(&url) {
            Ok(page) => page,
            Err(error) => {
                self.failed.set(self.failed.get() + 1);
                return eprintln!("recursive_fetch: {url}: {error}");
            }
        };
        self.bytes.set(self.bytes.get() + page.size);
        if let Err(error) = writeln!(io::stdout(), "{} {:>9} {url}", page.status, page.size) {
            return self.stop(Failure::doing("cannot write")(error));
        }
        let links: Rc<[Url]> = page.links.into_iter().filter(|link| link.origin() == url.origin()).collect();
        let depth = {
            let mut pages = self.pages.borrow_mut();
            let Some(reached) = pages.get_mut(&url) else { return };
            reached.links = Rc::clone(&links);
            reached.depth
        };
        self.follow(&links, depth);
    }

    /// Ends the crawl: no further page is fetched.
    fn stop(&self, failure: Failure) {
        self.failure.borrow_mut().get_or_insert(failure);
    }
}
