use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::{BiasedMutex, BiasedMutexGuard, HubError, LoopError};

use super::Resolver;
use crate::sync::Event;

/// A resolver that caches the results of another resolver for a short time.
///
/// It also merges simultaneous look-ups of one name.
///
/// Errors are not cached, but all waiters for the one look-up get the error. The first caller runs the look-up itself.
/// If an [exit](hub_core::is_exit) unwinds it meanwhile, or if it cannot wait, the next waiter starts a new look-up.
///
/// ```
/// use greenhub::net::{CachedResolver, Resolver};
/// use std::io;
/// use std::net::{Ipv4Addr, SocketAddr};
/// struct Once(std::sync::Once);
/// impl Resolver for Once {
///     fn resolve(&self, _host: &str) -> io::Result<Vec<SocketAddr>> {
///         assert!(!self.0.is_completed());
///         self.0.call_once(|| ());
///         Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()])
///     }
/// }
/// let cached = CachedResolver::new(Once(std::sync::Once::new()));
/// assert_eq!(cached.resolve("host.test")?, cached.resolve("host.test")?);
/// # Ok::<(), io::Error>(())
/// ```
#[doc(alias = "greendns")]
pub struct CachedResolver<R> {
    resolver: R,
    ttl: Duration,
    capacity: usize,
    state: BiasedMutex<State>,
}

struct State {
    /// The process of this state. After a fork the pending look-ups belong to the parent and never finish here.
    process: u32,
    known: HashMap<Arc<str>, Arc<[SocketAddr]>>,
    /// All known names, in the order in which they expire.
    order: VecDeque<(Instant, Arc<str>)>,
    pending: HashMap<Arc<str>, Arc<Event<Answer>>>,
}

/// The result of a look-up, for its waiters.
#[derive(Clone)]
enum Answer {
    Found(Arc<[SocketAddr]>),
    Failed(Arc<io::Error>),
    /// The look-up ended without a result: an exit or a panic unwound it, or its caller could not wait.
    None,
}

impl State {
    fn new() -> State {
        State { process: std::process::id(), known: HashMap::new(), order: VecDeque::new(), pending: HashMap::new() }
    }

    fn forget_first(&mut self) {
        if let Some((_, host)) = self.order.pop_front() {
            self.known.remove(&host);
        }
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }
}

impl<R: Resolver> CachedResolver<R> {
    /// Creates a cache of up to 256 names, for 5 seconds each.
    #[must_use]
    pub fn new(resolver: R) -> CachedResolver<R> {
        CachedResolver { resolver, ttl: Duration::from_secs(5), capacity: 256, state: BiasedMutex::new(State::new()) }
    }

    /// Sets how long a name is cached. With zero, only simultaneous look-ups share a result.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> CachedResolver<R> {
        CachedResolver { ttl, ..self }
    }

    /// Sets how many names are cached. At the limit the oldest one is removed.
    #[must_use]
    pub fn capacity(self, names: usize) -> CachedResolver<R> {
        CachedResolver { capacity: names, ..self }
    }

    /// Removes all names. Does not switch.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.known.clear();
        state.order.clear();
    }

    fn lock(&self) -> BiasedMutexGuard<'_, State> {
        let mut state = self.state.lock();
        if state.process != std::process::id() {
            *state = State::new();
        }
        state
    }

    fn remember(&self, state: &mut State, host: &Arc<str>, addresses: &Arc<[SocketAddr]>) {
        if self.ttl.is_zero() || self.capacity == 0 || state.known.contains_key(host) {
            return;
        }
        while state.known.len() >= self.capacity {
            state.forget_first();
        }
        state.known.insert(Arc::clone(host), Arc::clone(addresses));
        // Beyond the range of the clock, a name is kept for 136 years.
        let now = Instant::now();
        let until = now.checked_add(self.ttl).unwrap_or_else(|| now + Duration::from_secs(u32::MAX.into()));
        state.order.push_back((until, Arc::clone(host)));
    }
}

impl<R: Resolver> Resolver for CachedResolver<R> {
    /// Switches, unless the name is cached. The other resolver may switch, too.
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        loop {
            let mut state = self.lock();
            state.forget_old();
            if let Some(addresses) = state.known.get(host) {
                return Ok(addresses.to_vec());
            }
            let Some(pending) = state.pending.get(host).map(Arc::clone) else {
                let (host, answer) = (Arc::<str>::from(host), Arc::default());
                state.pending.insert(Arc::clone(&host), Arc::clone(&answer));
                drop(state);
                return Lookup { cache: self, host, answer }.run();
            };
            drop(state);
            match pending.wait()? {
                Answer::Found(addresses) => return Ok(addresses.to_vec()),
                Answer::Failed(error) => return Err(copy(&error)),
                Answer::None => {}
            }
        }
    }
}

/// A look-up for all its waiters. `Drop` publishes a result, however the look-up ends.
struct Lookup<'a, R: Resolver> {
    cache: &'a CachedResolver<R>,
    host: Arc<str>,
    answer: Arc<Event<Answer>>,
}

impl<R: Resolver> Lookup<'_, R> {
    fn run(self) -> io::Result<Vec<SocketAddr>> {
        match self.cache.resolver.resolve(&self.host) {
            Ok(addresses) => {
                let shared = Arc::<[SocketAddr]>::from(addresses);
                self.publish(Answer::Found(Arc::clone(&shared)));
                Ok(shared.to_vec())
            }
            Err(error) if is_callers_own(&error) => Err(error),
            Err(error) => {
                let shared = Arc::new(error);
                self.publish(Answer::Failed(Arc::clone(&shared)));
                drop(self);
                Err(Arc::try_unwrap(shared).unwrap_or_else(|shared| copy(&shared)))
            }
        }
    }

    fn publish(&self, answer: Answer) {
        let mut state = self.cache.lock();
        if let Answer::Found(addresses) = &answer {
            self.cache.remember(&mut state, &self.host, addresses);
        }
        let own = state.pending.get(&self.host).is_some_and(|pending| Arc::ptr_eq(pending, &self.answer));
        let pending = if own { state.pending.remove(&self.host) } else { None };
        drop(state);
        drop(pending);
        // Fails only if a result was published before.
        let _ = self.answer.send(answer);
    }
}

impl<R: Resolver> Drop for Lookup<'_, R> {
    fn drop(&mut self) {
        if !self.answer.ready() {
            self.publish(Answer::None);
        }
    }
}

/// Returns whether the error is the caller's own: it could not wait, and another caller may.
fn is_callers_own(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<LoopError>() || error.is::<HubError>())
}

/// Copies the error for another caller.
fn copy(error: &Arc<io::Error>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), SharedError(Arc::clone(error))),
    }
}

/// An error that several callers share.
#[derive(Debug)]
struct SharedError(Arc<io::Error>);

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl<R> fmt::Debug for CachedResolver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter is user code and may switch: hold no lock while calling it.
        let known = self.state.lock().known.len();
        let mut debug = f.debug_struct("CachedResolver");
        debug.field("ttl", &self.ttl).field("capacity", &self.capacity).field("known", &known).finish_non_exhaustive()
    }
}
