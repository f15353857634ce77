//! Directories.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::{FileType, Metadata};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::at;
use crate::handle::job;
use crate::os::unix::fs::{DirBuilderExt, DirEntryExt};

/// The number of entries that one job reads.
const BATCH: usize = 256;

/// Returns an iterator over the entries within a directory, std's `read_dir`. Switches.
///
/// The iterator switches each time it reads more entries.
///
/// ```
/// for entry in greenhub::fs::read_dir(".")? {
///     println!("{}", entry?.path().display());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Like std's.
pub fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    let batch = at(path, |path| Ok(Batch::read(std::fs::read_dir(path)?)))?;
    Ok(ReadDir { batch })
}

/// An iterator over the entries in a directory, std's `ReadDir`. It reads 256 entries at a time.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct ReadDir {
    batch: Batch,
}

/// The entries of one job, and std's iterator for the next job.
struct Batch {
    entries: VecDeque<io::Result<DirEntry>>,
    /// `None` after the last entry.
    rest: Option<std::fs::ReadDir>,
}

impl Batch {
    fn read(mut rest: std::fs::ReadDir) -> Batch {
        let entry = |entry: std::fs::DirEntry| DirEntry { kind: entry.file_type().ok(), entry: Arc::new(entry) };
        let entries: VecDeque<_> = rest.by_ref().take(BATCH).map(|read| read.map(entry)).collect();
        let rest = (entries.len() == BATCH).then_some(rest);
        Batch { entries, rest }
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    /// Switches if it reads more entries. After an exit during that read the iterator is at its end.
    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        if self.batch.entries.is_empty() {
            let rest = self.batch.rest.take()?;
            match job(|| Ok(Batch::read(rest))) {
                Ok(batch) => self.batch = batch,
                Err(error) => return Some(Err(error)),
            }
        }
        self.batch.entries.pop_front()
    }
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir").field("read_ahead", &self.batch.entries.len()).finish_non_exhaustive()
    }
}

/// An entry inside of a directory, std's `DirEntry`.
pub struct DirEntry {
    entry: Arc<std::fs::DirEntry>,
    /// The type as the system returned it with the entry.
    kind: Option<FileType>,
}

impl DirEntry {
    /// Returns the full path to the file that this entry represents. Does not switch.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.entry.path()
    }

    /// Returns the file name of this directory entry without any leading path. Does not switch.
    #[must_use]
    pub fn file_name(&self) -> OsString {
        self.entry.file_name()
    }

    /// Returns the metadata for the file, without following a symbolic link. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let entry = Arc::clone(&self.entry);
        job(move || entry.metadata())
    }

    /// Returns the file type of the file. Switches if the system did not return it with the entry.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn file_type(&self) -> io::Result<FileType> {
        match self.kind {
            Some(kind) => Ok(kind),
            None => {
                let entry = Arc::clone(&self.entry);
                job(move || entry.file_type())
            }
        }
    }
}

impl DirEntryExt for DirEntry {
    fn ino(&self) -> u64 {
        self.entry.ino()
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

/// A builder used to create directories in various manners, std's `DirBuilder`.
#[derive(Debug)]
#[must_use = "nothing is created before `create`"]
pub struct DirBuilder {
    recursive: bool,
    mode: Option<u32>,
}

impl DirBuilder {
    /// Creates a new set of options: one directory at a time, default permissions.
    #[expect(clippy::new_without_default, reason = "as std's")]
    pub fn new() -> DirBuilder {
        DirBuilder { recursive: false, mode: None }
    }

    /// Indicates that directories should be created recursively.
    ///
    /// All missing parents are created, too.
    pub fn recursive(&mut self, recursive: bool) -> &mut DirBuilder {
        self.recursive = recursive;
        self
    }

    /// Creates the specified directory with the options configured in this builder. Switches.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(self.recursive);
        if let Some(mode) = self.mode {
            builder.mode(mode);
        }
        at(path, move |path| builder.create(path))
    }
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut DirBuilder {
        self.mode = Some(mode);
        self
    }
}
