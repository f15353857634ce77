//! One event base of libevent: the only file that calls the library. `sys` declares what it calls.
//!
//! Ground rules:
//! - A base, its events and the list that they fill belong to one [`Base`], which is neither `Send` nor `Sync`. Nobody
//!   else has their addresses, so nothing runs in the library while a method here does something else.
//! - An event ends before its base: the fields of [`Base`] stand in the order in which they have to be dropped. The
//!   library takes an event out of all its lists before it frees it, so no callback runs for a freed event.
//! - The list is reached through one raw pointer, taken from a box that ends after the base. Callbacks use it while the
//!   loop runs, for which [`Base::run`] borrows the base mutably, and the other methods only while it does not.
//! - [`told`] does nothing but append a number to the list: it calls no code that could panic, block or switch. [`said`]
//!   passes a text on by [`hub_core::warn`], which does not unwind.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_short, c_void};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use hub_core::{Interest, Lease, round};

use crate::{convert, sys};

/// An event base with its events.
pub(crate) struct Base {
    /// By number: for reading and for writing.
    events: Vec<[Option<Event>; 2]>,
    /// How many of them there are.
    count: usize,
    /// Ends a wait.
    timer: Event,
    raw: Raw,
    found: Found,
}

impl Base {
    pub(crate) fn new() -> io::Result<Base> {
        static ROUTE_WARNINGS: Once = Once::new();
        // SAFETY: `said` has the signature that is asked for. The library's place for it is written once, by us.
        ROUTE_WARNINGS.call_once(|| unsafe { sys::event_set_log_callback(said) });
        let found = Found(NonNull::from(Box::leak(Box::default())));
        let raw = Raw::new()?;
        let timer = Event::new(&raw, -1, 0, &found)?;
        Ok(Base { events: Vec::new(), count: 0, timer, raw, found })
    }

    /// Registers one direction, or registers it still.
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
                    // SAFETY: the loop does not run, so the list is ours.
                    let found = unsafe { self.found.0.as_mut() };
                    // Each event is found once in a run: callbacks append without asking for memory.
                    found.reserve(self.count.saturating_sub(found.len()));
                }
                place.insert(fresh)
            }
        };
        event.add(None)
    }

    /// Takes directions out, registered or not.
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

    /// Sleeps until an event comes or `timeout` is over, and keeps the numbers of those that came.
    pub(crate) fn run(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // SAFETY: the loop does not run, so the list is ours.
        unsafe { self.found.0.as_mut() }.clear();
        // Without ONCE, what is still ready would be reported within one call for ever.
        let mut flags = sys::EVLOOP_ONCE | sys::EVLOOP_NO_EXIT_ON_EMPTY;
        match timeout {
            None => {}
            Some(Duration::ZERO) => flags |= sys::EVLOOP_NONBLOCK,
            Some(_) => self.timer.add(timeout)?,
        }
        // SAFETY: the base is alive and, since `self` is borrowed mutably and callbacks only append, does not run.
        let ended = unsafe { sys::event_base_loop(self.raw.0.as_ptr(), flags) };
        let result = if ended < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        self.timer.remove();
        result
    }

    /// The numbers that the last run named. One of them may be there twice.
    pub(crate) fn found(&self) -> &[RawFd] {
        // SAFETY: the loop does not run while `self` is borrowed, so the list does not change.
        unsafe { self.found.0.as_ref() }
    }

    /// Leaves a base alone that came along in a fork (quirk i).
    pub(crate) fn abandon(self) {
        std::mem::forget(self);
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the base is alive. Both calls return strings that last as long as the program.
        let (method, version) = unsafe {
            let method = sys::event_base_get_method(self.raw.0.as_ptr());
            (CStr::from_ptr(method), CStr::from_ptr(sys::event_get_version()))
        };
        f.debug_struct("Base").field("method", &method).field("version", &version).finish_non_exhaustive()
    }
}

/// The library's part.
struct Raw(NonNull<sys::event_base>);

impl Raw {
    fn new() -> io::Result<Raw> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        // The library ends the process if it finds too few descriptors, and there is no way to be asked first. It needs a
        // pair, the set and the timer; the others are for what the program's other OS threads open meanwhile.
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        drop((io::pipe()?, io::pipe()?, io::pipe()?, io::pipe()?));
        let features = sys::EV_FEATURE_ET | sys::EV_FEATURE_O1;
        let flags = sys::EVENT_BASE_FLAG_PRECISE_TIMER | sys::EVENT_BASE_FLAG_IGNORE_ENV | sys::EVENT_BASE_FLAG_NOLOCK;
        // SAFETY: the configuration is checked, used alive, and freed once.
        let raw = hushed(|| unsafe {
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
        // SAFETY: the base is alive, its events are freed, and nobody uses it after this.
        hushed(|| unsafe { sys::event_base_free(self.0.as_ptr()) });
    }
}

/// The numbers that callbacks found.
struct Found(NonNull<Vec<RawFd>>);

impl Drop for Found {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a box, and the events that knew it are freed.
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
        // SAFETY: the base is alive; the list outlives its events.
        let raw = unsafe { sys::event_new(base.0.as_ptr(), fd, flags, told, found.0.as_ptr().cast()) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        Ok(Event { raw, flags })
    }

    fn add(&self, timeout: Option<Duration>) -> io::Result<()> {
        let limit =
            timeout.map(round::micros).map(|(secs, micros)| sys::timeval { tv_sec: secs as _, tv_usec: micros as _ });
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the event and its base are alive, and the limit is null or lives until the end of the call.
        match hushed(|| unsafe { sys::event_add(self.raw.as_ptr(), limit) }) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn remove(&self) {
        // SAFETY: the event and its base are alive. It fails where the number is closed, and has removed it then.
        hushed(|| unsafe { sys::event_del(self.raw.as_ptr()) });
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event and its base are alive, and nobody uses it after this.
        hushed(|| unsafe { sys::event_free(self.raw.as_ptr()) });
    }
}

fn side(direction: Interest) -> usize {
    usize::from(direction == Interest::WRITE)
}

/// Called by the library, in [`Base::run`], for an event that came. The timer has no number.
unsafe extern "C" fn told(fd: c_int, _what: c_short, found: *mut c_void) {
    // SAFETY: `found` is the list of this event's base, and by the ground rules nobody else uses it now.
    let found = unsafe { &mut *found.cast::<Vec<RawFd>>() };
    // Both directions of a number mostly come one after the other.
    if fd >= 0 && found.last() != Some(&fd) {
        found.push(fd);
    }
}

thread_local! {
    /// Whether the caller of the library learns of what goes wrong by itself.
    static HUSHED: Cell<bool> = const { Cell::new(false) };
}

fn hushed<T>(call: impl FnOnce() -> T) -> T {
    HUSHED.set(true);
    let result = call();
    HUSHED.set(false);
    result
}

/// Called by the library, on any thread, for what it has to say.
unsafe extern "C" fn said(severity: c_int, text: *const c_char) {
    let ends_the_process = severity > sys::EVENT_LOG_WARN;
    if ends_the_process || severity >= sys::EVENT_LOG_WARN && !HUSHED.get() {
        // SAFETY: the library passes a string that lasts until this returns.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        hub_core::warn(if ends_the_process {
            format!("libevent ends the process: {text}")
        } else {
            format!("libevent: {text}")
        });
    }
}
