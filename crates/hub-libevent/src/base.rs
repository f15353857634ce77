//! One event base of libevent: the only file that calls the library. `sys` holds the declarations.
//!
//! Ground rules:
//! - A base, its events and the list that their callbacks fill belong to one [`Base`], which is neither `Send` nor
//!   `Sync`. No other code has their addresses, so the library works on them only during a call from this file.
//! - Events are dropped before their base: the fields of [`Base`] stand in drop order. The library removes an event
//!   from all its lists before it frees the event, so no callback runs for a freed event.
//! - All access to the list goes through one raw pointer, from a box that is freed after the base. Callbacks use the
//!   pointer while the loop runs, during which [`Base::run`] holds the base mutably borrowed. Other methods use it only
//!   while the loop does not run.
//! - [`on_event`] only appends a number to the list: it calls no code that could panic, block or switch. [`on_log`]
//!   passes a text to [`hub_core::hub::warn`], which does not unwind.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_short, c_void};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use hub_core::hub::{Interest, Lease, round};

use crate::{convert, sys};

/// An event base with its events.
pub(crate) struct Base {
    /// Indexed by number, then by direction.
    events: Vec<[Option<Event>; 2]>,
    /// The number of events in `events`.
    count: usize,
    /// The event that ends a wait after its timeout.
    timer: Event,
    raw: Raw,
    found: Found,
}

impl Base {
    pub(crate) fn new() -> io::Result<Base> {
        static ROUTE_WARNINGS: Once = Once::new();
        // SAFETY: `on_log` has the required signature. The `Once` excludes concurrent writes to the library's variable.
        ROUTE_WARNINGS.call_once(|| unsafe { sys::event_set_log_callback(on_log) });
        let found = Found(NonNull::from(Box::leak(Box::default())));
        let raw = Raw::new()?;
        let timer = Event::new(&raw, -1, 0, &found)?;
        Ok(Base { events: Vec::new(), count: 0, timer, raw, found })
    }

    /// Registers one direction. A direction that is registered already stays so.
    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, direction: Interest, lease: Lease) -> io::Result<()> {
        let number = fd.as_raw_fd() as usize;
        if number >= self.events.len() {
            self.events.resize_with(number + 1, Default::default);
        }
        let flags = convert::event_flags(direction, lease);
        let place = &mut self.events[number][side(direction)];
        let event = match place {
            Some(event) if event.flags == flags => event,
            _ => {
                let fresh = Event::new(&self.raw, fd.as_raw_fd(), flags, &self.found)?;
                if place.is_none() {
                    self.count += 1;
                    // SAFETY: the loop does not run, so no callback uses the list.
                    let found = unsafe { self.found.0.as_mut() };
                    // The loop calls back once per event and run, so with this capacity callbacks never allocate.
                    found.reserve(self.count.saturating_sub(found.len()));
                }
                place.insert(fresh)
            }
        };
        event.add(None)
    }

    /// Deregisters directions, whether registered or not.
    pub(crate) fn remove(&self, number: RawFd, directions: Interest) {
        let Some(pair) = self.events.get(number as usize) else { return };
        for direction in [Interest::READ, Interest::WRITE] {
            if directions.contains(direction)
                && let Some(event) = &pair[side(direction)]
            {
                event.remove();
            }
        }
    }

    /// Waits for an event or until `timeout` is over, and keeps the numbers of the events.
    pub(crate) fn run(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // SAFETY: the loop does not run, so no callback uses the list.
        unsafe { self.found.0.as_mut() }.clear();
        // Without ONCE, one call would report a descriptor that stays ready again and again, and never return.
        let mut flags = sys::EVLOOP_ONCE | sys::EVLOOP_NO_EXIT_ON_EMPTY;
        match timeout {
            None => {}
            Some(Duration::ZERO) => flags |= sys::EVLOOP_NONBLOCK,
            Some(_) => self.timer.add(timeout)?,
        }
        // SAFETY: the base is alive. Its loop does not run: `self` is mutably borrowed, and callbacks only append to
        // the list.
        let ended = unsafe { sys::event_base_loop(self.raw.0.as_ptr(), flags) };
        let result = if ended < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        self.timer.remove();
        result
    }

    /// Returns the numbers that the last run found. A number may occur twice.
    pub(crate) fn found(&self) -> &[RawFd] {
        // SAFETY: the loop does not run while `self` is borrowed, so the list does not change.
        unsafe { self.found.0.as_ref() }
    }

    /// Leaks the copy of a base in a forked child (quirk i).
    pub(crate) fn abandon(self) {
        std::mem::forget(self);
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the base is alive. Both calls return static strings.
        let (method, version) = unsafe {
            let method = sys::event_base_get_method(self.raw.0.as_ptr());
            (CStr::from_ptr(method), CStr::from_ptr(sys::event_get_version()))
        };
        f.debug_struct("Base").field("method", &method).field("version", &version).finish_non_exhaustive()
    }
}

