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

/// How many entries are read by one job.
const BATCH: usize = 256;

/// Lists a directory, std's `read_dir`. Switches, and so does the iterator now and then.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// for entry in greenstd::fs::read_dir(".")? {
///     println!("{}", entry?.path().display());
/// }
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// As std's.
pub fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    let batch = at(path, |path| Ok(Batch::read(std::fs::read_dir(path)?)))?;
    Ok(ReadDir { batch })
}

/// The entries of a directory, std's `ReadDir`: 256 are read at a time.
pub struct ReadDir {
    batch: Batch,
}

/// What was read, and what goes on with it.
struct Batch {
    entries: VecDeque<io::Result<DirEntry>>,
    /// `None` after the last one.
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

    /// A caller who is killed while it switches finds no more entries.
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

/// An entry of a directory, std's `DirEntry`.
pub struct DirEntry {
    entry: Arc<std::fs::DirEntry>,
    /// Learned with the entry itself.
    kind: Option<FileType>,
}

impl DirEntry {
    /// The path of the directory, as it was given, and the name. Does not switch.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.entry.path()
    }

    /// The name. Does not switch.
    #[must_use]
    pub fn file_name(&self) -> OsString {
        self.entry.file_name()
    }

    /// The number of the file, std's `DirEntryExt::ino`. Does not switch.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.entry.ino()
    }

    /// What is known of it, of a symbolic link itself. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let entry = Arc::clone(&self.entry);
        job(move || entry.metadata())
    }

    /// What kind of file it is. Switches if that was not told with the entry.
    ///
    /// # Errors
    ///
    /// As std's.
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

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

/// How directories are made, std's `DirBuilder`.
#[derive(Debug)]
pub struct DirBuilder {
    recursive: bool,
    mode: Option<u32>,
}

impl DirBuilder {
    /// One directory at a time, with the permissions that are usual.
    #[expect(clippy::new_without_default, reason = "as std's")]
    #[must_use]
    pub fn new() -> DirBuilder {
        DirBuilder { recursive: false, mode: None }
    }

    /// Makes those above it that are missing, too.
    pub fn recursive(&mut self, recursive: bool) -> &mut DirBuilder {
        self.recursive = recursive;
        self
    }

    /// The permissions, std's `DirBuilderExt::mode`.
    pub fn mode(&mut self, mode: u32) -> &mut DirBuilder {
        self.mode = Some(mode);
        self
    }

    /// Makes a directory. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(self.recursive);
        if let Some(mode) = self.mode {
            builder.mode(mode);
        }
        at(path, move |path| builder.create(path))
    }
}
