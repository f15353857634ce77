use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, LoopError, WaitReason};

use super::line::{Ended, Line, Wait};
use super::order::Order;
use super::queue::{GetError, OrderedLightQueue, PutError};

/// A number of tokens that are acquired and released, by the same or by others. Eventlet's `Semaphore`.
///
/// Whoever waits is served in the order in which they came. No form of acquiring goes before those who wait: the
/// ones with a timeout queue like the others, and [`try_acquire`](Semaphore::try_acquire) finds nothing free while
/// somebody waits. A green thread that is killed while it waits, or just when a token was given to it, leaves the
/// token to the next.
///
/// Green threads of any hub and plain OS threads may share one: it is `Send + Sync`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::sync::Semaphore;
/// use std::sync::Arc;
/// let connections = Arc::new(Semaphore::new(2));
/// let (first, second) = (connections.access()?, connections.access()?);
/// let other = connections.clone();
/// let green = greenstd::thread::spawn(move || other.acquire());
/// greenstd::thread::yield_now();
/// assert_eq!(connections.balance(), -1);
/// drop(first);
/// green.join()??;
/// # drop(second);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Semaphore {
    state: BiasedMutex<State>,
    limit: usize,
}

struct State {
    /// Above zero only while nobody waits.
    free: usize,
    waiting: Line,
}

impl State {
    /// Takes one that is free.
    fn take(&mut self) -> bool {
        let free = self.free > 0;
        self.free -= usize::from(free);
        free
    }

    /// To the first who waits.
    fn give(&mut self) {
        if !self.waiting.choose() {
            self.free += 1;
        }
    }
}

/// For a token.
struct ForToken;

impl Wait for ForToken {
    type State = State;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Semaphore;

    fn line(state: &mut State) -> &mut Line {
        &mut state.waiting
    }

    fn pass_on(state: &mut State) {
        state.give();
    }
}

impl Semaphore {
    /// With that many tokens; one makes a lock without an owner.
    #[must_use]
    pub const fn new(tokens: usize) -> Semaphore {
        Semaphore::with_limit(tokens, usize::MAX)
    }

    const fn with_limit(tokens: usize, limit: usize) -> Semaphore {
        Semaphore { state: BiasedMutex::new(State { free: tokens, waiting: Line::new() }), limit }
    }

    /// Takes a token, and waits for one if none is free. Switches only then.
    ///
    /// # Errors
    ///
    /// Where nobody may wait: in the main loop, while panicking.
    pub fn acquire(&self) -> Result<(), LoopError> {
        self.acquire_within(Deadline::none()).map(drop)
    }

    /// As [`acquire`](Semaphore::acquire), for `timeout` at most: then false. One of zero lets others run once.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool, LoopError> {
        self.acquire_within(Deadline::from(Some(timeout)))
    }

    fn acquire_within(&self, mut limit: Deadline) -> Result<bool, LoopError> {
        let acquired = ForToken::wait(&self.state, &mut limit, (), |state, unchosen| match unchosen {
            // Who was chosen has a token.
            Some(()) if !state.take() => Err(()),
            _ => Ok(()),
        });
        match acquired {
            Ok(()) => Ok(true),
            Err(Ended::Late(())) => Ok(false),
            Err(Ended::Failed(error, _)) => Err(*error),
        }
    }

    /// Takes a token if one is free. Does not switch.
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        self.state.lock().take()
    }

    /// Gives a token back, or a new one: to the first who waits, who runs later. Does not switch.
    pub fn release(&self) {
        self.give();
    }

    /// False at the limit.
    fn give(&self) -> bool {
        let mut state = self.state.lock();
        let below = state.free < self.limit;
        if below {
            state.give();
        }
        below
    }

    /// [`acquire`](Semaphore::acquire)s a token that goes back when the guard is dropped. Switches if none is free.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn access(&self) -> Result<SemaphoreGuard<'_>, LoopError> {
        self.acquire().map(|()| SemaphoreGuard { semaphore: self })
    }

    /// As [`access`](Semaphore::access), for `timeout` at most: then `None`.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn access_timeout(&self, timeout: Duration) -> Result<Option<SemaphoreGuard<'_>>, LoopError> {
        Ok(self.acquire_timeout(timeout)?.then(|| SemaphoreGuard { semaphore: self }))
    }

    /// As [`access`](Semaphore::access), if a token is free. Does not switch.
    #[must_use]
    pub fn try_access(&self) -> Option<SemaphoreGuard<'_>> {
        self.try_acquire().then(|| SemaphoreGuard { semaphore: self })
    }

    /// Whether acquiring would wait. Does not switch.
    #[must_use]
    pub fn locked(&self) -> bool {
        self.state.lock().free == 0
    }

    /// The tokens that are free, less those who wait. Does not switch.
    #[must_use]
    pub fn balance(&self) -> isize {
        let state = self.state.lock();
        difference(state.free, state.waiting.len())
    }
}

