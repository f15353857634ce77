//! The links of a page.

use std::collections::HashSet;

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};
use url::Url;

/// The elements with links, each with the attribute that holds the URL.
const LEADING: &[(&[u8], &[u8])] = &[
    (b"a", b"href"),
    (b"area", b"href"),
    (b"audio", b"src"),
    (b"embed", b"src"),
    (b"frame", b"src"),
    (b"iframe", b"src"),
    (b"img", b"src"),
    (b"link", b"href"),
    (b"script", b"src"),
    (b"source", b"src"),
    (b"video", b"src"),
];

/// Returns the HTTP links of a page in their order, each URL once. Invalid URLs are skipped.
pub(super) fn of(html: &[u8], page: &Url) -> Vec<Url> {
    let mut emitter = DefaultEmitter::default();
    // The text of a script or style may look like elements: let the tokenizer switch states.
    emitter.naively_switch_states(true);
    let mut base = page.clone();
    let mut links = Vec::new();
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        let Token::StartTag(tag) = token else { continue };
        let name: &[u8] = &tag.name;
        let value = |attribute: &[u8]| tag.attributes.get(attribute).map(|value| String::from_utf8_lossy(value));
        if name == b"base" {
            base = value(b"href").and_then(|text| base.join(&text).ok()).unwrap_or(base);
        }
        let attribute = LEADING.iter().find(|(leading, _)| *leading == name).map(|(_, attribute)| *attribute);
        links.extend(attribute.and_then(value).and_then(|text| resolve(&base, &text)));
    }
    let mut seen = HashSet::new();
    links.retain(|link: &Url| seen.insert(link.clone()));
    links
}

/// Resolves `text` against `base`. Returns `None` if the result is not an HTTP URL.
pub(super) fn resolve(base: &Url, text: &str) -> Option<Url> {
    let mut url = base.join(text).ok()?;
    // A fragment names a part of the same page.
    url.set_fragment(None);
    matches!(url.scheme(), "http" | "https").then_some(url)
}
