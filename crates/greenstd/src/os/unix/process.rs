//! std's `os::unix::process`: the Unix parts of processes.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;

pub use std::os::unix::process::{ExitStatusExt, parent_id};

use crate::process::Command;

/// Unix-specific extensions to the [`Command`] builder, std's `CommandExt`.
///
/// The unsafe `pre_exec` is std's own, through [`as_std_mut`](Command::as_std_mut).
pub trait CommandExt: private::Sealed {
    /// Sets the child process's user ID.
    fn uid(&mut self, id: u32) -> &mut Command;

    /// Sets the child process's group ID.
    fn gid(&mut self, id: u32) -> &mut Command;

    /// Sets the executable argument, which replaces the program's name as `argv[0]`.
    fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command;

    /// Sets the process group ID of the child process; 0 for a new group of its own.
    fn process_group(&mut self, group: i32) -> &mut Command;

    /// Replaces this process by the program. Does not switch.
    ///
    /// It returns only an error; on success nothing is unwound.
    fn exec(&mut self) -> io::Error;
}

impl CommandExt for Command {
    fn uid(&mut self, id: u32) -> &mut Command {
        self.as_std_mut().uid(id);
        self
    }

    fn gid(&mut self, id: u32) -> &mut Command {
        self.as_std_mut().gid(id);
        self
    }

    fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.as_std_mut().arg0(arg);
        self
    }

    fn process_group(&mut self, group: i32) -> &mut Command {
        self.as_std_mut().process_group(group);
        self
    }

    fn exec(&mut self) -> io::Error {
        self.as_std_mut().exec()
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for crate::process::Command {}
}
