//! Compile-time checks of the auto traits `Send`, `Sync` and `UnwindSafe` of public types.

use std::error::Error;

use greenhub::debug::Report;
use greenhub::fs::{DirEntry, File, OpenOptions, ReadDir};
use greenhub::greenlet::{Greenlet, GreenletError, Payload};
use greenhub::greenpool::{GreenPile, Group};
use greenhub::greenthread::{Linked, ScopedGreenThread};
use greenhub::hub::{HubError, HubGone, LoopError, Registration, Remote, TimerHandle};
use greenhub::io::{PipeReader, PipeWriter, StderrLock, Stdin, StdinLock, Stdout, StdoutLock};
use greenhub::net::{CachedResolver, ServeError, StopServe, SystemResolver, TcpListener, TcpStream, UdpSocket};
use greenhub::park::Source;
use greenhub::process::{Child, ChildStdin, ChildStdout, Command};
use greenhub::sync::{
    Barrier, BoundedSemaphore, CancellationToken, CappedSemaphore, Channel, Condvar, DropGuard, Event, LazyLock,
    LifoQueue, LightQueue, Mutex, MutexGuard, Notify, Once, OnceLock, PriorityQueue, Queue, RateLimiter, RwLock,
    RwLockReadGuard, RwLockWriteGuard, Semaphore, broadcast, mpsc, oneshot, watch,
};
use greenhub::thread::{Scope, Thread};
use greenhub::tpool::JobError;
use greenhub::{GreenError, GreenPool, GreenThread, HubRef, Timeout, Trampoline, TrampolineError};

/// Fails to compile if a type implements the trait: the `_` is ambiguous then.
macro_rules! assert_not {
    ($trait:ident: $($type:ty),* $(,)?) => {
        $(const _: fn() = || {
            trait Either<Which> {
                fn chosen() {}
            }
            struct Implements;
            impl<T: ?Sized> Either<()> for T {}
            impl<T: ?Sized + $trait> Either<Implements> for T {}
            let _ = <$type as Either<_>>::chosen;
        };)*
    };
}

macro_rules! pinned {
    ($($type:ty),* $(,)?) => {
        assert_not!(Send: $($type),*);
        assert_not!(Sync: $($type),*);
    };
}

// Handles of things that belong to one OS thread.
pinned!(
    GreenThread<()>,
    Scope<'static, 'static>,
    ScopedGreenThread<'static, ()>,
    Greenlet,
    Payload,
    HubRef,
    TimerHandle,
    Registration,
    Trampoline<'static, std::net::TcpStream>,
    GreenPool,
    GreenPile<()>,
    Group,
);

