//! A factory of green threads with a name or a stack size of their own.

use std::io;
use std::panic::Location;

use super::green_thread::GreenThread;
use crate::greenlet::local;
use crate::greenlet::stack;
use crate::greenlet::task::Task;

/// A factory for green threads with a name or a stack size. std's `thread::Builder`.
///
/// ```
/// let green = greenhub::Builder::new().name("worker").stack_size(64 * 1024).spawn(|| 1)?;
/// assert_eq!(green.name().as_deref(), Some("worker"));
/// # green.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    spawned_at: Option<&'static Location<'static>>,
}

impl Builder {
    /// Creates a configuration without a name, with the default stack size.
    #[must_use]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the green thread, for reports and listings.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Sets the stack size in bytes.
    ///
    /// It is rounded up to a power of two, at least 64 KiB.
    #[must_use]
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Sets the location of the spawn that reports and listings show.
    #[must_use]
    pub fn spawned_at(mut self, place: &'static Location<'static>) -> Builder {
        self.spawned_at = Some(place);
        self
    }

    /// Spawns a green thread like [`spawn`](crate::spawn). Never switches.
    ///
    /// # Errors
    ///
    /// Returns an error if no stack can be that large.
    #[track_caller]
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> io::Result<GreenThread<T>> {
        let local = local::get();
        let stack_size = self.stack_size.map(stack::round_up).transpose()?;
        let task = Task::new(local, f, true, self.spawned_at.unwrap_or(Location::caller()));
        if let Some(name) = &self.name {
            task.set_name(name);
        }
        if let Some(size) = stack_size {
            task.set_stack_size(size);
        }
        task.begin();
        Ok(GreenThread { task })
    }
}
