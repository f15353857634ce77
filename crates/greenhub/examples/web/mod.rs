//! Fetching of web pages and their links by plain HTTP, in the calling green thread.

#![allow(dead_code, reason = "each example uses a part of it")]

mod http;
mod links;

use std::io::{self, Read};
use std::time::Duration;

use url::Url;

use self::http::Head;

/// The parameters for fetching pages.
pub(crate) struct Fetch {
    /// The time limit for one page.
    pub(crate) timeout: Duration,
    /// Whether to read only the bodies of HTML pages.
    pub(crate) only_html: bool,
}

/// A fetched page.
pub(crate) struct Page {
    pub(crate) status: u16,
    /// The number of bytes read of the body.
    pub(crate) size: u64,
    /// The links of the page in their order, each URL once.
    pub(crate) links: Vec<Url>,
}

impl Fetch {
    /// Fetches a page. Switches.
    pub(crate) fn page(&self, url: &Url) -> io::Result<Page> {
        get(url, self.timeout, |head, body| self.read(url, head, body))
    }

    fn read(&self, url: &Url, head: Head, body: &mut dyn Read) -> io::Result<Page> {
        let status = head.status;
        if let Some(target) = head.location {
            return Ok(Page { status, size: 0, links: links::resolve(url, &target).into_iter().collect() });
        }
        if head.is_html {
            let html = read_text(body)?;
            // Ignore the links of an error page.
            let links = if status < 300 { links::of(&html, url) } else { Vec::new() };
            return Ok(Page { status, size: html.len() as u64, links });
        }
        let size = if self.only_html { 0 } else { io::copy(body, &mut io::sink())? };
        Ok(Page { status, size, links: Vec::new() })
    }
}

/// Requests a URL, and calls `read` with the head and the body, all within `timeout`. Switches.
pub(crate) fn get<T>(
    url: &Url,
    timeout: Duration,
    read: impl FnOnce(Head, &mut dyn Read) -> io::Result<T>,
) -> io::Result<T> {
    greenhub::with_timeout(timeout, || {
        let (head, mut body) = http::get(url)?;
        read(head, &mut body)
    })?
}

fn read_text(body: impl Read) -> io::Result<Vec<u8>> {
    const MAX_TEXT: u64 = 16 << 20;
    let mut text = Vec::new();
    if body.take(MAX_TEXT + 1).read_to_end(&mut text)? as u64 > MAX_TEXT {
        return Err(io::Error::other(format!("the text has more than {MAX_TEXT} bytes")));
    }
    Ok(text)
}

/// Parses a URL argument.
pub(crate) fn url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(mut url) if url.scheme() == "http" => {
            url.set_fragment(None);
            Ok(url)
        }
        Ok(url) if url.scheme() == "https" => Err("https is not supported, only http".to_owned()),
        Ok(_) => Err("not of the form http://host:port/path".to_owned()),
        Err(error) => Err(format!("not of the form http://host:port/path: {error}")),
    }
}
