//! Pages of the web, fetched by the calling green thread, and what they link to. Plain HTTP only.

#![allow(dead_code, reason = "each example uses a part of it")]

mod http;
mod links;

use std::io::{self, Read};
use std::time::Duration;

use url::Url;

use self::http::Head;

/// How pages are fetched.
pub(crate) struct Fetch {
    /// How long one of them may take.
    pub(crate) timeout: Duration,
    /// Whether bodies without links are left with the server.
    pub(crate) only_html: bool,
}

/// What a server had under a URL.
pub(crate) struct Page {
    pub(crate) status: u16,
    /// How much of the body was read, in bytes.
    pub(crate) size: u64,
    /// Where it leads, each URL once, in its order.
    pub(crate) links: Vec<Url>,
}

impl Fetch {
    /// Gets one page. Switches.
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
            // What a page says about its absence leads nowhere.
            let links = if status < 300 { links::of(&html, url) } else { Vec::new() };
            return Ok(Page { status, size: html.len() as u64, links });
        }
        let size = if self.only_html { 0 } else { io::copy(body, &mut io::sink())? };
        Ok(Page { status, size, links: Vec::new() })
    }
}

/// Gets what is under a URL, and has `read` take of it what it wants, all within that time. Switches.
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
    const LONGEST: u64 = 16 << 20;
    let mut text = Vec::new();
    if body.take(LONGEST + 1).read_to_end(&mut text)? as u64 > LONGEST {
        return Err(io::Error::other(format!("a text of more than {LONGEST} bytes")));
    }
    Ok(text)
}

/// The value of an argument.
pub(crate) fn url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(mut url) if url.scheme() == "http" => {
            url.set_fragment(None);
            Ok(url)
        }
        Ok(url) if url.scheme() == "https" => Err("https is not spoken here, only http".to_owned()),
        Ok(_) => Err("not of the form http://host:port/path".to_owned()),
        Err(error) => Err(format!("not of the form http://host:port/path: {error}")),
    }
}
