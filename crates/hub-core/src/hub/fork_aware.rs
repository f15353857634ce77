//! Descriptors that belong to the library, and that a forked child inherits.

use std::fmt;
use std::io;
use std::mem;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};

use crate::base::fork;

/// A system object that a hub owns, with a copy in each forked child.
///
/// A child may close all inherited descriptors, as daemons do, and open files of its own. The number of the object may
/// then belong to one of those files. In a child, the drop therefore closes the number only if the system confirms that
/// it still is the file of the parent (by kcmp(2), on Linux). Otherwise the number stays open. In the process that made
/// the object, the drop closes it as usual.
///
/// ```
/// use greenhub::hub::ForkAware;
/// use std::io::{Read, Write};
/// let (reader, mut writer) = std::io::pipe()?;
/// let reader = ForkAware::new(reader)?;
/// writer.write_all(b"x")?;
/// let read = (&*reader).read(&mut [0])?; // used like the object itself
/// assert_eq!(read, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ForkAware<T: AsFd> {
    /// `None` only during the drop.
    object: Option<T>,
    generation: u32,
    process: u32,
}

impl<T: AsFd> ForkAware<T> {
    /// Takes over an object that this process has just made. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if the hook that detects forks cannot be installed.
    pub fn new(object: T) -> io::Result<ForkAware<T>> {
        fork::install()?;
        Ok(ForkAware { object: Some(object), generation: fork::generation(), process: std::process::id() })
    }
}

impl<T: AsFd> Deref for ForkAware<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.object {
            Some(object) => object,
            None => unreachable!("the object is present until the drop"),
        }
    }
}

impl<T: AsFd> Drop for ForkAware<T> {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        let is_ours = self.generation == fork::generation()
            || fork::is_shared_with_parent(self.process, object.as_fd().as_raw_fd());
        if is_ours {
            drop(object);
        } else {
            mem::forget(object);
        }
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for ForkAware<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::RefCell;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::base::fork::tests::{holds_in_child, in_own_process};

    thread_local! {
        static MADE: RefCell<Option<ForkAware<OwnedFd>>> = const { RefCell::new(None) };
    }

    fn make() {
        let (reader, _) = io::pipe().unwrap();
        MADE.set(Some(ForkAware::new(reader.into()).unwrap()));
    }

    fn is_open(number: i32) -> bool {
        std::fs::exists(format!("/proc/self/fd/{number}")).unwrap()
    }

    #[test]
    fn the_process_that_made_an_object_drops_it() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(ForkAware::new(OwnedFd::from(reader)).unwrap());
        assert_eq!(io::Write::write(&mut writer, b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_child_closes_a_number_that_is_still_that_of_its_parent() {
        in_own_process("hub::fork_aware::tests::a_child_closes_a_number_that_is_still_that_of_its_parent", || {
            make();
            assert!(holds_in_child(|| {
                let made = MADE.take().unwrap();
                let number = made.as_raw_fd();
                // The number stays open where the system cannot compare the files.
                let closes = fork::is_shared_with_parent(made.process, number);
                drop(made);
                is_open(number) != closes
            }));
            assert!(is_open(MADE.take().unwrap().as_raw_fd()));
        });
    }

    #[test]
    fn a_child_leaves_a_number_that_is_another_file() {
        in_own_process("hub::fork_aware::tests::a_child_leaves_a_number_that_is_another_file", || {
            make();
            assert!(holds_in_child(|| {
                let mut made = MADE.take().unwrap();
                let number = made.as_raw_fd();
                rustix::io::dup2(io::pipe().unwrap().0, made.object.as_mut().unwrap()).unwrap();
                drop(made);
                is_open(number)
            }));
        });
    }
}
