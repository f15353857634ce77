//! The head of a request.

use std::mem::MaybeUninit;

use ::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use ::http::uri::Authority;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use httparse::Status;

use super::body::too_large;
use super::framing::{Framing, Part};
use super::rejection::Rejection;
use super::server::Server;

/// The most fields that any server accepts.
pub(super) const MOST_HEADERS: usize = 256;

/// The head of a request, with its meaning for the connection.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Request<()>,
    pub(super) framing: Framing,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// Whether the client may send another request.
    pub(super) keep: bool,
}

/// Parses the head at the beginning of `input`. Returns it with its length, or `None` if it is not complete.
pub(super) fn parse(input: &[u8], server: &Server) -> Result<Option<(Head, usize)>, Rejection> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let fields = &mut fields[..server.max_headers];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(input, fields) {
        Ok(Status::Complete(length)) if length <= server.max_head => length,
        Ok(Status::Partial) if input.len() < server.max_head => return Ok(None),
        Ok(_) => return Err(too_long(input, server.max_head)),
        Err(error) => return Err(not_http(error, input, server)),
    };
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let method = method(parsed.method.unwrap_or_default(), server)?;
    let target = parsed.path.unwrap_or_default();
    let uri = Uri::try_from(target).map_err(|error| Rejection::bad(format!("not a target: {error}")))?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let bad = |error: ::http::Error| Rejection::bad(format!("not a field: {error}"));
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| bad(error.into()))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|error| bad(error.into()))?;
        headers.append(name, value);
    }
    check_host(&headers, version)?;
    let framing = framing(&headers, version, server.max_body)?;
    let expects_continue = expects_continue(&headers, version)?;
    let keep = keep(&headers, version);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(Some((Head { request, framing, expects_continue, keep }, length)))
}

fn too_long(input: &[u8], max: usize) -> Rejection {
    let line = request_line(input);
    // The last line of the input has no end yet.
    if line.len() >= max || !input.trim_ascii_start()[line.len()..].contains(&b'\n') {
        return Rejection::new(StatusCode::URI_TOO_LONG, format!("the request line is longer than {max} bytes"));
    }
    Rejection::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, format!("the head is longer than {max} bytes"))
}

fn not_http(error: httparse::Error, input: &[u8], server: &Server) -> Rejection {
    match error {
        _ if request_line(input).len() > server.max_head => too_long(input, server.max_head),
        httparse::Error::TooManyHeaders => Rejection::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!("the head has more than {} fields", server.max_headers),
        ),
        httparse::Error::Version if has_other_version(request_line(input)) => {
            Rejection::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "the versions of HTTP are 1.0 and 1.1")
        }
        error => Rejection::bad(format!("not an HTTP request: {error}")),
    }
}

/// Returns the first line of a head. Empty lines before it are skipped.
fn request_line(input: &[u8]) -> &[u8] {
    input.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Returns whether a request line is well-formed, with a version of HTTP at its end.
fn has_other_version(line: &[u8]) -> bool {
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let version = words.nth(2).filter(|_| words.next().is_none());
    match version.and_then(|version| version.strip_prefix(b"HTTP/")) {
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        Some([major]) => major.is_ascii_digit(),
        _ => false,
    }
}

fn method(name: &str, server: &Server) -> Result<Method, Rejection> {
    let method = Method::from_bytes(name.as_bytes()).map_err(|_| Rejection::bad("not a method"))?;
    let unsupported = |status| Err(Rejection::new(status, format!("{method} is not supported")));
    match &server.methods {
        // A tunnel would need the connection itself.
        _ if method == Method::CONNECT => unsupported(StatusCode::NOT_IMPLEMENTED),
        Some(methods) if !methods.contains(&method) => {
            unsupported(if is_standard(&method) { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_IMPLEMENTED })
        }
        _ => Ok(method),
    }
}

fn is_standard(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::OPTIONS
            | Method::TRACE
            | Method::PATCH
    )
}

/// Checks the field `Host`: a request without it may be meant for another server.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Rejection> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Rejection::bad("more than one Host")),
        (None, None) if version == Version::HTTP_11 => return Err(Rejection::bad("no Host")),
        (host, None) => host.map_or(&b""[..], HeaderValue::as_bytes),
    };
    // The host may be empty, for a target that has none.
    if host.is_empty() || Authority::try_from(host).is_ok_and(|host| !host.as_str().contains('@')) {
        return Ok(());
    }
    Err(Rejection::bad("the Host is not a host"))
}

/// Returns how the body ends. Two interpretations of one request are the way to smuggle another one past a proxy, so a
/// head that contradicts itself is rejected.
fn framing(headers: &HeaderMap, version: Version, max: u64) -> Result<Framing, Rejection> {
    let mut codings = items(headers, &TRANSFER_ENCODING);
    let first = codings.next();
    let lengths = items(headers, &CONTENT_LENGTH);
    if let Some(first) = first {
        let (last, is_only) = codings.fold((first, true), |_, last| (last, false));
        let is_chunked = last.eq_ignore_ascii_case("chunked");
        return match is_only {
            _ if version == Version::HTTP_10 => Err(Rejection::bad("HTTP/1.0 has no Transfer-Encoding")),
            _ if headers.contains_key(CONTENT_LENGTH) => {
                Err(Rejection::bad("both Transfer-Encoding and Content-Length"))
            }
            _ if !is_chunked => Err(Rejection::bad("the last Transfer-Encoding is not chunked")),
            true => Ok(Framing::Chunked(Part::Size)),
            false => Err(Rejection::new(StatusCode::NOT_IMPLEMENTED, "the only Transfer-Encoding is chunked")),
        };
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(Rejection::bad("an empty Transfer-Encoding"));
    }
    let mut length = None;
    for text in lengths {
        if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(Rejection::bad(format!("not a Content-Length: {text:?}")));
        }
        // A number that overflows is above any limit, and so is the greatest one.
        let number = text.parse().unwrap_or(u64::MAX);
        if length.replace(number).is_some_and(|earlier| earlier != number) {
            return Err(Rejection::bad("more than one Content-Length"));
        }
    }
    if length.is_none() && headers.contains_key(CONTENT_LENGTH) {
        return Err(Rejection::bad("an empty Content-Length"));
    }
    let length = length.unwrap_or(0);
    if length > max { Err(too_large(max)) } else { Ok(Framing::Length(length)) }
}

fn expects_continue(headers: &HeaderMap, version: Version) -> Result<bool, Rejection> {
    let mut expects = false;
    for expectation in items(headers, &EXPECT) {
        if !expectation.eq_ignore_ascii_case("100-continue") {
            let reason = format!("the expectation {expectation:?} is unknown");
            return Err(Rejection::new(StatusCode::EXPECTATION_FAILED, reason));
        }
        // A client of the older version does not know the response.
        expects = version == Version::HTTP_11;
    }
    Ok(expects)
}

fn keep(headers: &HeaderMap, version: Version) -> bool {
    let has = |option: &str| items(headers, &CONNECTION).any(|item| item.eq_ignore_ascii_case(option));
    !has("close") && (version == Version::HTTP_11 || has("keep-alive"))
}

/// Returns the items of a field that is a list. A value that is not ASCII is one item, which equals none.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("\u{fffd}"));
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
}