/// The base of the library.
struct Raw(NonNull<sys::event_base>);

impl Raw {
    fn new() -> io::Result<Raw> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        // With too few free descriptors the library ends the process instead of returning an error. Probe for eight
        // (quirk h): a base takes a pair, the set and the timer. The rest is a margin for other OS threads.
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        drop((io::pipe()?, io::pipe()?, io::pipe()?, io::pipe()?));
        let features = sys::EV_FEATURE_ET | sys::EV_FEATURE_O1;
        let flags = sys::EVENT_BASE_FLAG_PRECISE_TIMER | sys::EVENT_BASE_FLAG_IGNORE_ENV | sys::EVENT_BASE_FLAG_NOLOCK;
        // SAFETY: the configuration is not null, is used before it is freed, and is freed once.
        let raw = without_warnings(|| unsafe {
            let config = NonNull::new(sys::event_config_new())?.as_ptr();
            sys::event_config_require_features(config, features);
            sys::event_config_set_flag(config, flags);
            let base = NonNull::new(sys::event_base_new_with_config(config));
            sys::event_config_free(config);
            base
        });
        raw.map(Raw).ok_or_else(|| {
            let error = io::Error::last_os_error();
            io::Error::new(error.kind(), format!("libevent finds neither epoll nor kqueue, or no memory: {error}"))
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the base is alive, its events are freed, and `drop` is the last use.
        without_warnings(|| unsafe { sys::event_base_free(self.0.as_ptr()) });
    }
}

/// The numbers that callbacks have found.
struct Found(NonNull<Vec<RawFd>>);

impl Drop for Found {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a box, and the events that held a copy are freed.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// An event of a base, registered or not.
struct Event {
    raw: NonNull<sys::event>,
    flags: c_short,
}

impl Event {
    fn new(base: &Raw, fd: RawFd, flags: c_short, found: &Found) -> io::Result<Event> {
        // SAFETY: the base is alive, and the list outlives the event.
        let raw = unsafe { sys::event_new(base.0.as_ptr(), fd, flags, on_event, found.0.as_ptr().cast()) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        Ok(Event { raw, flags })
    }

    fn add(&self, timeout: Option<Duration>) -> io::Result<()> {
        let limit =
            timeout.map(round::micros).map(|(secs, micros)| sys::timeval { tv_sec: secs as _, tv_usec: micros as _ });
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the event and its base are alive, and the limit is null or lives until the call returns.
        match without_warnings(|| unsafe { sys::event_add(self.raw.as_ptr(), limit) }) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn remove(&self) {
        // An error is ignored: for a closed number the call fails and still removes the event.
        // SAFETY: the event and its base are alive.
        without_warnings(|| unsafe { sys::event_del(self.raw.as_ptr()) });
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event and its base are alive, and `drop` is the last use of the event.
        without_warnings(|| unsafe { sys::event_free(self.raw.as_ptr()) });
    }
}

fn side(direction: Interest) -> usize {
    usize::from(direction == Interest::WRITE)
}

/// Notes the number of an event. The library calls this in [`Base::run`], also for the timer, which has no number.
///
/// # Safety
///
/// `found` is the list of numbers of the base that runs.
unsafe extern "C" fn on_event(fd: c_int, _what: c_short, found: *mut c_void) {
    // SAFETY: `found` is the list of the base, by the contract. By the ground rules no other reference to it is in use
    // while the loop runs.
    let found = unsafe { &mut *found.cast::<Vec<RawFd>>() };
    // The two directions of a number usually come one after the other.
    if fd >= 0 && found.last() != Some(&fd) {
        found.push(fd);
    }
}

thread_local! {
    /// Whether warnings are suppressed because the library call under way returns an error itself.
    static SUPPRESSED: Cell<bool> = const { Cell::new(false) };
}

fn without_warnings<T>(call: impl FnOnce() -> T) -> T {
    SUPPRESSED.set(true);
    let result = call();
    SUPPRESSED.set(false);
    result
}

/// Reports a log message of the library as a warning. The library calls this on any OS thread.
///
/// # Safety
///
/// `text` is a string that is valid until this returns.
unsafe extern "C" fn on_log(severity: c_int, text: *const c_char) {
    let ends_the_process = severity > sys::EVENT_LOG_WARN;
    if ends_the_process || severity >= sys::EVENT_LOG_WARN && !SUPPRESSED.get() {
        // SAFETY: by the contract.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        hub_core::hub::warn(if ends_the_process {
            format!("libevent ends the process: {text}")
        } else {
            format!("libevent: {text}")
        });
    }
}
