//! The programs that std's documentation shows first for each mirrored item, with `greenhub` in the place of `std`.
//!
//! The calls, their order and their types are those of std's examples. A program of std that uses an item this way has
//! to compile here. Ports are chosen by the system, files are in a folder of the test, and pauses are short.

#![allow(
    clippy::manual_range_contains,
    clippy::never_loop,
    clippy::question_mark,
    reason = "the shape is that of std's examples"
)]

mod fs;
mod io;
mod mpsc;
mod net;
mod process;
mod sync;
mod thread;
mod time;
mod unix_fs;
mod unix_net;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Makes a test of each function. It runs on an OS thread of its own, under the watchdog.
macro_rules! examples {
    ($(fn $name:ident() $(-> $result:ty)? $body:block)*) => {
        $(
            #[test]
            fn $name() {
                fn example() $(-> $result)? $body
                crate::support::run(stringify!($name), || super::Ended::check(example()));
            }
        )*
    };
}
use examples;

/// The results that an example may return.
trait Ended {
    /// Panics if the example has failed.
    fn check(self);
}

impl Ended for () {
    fn check(self) {}
}

impl<E: std::fmt::Debug> Ended for Result<(), E> {
    fn check(self) {
        self.expect("the example succeeds");
    }
}

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("greenhub-std-example-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }

    /// Returns the path of an entry.
    fn entry(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the path of a new file.
    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.entry(name);
        std::fs::write(&path, contents).expect("a new file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
