//! A future that a test completes by hand.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A handle to a [`Wait`], which any OS thread may use.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    open: bool,
    polls: usize,
    waker: Option<Waker>,
}

impl Gate {
    pub(super) fn new() -> Gate {
        Gate::default()
    }

    /// Returns a future that is ready when the gate is open.
    pub(super) fn wait(&self) -> Wait {
        Wait(self.clone())
    }

    /// Opens the gate, and wakes the task that polled last.
    pub(super) fn open(&self) {
        self.0.lock().unwrap().open = true;
        self.wake();
    }

    /// Wakes the task that polled last, although the gate may be closed.
    pub(super) fn wake(&self) {
        let waker = self.0.lock().unwrap().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Returns the waker of the last poll, which stays.
    pub(super) fn waker(&self) -> Waker {
        self.0.lock().unwrap().waker.clone().expect("polled before")
    }

    /// Blocks the OS thread until the future was polled, which a busy machine may delay.
    pub(super) fn block_until_polled(&self) {
        while self.polls() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the number of polls so far.
    pub(super) fn polls(&self) -> usize {
        self.0.lock().unwrap().polls
    }
}

/// A future of [`Gate`].
pub(super) struct Wait(Gate);

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock().unwrap();
        state.polls += 1;
        state.waker = Some(cx.waker().clone());
        if state.open { Poll::Ready(()) } else { Poll::Pending }
    }
}
