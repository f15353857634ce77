//! Helpers for tests of green threads.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::cell::{Cell, RefCell};
use std::io::{self, PipeReader, PipeWriter};
use std::rc::Rc;
use std::sync::{Mutex, Once, mpsc};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use greenhub::hub::Stats;
use greenhub::net::Resolver;
use greenhub::park::Source;
use greenhub::{GreenThread, Interest};

/// A time longer than any test runs.
pub(crate) const LONG: Duration = Duration::from_secs(3600);
pub(crate) const SHORT: Duration = Duration::from_millis(5);

/// A log of events, in order.
#[derive(Clone, Default, Debug)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn new() -> Log {
        Log::default()
    }

    pub(crate) fn add(&self, text: impl Into<String>) {
        self.0.borrow_mut().push(text.into());
    }

    #[track_caller]
    pub(crate) fn is(&self, expected: &[&str]) {
        assert_eq!(*self.0.borrow(), expected);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(crate) fn any(&self, text: &str) -> bool {
        self.0.borrow().iter().any(|entry| entry == text)
    }

    /// Returns the index of the first such entry.
    pub(crate) fn position(&self, text: &str) -> Option<usize> {
        self.0.borrow().iter().position(|entry| entry == text)
    }

    pub(crate) fn all(&self, text: &str) -> bool {
        self.0.borrow().iter().all(|entry| entry == text)
    }

    /// Returns a value that adds an entry when it is dropped.
    pub(crate) fn on_drop(&self, text: &'static str) -> OnDrop<impl FnMut() + use<>> {
        let log = self.clone();
        OnDrop(move || log.add(text))
    }
}

/// Calls its closure when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Returns the result of a wait with a limit, `None` if the limit was reached. Any other error is a failure.
pub(crate) fn in_time<T, E: std::fmt::Display>(waited: Result<T, E>) -> Option<T> {
    match waited {
        Ok(value) => Some(value),
        Err(error) if error.to_string() == "timed out" => None,
        Err(error) => panic!("{error}"),
    }
}

/// Calls a closure in a callback of the main loop, in a later turn.
pub(crate) fn call_on_main_loop(call: impl FnOnce() + 'static) {
    let call = Cell::new(Some(call));
    greenhub::get_hub().schedule(Duration::ZERO, move || call.take().into_iter().for_each(|call| call()));
}

/// Counts the drops of the values that it made.
#[derive(Clone, Default)]
pub(crate) struct Drops(Rc<Cell<usize>>);

impl Drops {
    pub(crate) fn one(&self) -> OnDrop<impl FnMut() + use<>> {
        let count = self.0.clone();
        OnDrop(move || count.set(count.get() + 1))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.get()
    }
}

/// The resources of a hub. Unchanged after a test that leaks none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    greenlets: usize,
    green_threads: usize,
    timers: usize,
    readers: usize,
    writers: usize,
    stacks_in_use: usize,
}

/// Returns the resources of this thread's hub, counted after the ready greenlets have run.
pub(crate) fn held() -> Held {
    // Starts the main loop, and lets it run a few turns.
    for _ in 0..3 {
        greenhub::sleep(Duration::from_micros(100));
    }
    let Stats { greenlets, green_threads, timers, readers, writers, stacks_in_use, .. } = greenhub::get_hub().stats();
    Held { greenlets, green_threads, timers, readers, writers, stacks_in_use }
}

/// Waits until this thread's hub holds exactly `expected`: a pool job outlives its killed waiter.
#[track_caller]
pub(crate) fn wait_until_held(expected: &Held, after: &str) {
    let begin = Instant::now();
    let mut now = held();
    while now != *expected && begin.elapsed() < Duration::from_secs(60) {
        now = held();
    }
    assert_eq!(now, *expected, "{after}");
}

/// Kills its green thread when it is dropped.
pub(crate) struct KillOnDrop<T>(pub(crate) GreenThread<T>);

