//! std's `os::unix::process`: what processes have on Unix only.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;

pub use std::os::unix::process::{ExitStatusExt, parent_id};

use crate::process::Command;

/// What a command has on Unix only, std's `CommandExt`. What can only be used with care, `pre_exec`, is std's own,
/// by way of [`as_std_mut`](Command::as_std_mut).
pub trait CommandExt: private::Sealed {
    /// Whose process it is.
    fn uid(&mut self, id: u32) -> &mut Command;

    /// Of which group of users.
    fn gid(&mut self, id: u32) -> &mut Command;

    /// What it is told to be called, instead of the name of the program.
    fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command;

    /// Of which group of processes; 0 for one of its own.
    fn process_group(&mut self, group: i32) -> &mut Command;

    /// Becomes that program, and does not return: nothing is unwound. Does not switch.
    ///
    /// Returns why it could not.
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
