//! The events of a transport that are not events of its stream: pauses, and the loss of the connection.

use std::io;
use std::mem;
use std::task::{Context, Poll, Waker};

use hub_core::BiasedMutex;

/// The pauses of the read direction, and the loss of the connection, with the wakers of the waits that they concern.
#[derive(Default)]
pub(super) struct Flow(BiasedMutex<State>);

#[derive(Default)]
struct State {
    pauses: usize,
    loss: Option<Loss>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    pub(super) fn pause(&self) {
        let mut state = self.0.lock();
        state.pauses = state.pauses.saturating_add(1);
    }

    pub(super) fn resume(&self) {
        let mut state = self.0.lock();
        state.pauses = state.pauses.saturating_sub(1);
        let reader = if state.pauses == 0 { state.reader.take() } else { None };
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.0.lock().pauses != 0
    }

    /// Records the loss of the connection if `error` tells of one. The first reason stays.
    pub(super) fn lose(&self, error: &io::Error) {
        if is_temporary(error) {
            return;
        }
        let loss = Loss::of(error);
        let mut state = self.0.lock();
        if state.loss.is_some() {
            return;
        }
        state.loss = Some(loss);
        let writer = state.writer.take();
        drop(state);
        writer.into_iter().for_each(Waker::wake);
    }

    /// Returns the reason if the connection is lost.
    pub(super) fn check_loss(&self) -> io::Result<()> {
        self.0.lock().loss.as_ref().map_or(Ok(()), |loss| Err(loss.error()))
    }

    /// Begins a wait that pauses concern.
    pub(super) fn watch_pauses(&self) -> Watch<'_> {
        Watch { flow: self, waker_of: |state| &mut state.reader }
    }

    /// Begins a wait that the loss of the connection ends.
    pub(super) fn watch_loss(&self) -> Watch<'_> {
        Watch { flow: self, waker_of: |state| &mut state.writer }
    }
}

/// A wait in one direction. Its waker is removed with it: a waker that is kept cannot be used again.
pub(super) struct Watch<'a> {
    flow: &'a Flow,
    waker_of: fn(&mut State) -> &mut Option<Waker>,
}

impl Watch<'_> {
    /// Is ready while reads are not held up.
    pub(super) fn poll_flowing(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll(cx, |state| (state.pauses == 0).then_some(()))
    }

    /// Is ready with the reason when the connection is lost.
    pub(super) fn poll_loss(&self, cx: &Context<'_>) -> Poll<io::Error> {
        self.poll(cx, |state| state.loss.as_ref().map(Loss::error))
    }

    fn poll<R>(&self, cx: &Context<'_>, ready: impl FnOnce(&State) -> Option<R>) -> Poll<R> {
        let mut state = self.flow.0.lock();
        if let Some(value) = ready(&state) {
            return Poll::Ready(value);
        }
        let known = (self.waker_of)(&mut state);
        let old = match known {
            Some(known) if known.will_wake(cx.waker()) => None,
            known => known.replace(cx.waker().clone()),
        };
        // A waker is foreign code: it is dropped without the lock.
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let waker = mem::take((self.waker_of)(&mut self.flow.0.lock()));
        drop(waker);
    }
}

/// The reason of a loss. An [`io::Error`] itself cannot be returned twice.
struct Loss {
    code: Option<i32>,
    kind: io::ErrorKind,
    text: String,
}

impl Loss {
    fn of(error: &io::Error) -> Loss {
        Loss { code: error.raw_os_error(), kind: error.kind(), text: error.to_string() }
    }

    fn error(&self) -> io::Error {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.text.as_str()),
        }
    }
}

/// Returns whether the operation may succeed if it is tried again.
///
/// A timeout of the system ends the connection, and one of the stream's own does not.
pub(super) fn is_temporary(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => true,
        io::ErrorKind::TimedOut => error.raw_os_error().is_none(),
        _ => false,
    }
}
