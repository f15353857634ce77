//! Options for opening files.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{File, at, fifo};
use crate::handle::{FileKind, Handle, kind};
use crate::os::unix::fs::OpenOptionsExt;

/// Options and flags which can be used to configure how a file is opened. std's `OpenOptions`.
///
/// ```
/// use greenhub::fs::OpenOptions;
/// use std::io::Write;
/// # let path = std::env::temp_dir().join(format!("greenstd-options-{}", std::process::id()));
/// for line in ["one\n", "two\n"] {
///     let mut log = OpenOptions::new().append(true).create(true).open(&path)?;
///     log.write_all(line.as_bytes())?;
/// }
/// assert_eq!(greenhub::fs::read_to_string(&path)?, "one\ntwo\n");
/// # greenhub::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct OpenOptions {
    options: std::fs::OpenOptions,
    // The settings that std's options do not return.
    pub(super) read: bool,
    pub(super) write: bool,
    append: bool,
    pub(super) flags: i32,
}

/// An open file, or a named pipe whose opening has to wait.
pub(super) enum Opened {
    File(std::fs::File, FileKind),
    /// The green thread has to wait for the other side.
    Fifo(fifo::Unopened),
}

impl OpenOptions {
    /// Creates a blank new set of options ready for configuration.
    #[expect(clippy::new_without_default, reason = "as std's")]
    pub fn new() -> OpenOptions {
        OpenOptions { options: std::fs::OpenOptions::new(), read: false, write: false, append: false, flags: 0 }
    }

    /// Sets the option for read access.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.options.read(read);
        self.read = read;
        self
    }

    /// Sets the option for write access.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.options.write(write);
        self.write = write;
        self
    }

    /// Sets the option for the append mode: each write goes to the present end.
    pub fn append(&mut self, append: bool) -> &mut OpenOptions {
        self.options.append(append);
        self.append = append;
        self
    }

    /// Sets the option for truncating a previous file.
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.options.truncate(truncate);
        self
    }

    /// Sets the option to create a new file, or open it if it already exists.
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.options.create(create);
        self
    }

    /// Sets the option to create a new file, failing if it already exists.
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.options.create_new(create_new);
        self
    }

    /// Opens a file at `path` with the options specified by `self`. Switches.
    ///
    /// A green thread that still waits for an earlier descriptor of the same number is woken with an error. For a named
    /// pipe it waits, as std does, until the other side is open. Only the calling green thread waits, and no pool
    /// thread.
    ///
    /// # Errors
    ///
    /// Like std's.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        let options = self.clone();
        let opened = at(path, move |path| options.open_now(&path))?;
        self.finish(opened)
    }

    /// Runs the part of opening a file that belongs on a pool thread.
    pub(super) fn open_now(&self, path: &Path) -> io::Result<Opened> {
        if let Some(fifo) = fifo::find(path, self)? {
            return Ok(Opened::Fifo(fifo));
        }
        let file = self.options.open(path)?;
        let kind = kind(&file)?;
        Ok(Opened::File(file, kind))
    }

    /// Runs the part of opening a file that belongs on the green thread.
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

    /// Returns true if the options ask for writing, at the end or elsewhere.
    pub(super) fn writes(&self) -> bool {
        self.write || self.append
    }
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.options.mode(mode);
        self
    }

    fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.options.custom_flags(flags);
        self.flags = flags;
        self
    }
}
