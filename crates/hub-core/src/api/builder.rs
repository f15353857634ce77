//! Makes green threads with a name, or with a stack of another size.

use std::io;
use std::panic::Location;

use super::green_thread::GreenThread;
use crate::greenlet::local;
use crate::greenlet::stack;
use crate::greenlet::task::Task;

/// How a green thread is to be made, std's `thread::Builder`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::Builder::new().name("worker").stack_size(64 * 1024).spawn(|| 1)?;
/// assert_eq!(green.name().as_deref(), Some("worker"));
/// # green.join().unwrap();
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    spawned_at: Option<&'static Location<'static>>,
}

impl Builder {
    /// A green thread without a name, with a stack of the default size.
    #[must_use]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Gives it a name, for reports and listings.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Gives it a stack of at least `size` bytes; it is rounded up to a power of two, 64 KiB at least.
    #[must_use]
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Sets the place that reports and listings name as that of the spawning, as for [`spawn_at`](crate::spawn_at).
    #[must_use]
    pub fn spawned_at(mut self, place: &'static Location<'static>) -> Builder {
        self.spawned_at = Some(place);
        self
    }

    /// Spawns it like [`spawn`](crate::spawn). Never switches.
    ///
    /// # Errors
    ///
    /// If no stack can be that large.
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
