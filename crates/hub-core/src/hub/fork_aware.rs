//! Descriptors of the library's own, which a forked child inherits.

use std::fmt;
use std::io;
use std::mem;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};

use crate::base::fork;

/// An object of the system that a hub has for itself, and of which a forked child has a copy.
///
/// A child may close all descriptors that it inherits, as daemons do, and open files of its own: then the number of the
/// object is that of one of those files. So in a child, dropping it closes the number only where the system can tell that
/// it still is the file of the parent (by kcmp(2), on Linux); else the number stays as it is. In the process that made it
/// the object is dropped as it is without this.
///
/// ```
/// use hub_core::ForkAware;
/// use std::os::fd::{AsFd, OwnedFd};
/// let (reader, _writer) = std::io::pipe()?;
/// let reader = ForkAware::new(OwnedFd::from(reader))?;
/// rustix::io::ioctl_fionbio(reader.as_fd(), true)?; // used like the object itself
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ForkAware<T: AsFd> {
    /// `None` only while it is dropped.
    object: Option<T>,
    generation: u32,
    process: u32,
}

impl<T: AsFd> ForkAware<T> {
    /// Takes over an object that this process has just made. Does not switch.
    ///
    /// # Errors
    ///
    /// If forks cannot be noticed.
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
            None => unreachable!("it is there until it is dropped"),
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
                // Where the system does not tell, the number stays.
                let told = fork::is_shared_with_parent(made.process, number);
                drop(made);
                is_open(number) != told
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
