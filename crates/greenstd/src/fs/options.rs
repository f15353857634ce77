//! How files are opened.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{File, at};
use crate::handle::{Handle, kind};

/// How a file is opened, std's `OpenOptions`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
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
pub struct OpenOptions(std::fs::OpenOptions);

impl OpenOptions {
    /// Nothing is allowed at first.
    #[expect(clippy::new_without_default, reason = "as std's")]
    #[must_use]
    pub fn new() -> OpenOptions {
        OpenOptions(std::fs::OpenOptions::new())
    }

    /// For reading.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.0.read(read);
        self
    }

    /// For writing.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.0.write(write);
        self
    }

    /// For writing at the end, wherever that is at the time.
    pub fn append(&mut self, append: bool) -> &mut OpenOptions {
        self.0.append(append);
        self
    }

    /// Empties a file that is there.
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.0.truncate(truncate);
        self
    }

    /// Makes a file that is not there.
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.0.create(create);
        self
    }

    /// Makes the file, and fails if it is there.
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.0.create_new(create_new);
        self
    }

    /// The permissions of a file that is made, std's `OpenOptionsExt::mode`.
    pub fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.0.mode(mode);
        self
    }

    /// More flags for the system, std's `OpenOptionsExt::custom_flags`.
    pub fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.0.custom_flags(flags);
        self
    }

    /// Opens the file at a path. Whoever still waits for a descriptor that had its number before is woken with an
    /// error. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        let options = self.0.clone();
        let (file, kind) = at(path, move |path| {
            let file = options.open(path)?;
            let kind = kind(&file)?;
            Ok((file, kind))
        })?;
        hub_core::notify_opened(std::os::fd::AsRawFd::as_raw_fd(&file));
        Ok(File(Handle::opened(file, kind)?))
    }
}