impl<T> Drop for KillOnDrop<T> {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Spawns a green thread that counts its turns.
pub(crate) fn ticker() -> Rc<Cell<usize>> {
    let ticks = Rc::new(Cell::new(0));
    let counted = Rc::clone(&ticks);
    greenhub::spawn(move || {
        loop {
            counted.set(counted.get() + 1);
            greenhub::sleep(Duration::from_micros(100));
        }
    });
    ticks
}

pub(crate) fn pipe() -> (PipeReader, PipeWriter) {
    io::pipe().expect("a pipe")
}

/// A resolver that never answers.
struct Silent;

impl Resolver for Silent {
    fn resolve(&self, _host: &str) -> io::Result<Vec<std::net::SocketAddr>> {
        greenhub::sleep(LONG);
        Ok(Vec::new())
    }
}

/// A place where a green thread parks until it is unwound.
pub(crate) struct ParkPoint {
    pub(crate) name: &'static str,
    pub(crate) park: fn(),
    /// Whether a kill does not end the wait at once.
    pub(crate) masked: bool,
}

/// Every kind of place where a green thread may park.
pub(crate) const PARK_POINTS: &[ParkPoint] = &[
    ParkPoint { name: "sleep", park: || greenhub::sleep(LONG), masked: false },
    ParkPoint {
        name: "yield",
        park: || {
            loop {
                greenhub::thread::yield_now();
            }
        },
        masked: false,
    },
    ParkPoint { name: "a future", park: || greenhub::future::block_on(std::future::pending()), masked: false },
    ParkPoint {
        name: "wait",
        park: || {
            let other = KillOnDrop(greenhub::spawn(|| greenhub::sleep(LONG)));
            let _ = other.0.wait();
        },
        masked: false,
    },
    ParkPoint {
        name: "join",
        park: || {
            let (reader, _writer) = pipe();
            let other = greenhub::spawn(move || greenhub::trampoline(&reader, Interest::READ, None).is_ok());
            let _ = other.join();
        },
        masked: false,
    },
    ParkPoint {
        name: "trampoline",
        park: || {
            let (reader, _writer) = pipe();
            let _ = greenhub::trampoline(&reader, Interest::READ, None);
        },
        masked: false,
    },
    ParkPoint {
        name: "trampoline with a limit",
        park: || {
            let (reader, _writer) = pipe();
            let _ = greenhub::trampoline(&reader, Interest::READ, Some(LONG));
        },
        masked: false,
    },
    ParkPoint {
        name: "read",
        park: || {
            let (reader, _writer) = pipe();
            let source = Source::new(reader.into()).expect("a source");
            let mut buffer = [0; 16];
            let _ = source.read(None, |fd| Ok((rustix::io::read(fd, &mut buffer)?, greenhub::park::ReadHint::Nothing)));
        },
        masked: false,
    },
    ParkPoint {
        name: "write",
        park: || {
            let (_reader, writer) = pipe();
            let source = Source::new(writer.into()).expect("a source");
            loop {
                let _ = source.write(Some(LONG), |fd| Ok(rustix::io::write(fd, &[0; 4096])?));
            }
        },
        masked: false,
    },
    ParkPoint {
        name: "offload",
        park: || {
            let (_hold, held) = mpsc::channel::<()>();
            let _ = greenhub::tpool::execute(move || _ = held.recv());
        },
        masked: false,
    },
    ParkPoint {
        name: "offload, scoped",
        park: || {
            let mut rounds = Box::new(0);
            loop {
                let _ = greenhub::tpool::execute_scoped(|| {
                    std::thread::sleep(Duration::from_micros(200));
                    *rounds += 1;
                });
            }
        },
        masked: true,
    },
    ParkPoint {
        name: "a full pool",
        park: || {
            let pool = greenhub::GreenPool::new(1);
            let _other = KillOnDrop(pool.spawn(|| greenhub::sleep(LONG)).expect("there is room"));
            let _ = pool.spawn(|| unreachable!());
        },
        masked: false,
    },
    ParkPoint {
        name: "a server",
        park: || {
            let listener = greenhub::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let _ = greenhub::net::serve(&listener, &greenhub::GreenPool::new(1), |_, _| ());
        },
        masked: false,
    },
    ParkPoint {
        name: "a name lookup",
        park: || {
            let _ = greenhub::net::CachedResolver::new(Silent).resolve("host.test");
        },
        masked: false,
    },
    ParkPoint {
        name: "a shared name lookup",
        park: || {
            let cached = Rc::new(greenhub::net::CachedResolver::new(Silent));
            let own = Rc::clone(&cached);
            let _other = KillOnDrop(greenhub::spawn(move || own.resolve("host.test")));
            greenhub::thread::yield_now();
            let _ = cached.resolve("host.test");
        },
        masked: false,
    },
    ParkPoint {
        name: "a wait for a pool",
        park: || {
            let pool = greenhub::GreenPool::new(1);
            let _other = KillOnDrop(pool.spawn(|| greenhub::sleep(LONG)).expect("there is room"));
            let _ = pool.wait_all();
        },
        masked: false,
    },
    ParkPoint {
        name: "a wait for a group",
        park: || {
            let group = greenhub::greenpool::Group::new();
            let _other = KillOnDrop(group.spawn(|| greenhub::sleep(LONG)).unwrap());
            let _ = group.wait_all();
        },
        masked: false,
    },
    ParkPoint {
        name: "a wait for a group or its first failure",
        park: || {
            let group = greenhub::greenpool::Group::new();
            let _other = KillOnDrop(group.spawn(|| greenhub::sleep(LONG)).unwrap());
            let _ = group.try_wait_all();
        },
        masked: false,
    },
    ParkPoint {
        name: "a linked scope",
        park: || {
            let other = KillOnDrop(greenhub::spawn(|| greenhub::sleep(LONG)));
            let _ = other.0.with_link(|| greenhub::sleep(LONG));
        },
        masked: false,
    },
    ParkPoint {
        name: "a sleep after a struck linked scope",
        park: || {
            let _ = greenhub::spawn(|| ()).with_link(|| greenhub::sleep(LONG));
            greenhub::sleep(LONG);
        },
        masked: false,
    },
    ParkPoint {
        name: "imap",
        park: || {
            let pool = greenhub::GreenPool::new(2);
            let end = pool.clone();
            let _end = OnDrop(move || end.kill_all());
            let _ = pool.imap(0..4, |_| greenhub::sleep(LONG)).next();
        },
        masked: false,
    },
    ParkPoint {
        name: "a pool of resources",
        park: || {
            let pool = greenhub::pools::Pool::new(1, || Ok(()));
            let _item = pool.item();
            let _ = pool.item();
        },
        masked: false,
    },
    ParkPoint {
        name: "a constructor of a resource pool",
        park: || {
            let pool = greenhub::pools::Pool::new(1, || {
                greenhub::sleep(LONG);
                Ok(())
            });
            let _ = pool.item();
        },
        masked: false,
    },
    ParkPoint { name: "an event", park: || drop(greenhub::sync::Event::<()>::new().wait()), masked: false },
    ParkPoint { name: "an empty queue", park: || drop(greenhub::sync::Queue::<()>::new().get()), masked: false },
    ParkPoint {
        name: "a full queue",
        park: || drop(greenhub::sync::Queue::bounded(0).put_timeout(Box::new(1), LONG)),
        masked: false,
    },
    ParkPoint {
        name: "a queue with unfinished tasks",
        park: || {
            let queue = greenhub::sync::Queue::new();
            let _ = queue.put(());
            let _ = queue.join();
        },
        masked: false,
    },
    ParkPoint {
        name: "a channel without a receiver",
        park: || drop(greenhub::sync::Channel::new().send(Box::new(1))),
        masked: false,
    },
    ParkPoint { name: "a semaphore", park: || drop(greenhub::sync::Semaphore::new(0).acquire()), masked: false },
    ParkPoint {
        name: "a locked mutex",
        park: || {
            greenhub::greenthread::set_lock_patience(SHORT);
            let mutex = greenhub::sync::Mutex::new(());
            let _held = mutex.lock();
            drop(mutex.lock());
        },
        masked: true,
    },
    ParkPoint {
        name: "a writer behind a reader",
        park: || {
            greenhub::greenthread::set_lock_patience(SHORT);
            let lock = greenhub::sync::RwLock::new(());
            let _held = lock.read();
            drop(lock.write());
        },
        masked: true,
    },
    ParkPoint {
        name: "a reader behind a waiting writer",
        park: || {
            greenhub::greenthread::set_lock_patience(SHORT);
            let lock = std::sync::Arc::new(greenhub::sync::RwLock::new(()));
            let (_held, own) = (lock.read(), lock.clone());
            let _writer = KillOnDrop(greenhub::spawn(move || drop(own.write())));
            greenhub::thread::yield_now();
            drop(lock.read());
        },
        masked: true,
    },
    ParkPoint {
        name: "a condition variable",
        park: || {
            let (mutex, condvar) = (greenhub::sync::Mutex::new(()), greenhub::sync::Condvar::new());
            if let Ok(guard) = mutex.lock() {
                drop(condvar.wait_while(guard, |()| true));
            }
        },
        masked: false,
    },
    ParkPoint {
        name: "a barrier",
        park: || {
            greenhub::sync::Barrier::new(2).wait();
        },
        masked: false,
    },
    ParkPoint {
        name: "a lazy value during its initialization",
        park: || *greenhub::sync::LazyLock::new(|| greenhub::sleep(LONG)),
        masked: false,
    },
    ParkPoint { name: "an unset OnceLock", park: || _ = greenhub::sync::OnceLock::<()>::new().wait(), masked: false },
    ParkPoint {
        name: "a receiver",
        park: || {
            let (_sender, receiver) = greenhub::sync::mpsc::channel::<()>();
            let _ = receiver.recv();
        },
        masked: false,
    },
    ParkPoint {
        name: "a sender to a full channel",
        park: || {
            let (sender, _receiver) = greenhub::sync::mpsc::sync_channel(1);
            let _ = sender.send(Box::new(1));
            let _ = sender.send(Box::new(2));
        },
        masked: false,
    },
    ParkPoint {
        name: "a sender to a rendezvous channel",
        park: || {
            let (sender, _receiver) = greenhub::sync::mpsc::sync_channel(0);
            let _ = sender.send(Box::new(1));
        },
        masked: false,
    },
    ParkPoint {
        name: "scope, in its closure",
        park: || {
            greenhub::scope(|s| {
                s.spawn(|| greenhub::sleep(LONG));
                greenhub::sleep(LONG);
            });
        },
        masked: true,
    },
    ParkPoint {
        name: "scope, joining",
        park: || {
            greenhub::scope(|s| {
                s.spawn(|| greenhub::sleep(LONG));
                s.spawn(|| {
                    greenhub::scope(|s| {
                        s.spawn(|| greenhub::sleep(LONG));
                    });
                });
            });
        },
        masked: true,
    },
    ParkPoint {
        name: "a sleep with a timeout",
        park: || drop(greenhub::with_timeout(LONG, || greenhub::sleep(LONG))),
        masked: false,
    },
    ParkPoint {
        name: "a sleep after a timeout",
        park: || {
            let _ = greenhub::with_timeout(Duration::from_micros(50), || greenhub::sleep(LONG));
            greenhub::sleep(LONG);
        },
        masked: false,
    },
    ParkPoint {
        name: "a sleep after a swallowed exit",
        park: || {
            let caught = std::panic::catch_unwind(|| greenhub::sleep(LONG));
            assert!(caught.is_err());
            greenhub::sleep(LONG);
        },
        masked: false,
    },
];

static REPORTS: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

/// Keeps the reports of all threads from now on, for [`reports`] and [`reports_naming`].
pub(crate) fn keep_reports() {
    static KEEP: Once = Once::new();
    KEEP.call_once(|| {
        greenhub::debug::set_report_stream(|report| {
            REPORTS.lock().unwrap().push((std::thread::current().id(), report.to_string()));
        });
    });
}

/// Returns the reports of this thread.
pub(crate) fn reports() -> Vec<String> {
    let here = std::thread::current().id();
    REPORTS.lock().unwrap().iter().filter(|(thread, _)| *thread == here).map(|(_, text)| text.clone()).collect()
}

/// Returns the reports of all threads whose text contains `place`.
pub(crate) fn reports_naming(place: &str) -> Vec<String> {
    REPORTS.lock().unwrap().iter().filter(|(_, text)| text.contains(place)).map(|(_, text)| text.clone()).collect()
}

/// Panics without a message.
pub(crate) fn quiet_panic(payload: impl std::any::Any + Send) -> ! {
    std::panic::resume_unwind(Box::new(payload))
}
