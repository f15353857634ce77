//! Extraction of the title of a feed.

use std::io::{self, ErrorKind, Read};

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Emitter, ForwardingEmitter, IoReader, Token, Tokenizer};

/// The number of bytes in which to look for the title.
const MAX_BYTES: u64 = 1 << 20;

/// The maximum nesting of elements before the title.
const MAX_DEPTH: usize = 100;

/// The maximum number of characters of a title.
const MAX_TITLE: usize = 300;

/// Returns the title of an RSS or Atom feed, in one line.
///
/// Reads little beyond the title, and tolerates malformed XML. The title must be a child of the `channel` of RSS or of
/// the `feed` of Atom, because items and images have titles, too.
pub(crate) fn of(feed: impl Read) -> io::Result<String> {
    let input = IoReader::new_with_buffer_size::<4096>(feed.take(MAX_BYTES));
    // The names of the open elements, from the root.
    let mut elements: Vec<Vec<u8>> = Vec::new();
    // The depth of the title element while it is open, and its text.
    let mut title = None;
    let mut text = Vec::new();
    for token in Tokenizer::new_with_emitter(input, Xml::default()) {
        match token? {
            Token::StartTag(tag) if !tag.self_closing => {
                elements.push(tag.name.0);
                if title.is_none() && is_title(&elements) {
                    title = Some(elements.len());
                }
            }
            Token::EndTag(tag) => {
                let ended = elements.iter().rposition(|name| *name == *tag.name);
                elements.truncate(ended.unwrap_or(elements.len()));
                if title.is_some_and(|depth| elements.len() < depth) {
                    return in_one_line(&text);
                }
            }
            Token::String(piece) if title.is_some() => text.extend_from_slice(&piece),
            _ => {}
        }
        if elements.len() > MAX_DEPTH {
            break;
        }
    }
    Err(no_title())
}

fn in_one_line(text: &[u8]) -> io::Result<String> {
    let text = String::from_utf8_lossy(text).replace(char::is_control, " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() { Err(no_title()) } else { Ok(words.join(" ").chars().take(MAX_TITLE).collect()) }
}

fn no_title() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "no feed with a title")
}

/// Returns whether the last of the open elements is the title of the feed.
fn is_title(elements: &[Vec<u8>]) -> bool {
    matches!(elements, [.., parent, title] if title == b"title" && (parent == b"channel" || parent == b"feed"))
}

/// An emitter of XML tokens: unlike HTML, XML allows CDATA everywhere.
#[derive(Default)]
struct Xml(DefaultEmitter);

impl ForwardingEmitter for Xml {
    type Token = Token;

    fn inner(&mut self) -> &mut impl Emitter<Token = Token> {
        &mut self.0
    }

    fn adjusted_current_node_present_but_not_in_html_namespace(&mut self) -> bool {
        true
    }
}
