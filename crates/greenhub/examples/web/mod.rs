//! Pages of the web, fetched by the calling green thread, and what they link to. Plain HTTP only.

mod http;
mod links;

use std::io::{self, Read};
use std::time::Duration;

use url::Url;

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
        greenhub::with_timeout(self.timeout, || self.without_limit(url))?
    }

    fn without_limit(&self, url: &Url) -> io::Result<Page> {
        let (head, body) = http::get(url)?;
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
        let size = if self.only_html { 0 } else { io::copy(&mut { body }, &mut io::sink())? };
        Ok(Page { status, size, links: Vec::new() })
    }
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
