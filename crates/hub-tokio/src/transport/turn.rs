//! Turns: one operation at a time.

use std::io;

use hub_core::internal::prevents_multiple_readers;
use tokio::sync::{Mutex, MutexGuard};

/// The right to operate in one direction, with the state of that direction.
#[derive(Default)]
pub(crate) struct Turn<S>(Mutex<S>);

impl<S> Turn<S> {
    /// Takes the turn, behind those that wait for it.
    ///
    /// # Errors
    ///
    /// Returns [`ResourceBusy`](io::ErrorKind::ResourceBusy) if it is taken, unless the program allows several waiters.
    pub(crate) async fn take(&self, operation: &str) -> io::Result<MutexGuard<'_, S>> {
        match self.0.try_lock() {
            Ok(state) => Ok(state),
            Err(_) if prevents_multiple_readers() => Err(second_simultaneous(operation)),
            Err(_) => Ok(self.0.lock().await),
        }
    }

    /// Takes the turn if it is free.
    pub(crate) fn try_take(&self) -> Option<MutexGuard<'_, S>> {
        self.0.try_lock().ok()
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        self.0.get_mut()
    }
}

#[cold]
fn second_simultaneous(operation: &str) -> io::Error {
    let text = format!(
        "second simultaneous {operation}: another green thread waits; give each its own connection, or allow it with \
         hub_prevent_multiple_readers(false)"
    );
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}
