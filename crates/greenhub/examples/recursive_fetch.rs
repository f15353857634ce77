//! A crawler whose workers give each other work: a green thread that has fetched a page spawns one for each link of it,
//! into the pool of which it is one itself.
//!
//! `cargo run --release --example recursive_fetch -- http://127.0.0.1:8000/ --depth 2` fetches that page, what it links
//! to on the same server, and what that links to, and prints each once.
//!
//! A pool that is full does not deadlock: what a worker would have to wait for, it runs itself, at once and on its own
//! stack. As many of these runs may be within each other as `--depth` says, for which the stacks are made large enough.

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

/// Fetches a page and, on the same server, what it links to, recursively; prints the status, size and URL of each.
///
/// Exit status: 0 if every page was fetched, whatever its status; 1 if one was not; 2 for wrong use.
#[derive(Parser)]
#[command(name = "recursive_fetch")]
struct Options {
    /// Where to begin
    #[arg(value_name = "URL", value_parser = web::url)]
    start: Url,

    /// How many links away a page may be, up to 50
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=50))]
    depth: u32,

    /// How many pages are fetched at the same time, up to 500
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=500))]
    pool: u16,

    /// How long one page may take
    #[arg(long, value_name = "S", default_value = "10", value_parser = cli::seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Which hub to use [default: that of EVENTLET_HUB, or the best of this system]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// What fetching a page takes of a stack, and what stays there of it, without optimisation, while links are followed.
const STACK: usize = 256 << 10;
const STACK_PER_LINK: usize = 12 << 10;

/// What the workers share.
struct Crawl {
    fetch: Fetch,
    depth: u32,
    pool: GreenPool,
    pages: RefCell<HashMap<Url, Reached>>,
    bytes: Cell<u64>,
    failed: Cell<usize>,
    /// What ends the crawl.
    failure: RefCell<Option<Failure>>,
}

/// A page that is fetched, or was.
struct Reached {
    /// By the shortest way that is known.
    depth: u32,
    /// Once it is there.
    links: Rc<[Url]>,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    greenhub::set_default_stack_size(STACK + options.depth as usize * STACK_PER_LINK)
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
    /// A way of this length leads to a page.
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
            // A way that was longer may have ended at this page, or at one behind it.
            Entry::Occupied(mut place) if depth < place.get().depth => {
                place.get_mut().depth = depth;
                let links = Rc::clone(&place.get().links);
                drop(pages);
                self.follow(&links, depth);
            }
            Entry::Occupied(_) => (),
        }
    }

    fn follow(self: &Rc<Crawl>, links: &[Url], depth: u32) {
        if depth < self.depth {
            links.iter().for_each(|link| self.reach(link.clone(), depth + 1));
        }
    }

    /// Fetches a page, and follows its links.
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

    /// Nothing new is begun.
    fn stop(&self, failure: Failure) {
        self.failure.borrow_mut().get_or_insert(failure);
    }
}
