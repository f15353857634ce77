//! Standard input, output and error.
//!
//! Other processes share them, such as the shell, so they are never made non-blocking.

use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal, Lines, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{OnceLock, PoisonError};

use hub_core::{LoopError, ThreadId};
use rustix::io::fcntl_dupfd_cloexec;

use crate::handle::Handle;
use crate::sync::{Mutex, MutexGuard, Semaphore};

/// A duplicate of descriptor 0, 1 or 2, made at the first use: the hub may watch another file by the original number.
struct Standard {
    fd: fn() -> BorrowedFd<'static>,
    /// Writes the bytes that std has buffered.
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

    /// Writes `data` after the bytes that std has buffered.
    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let written = self.handle().and_then(|handle| match self.flush {
            Some(flush) => handle.write_after(data, flush),
            None => handle.write(data),
        });
        // As in std: the output of a program that was started without the stream is discarded.
        written.or_else(|error| if is_absent(&error) { Ok(data.len()) } else { Err(error) })
    }

    fn flush(&self) -> io::Result<()> {
        let Some(flush) = self.flush else { return Ok(()) };
        let flushed = self.handle().and_then(|handle| handle.when_there_is_room(flush));
        flushed.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
    }
}

/// Returns true if the program was started without this stream.
fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error())
}

static INPUT: Standard = Standard::new(rustix::stdio::stdin, None);
static OUTPUT: Standard = Standard::new(rustix::stdio::stdout, Some(|| io::stdout().flush()));
/// std's standard error has no buffer.
static ERROR: Standard = Standard::new(rustix::stdio::stderr, None);

/// Bytes of standard input that were read ahead.
static BUFFER: Mutex<Option<BufReader<Input>>> = Mutex::new(None);

struct Input;

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match INPUT.handle().and_then(|handle| handle.read(buffer)) {
            // As in std: a program that was started without the stream reads nothing.
            Err(error) if is_absent(&error) => Ok(0),
            read => read,
        }
    }
}

/// Constructs a new handle to the standard input of the current process. Does not switch.
///
/// Waiting for input parks only the calling green thread: the hub waits for a pipe or a terminal, the pool reads a
/// file. The handle has its own buffer beside std's, so a program should use only one of them.
///
/// ```no_run
/// let mut line = String::new();
/// while greenhub::io::stdin().read_line(&mut line)? > 0 { // others run meanwhile
///     print!("{line}");
///     line.clear();
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn stdin() -> Stdin {
    Stdin(())
}

/// A handle to the standard input, see [`stdin`].
#[derive(Debug)]
pub struct Stdin(());

impl Stdin {
    /// Locks this handle to the standard input. Switches if it has to wait.
    ///
    /// # Panics
    ///
    /// Panics if the caller may not wait, as in [`sync::Mutex`](crate::sync::Mutex#method.lock).
    #[track_caller]
    pub fn lock(&self) -> StdinLock<'static> {
        StdinLock { buffer: BUFFER.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    fn lock_or_fail(&self) -> io::Result<StdinLock<'static>> {
        Ok(StdinLock { buffer: BUFFER.lock_or_fail()?.unwrap_or_else(PoisonError::into_inner) })
    }

    /// Locks this handle and appends a line of input to the buffer. Switches.
    ///
    /// # Errors
    ///
    /// Like std's. Returns an error if the caller cannot wait, and if the main loop ends the wait of the main greenlet.
    pub fn read_line(&self, line: &mut String) -> io::Result<usize> {
        self.lock_or_fail()?.read_line(line)
    }

    /// Consumes this handle and returns an iterator over input lines. Switches if it has to wait for the lock.
    ///
    /// Each `next` of the iterator switches.
    ///
    /// # Panics
    ///
    /// Like [`lock`](Stdin::lock).
    #[track_caller]
    pub fn lines(self) -> Lines<StdinLock<'static>> {
        self.lock().lines()
    }

    /// Returns true if it is a terminal. Does not switch.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.as_fd().is_terminal()
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lock_or_fail()?.read(buffer)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.lock_or_fail()?.read_to_end(buffer)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        self.lock_or_fail()?.read_to_string(text)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.lock_or_fail()?.read_exact(buffer)
    }
}

impl Read for &Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lock_or_fail()?.read(buffer)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.lock_or_fail()?.read_to_end(buffer)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        self.lock_or_fail()?.read_to_string(text)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.lock_or_fail()?.read_exact(buffer)
    }
}

