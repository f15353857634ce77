//! How files are opened.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{File, at, fifo};
use crate::handle::{FileKind, Handle, kind};

/// How a file is opened, std's `OpenOptions`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::fs::OpenOptions;
/// use std::io::Write;
/// # let path = std::env::temp_dir().join(format!("greenstd-options-{}", std::process::id()));
/// for line in ["one\n", "two\n"] {
///     let mut log = OpenOptions::new().append(true).create(true).open(&path)?;
///     log.write_all(line.as_bytes())?;
/// }
/// assert_eq!(greenstd::fs::read_to_string(&path)?, "one\ntwo\n");
/// # greenstd::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    options: std::fs::OpenOptions,
    /// The directions, and the flags of the program, which std does not tell.
    pub(super) read: bool,
    pub(super) write: bool,
    append: bool,
    pub(super) flags: i32,
}

/// An open file, or a named pipe that cannot be opened without waiting for more than a disk.
pub(super) enum Opened {
    File(std::fs::File, FileKind),
    /// Its other side is to be waited for.
    Fifo(fifo::Unopened),
}

impl OpenOptions {
    /// Nothing is allowed at first.
    #[expect(clippy::new_without_default, reason = "as std's")]
    #[must_use]
    pub fn new() -> OpenOptions {
        OpenOptions { options: std::fs::OpenOptions::new(), read: false, write: false, append: false, flags: 0 }
    }

    /// For reading.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.options.read(read);
        self.read = read;
        self
    }

    /// For writing.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.options.write(write);
        self.write = write;
        self
    }

    /// For writing at the end, wherever that is at the time.
    pub fn append(&mut self, append: bool) -> &mut OpenOptions {
        self.options.append(append);
        self.append = append;
        self
    }

    /// Empties a file that is there.
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.options.truncate(truncate);
        self
    }

    /// Makes a file that is not there.
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.options.create(create);
        self
    }

    /// Makes the file, and fails if it is there.
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.options.create_new(create_new);
        self
    }

    /// The permissions of a file that is made, std's `OpenOptionsExt::mode`.
    pub fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.options.mode(mode);
        self
    }

    /// More flags for the system, std's `OpenOptionsExt::custom_flags`.
    pub fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.options.custom_flags(flags);
        self.flags = flags;
        self
    }

    /// Opens the file at a path. A green thread that still waits for a descriptor that had its number before is woken
    /// with an error. Switches.
    ///
    /// A named pipe is waited for as std does, until its other side is open too; only the calling green thread waits, and
    /// no OS thread of the pool does.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        let options = self.clone();
        let opened = at(path, move |path| options.open_now(&path))?;
        self.finish(opened)
    }

    /// The part of opening a file that an OS thread of the pool does.
    pub(super) fn open_now(&self, path: &Path) -> io::Result<Opened> {
        if let Some(fifo) = fifo::find(path, self)? {
            return Ok(Opened::Fifo(fifo));
        }
        let file = self.options.open(path)?;
        let kind = kind(&file)?;
        Ok(Opened::File(file, kind))
    }

    /// The part that the green thread does.
    pub(super) fn finish(&self, opened: Opened) -> io::Result<File> {
        let (file, kind) = match opened {
            Opened::File(file, kind) => (file, kind),
            Opened::Fifo(fifo) => (fifo.open(self)?, FileKind::Stream),
        };
        hub_core::notify_opened(std::os::fd::AsRawFd::as_raw_fd(&file));
        Ok(File(Handle::opened(file, kind)?))
    }

    pub(super) fn std(&self) -> &std::fs::OpenOptions {
        &self.options
    }

    /// Whether the file is to be written, at its end or elsewhere.
    pub(super) fn writes(&self) -> bool {
        self.write || self.append
    }
}
