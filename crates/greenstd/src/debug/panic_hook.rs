//! A panic hook that names green threads.

use std::io::Write;
use std::panic;
use std::sync::Once;
use std::thread;

use hub_core::internal::describe_running;

/// Makes a line with the name of the green thread precede the message of a panic. Does not switch.
///
/// std's message names the OS thread, `thread 'main' panicked at …`, whichever green thread has panicked. This hook
/// writes a line to standard error, and then calls the former hook, which is std's or one of the program:
///
/// ```text
/// green thread "worker" (spawned at src/main.rs:4:5) of OS thread 'main' panics:
///
/// thread 'main' panicked at src/main.rs:9:9:
/// index out of bounds: the len is 3 but the index is 7
/// ```
///
/// A green thread without a name has its number there. A callback of the main loop and a plain greenlet are named, too.
/// For a panic of the main greenlet, and on an OS thread without green threads, the former hook is called alone. The
/// line and the message are two writes, so a panic of another OS thread may come between them.
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
#[track_caller]
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    // Before the `Once`, which a panic would poison.
    assert!(!thread::panicking(), "cannot modify the panic hook from a panicking thread");
    INSTALLED.call_once(|| {
        let former = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(running) = describe_running() {
                write(&format!("\n{running} of OS thread {} panics:\n", os_thread()));
            }
            former(info);
        }));
    });
}

fn os_thread() -> String {
    format!("'{}'", thread::current().name().unwrap_or("<unnamed>").escape_debug())
}

/// Writes a text at once, so that it is not mixed with those of other OS threads.
fn write(text: &str) {
    // A closed standard error is no reason to abort the process, which a second panic would do.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
