//! Helpers: OS threads with hubs, and streams that a test controls.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use greenhub::future::defer_to_green_thread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Builder;

/// The time after which a test counts as hung. Ample even on a busy machine.
const HANG: Duration = Duration::from_secs(120);

/// The hub that runs inside a runtime, and over which the hub of Tokio is.
pub(crate) const POLLABLE: &str =
    if cfg!(any(target_os = "linux", target_os = "android")) { "epoll" } else { "kqueue" };

/// How an OS thread runs its green threads.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Mode {
    /// By this hub. That of Tokio drives a runtime of its own.
    Hub(&'static str),
    /// Inside a current-thread runtime of the program.
    CurrentThread,
    /// Inside a multi-thread runtime of the program.
    MultiThread,
}

use Mode::{CurrentThread, Hub, MultiThread};

/// Runs a test in each mode: its streams need no runtime, or one on an OS thread of its own.
pub(crate) fn on_each_hub(test: fn()) {
    in_modes(&[Hub(POLLABLE), Hub("poll"), Hub("select"), Hub("tokio"), CurrentThread, MultiThread], test);
}

/// Runs a test in each mode with a runtime.
pub(crate) fn on_tokio(test: fn()) {
    in_modes(&[Hub("tokio"), CurrentThread, MultiThread], test);
}

/// Runs a test in a green thread in these modes, on two OS threads at once for each. Aborts the process with the name
/// of the test if it hangs.
pub(crate) fn in_modes(modes: &[Mode], test: fn()) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, ended) = mpsc::channel::<()>();
    let spawn = |(mode, number)| {
        // Dropped at the end, by a panic too.
        let done = done.clone();
        let body = move || {
            let _done = done;
            run(mode, test).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        };
        thread::Builder::new().name(format!("{name}, {mode:?} {number}")).spawn(body).expect("an OS thread")
    };
    let threads: Vec<_> = modes.iter().flat_map(|&mode| [(mode, 1), (mode, 2)]).map(spawn).collect();
    drop(done);
    if ended.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
        eprintln!("{name} hangs");
        std::process::abort();
    }
    for thread in threads {
        thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
    }
}

fn run(mode: Mode, test: fn()) -> Result<(), greenhub::GreenError> {
    let mut builder = match mode {
        Hub(hub) => {
            greenhub::use_hub(hub).expect("a hub of this system");
            return greenhub::spawn(test).join();
        }
        CurrentThread => Builder::new_current_thread(),
        MultiThread => Builder::new_multi_thread(),
    };
    greenhub::use_hub(POLLABLE).expect("a hub of this system");
    let runtime = builder.enable_all().build().expect("a runtime");
    let joined = runtime.block_on(hub_tokio::run_until(async { defer_to_green_thread(test).await }));
    joined.expect("the loop runs in the runtime")
}

/// Lets other green threads run until `condition` holds. A condition that never does is a hang.
pub(crate) fn until(condition: impl Fn() -> bool) {
    while !condition() {
        greenhub::sleep(Duration::from_millis(1));
    }
}

/// Lets other green threads, the loop and the runtime run for some turns.
pub(crate) fn some_turns() {
    for _ in 0..20 {
        greenhub::sleep(Duration::ZERO);
    }
}

/// The events of a [`Scripted`] stream.
#[derive(Default)]
pub(crate) struct Script {
    reads: std::cell::RefCell<VecDeque<io::Result<Vec<u8>>>>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
    /// How many bytes are accepted, and whether they are flushed.
    pub(crate) room: Cell<usize>,
    pub(crate) flushes: Cell<bool>,
    pub(crate) written: std::cell::RefCell<Vec<u8>>,
    pub(crate) read_polls: Cell<usize>,
    write_error: Cell<Option<io::ErrorKind>>,
}

impl Script {
    /// Lets the stream return this, after what it was let return before. An empty vector is the end of the stream.
    pub(crate) fn read(&self, event: io::Result<Vec<u8>>) {
        self.reads.borrow_mut().push_back(event);
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    pub(crate) fn set_room(&self, room: usize) {
        self.room.set(room);
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    pub(crate) fn set_flushes(&self, flushes: bool) {
        self.flushes.set(flushes);
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    pub(crate) fn fail_writes(&self, kind: io::ErrorKind) {
        self.write_error.set(Some(kind));
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// A stream whose events the test chooses.
pub(crate) struct Scripted(pub(crate) Rc<Script>);

/// Returns a stream with its script. It flushes at once, and accepts nothing.
pub(crate) fn scripted() -> (Scripted, Rc<Script>) {
    let script = Rc::<Script>::default();
    script.flushes.set(true);
    (Scripted(Rc::clone(&script)), script)
}

impl AsyncRead for Scripted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let script = &self.0;
        script.read_polls.set(script.read_polls.get() + 1);
        let Some(event) = script.reads.borrow_mut().pop_front() else {
            script.reader.set(Some(cx.waker().clone()));
            return Poll::Pending;
        };
        Poll::Ready(event.map(|mut data| {
            let rest = data.split_off(data.len().min(buffer.remaining()));
            buffer.put_slice(&data);
            if !rest.is_empty() {
                script.reads.borrow_mut().push_front(Ok(rest));
            }
        }))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let script = &self.0;
        if let Some(kind) = script.write_error.get() {
            return Poll::Ready(Err(kind.into()));
        }
        let n = data.len().min(script.room.get());
        if n == 0 {
            script.writer.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        script.room.set(script.room.get() - n);
        script.written.borrow_mut().extend_from_slice(&data[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let script = &self.0;
        if let Some(kind) = script.write_error.get() {
            return Poll::Ready(Err(kind.into()));
        }
        if script.flushes.get() {
            return Poll::Ready(Ok(()));
        }
        script.writer.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Does not flush, so that a test sees that the transport does.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The end of a wait from outside.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Ending {
    Kill,
    Timeout,
    Link,
}

pub(crate) const ENDINGS: [Ending; 3] = [Ending::Kill, Ending::Timeout, Ending::Link];

/// Runs `wait` in a green thread until it parks, and ends it there. `wait` must not return.
pub(crate) fn end_while_parked(ending: Ending, wait: impl FnOnce() + 'static) {
    let returned = Rc::new(Cell::new(false));
    let has_returned = Rc::clone(&returned);
    let wait = move || {
        wait();
        has_returned.set(true);
    };
    match ending {
        Ending::Kill => {
            let green = greenhub::spawn(wait);
            some_turns();
            assert!(!green.is_finished());
            green.kill();
            assert!(green.join().unwrap_err().is_kill());
        }
        Ending::Timeout => {
            let limited = greenhub::spawn(|| greenhub::with_timeout(Duration::from_millis(5), wait).is_err());
            assert!(limited.join().expect("the timeout is caught"));
        }
        Ending::Link => {
            let peer = greenhub::spawn(some_turns);
            let linked = greenhub::spawn(move || peer.with_link(wait).is_err());
            assert!(linked.join().expect("the link is caught"));
        }
    }
    assert!(!returned.get(), "{ending:?}: the wait returned");
}

/// Returns `length` bytes that do not repeat soon.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}