/// A locked reference to the standard input, from [`Stdin::lock`]. Its holder must not lock it again.
#[must_use = "the standard input is unlocked at once if the lock is not kept"]
pub struct StdinLock<'a> {
    buffer: MutexGuard<'a, Option<BufReader<Input>>>,
}

impl StdinLock<'_> {
    /// Returns true if it is a terminal. Does not switch.
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

/// A reentrant lock, so that printing works inside of printing.
struct ReentrantLock {
    permit: Semaphore,
    /// The lock holder, and how often it holds the lock.
    holder: std::sync::Mutex<Option<(ThreadId, usize)>>,
}

impl ReentrantLock {
    const fn new() -> ReentrantLock {
        ReentrantLock { permit: Semaphore::new(1), holder: std::sync::Mutex::new(None) }
    }

    fn holder(&self) -> std::sync::MutexGuard<'_, Option<(ThreadId, usize)>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> Result<ReentrantGuard<'_>, LoopError> {
        let this = hub_core::current().id();
        match &mut *self.holder() {
            Some((holder, times)) if *holder == this => {
                *times += 1;
                return Ok(ReentrantGuard(self, PhantomData));
            }
            _ => {}
        }
        self.permit.acquire()?;
        *self.holder() = Some((this, 1));
        Ok(ReentrantGuard(self, PhantomData))
    }
}

/// Holds a [`ReentrantLock`]; released on the OS thread that took it.
struct ReentrantGuard<'a>(&'a ReentrantLock, PhantomData<*const ()>);

impl Drop for ReentrantGuard<'_> {
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
        static $turn: ReentrantLock = ReentrantLock::new();

        #[doc = concat!("See [`", stringify!($make), "`].")]
        #[derive(Debug)]
        pub struct $name(());

        impl $name {
            /// Locks this handle, keeping other green threads from writing. Switches if it has to wait.
            ///
            /// # Panics
            ///
            /// Panics if the caller may not wait, as in [`sync::Mutex`](crate::sync::Mutex#method.lock).
            #[must_use]
            #[track_caller]
            pub fn lock(&self) -> $lock<'static> {
                match self.take() {
                    Ok(lock) => lock,
                    Err(error) => panic!("{}::lock: {error}", stringify!($name)),
                }
            }

            fn take(&self) -> io::Result<$lock<'static>> {
                Ok($lock { _held: $turn.lock()?, this: &$standard })
            }

            /// Returns true if it is a terminal. Does not switch.
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

        #[doc = concat!("A locked reference, from [`", stringify!($name), "::lock`]. Its holder may lock again.")]
        pub struct $lock<'a> {
            _held: ReentrantGuard<'a>,
            this: &'a Standard,
        }

        impl $lock<'_> {
            /// Returns true if it is a terminal. Does not switch.
            #[must_use]
            pub fn is_terminal(&self) -> bool {
                self.as_fd().is_terminal()
            }
        }

        impl From<$name> for std::process::Stdio {
            /// Lets a child write to the same stream.
            fn from(_: $name) -> std::process::Stdio {
                $std().into()
            }
        }

        impl Write for $lock<'_> {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.this.write(data)
            }

            /// Writes the bytes that std's `print!` has buffered. Switches.
            fn flush(&mut self) -> io::Result<()> {
                self.this.flush()
            }

            fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
                match arguments.as_str() {
                    Some(text) => self.write_all(text.as_bytes()),
                    // Formats first, so that the text is written as one piece.
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

/// Constructs a new handle to the standard output of the current process. Does not switch.
///
/// Waiting for room parks only the calling green thread: the hub waits for a pipe or a terminal, the pool writes a
/// file. Unlike std's it has no buffer. Each `write`, and each `write!` as a whole, is written at once, in order with
/// the output of std's `print!`. For many small writes use a [`BufWriter`](std::io::BufWriter). `print!` itself is
/// std's, and blocks the OS thread. The part of a line that `print!` has buffered blocks it, too, if another process
/// fills the pipe at the moment in which that part is written.
///
/// ```
/// use std::io::Write;
/// writeln!(greenhub::io::stdout(), "{} green bottles", 10)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn stdout() -> Stdout {
    Stdout(())
}

/// Constructs a new handle to the standard error of the current process. Like [`stdout`].
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
