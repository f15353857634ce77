//! The explicit mode: a future that runs the main loop of an OS thread, inside of the program's runtime.

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hub_core::hub::Time;
use hub_core::internal::PerProcess;
use hub_core::{Embedded, LoopErrorKind};
use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use crate::raw::Readable;

/// The most turns of the main loop in one poll. Afterwards the tasks of the runtime have their turn.
const TURNS_PER_POLL: usize = 8;

/// Returns a future that runs the green threads of this OS thread.
///
/// They run beside the tasks of the runtime that polls the future. The future is for the main greenlet: for `block_on`
/// of a runtime or a `LocalSet`, or for `spawn_local`. It is not [`Send`], because green threads stay on their OS
/// thread. While it lives, code of the main greenlet must not block: all tasks of the runtime on this OS thread are
/// such code. A blocking call there is refused with [`InMainloop`](hub_core::LoopErrorKind::InMainloop), and
/// [`defer_to_green_thread`](hub_core::future::defer_to_green_thread) makes a future of it. In green threads,
/// [`Handle::current`] is the runtime around.
///
/// The future is ready when the loop ends, by [`HubRef::abort`](hub_core::HubRef::abort) or
/// [`Remote::stop`](hub_core::Remote::stop). If it is dropped before, green threads run again when the main greenlet
/// blocks. [`run_until`] runs the loop for as long as another future needs.
///
/// ```
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// let green = greenhub::spawn(|| {
///     greenhub::sleep(Duration::from_millis(1));
///     let task = tokio::spawn(async { 7 });
///     let output = greenhub::future::block_on(task);
///     greenhub::get_hub().abort();
///     output
/// });
/// runtime.block_on(hub_tokio::join())?;
/// assert_eq!(green.join()??, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It cannot be moved to another OS thread:
///
/// ```compile_fail,E0277
/// # async fn spawn() {
/// tokio::spawn(hub_tokio::join());
/// # }
/// ```
///
/// # Errors
///
/// The first poll returns an error
///
/// - in a green thread, and where the main loop runs already: [`InMainloop`](hub_core::LoopErrorKind::InMainloop),
/// - if another such future lives on this OS thread: [`Embedded`](hub_core::LoopErrorKind::Embedded),
/// - if the hub has no descriptor that the runtime could watch: [`Unsupported`](io::ErrorKind::Unsupported), with the
///   name of the hub. epoll and kqueue have one, the other hubs have none.
/// - outside of a runtime.
///
/// A later poll returns the error with which the loop has ended, and that of a runtime that was shut down. In a forked
/// child it returns [`Unsupported`](io::ErrorKind::Unsupported): see below.
///
/// # Clocks
///
/// The runtime's clock tells when a timer of the loop is due, and the timer fires by the clock of the hub. A
/// [`ManualClock`](hub_core::hub::ManualClock) therefore stands until the program moves it. The loop notices that in
/// its next turn: at the latest after the real time of the timer, at once if the program also spawns a green thread.
///
/// # Forks
///
/// A forked child shares the descriptors of the runtime with its parent, and would take events from it. So in a child
/// whose fork was in a green thread, or in the future of [`run_until`], this future ends with an error before the
/// runtime sleeps. Then the main greenlet may block, and the green threads go on in the child. The child forgets the
/// runtime by [`std::mem::forget`], since a drop would remove descriptors of the parent's sockets, and may build
/// another one. Code that forks in a task of its own must not return to the runtime in the child.
///
/// # Panics
///
/// The first poll panics if the runtime was built without I/O or without timers.
#[doc(alias = "join_reactor")]
pub fn join() -> Join {
    Join { joined: None }
}

/// Awaits a future, and runs the green threads of this OS thread meanwhile.
///
/// The rules are those of [`join`]. Afterwards the main greenlet may block again.
///
/// ```
/// use greenhub::future::defer_to_green_thread;
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// let output = runtime.block_on(hub_tokio::run_until(async {
///     let slept = defer_to_green_thread(|| {
///         greenhub::sleep(Duration::from_millis(1)); // blocks this green thread only
///         7
///     });
///     slept.await
/// }))?;
/// assert_eq!(output?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns the errors of [`join`], and an error if the loop is aborted before the future is ready. The future is
/// dropped then.
pub async fn run_until<F: Future>(future: F) -> io::Result<F::Output> {
    let mut future = pin!(future);
    let mut join = join();
    poll_fn(|context| {
        // First, so that a blocking call in the future is refused from its first poll on.
        if let Poll::Ready(ended) = Pin::new(&mut join).poll(context) {
            return Poll::Ready(Err(ended.err().unwrap_or_else(|| io::Error::other("the main loop was aborted"))));
        }
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            // The future may have forked, and the runtime of a child must not go on to sleep.
            Poll::Pending => join.check_process().map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending),
        }
    })
    .await
}

