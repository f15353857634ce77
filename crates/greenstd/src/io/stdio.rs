//! Standard input, output and error.
//!
//! Other processes have them too, such as the shell, so they are never made non-blocking.

use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal, Lines, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{OnceLock, PoisonError};

use hub_core::{LoopError, ThreadId};
use rustix::io::fcntl_dupfd_cloexec;

use crate::handle::Handle;
use crate::sync::{Mutex, MutexGuard, Semaphore};

/// A descriptor of its own for what 0, 1 or 2 is at its first use: the hub may know others of that number.
struct Standard {
    fd: fn() -> BorrowedFd<'static>,
    /// Writes the bytes that std keeps in a buffer.
    flush: Option<fn() -> io::Result<()>>,
    handle: OnceLock<Handle>,
}

impl Standard {
    const fn new(fd: fn() -> BorrowedFd<'static>, flush: Option<fn() -> io::Result<()>>) -> Standard {
        Standard { fd, flush, handle: OnceLock::new() }
    }

    fn handle(&self) -> io::Result<&Handle> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle);
        }
        let handle = Handle::from_fd(fcntl_dupfd_cloexec((self.fd)(), 3)?);
        Ok(self.handle.get_or_init(|| handle))
    }

    /// Writes, after the bytes that std has kept.
    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let written = self.handle().and_then(|handle| match self.flush {
            Some(flush) => handle.write_after(data, flush),
            None => handle.write(data),
        });
        // As std's: output of a program that was started without is not missed.
        written.or_else(|error| if is_absent(&error) { Ok(data.len()) } else { Err(error) })
    }

    fn flush(&self) -> io::Result<()> {
        let Some(flush) = self.flush else { return Ok(()) };
        let flushed = self.handle().and_then(|handle| handle.when_there_is_room(flush));
        flushed.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
    }
}

/// Whether the program was started without this stream.
fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error())
}

static INPUT: Standard = Standard::new(rustix::stdio::stdin, None);
static OUTPUT: Standard = Standard::new(rustix::stdio::stdout, Some(|| io::stdout().flush()));
/// std's has no buffer.
static ERROR: Standard = Standard::new(rustix::stdio::stderr, None);

/// What was read of standard input and not asked for yet.
static BUFFER: Mutex<Option<BufReader<Input>>> = Mutex::new(None);

struct Input;

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match INPUT.handle().and_then(|handle| handle.read(buffer)) {
            // As std's: a program that was started without has nothing to read.
            Err(error) if is_absent(&error) => Ok(0),
            read => read,
        }
    }
}

/// Standard input, std's `stdin`. Waiting for it parks the calling green thread only.
///
/// A pipe or a terminal is waited for by the hub, a file is read by the pool. It has a buffer of its own, beside that
/// of std: a program better uses one of them. Does not switch.
///
/// ```no_run
/// let mut line = String::new();
/// while greenstd::io::stdin().read_line(&mut line)? > 0 { // others run meanwhile
///     print!("{line}");
///     line.clear();
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn stdin() -> Stdin {
    Stdin(())
}

/// Standard input, see [`stdin`].
#[derive(Debug)]
pub struct Stdin(());

impl Stdin {
    /// Keeps other green threads from reading. Waits for whoever does. Switches then.
    ///
    /// # Panics
    ///
    /// Where nobody may wait, as [`sync::Mutex`](crate::sync::Mutex#method.lock).
    #[must_use]
    pub fn lock(&self) -> StdinLock<'static> {
        StdinLock { buffer: BUFFER.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Reads a line, and appends it with its end. Switches.
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn read_line(&self, line: &mut String) -> io::Result<usize> {
        self.lock().read_line(line)
    }

    /// The lines, without their ends.
    pub fn lines(self) -> Lines<StdinLock<'static>> {
        self.lock().lines()
    }

    /// Whether it is a terminal. Does not switch.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.as_fd().is_terminal()
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buffer)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.lock().read_to_end(buffer)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        self.lock().read_to_string(text)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.lock().read_exact(buffer)
    }
}

impl Read for &Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buffer)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.lock().read_to_end(buffer)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        self.lock().read_to_string(text)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.lock().read_exact(buffer)
    }
}

/// Standard input, locked by [`Stdin::lock`]. The green thread that has it must not lock it once more.
pub struct StdinLock<'a> {
    buffer: MutexGuard<'a, Option<BufReader<Input>>>,
}

impl StdinLock<'_> {
    /// Whether it is a terminal. Does not switch.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.as_fd().is_terminal()
    }

    fn buffer(&mut self) -> &mut BufReader<Input> {
        self.buffer.get_or_insert_with(|| BufReader::new(Input))
    }
}

impl Read for StdinLock<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.buffer().read(buffer)
    }
}

impl BufRead for StdinLock<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.buffer().fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.buffer().consume(amount);
    }
}

impl fmt::Debug for StdinLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StdinLock { .. }")
    }
}

/// A lock that whoever has it may take again: printing while something prints.
struct Again {
    permit: Semaphore,
    /// Who has it, and how often.
    holder: std::sync::Mutex<Option<(ThreadId, usize)>>,
}