// A guard must be dropped on the OS thread that locked, and a channel has a single receiver.
assert_not!(Send: MutexGuard<'static, ()>, RwLockReadGuard<'static, ()>, RwLockWriteGuard<'static, ()>);
assert_not!(Send: StdinLock<'static>, StdoutLock<'static>, StderrLock<'static>);
assert_not!(Sync: mpsc::Receiver<()>, Mutex<*const ()>, RwLock<std::cell::Cell<()>>, OnceLock<std::cell::Cell<()>>);
assert_not!(Sync: LazyLock<std::cell::Cell<()>>, LazyLock<(), *const ()>);
assert_not!(Send: mpsc::Sender<*const ()>);

const fn shared<T: Send + Sync>() {}
const fn error<T: Error + Send + Sync + 'static>() {}
const fn sent<T: Send>() {}

// Each error converts to `Box<dyn Error + Send + Sync>` by `?`, and many reach waiters on other OS threads.
const _: () = {
    error::<GreenError>();
    error::<LoopError>();
    error::<HubError>();
    error::<HubGone>();
    error::<GreenletError>();
    error::<TrampolineError>();
    error::<Timeout>();
    error::<Linked>();
    error::<JobError>();
    error::<ServeError>();
    error::<greenhub::debug::BacktraceError>();
    error::<greenhub::local::AccessError>();
    error::<greenhub::sync::WaitError>();
    error::<greenhub::sync::EventError>();
    error::<greenhub::sync::GetError>();
    error::<greenhub::sync::PutError<u8>>();
    error::<greenhub::sync::RateLimitError>();
    error::<greenhub::sync::TooManyTasksDone>();
    error::<greenhub::sync::TooManyReleases>();
    error::<greenhub::sync::AboveLimit>();
    error::<oneshot::RecvError>();
    error::<oneshot::RecvTimeoutError>();
    error::<oneshot::TryRecvError>();
    error::<watch::RecvError>();
    error::<watch::RecvTimeoutError>();
    error::<broadcast::RecvError>();
    error::<broadcast::RecvTimeoutError>();
    error::<broadcast::TryRecvError>();
};

// Reports reach the stream on other OS threads. Sockets move to other hubs. A remote is for use from other OS threads.
const _: () = {
    shared::<greenhub::hub::LoopErrorKind>();
    shared::<greenhub::greenthread::Panic>();
    shared::<Report>();
    shared::<Remote>();
    shared::<Source>();
    shared::<TcpListener>();
    shared::<TcpStream>();
    shared::<UdpSocket>();
    shared::<StopServe>();
    shared::<CachedResolver<SystemResolver>>();
    shared::<PipeReader>();
    shared::<PipeWriter>();
    shared::<Stdin>();
    shared::<Stdout>();
    shared::<File>();
    shared::<OpenOptions>();
    shared::<ReadDir>();
    shared::<DirEntry>();
    shared::<Child>();
    shared::<ChildStdin>();
    shared::<ChildStdout>();
    shared::<Command>();
    shared::<Thread>();
    shared::<Mutex<std::cell::Cell<()>>>();
    shared::<RwLock<()>>();
    shared::<Condvar>();
    shared::<Barrier>();
    shared::<Once>();
    shared::<OnceLock<()>>();
    shared::<LazyLock<(), std::cell::Cell<fn()>>>();
    shared::<mpsc::Sender<std::cell::Cell<()>>>();
    shared::<mpsc::SyncSender<()>>();
    sent::<mpsc::Receiver<std::cell::Cell<()>>>();
    shared::<greenhub::pools::Pool<TcpStream>>();
    shared::<greenhub::local::LocalKey<std::rc::Rc<()>>>();
};

// Primitives are shared by OS threads even if their items are not `Sync`. All waiters of an event share one value.
const _: () = {
    shared::<Event<u8>>();
    shared::<Queue<std::cell::Cell<u8>>>();
    shared::<LightQueue<std::cell::Cell<u8>>>();
    shared::<PriorityQueue<std::cell::Cell<u8>>>();
    shared::<LifoQueue<std::cell::Cell<u8>>>();
    shared::<Channel<std::cell::Cell<u8>>>();
    shared::<Semaphore>();
    shared::<BoundedSemaphore>();
    shared::<CappedSemaphore>();
    shared::<RateLimiter>();
    shared::<oneshot::Sender<std::cell::Cell<u8>>>();
    shared::<oneshot::Receiver<std::cell::Cell<u8>>>();
    shared::<Notify>();
    shared::<CancellationToken>();
    shared::<DropGuard>();
};

// Several receivers look at one value at the same time, so it has to be `Sync`.
const _: () = {
    shared::<watch::Sender<u8>>();
    shared::<watch::Receiver<u8>>();
    shared::<watch::Ref<u8>>();
    shared::<broadcast::Sender<u8>>();
    shared::<broadcast::Receiver<u8>>();
};
assert_not!(Send: watch::Sender<std::cell::Cell<u8>>, broadcast::Receiver<std::cell::Cell<u8>>);
assert_not!(Send: oneshot::Receiver<std::rc::Rc<u8>>, watch::Ref<std::rc::Rc<u8>>);
assert_not!(Send: Event<std::cell::Cell<u8>>, Queue<std::rc::Rc<u8>>, Channel<std::rc::Rc<u8>>);

const fn unwinds<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}

// As in std.
const _: () = {
    unwinds::<mpsc::Receiver<std::cell::Cell<u8>>>();
    unwinds::<mpsc::Iter<'static, std::cell::Cell<u8>>>();
    unwinds::<mpsc::TryIter<'static, std::cell::Cell<u8>>>();
    unwinds::<mpsc::IntoIter<std::cell::Cell<u8>>>();
    unwinds::<LazyLock<u8, std::cell::Cell<fn() -> u8>>>();
};
