//! The end of a body: its length, or its chunks.

use ::http::StatusCode;
use httparse::Status;

use super::rejection::Rejection;

/// The longest line that begins a chunk, and the longest trailer section.
const MAX_LINE: usize = 4 << 10;

/// The part of a body that has not arrived.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// A number of bytes.
    Length(u64),
    /// Chunks, of which this is the next part.
    Chunked(Part),
}

/// A part of a chunked body.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// The line with the size of a chunk.
    Size,
    /// A number of bytes of a chunk.
    Data(u64),
    /// The end of the line behind the bytes of a chunk.
    DataEnd,
    /// The fields behind the last chunk, which are discarded.
    Trailers,
    /// Nothing.
    End,
}

/// The result of a look at the input.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// So many bytes of the input are data, and have been counted. More may follow.
    Data(usize),
    /// So many bytes of the input belong to the framing.
    Skip(usize),
    /// The next part is not complete.
    NeedsMore,
    /// The body is complete.
    End,
}

impl Framing {
    pub(super) fn is_complete(self) -> bool {
        matches!(self, Framing::Length(0) | Framing::Chunked(Part::End))
    }

    /// Returns the number of bytes that have yet to come, if it is known.
    pub(super) fn left(self) -> Option<u64> {
        match self {
            Framing::Length(left) => Some(left),
            Framing::Chunked(Part::End) => Some(0),
            Framing::Chunked(_) => None,
        }
    }

    /// Looks at `input`, and takes at most `room` bytes of data from it.
    pub(super) fn step(&mut self, input: &[u8], room: usize) -> Result<Step, Rejection> {
        let part = match self {
            Framing::Length(0) => return Ok(Step::End),
            Framing::Length(left) => return Ok(take_data(left, input, room)),
            Framing::Chunked(part) => part,
        };
        match part {
            // The parser takes a line without a number for the last chunk.
            Part::Size if input.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) => {
                Err(Rejection::bad("a chunk of the body begins with no size"))
            }
            Part::Size => match httparse::parse_chunk_size(input) {
                Ok(Status::Complete((length, size))) => {
                    *part = if size == 0 { Part::Trailers } else { Part::Data(size) };
                    Ok(Step::Skip(length))
                }
                Ok(Status::Partial) if input.len() < MAX_LINE => Ok(Step::NeedsMore),
                _ => Err(Rejection::bad("a chunk of the body begins with no size")),
            },
            Part::Data(left) => {
                let step = take_data(left, input, room);
                if *left == 0 {
                    *part = Part::DataEnd;
                }
                Ok(step)
            }
            Part::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    *part = Part::Size;
                    Ok(Step::Skip(2))
                }
                [] | [b'\r'] => Ok(Step::NeedsMore),
                _ => Err(Rejection::bad("a chunk of the body is longer than its size")),
            },
            Part::Trailers => match input.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    if matches!(input[..end], [] | [b'\r']) {
                        *part = Part::End;
                    }
                    Ok(Step::Skip(end + 1))
                }
                None if input.len() < MAX_LINE => Ok(Step::NeedsMore),
                None => Err(Rejection::new(
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    format!("a field behind the body is longer than {MAX_LINE} bytes"),
                )),
            },
            Part::End => Ok(Step::End),
        }
    }
}

fn take_data(left: &mut u64, input: &[u8], room: usize) -> Step {
    if input.is_empty() {
        return Step::NeedsMore;
    }
    let amount = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len()).min(room);
    *left -= amount as u64;
    Step::Data(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input`, which arrives in pieces of `size` bytes. Returns the body and the rest of the input.
    fn decode(input: &[u8], size: usize) -> Result<(Vec<u8>, Vec<u8>), String> {
        let (mut framing, mut arrived, mut body) = (Framing::Chunked(Part::Size), Vec::new(), Vec::new());
        let mut pieces = input.chunks(size);
        loop {
            match framing.step(&arrived, 3).map_err(|rejection| rejection.to_string())? {
                Step::Data(amount) => body.extend(arrived.drain(..amount)),
                Step::Skip(amount) => drop(arrived.drain(..amount)),
                Step::NeedsMore => arrived.extend_from_slice(pieces.next().ok_or("the input ends")?),
                Step::End => return Ok((body, [arrived, pieces.flatten().copied().collect()].concat())),
            }
        }
    }

    #[test]
    fn chunks_are_decoded_however_they_arrive() {
        let input = b"5\r\nhello\r\nB;name=value\r\n, the world\r\n0\r\nTrailer: x\r\n\r\nGET /";
        for size in 1..input.len() {
            let (body, rest) = decode(input, size).unwrap();
            assert_eq!((body.as_slice(), rest.as_slice()), (&b"hello, the world"[..], &b"GET /"[..]), "{size}");
        }
    }

    #[test]
    fn malformed_chunks_are_rejected() {
        for input in ["x\r\n", "\r\n", "5\r\nhello!\r\n", "fffffffffffffffff\r\n", "-1\r\n", "5 5\r\nhello\r\n"] {
            let rejected = decode(input.as_bytes(), 1).unwrap_err();
            assert!(rejected.contains("chunk"), "{input:?}: {rejected}");
        }
    }

    #[test]
    fn lines_without_an_end_are_rejected() {
        let size = format!("1;{}", "x".repeat(MAX_LINE));
        assert!(decode(size.as_bytes(), 100).unwrap_err().contains("no size"));
        let trailer = format!("0\r\n{}", "x".repeat(MAX_LINE));
        assert!(decode(trailer.as_bytes(), 100).unwrap_err().contains("a field behind the body"));
    }

    #[test]
    fn a_length_counts_down() {
        let mut framing = Framing::Length(5);
        assert_eq!(framing.step(b"hello, the world", 3).unwrap(), Step::Data(3));
        assert_eq!(framing.step(b"lo, the world", 9).unwrap(), Step::Data(2));
        assert_eq!(framing.step(b", the world", 9).unwrap(), Step::End);
        assert!(framing.is_complete());
    }
}