impl Again {
    const fn new() -> Again {
        Again { permit: Semaphore::new(1), holder: std::sync::Mutex::new(None) }
    }

    fn holder(&self) -> std::sync::MutexGuard<'_, Option<(ThreadId, usize)>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> Result<Held<'_>, LoopError> {
        let this = hub_core::current().id();
        match &mut *self.holder() {
            Some((holder, times)) if *holder == this => {
                *times += 1;
                return Ok(Held(self, PhantomData));
            }
            _ => {}
        }
        self.permit.acquire()?;
        *self.holder() = Some((this, 1));
        Ok(Held(self, PhantomData))
    }
}

/// Has [`Again`]; let go of where it was taken.
struct Held<'a>(&'a Again, PhantomData<*const ()>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut holder = self.0.holder();
        match &mut *holder {
            Some((_, times)) if *times > 1 => *times -= 1,
            _ => {
                *holder = None;
                self.0.permit.release();
            }
        }
    }
}

macro_rules! output {
    ($name:ident, $lock:ident, $make:ident, $standard:ident, $std:path, $turn:ident) => {
        static $turn: Again = Again::new();

        #[doc = concat!("See [`", stringify!($make), "`].")]
        #[derive(Debug)]
        pub struct $name(());

        impl $name {
            /// Keeps other green threads from writing. Waits for whoever does. Switches then.
            ///
            /// # Panics
            ///
            /// Where nobody may wait, as [`sync::Mutex`](crate::sync::Mutex#method.lock).
            #[must_use]
            pub fn lock(&self) -> $lock<'static> {
                match self.take() {
                    Ok(lock) => lock,
                    Err(error) => panic!("{}::lock: {error}", stringify!($name)),
                }
            }

            fn take(&self) -> io::Result<$lock<'static>> {
                Ok($lock { _held: $turn.lock()?, this: &$standard })
            }

            /// Whether it is a terminal. Does not switch.
            #[must_use]
            pub fn is_terminal(&self) -> bool {
                self.as_fd().is_terminal()
            }
        }

        impl Write for &$name {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.take()?.write(data)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.take()?.flush()
            }

            fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
                self.take()?.write_all(data)
            }

            fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
                self.take()?.write_fmt(arguments)
            }
        }

        impl Write for $name {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.take()?.write(data)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.take()?.flush()
            }

            fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
                self.take()?.write_all(data)
            }

            fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
                self.take()?.write_fmt(arguments)
            }
        }

        #[doc = concat!("Locked by [`", stringify!($name), "::lock`]. Whoever has it may lock it once more.")]
        pub struct $lock<'a> {
            _held: Held<'a>,
            this: &'a Standard,
        }

        impl $lock<'_> {
            /// Whether it is a terminal. Does not switch.
            #[must_use]
            pub fn is_terminal(&self) -> bool {
                self.as_fd().is_terminal()
            }
        }

        impl From<$name> for std::process::Stdio {
            /// A child writes there too.
            fn from(_: $name) -> std::process::Stdio {
                $std().into()
            }
        }

        impl Write for $lock<'_> {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.this.write(data)
            }

            /// Writes the bytes that `print!` of std has kept. Switches.
            fn flush(&mut self) -> io::Result<()> {
                self.this.flush()
            }

            fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
                match arguments.as_str() {
                    Some(text) => self.write_all(text.as_bytes()),
                    // In one piece.
                    None => self.write_all(fmt::format(arguments).as_bytes()),
                }
            }
        }

        impl fmt::Debug for $lock<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($lock), " { .. }"))
            }
        }
    };
}

/// Standard output, std's `stdout`. Waiting for room parks the calling green thread only.
///
/// A pipe or a terminal is waited for by the hub, a file is written by the pool. Unlike std's it has no buffer: each
/// call of `write`, each `write!` as a whole, is written at once, in order with what `print!` of std writes. Who
/// writes much takes a [`BufWriter`](std::io::BufWriter). `print!` itself is std's, and blocks the OS thread. So does
/// the part of a line that it has kept, if another process fills the pipe at the moment in which it is written. Does
/// not switch.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use std::io::Write;
/// writeln!(greenstd::io::stdout(), "{} green bottles", 10)?;
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
#[must_use]
pub fn stdout() -> Stdout {
    Stdout(())
}

/// Standard error, std's `stderr`. As [`stdout`].
#[must_use]
pub fn stderr() -> Stderr {
    Stderr(())
}

output!(Stdout, StdoutLock, stdout, OUTPUT, std::io::stdout, OUTPUT_TURN);
output!(Stderr, StderrLock, stderr, ERROR, std::io::stderr, ERROR_TURN);

macro_rules! descriptor {
    ($($name:ty, $fd:path;)*) => {$(
        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                $fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }
    )*};
}

descriptor! {
    Stdin, rustix::stdio::stdin;
    StdinLock<'_>, rustix::stdio::stdin;
    Stdout, rustix::stdio::stdout;
    StdoutLock<'_>, rustix::stdio::stdout;
    Stderr, rustix::stdio::stderr;
    StderrLock<'_>, rustix::stdio::stderr;
}
