//! The registrations of listeners.

use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::rc::Rc;

use crate::base::id::HubId;
use crate::error::TrampolineError;
use crate::greenlet::local;
use crate::hub::Interest;
use crate::main_loop::listener::Listener;
use crate::main_loop::{self, CallbackId};

/// A listener registered by [`HubRef::listen`](crate::HubRef::listen).
///
/// Dropping it deregisters the listener, and drops the listener and the descriptor. Eventlet's `hub.remove`. Inside a
/// hub's `wait` the descriptor is dropped later, when the loop reads its mail. A call whose registration is not kept
/// registers nothing, and is warned about:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use greenhub::Interest;
/// let (reader, _writer) = std::io::pipe()?;
/// greenhub::get_hub().listen(reader, Interest::READ, |_| println!("never printed"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "hub.remove")]
#[doc(alias = "remove_descriptor")]
#[doc(alias = "FdListener")]
#[doc(alias = "watcher")]
#[derive(Debug)]
#[must_use = "the listener is deregistered when this is dropped"]
pub struct Registration {
    id: CallbackId,
    hub: HubId,
    here: PhantomData<*const ()>,
}

impl Registration {
    /// Sets whether the listener keeps the loop alive. Does not switch.
    ///
    /// It is on by default. A listener that is not counted is called as before, but the main greenlet gets
    /// [`LoopExit`](crate::LoopErrorKind::LoopExit), and [`HubRef::join`](crate::HubRef::join) returns, as if it did
    /// not exist. gevent's `ref`.
    #[doc(alias = "ref")]
    pub fn set_counted(&self, counted: bool) {
        if let Some(main_loop) = main_loop::of_hub(self.hub) {
            main_loop.count_callback(self.id, counted);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(main_loop) = main_loop::of_hub(self.hub) {
            main_loop.unlisten(self.id);
        }
    }
}

/// Registers a listener, without an allocation of its own.
///
/// # Errors
///
/// The same as [`HubRef::listen`](crate::HubRef::listen).
#[track_caller]
pub fn listen_shared(
    fd: Rc<dyn AsFd>,
    interest: Interest,
    listener: Rc<dyn Listener>,
) -> Result<Registration, TrampolineError> {
    let main_loop = &local::get().main_loop;
    let id = main_loop.listen(fd, interest, listener)?;
    Ok(Registration { id, hub: main_loop.id(), here: PhantomData })
}
