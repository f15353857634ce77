//! A factory of green threads with a name or a stack size of their own.

use std::io;
use std::panic::Location;

use super::green_thread::GreenThread;
use super::scope::{Scope, ScopedGreenThread};
use crate::greenlet::local;
use crate::greenlet::stack;
use crate::greenlet::task::{NewTask, TaskRef};

/// A factory for green threads with a name or a stack size. std's `thread::Builder`.
///
/// ```
/// let green = greenhub::Builder::new().name("worker".into()).stack_size(64 * 1024).spawn(|| 1)?;
/// assert_eq!(green.name().as_deref(), Some("worker"));
/// # green.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is spawned before `spawn`"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    spawned_at: Option<&'static Location<'static>>,
}

impl Builder {
    /// Creates a configuration without a name, with the default stack size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the green thread, for reports and listings.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// Sets the stack size in bytes.
    ///
    /// It is rounded up to a power of two, at least 64 KiB.
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Sets the location of the spawn that reports and listings show.
    pub fn spawned_at(mut self, place: &'static Location<'static>) -> Builder {
        self.spawned_at = Some(place);
        self
    }

    /// Spawns a green thread like [`spawn`](crate::spawn). Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if no stack can be that large.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<GreenThread<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let settings = self.checked()?;
        let task = NewTask::new(local::get(), f, self.spawned_at.unwrap_or(Location::caller()));
        settings.apply(&task);
        Ok(GreenThread { task: task.begin() })
    }

    /// Spawns a green thread in a scope, like [`Scope::spawn`]. std's `spawn_scoped`. Does not switch.
    ///
    /// ```
    /// use greenhub::thread;
    /// let words = ["green", "threads"];
    /// let lengths = thread::scope(|scope| -> std::io::Result<Vec<usize>> {
    ///     let worker = thread::Builder::new().name("worker".into());
    ///     let worker = worker.spawn_scoped(scope, || words.iter().map(|word| word.len()).collect())?;
    ///     Ok(worker.join().unwrap())
    /// });
    /// assert_eq!(lengths?, [5, 7]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if no stack can be that large.
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedGreenThread<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let settings = self.checked()?;
        let place = self.spawned_at.unwrap_or(Location::caller());
        Ok(scope.spawn_with(place, f, |task| settings.apply(task)))
    }

    /// Returns the settings of a new cell, with the stack size rounded up.
    fn checked(&self) -> io::Result<Settings<'_>> {
        let stack_size = self.stack_size.map(stack::round_up).transpose()?;
        Ok(Settings { name: self.name.as_deref(), stack_size })
    }
}

struct Settings<'a> {
    name: Option<&'a str>,
    stack_size: Option<usize>,
}

impl Settings<'_> {
    fn apply(&self, task: &TaskRef) {
        if let Some(name) = self.name {
            task.set_name(name);
        }
        if let Some(size) = self.stack_size {
            task.set_stack_size(size);
        }
    }
}
