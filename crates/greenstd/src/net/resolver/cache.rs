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

/// Remembers what another resolver has found, for a short time; and asks it once for those who want the same name at
/// the same time.
///
/// Errors are not remembered, but told to all who have waited for the one answer. Whoever asks the other resolver does so
/// itself: if it is killed or times out meanwhile, the next who waits asks again.
///
/// ```
/// use greenstd::net::{CachedResolver, Resolver};
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
pub struct CachedResolver<R> {
    resolver: R,
    ttl: Duration,
    capacity: usize,
    state: BiasedMutex<State>,
}

struct State {
    /// Of this process. After a fork those who ask are the parent's, and would answer nobody here.
    process: u32,
    known: HashMap<Arc<str>, Arc<[SocketAddr]>>,
    /// All that are known, in the order in which they are to be forgotten.
    order: VecDeque<(Instant, Arc<str>)>,
    asked: HashMap<Arc<str>, Arc<Event<Answer>>>,
}

/// What comes of a question, for those who wait for it.
#[derive(Clone)]
enum Answer {
    Found(Arc<[SocketAddr]>),
    Failed(Arc<io::Error>),
    /// Who has asked was stopped, which says nothing about the host.
    None,
}

impl State {
    fn new() -> State {
        State { process: std::process::id(), known: HashMap::new(), order: VecDeque::new(), asked: HashMap::new() }
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
    /// Remembers up to 256 names, for 5 seconds each.
    #[must_use]
    pub fn new(resolver: R) -> CachedResolver<R> {
        CachedResolver { resolver, ttl: Duration::from_secs(5), capacity: 256, state: BiasedMutex::new(State::new()) }
    }

    /// How long a name is remembered. With zero it is not, and only those who ask at the same time share an answer.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> CachedResolver<R> {
        CachedResolver { ttl, ..self }
    }

    /// How many names are remembered. When there are more, the oldest is forgotten.
    #[must_use]
    pub fn capacity(self, names: usize) -> CachedResolver<R> {
        CachedResolver { capacity: names, ..self }
    }

    /// Forgets all names. Does not switch.
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
        // A time that no clock reaches is never over.
        let until = Instant::now().checked_add(self.ttl);
        if self.ttl.is_zero() || self.capacity == 0 || state.known.contains_key(host) {
            return;
        }
        while state.known.len() >= self.capacity {
            state.forget_first();
        }
        state.known.insert(Arc::clone(host), Arc::clone(addresses));
        let until = until.unwrap_or_else(|| Instant::now() + Duration::from_secs(u32::MAX.into()));
        state.order.push_back((until, Arc::clone(host)));
    }
}

impl<R: Resolver> Resolver for CachedResolver<R> {
    /// Switches, unless the name is known; so may the other resolver.
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        loop {
            let mut state = self.lock();
            state.forget_old();
            if let Some(addresses) = state.known.get(host) {
                return Ok(addresses.to_vec());
            }
            let Some(asked) = state.asked.get(host).map(Arc::clone) else {
                let (host, answer) = (Arc::<str>::from(host), Arc::default());
                state.asked.insert(Arc::clone(&host), Arc::clone(&answer));
                drop(state);
                return Question { cache: self, host, answer }.ask();
            };
            drop(state);
            match asked.wait()? {
                Answer::Found(addresses) => return Ok(addresses.to_vec()),
                Answer::Failed(error) => return Err(copy(&error)),
                Answer::None => {}
            }
        }
    }
}

/// Asked once for all. Whoever waits is told something, however this ends.
struct Question<'a, R: Resolver> {
    cache: &'a CachedResolver<R>,
    host: Arc<str>,
    answer: Arc<Event<Answer>>,
}

impl<R: Resolver> Question<'_, R> {
    fn ask(self) -> io::Result<Vec<SocketAddr>> {
        match self.cache.resolver.resolve(&self.host) {
            Ok(addresses) => {
                let shared = Arc::<[SocketAddr]>::from(addresses);
                self.tell(Answer::Found(Arc::clone(&shared)));
                Ok(shared.to_vec())
            }
            Err(error) if is_of_who_asked(&error) => Err(error),
            Err(error) => {
                let shared = Arc::new(error);
                self.tell(Answer::Failed(Arc::clone(&shared)));
                drop(self);
                Err(Arc::try_unwrap(shared).unwrap_or_else(|shared| copy(&shared)))
            }
        }
    }

    fn tell(&self, answer: Answer) {
        let mut state = self.cache.lock();
        if let Answer::Found(addresses) = &answer {
            self.cache.remember(&mut state, &self.host, addresses);
        }
        let own = state.asked.get(&self.host).is_some_and(|asked| Arc::ptr_eq(asked, &self.answer));
        let asked = if own { state.asked.remove(&self.host) } else { None };
        drop(state);
        drop(asked);
        // Told once.
        let _ = self.answer.send(answer);
    }
}

impl<R: Resolver> Drop for Question<'_, R> {
    fn drop(&mut self) {
        if !self.answer.ready() {
            self.tell(Answer::None);
        }
    }
}

/// Whether whoever has asked could not wait, which others perhaps can.
fn is_of_who_asked(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<LoopError>() || error.is::<HubError>())
}

/// The same error for another.
fn copy(error: &Arc<io::Error>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), Shared(Arc::clone(error))),
    }
}

/// An error that several have got.
#[derive(Debug)]
struct Shared(Arc<io::Error>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl<R> fmt::Debug for CachedResolver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing is locked while somebody's formatter runs.
        let known = self.state.lock().known.len();
        let mut debug = f.debug_struct("CachedResolver");
        debug.field("ttl", &self.ttl).field("capacity", &self.capacity).field("known", &known).finish_non_exhaustive()
    }
}
