mod node;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use hub_core::{Deadline, GreenThread, LeftMark, LoopError, ReadyMark, Waitable};

use self::node::Node;
use super::wait_error::WaitError;

/// A request to stop, which any number of green threads can see. The `CancellationToken` of tokio-util.
///
/// Clones are the same token. [`child_token`](CancellationToken::child_token) makes a token that is cancelled with this
/// one, and can be cancelled alone. A cancellation is permanent.
///
/// Green threads of any hub and plain OS threads may share a token: it is `Send + Sync`.
///
/// ```
/// use greenhub::sync::CancellationToken;
/// let shutdown = CancellationToken::new();
/// let own = shutdown.child_token();
/// let worker = greenhub::thread::spawn(move || own.wait());
/// shutdown.cancel();
/// worker.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct CancellationToken {
    node: Arc<Node>,
}

/// Cancels its token when dropped, which does not switch.
#[must_use = "the token is cancelled at once if the guard is not kept"]
pub struct DropGuard {
    /// `None` after `disarm`.
    token: Option<CancellationToken>,
}

impl CancellationToken {
    /// Creates a token that is not cancelled.
    #[must_use]
    pub fn new() -> CancellationToken {
        CancellationToken { node: Node::root() }
    }

    /// Creates a token that is cancelled when this one is. Does not switch.
    ///
    /// The cancellation of the child does not concern this token.
    #[must_use]
    pub fn child_token(&self) -> CancellationToken {
        CancellationToken { node: self.node.child() }
    }

    /// Cancels the token and all tokens below it. Does not switch.
    ///
    /// Waiters are woken in FIFO order and run later. A second call has no effect.
    pub fn cancel(&self) {
        self.node.cancel();
    }

    /// Returns true if the token is cancelled. Does not switch.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.node.state.lock().is_cancelled()
    }

    /// Waits until the token is cancelled, and returns at once if it is. Switches if it waits.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    #[doc(alias = "cancelled")]
    pub fn wait(&self) -> Result<(), LoopError> {
        self.wait_within(Deadline::none()).map_err(WaitError::without_limit)
    }

    /// Like [`wait`](CancellationToken::wait), for at most `timeout`. Switches if it waits.
    ///
    /// It is a pause that a cancellation ends early. A timeout of zero lets other green threads run once.
    ///
    /// ```
    /// use greenhub::sync::{CancellationToken, WaitError};
    /// use std::time::Duration;
    /// let token = CancellationToken::new();
    /// let mut rounds = 0;
    /// while let Err(WaitError::TimedOut) = token.wait_timeout(Duration::from_millis(1)) {
    ///     rounds += 1;
    ///     if rounds == 3 {
    ///         token.cancel();
    ///     }
    /// }
    /// assert_eq!(rounds, 3);
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if the token was not cancelled in time, or an error of
    /// [`wait`](CancellationToken::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        self.wait_within(Deadline::from(timeout))
    }

    fn wait_within(&self, mut deadline: Deadline) -> Result<(), WaitError> {
        Ok(self.node.wait(&mut deadline)?)
    }

    /// Returns a guard that cancels the token when it is dropped. Does not switch.
    ///
    /// ```
    /// use greenhub::sync::CancellationToken;
    /// let token = CancellationToken::new();
    /// let guard = token.clone().drop_guard();
    /// greenhub::thread::spawn(move || drop(guard)).join()?;
    /// assert!(token.is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drop_guard(self) -> DropGuard {
        DropGuard { token: Some(self) }
    }

    /// Runs `f`, and unwinds it when the token is cancelled. Returns `None` then. Switches if `f` does.
    ///
    /// The call in which `f` waits or yields is interrupted, and the destructors of `f` run. The rules are those of
    /// [`with_link`](GreenThread::with_link): the exit strikes where `f` waits, scopes nest, and each catches its own
    /// exit only. If `f` ends before it waits again, its value is returned. If the token is cancelled at the call, `f`
    /// is not run.
    ///
    /// While `f` runs, a green thread waits for the cancellation. It ends soon after `f`.
    ///
    /// With `panic = "abort"` nothing can be interrupted: `f` runs to its end.
    ///
    /// ```
    /// use greenhub::sync::CancellationToken;
    /// use std::time::Duration;
    /// let token = CancellationToken::new();
    /// assert_eq!(token.run_until_cancelled(|| 7), Some(7));
    /// let other = token.clone();
    /// greenhub::thread::spawn(move || other.cancel());
    /// assert_eq!(token.run_until_cancelled(|| greenhub::sleep(Duration::from_secs(3600))), None);
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if `f` does. Panics if the green thread that waits for the cancellation fails, for example because it has
    /// no stack.
    #[track_caller]
    pub fn run_until_cancelled<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        if self.is_cancelled() {
            return None;
        }
        if cfg!(panic = "abort") {
            return Some(f());
        }
        let watcher = Watcher::new(self, Location::caller());
        match watcher.green.with_link(f) {
            Ok(value) => Some(value),
            Err(_) if watcher.token.is_cancelled() => None,
            Err(linked) => panic!("the cancellation cannot be waited for: {linked}"),
        }
    }
}

/// A green thread that waits for a cancellation until this is dropped.
struct Watcher {
    /// A child of the watched token, by which this watcher ends alone.
    token: CancellationToken,
    green: GreenThread<Result<(), LoopError>>,
}

impl Watcher {
    fn new(watched: &CancellationToken, called_at: &'static Location<'static>) -> Watcher {
        let token = watched.child_token();
        let own = token.clone();
        let green = hub_core::internal::spawn_named_at(called_at, Some("cancellation token"), move || own.wait());
        Watcher { token, green }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Neither call switches: this may be dropped while unwinding, or on the main loop.
        if !self.green.cancel() {
            self.token.cancel();
        }
    }
}

impl DropGuard {
    /// Returns the token without cancelling it.
    #[must_use]
    pub fn disarm(mut self) -> CancellationToken {
        match self.token.take() {
            Some(token) => token,
            None => unreachable!("only this call takes the token"),
        }
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(token) = &self.token {
            token.cancel();
        }
    }
}

/// A token is ready when it is cancelled.
impl Waitable for CancellationToken {
    fn is_ready(&self) -> bool {
        self.is_cancelled()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.node.state.lock();
        let is_ready = state.is_cancelled();
        state.waiting.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.node.state.lock().waiting.take_back(&left);
    }
}

impl Default for CancellationToken {
    fn default() -> CancellationToken {
        CancellationToken::new()
    }
}

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.node.state.lock();
        let (cancelled, waiting, children) = (state.is_cancelled(), state.waiting(), state.children());
        // The formatter is user code and may switch: hold no lock while calling it.
        drop(state);
        f.debug_struct("CancellationToken")
            .field("cancelled", &cancelled)
            .field("waiting", &waiting)
            .field("children", &children)
            .finish()
    }
}

impl fmt::Debug for DropGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DropGuard").field("token", &self.token).finish()
    }
}
