//! OS threads that unwind their green threads at their end.
//!
//! When an OS thread of std ends, its green threads are abandoned: its thread-locals are destroyed by then, and a green
//! thread may still refer to one. An OS thread that is started here unwinds its green threads first, as
//! [`HubRef::shutdown`](hub_core::HubRef::shutdown) does, while all thread-locals are alive.
//!
//! In an OS thread that is started by other means, such as `std::thread::scope`, [`run_and_shutdown`] does the same
//! around the closure of the OS thread.

mod join_handle;

use std::io;
use std::time::Duration;

pub use hub_core::internal::run_and_shutdown;
pub use std::thread::ScopedJoinHandle;

pub use join_handle::JoinHandle;

use join_handle::EndNotice;

/// The default time for which an ending OS thread waits for its green threads.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Spawns an OS thread that unwinds its green threads after `f` has returned. std's `spawn`. Does not switch.
///
/// The OS thread ends when its green threads have been unwound, or after [`SHUTDOWN_LIMIT`]. The remaining green
/// threads are then abandoned and [reported](hub_core::set_report_stream).
///
/// [`join`](JoinHandle::join) parks only the calling green thread.
///
/// ```
/// use greenhub::thread;
/// use greenhub::thread::os;
/// use std::time::Duration;
/// let thread = os::spawn(|| {
///     thread::spawn(|| thread::sleep(Duration::from_secs(3600))); // unwound at the end
///     thread::yield_now();
///     "done"
/// });
/// assert_eq!(thread.join().unwrap(), "done");
/// ```
///
/// # Panics
///
/// Panics if the system refuses an OS thread. [`Builder::spawn`] returns the error instead.
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn(f) {
        Ok(thread) => thread,
        Err(error) => panic!("cannot spawn an OS thread: {error}"),
    }
}

/// OS thread factory, std's `Builder`. The OS threads unwind their green threads at their end.
///
/// ```
/// use greenhub::thread::os;
/// let thread = os::Builder::new().name("worker".to_owned()).shutdown_limit(None).spawn(|| 1)?;
/// assert_eq!(thread.thread().name(), Some("worker"));
/// assert_eq!(thread.join().unwrap(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is started before `spawn`"]
pub struct Builder {
    builder: std::thread::Builder,
    limit: Option<Duration>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// Generates the base configuration for spawning an OS thread.
    ///
    /// It has no name, and the default stack size and limit.
    pub fn new() -> Builder {
        Builder { builder: std::thread::Builder::new(), limit: Some(SHUTDOWN_LIMIT) }
    }

    /// Names the thread-to-be.
    pub fn name(self, name: String) -> Builder {
        Builder { builder: self.builder.name(name), ..self }
    }

    /// Sets the size of the stack (in bytes) for the new OS thread. The stacks of its green threads have another size.
    pub fn stack_size(self, size: usize) -> Builder {
        Builder { builder: self.builder.stack_size(size), ..self }
    }

    /// Sets how long the OS thread waits for its green threads at its end. With `None`, it waits forever.
    pub fn shutdown_limit(self, limit: impl Into<Option<Duration>>) -> Builder {
        Builder { limit: limit.into(), ..self }
    }

    /// Spawns a new OS thread, like [`spawn`]. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses an OS thread.
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (limit, (notice, ended)) = (self.limit, EndNotice::new());
        let body = move || {
            let _notice = notice;
            run_and_shutdown(limit, f)
        };
        Ok(JoinHandle::new(self.builder.spawn(body)?, ended))
    }

    /// Spawns a new OS thread in a scope of std, like std's `Builder::spawn_scoped`. Does not switch.
    ///
    /// The end of the scope blocks the OS thread of the caller until the new one has ended.
    ///
    /// ```
    /// use greenhub::thread::os;
    /// let words = ["green", "threads"];
    /// std::thread::scope(|scope| {
    ///     let thread = os::Builder::new().spawn_scoped(scope, || words.len())?;
    ///     assert_eq!(thread.join().unwrap(), 2);
    ///     Ok::<(), std::io::Error>(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses an OS thread.
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope std::thread::Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let limit = self.limit;
        self.builder.spawn_scoped(scope, move || run_and_shutdown(limit, f))
    }
}