/// Waits for a future in the context of a runtime that other OS threads drive. Switches.
///
/// On any hub. Each poll enters the context of `runtime`, and so does the drop of the future. So the future may spawn
/// tasks, and use timers and sockets of Tokio. It must be made inside of a poll: pass an `async` block. Otherwise it
/// is [`block_on`](hub_core::future::block_on).
///
/// ```
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
/// let handle = runtime.handle().clone();
/// let green = greenhub::spawn(move || {
///     hub_tokio::block_on_in(&handle, async {
///         tokio::time::sleep(Duration::from_millis(1)).await;
///         7
///     })
/// });
/// assert_eq!(green.join()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Panics where [`block_on`](hub_core::future::block_on) does.
#[track_caller]
pub fn block_on_in<F: Future>(runtime: &Handle, future: F) -> F::Output {
    hub_core::future::block_on(InContext { runtime, future: pin!(Some(future)) })
}

/// A future that is polled and dropped in the context of a runtime. Neither switches, so that guards nest.
struct InContext<'a, F> {
    runtime: &'a Handle,
    future: Pin<&'a mut Option<F>>,
}

impl<F: Future> Future for InContext<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _guard = self.runtime.enter();
        let Some(future) = self.future.as_mut().as_pin_mut() else { unreachable!("only `Drop` removes the future") };
        future.poll(context)
    }
}

impl<F> Drop for InContext<'_, F> {
    fn drop(&mut self) {
        // The destructors of an ending OS thread may drop Tokio's thread-locals before its green threads.
        let is_gone = Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed());
        let _guard = (!is_gone).then(|| self.runtime.enter());
        self.future.set(None);
    }
}

/// The future of [`join`].
#[derive(Debug)]
#[must_use = "green threads run while this is polled"]
pub struct Join {
    /// `None` before the first poll and after the last one.
    joined: Option<Joined>,
}

impl Future for Join {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_process()?;
        let joined = match &mut self.joined {
            Some(joined) => joined,
            empty => empty.insert(Joined::new()?),
        };
        // All green threads would share the budget of the one task otherwise: futures that are ready would be pending.
        let turns = unconstrained(poll_fn(|context| joined.poll_turns(context)));
        let ended = pin!(turns).poll(context);
        // A green thread may have forked.
        self.check_process()?;
        let ended = ready!(ended);
        self.joined = None;
        Poll::Ready(ended)
    }
}

impl Join {
    /// Ends the embedding in a forked child, whose runtime shares its descriptors with that of the parent.
    fn check_process(&mut self) -> io::Result<()> {
        let Some(joined) = self.joined.take_if(|joined| !joined.is_ours()) else { return Ok(()) };
        joined.abandon();
        Err(io::Error::new(io::ErrorKind::Unsupported, FORKED))
    }
}

impl Drop for Join {
    fn drop(&mut self) {
        let _ = self.check_process();
    }
}

const FORKED: &str = "the Tokio runtime of a forked child is that of its parent: forget it by std::mem::forget, and \
                      build another one";

#[derive(Debug)]
struct Joined {
    embedded: Embedded,
    /// The descriptor that becomes readable when a turn has work.
    readable: Readable,
    /// Elapses when the loop's next timer is due.
    sleep: Pin<Box<Sleep>>,
    /// The time for which `sleep` is set.
    deadline: Option<Time>,
    /// Has a value only in the process that made this.
    process: PerProcess<()>,
}

impl Joined {
    fn new() -> io::Result<Joined> {
        Handle::try_current().map_err(io::Error::other)?;
        // First, since the builder of a hub may fork.
        let process = PerProcess::new();
        process.get_or_make(|| ())?;
        let embedded = hub_core::try_get_hub().map_err(io::Error::from)?.embed()?;
        if process.get().is_none() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, FORKED));
        }
        let readable = Readable::new(embedded.pollable()?)?;
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        Ok(Joined { embedded, readable, sleep, deadline: None, process })
    }

    /// Returns whether the runtime is that of this process, and not of an ancestor.
    fn is_ours(&self) -> bool {
        self.process.get().is_some()
    }

    /// Ends the embedding, and leaks what is registered with the runtime: a drop would remove the parent's descriptor.
    fn abandon(self) {
        mem::forget((self.readable, self.sleep));
    }

    /// Runs turns until the loop may sleep, or long enough.
    fn poll_turns(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS_PER_POLL {
            // Before the turn: what arrives after its look is a new edge.
            while let Poll::Ready(taken) = self.readable.poll_take(context) {
                taken?;
            }
            let turned = self.embedded.turn(context.waker());
            if !self.is_ours() {
                return Poll::Pending; // the caller ends this
            }
            match turned {
                Ok(true) => {}
                Ok(false) if self.poll_deadline(context).is_pending() => return Poll::Pending,
                Ok(false) => {}
                Err(error) if error.kind() == LoopErrorKind::Aborted => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns whether the loop's next timer is due. If not, the task is woken when it is.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.embedded.next_deadline() else { return Poll::Pending };
        if self.deadline != Some(deadline) {
            self.sleep.as_mut().reset(Instant::now() + (deadline - hub_core::get_hub().now()));
            self.deadline = Some(deadline);
        }
        ready!(self.sleep.as_mut().poll(context));
        // Should the clocks disagree, the rest of the time is waited for.
        self.deadline = None;
        Poll::Ready(())
    }
}