/// `there - taken`, which may be negative. What no `isize` can tell counts as the largest.
pub(crate) fn difference(there: usize, taken: usize) -> isize {
    isize::try_from(there).unwrap_or(isize::MAX).saturating_sub_unsigned(taken)
}

impl Default for Semaphore {
    /// With one token.
    fn default() -> Semaphore {
        Semaphore::new(1)
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (free, waiting) = (state.free, state.waiting.len());
        // What is written to may be anybody's, and switch.
        drop(state);
        f.debug_struct("Semaphore").field("free", &free).field("waiting", &waiting).finish()
    }
}

/// Gives its token back when it is dropped, which does not switch.
#[derive(Debug)]
#[must_use = "the token goes back at once if the guard is not kept"]
pub struct SemaphoreGuard<'a> {
    semaphore: &'a Semaphore,
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        self.semaphore.give();
    }
}

/// A [`Semaphore`] that never has more tokens than at its start. Eventlet's `BoundedSemaphore`.
///
/// ```
/// use greenstd::sync::BoundedSemaphore;
/// let semaphore = BoundedSemaphore::new(1);
/// assert!(semaphore.try_acquire());
/// assert!(semaphore.release().is_ok());
/// assert!(semaphore.release().is_err());
/// ```
pub struct BoundedSemaphore(Semaphore);

/// A token was given back that nobody had taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the semaphore was released too many times")]
pub struct TooManyReleases;

impl BoundedSemaphore {
    /// With that many tokens.
    #[must_use]
    pub const fn new(tokens: usize) -> BoundedSemaphore {
        BoundedSemaphore(Semaphore::with_limit(tokens, tokens))
    }

    /// Gives a token back: to the first who waits, who runs later. Does not switch.
    ///
    /// # Errors
    ///
    /// [`TooManyReleases`] if all tokens are free; nothing is changed then.
    pub fn release(&self) -> Result<(), TooManyReleases> {
        if self.0.give() { Ok(()) } else { Err(TooManyReleases) }
    }
}

/// Everything but the release, which [`Semaphore::release`] does too, without saying that it was one too many.
impl Deref for BoundedSemaphore {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.0
    }
}

impl Default for BoundedSemaphore {
    /// With one token.
    fn default() -> BoundedSemaphore {
        BoundedSemaphore::new(1)
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoundedSemaphore").field(&self.0).finish()
    }
}

/// A semaphore that waits at both ends: acquiring for a token, releasing for room below a limit. Eventlet's
/// `CappedSemaphore`.
///
/// It is a queue whose items are all alike, and has its promises: with a limit of zero, who releases meets who
/// acquires; a token that waits for room is not given if its releaser is killed. A token that was given to one who waits
/// takes no room; if that one is killed or its time is over before it runs, the token is kept, even beyond the limit. There
/// is no guard, since giving back may wait.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::sync::CappedSemaphore;
/// let places = CappedSemaphore::new(0, 1)?;
/// places.release()?;
/// assert!(places.bounded());
/// places.acquire()?;
/// assert!(places.locked());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct CappedSemaphore {
    tokens: OrderedLightQueue<(), Tokens>,
}

