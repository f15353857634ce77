//! Backtraces whose names are looked up later, maybe by another OS thread.

use std::fmt::{self, Display, Write};

use crate::base::unwind::{Frames, Names};

/// A text with backtraces, which are addresses until it is displayed.
///
/// Addresses must be captured by the OS thread of the greenlets, and take microseconds. The first look-up of names in a
/// process reads its debug information, which takes up to seconds.
#[derive(Debug, Default)]
pub struct Capture(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Backtrace(Frames),
}

impl Capture {
    /// Returns whether displaying it looks up names.
    #[must_use]
    pub fn has_backtraces(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Backtrace(_)))
    }

    pub(super) fn push_line(&mut self, line: impl Display) {
        if !matches!(self.0.last(), Some(Piece::Text(_))) {
            self.0.push(Piece::Text(String::new()));
        }
        if let Some(Piece::Text(text)) = self.0.last_mut() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
        }
    }

    pub(super) fn push_frames(&mut self, frames: Frames) {
        self.0.push(Piece::Backtrace(frames));
    }
}

impl Display for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Names::default();
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Backtrace(frames) => f.write_str(&frames.to_text(&mut names)),
        })
    }
}
