//! A panic hook that names green threads.

use std::any::Any;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{self, PanicHookInfo};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hub_core::internal::describe_running;

type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;

/// Makes the message of a panic name its green thread. Does not switch.
///
/// std's message names the OS thread, `thread 'main' panicked at …`, whichever green thread has panicked. With this
/// hook it is, in one write to standard error:
///
/// ```text
/// green thread "worker" (spawned at src/main.rs:4:5) of OS thread 'main' panicked at src/main.rs:9:9:
/// index out of bounds: the len is 3 but the index is 7
/// ```
///
/// A green thread without a name has its number there. A callback of the main loop and a plain greenlet are named, too.
/// For a panic of the main greenlet, and on an OS thread without green threads, the former hook is called alone. If the
/// former hook is not std's, or if `RUST_BACKTRACE` asks for a backtrace, a line with the name comes first, and the
/// former hook is called after it.
///
/// The ends of green threads that are no panics, such as a kill or a timeout, call no hook. The hook applies to the
/// whole process. Another call changes nothing. A hook that is set later replaces this one.
///
/// # Panics
///
/// Panics if the OS thread is panicking, as [`std::panic::set_hook`] does.
///
/// # Examples
///
/// ```
/// greenhub::debug::install_panic_hook();
/// let worker = greenhub::Builder::new().name("worker".into()).spawn(|| panic!("broken"))?;
/// assert!(worker.join().is_err()); // the message names "worker"
/// # Ok::<(), std::io::Error>(())
/// ```
#[expect(clippy::disallowed_methods, reason = "the program asks for the hook")]
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    // Before the `Once`, which a panic would poison.
    assert!(!thread::panicking(), "cannot modify the panic hook from a panicking thread");
    INSTALLED.call_once(|| {
        let former = panic::take_hook();
        // There is no other hook left, so this is std's.
        let is_stds = is_same(&*former, &*panic::take_hook());
        panic::set_hook(Box::new(move |info| match describe_running() {
            None => former(info),
            Some(running) if is_stds && !wants_backtrace() => write(&message(&running, info)),
            Some(running) => {
                write(&format!("\n{running} of OS thread {} panics:\n", os_thread()));
                former(info);
            }
        }));
    });
}

/// Returns whether two hooks are the same function, which has no state. They may be the same after a false result.
fn is_same(hook: &Hook, other: &Hook) -> bool {
    size_of_val(hook) == 0 && ptr::eq(hook, other)
}

/// Returns whether std's hook prints a backtrace.
fn wants_backtrace() -> bool {
    std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0")
}

/// Returns std's text, with the name of the green thread in place of that of the OS thread.
fn message(running: &str, info: &PanicHookInfo<'_>) -> String {
    static IS_FIRST: AtomicBool = AtomicBool::new(true);

    let mut text = format!("\n{running} of OS thread {} panicked", os_thread());
    // Writing to a string does not fail.
    if let Some(at) = info.location() {
        let _ = write!(text, " at {at}");
    }
    let _ = writeln!(text, ":\n{}", message_of(info.payload()));
    if IS_FIRST.swap(false, Ordering::Relaxed) {
        text.push_str("note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n");
    }
    text
}

fn os_thread() -> String {
    format!("'{}'", thread::current().name().unwrap_or("<unnamed>"))
}

fn message_of(payload: &dyn Any) -> &str {
    match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "Box<dyn Any>",
    }
}

/// Writes a text at once, so that it is not mixed with those of other OS threads.
fn write(text: &str) {
    // A closed standard error is no reason to abort the process, which a second panic would do.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