/// A [`CappedSemaphore`] cannot begin above its limit.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a semaphore capped at {limit} cannot start with {tokens} tokens")]
pub struct AboveLimit {
    tokens: usize,
    limit: usize,
}

/// A queue of what is all alike.
#[derive(Default)]
struct Tokens(usize);

impl Order<()> for Tokens {
    const CALLS_OUT: bool = false;

    fn len(&self) -> usize {
        self.0
    }

    fn push(&mut self, (): ()) {
        self.0 += 1;
    }

    fn pop(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

impl CappedSemaphore {
    /// With that many tokens, and never more than `limit`.
    ///
    /// # Errors
    ///
    /// [`AboveLimit`] if there are more from the beginning.
    pub fn new(tokens: usize, limit: usize) -> Result<CappedSemaphore, AboveLimit> {
        if tokens > limit {
            return Err(AboveLimit { tokens, limit });
        }
        Ok(CappedSemaphore { tokens: OrderedLightQueue::filled(Tokens(tokens), limit) })
    }

    /// Takes a token, and waits for one if there is none. Switches.
    ///
    /// # Errors
    ///
    /// Where nobody may wait: in the main loop, while panicking.
    pub fn acquire(&self) -> Result<(), LoopError> {
        in_time(self.tokens.get()).map(drop)
    }

    /// As [`acquire`](CappedSemaphore::acquire), for `timeout` at most: then false.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool, LoopError> {
        in_time(self.tokens.get_timeout(timeout))
    }

    /// Takes a token if there is one. Does not switch.
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        self.tokens.try_get().is_ok()
    }

    /// Gives a token, and waits if there are as many as may be. Switches.
    ///
    /// # Errors
    ///
    /// Where nobody may wait: in the main loop, while panicking.
    pub fn release(&self) -> Result<(), LoopError> {
        in_time(self.tokens.put(())).map(drop)
    }

    /// As [`release`](CappedSemaphore::release), for `timeout` at most: then false.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release_timeout(&self, timeout: Duration) -> Result<bool, LoopError> {
        in_time(self.tokens.put_timeout((), timeout))
    }

    /// Gives a token if there is room for it, or if somebody waits for it. Does not switch.
    #[must_use]
    pub fn try_release(&self) -> bool {
        self.tokens.try_put(()).is_ok()
    }

    /// Whether acquiring would wait. Does not switch.
    #[must_use]
    pub fn locked(&self) -> bool {
        !self.tokens.has_more()
    }

    /// Whether releasing would wait. Does not switch.
    #[must_use]
    pub fn bounded(&self) -> bool {
        self.tokens.is_full()
    }

    /// The tokens that are there or wait for room, less those who wait for one. Does not switch.
    #[must_use]
    pub fn balance(&self) -> isize {
        let (there, waiting) = self.tokens.there_and_waiting();
        difference(there, waiting)
    }
}

/// What a wait of the queue says, as a semaphore says it.
fn in_time(done: Result<(), impl Into<Late>>) -> Result<bool, LoopError> {
    match done.map_err(Into::into) {
        Ok(()) => Ok(true),
        Err(Late(None)) => Ok(false),
        Err(Late(Some(error))) => Err(error),
    }
}

/// A wait that was in vain, with the error if it was not the time.
struct Late(Option<LoopError>);

impl From<GetError> for Late {
    fn from(error: GetError) -> Late {
        match error {
            GetError::Empty => Late(None),
            GetError::Loop(error) => Late(Some(error)),
        }
    }
}

impl From<PutError<()>> for Late {
    fn from(error: PutError<()>) -> Late {
        match error {
            PutError::Full(()) => Late(None),
            PutError::Loop(error, _) => Late(Some(error)),
        }
    }
}

impl fmt::Debug for CappedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CappedSemaphore")
            .field("limit", &self.tokens.capacity())
            .field("balance", &self.balance())
            .finish()
    }
}
