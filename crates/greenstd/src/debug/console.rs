//! A console on a socket, which answers one-line commands.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::hub::Interest;
use hub_core::internal::{Capture, birth_of, capture_backtrace, capture_dump, greenlets_at_most, request_exit};
use hub_core::{Builder, GreenThread, GreenletId, JobError, ThreadPool, get_hub, trampoline};
use socket2::{Domain, SockAddr, Type};

use super::snapshot::capture_snapshot;
use super::{BacktraceError, format_listeners_at_most, format_timers_at_most};
use crate::net::{Accept, Failure, Pauses};
use crate::os::unix::net::{UnixListener, UnixStream};
use crate::sync::Semaphore;

const HELP: &str = "\
help         lists the commands
threads      lists the green threads: number and birth, name, origin, wait reason
backtrace N  shows the calls in progress of green thread N or N.BIRTH
dump         shows the calls in progress of all green threads
listeners    lists the waiters for descriptors
timers       lists the timers that are armed
stats        lists the counters of the hub
snapshot     prints the hub and its green threads as one line of JSON, at most 10000 of them
kill N.BIRTH ends that green thread when it runs next
quit         ends this connection
a list or a dump shows the first 1000, and the number of the others
";

/// The most entries of a list for readers, and the most green threads in a dump. [`HELP`] tells it.
const MOST_LISTED: usize = 1000;
/// The most greenlets in a snapshot, which a program sorts and filters. A client asks for one again and again.
const MOST_IN_SNAPSHOT: usize = 10_000;
/// The longest accepted line in bytes.
const LONGEST: u64 = 1024;
/// The most clients at the same time.
const CLIENTS: usize = 16;
/// The last line to a client that has been idle longest of all.
const DISMISSAL: &[u8] = b"this connection ends: too many clients are connected, and it was idle longest\n";
/// The time for which a client may take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves a console at `path`, to inspect the hub of this OS thread while it runs. Does not switch.
///
/// It is Eventlet's backdoor with a few commands instead of a Python prompt; `help` lists them. `nc -U path` is a
/// client. The number of a green thread that has ended is given to another one. So the list shows green threads as
/// `N.BIRTH`, where the second number is the time of the spawn, and `kill` accepts no other form. A client can kill
/// green threads. So the console is a feature, `console`, and only the owner can connect to the socket (mode 0600).
/// There is no console over TCP, where every user of the machine could connect. A green thread serves each client, so
/// an answer comes at the loop's next turns. While the console exists, the loop never reports a deadlock of the main
/// greenlet.
///
/// No client holds up the program or the others for long:
///
/// - `threads`, `dump`, `timers`, and `listeners` for each direction, show the first 1,000 and the number of the rest,
///   which cost one look each. `snapshot` shows 10,000. Another OS thread looks up the names in backtraces, and writes
///   the snapshot.
/// - Each answer is made in a turn of the loop of its own, also if clients send many commands at once.
/// - Up to 16 clients may be connected. A further one takes the place of the client whose last command is oldest, which
///   is told so. A client that does not take an answer within ten seconds is disconnected.
///
/// The console ends with its green thread, which may be killed, also by a client. It ends with a
/// [report](hub_core::set_report_stream) if its listener cannot accept any more. A lack of descriptors or a lost
/// connection does not end it, as it does not end a [server](crate::net::serve).
///
/// A forked child answers no client: they belong to the parent. The child's copy of the console ends when the next
/// client connects or asks, or when the child drops its [`Console`]. Until then it holds copies of the sockets.
///
/// ```
/// use greenhub::os::unix::net::UnixStream;
/// use std::io::{Read, Write};
/// let path = std::env::temp_dir().join(format!("greenstd-console-{}", std::process::id()));
/// let console = greenhub::debug::console(&path)?;
/// let mut client = UnixStream::connect(&path)?;
/// client.write_all(b"threads\nquit\n")?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert!(answer.contains("main greenlet"), "{answer}");
/// console.stop();
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns the system's error, for example if the path exists, or an error if this OS thread can have no hub.
#[doc(alias = "backdoor")]
#[doc(alias = "backdoor_server")]
#[track_caller]
pub fn console(path: impl AsRef<Path>) -> io::Result<Console> {
    hub_core::try_get_hub()?;
    let path = path.as_ref();
    let opened = ConsoleState::open(path, Location::caller());
    let in_words = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot serve a console at {}: {error}", path.display()))
    };
    let served = Rc::new(opened.map_err(in_words)?);
    let server = {
        let guard = CloseOnDrop(Rc::clone(&served));
        Builder::new().name("console".into()).spawned_at(served.opened_at).spawn(move || guard.0.accept())?
    };
    Ok(Console { served, server: Some(server) })
}

/// A running console, from [`console`]. Dropping it ends the console like [`stop`](Console::stop), without waiting.
#[must_use = "the console ends when this is dropped"]
#[doc(alias = "BackdoorServer")]
pub struct Console {
    served: Rc<ConsoleState>,
    server: Option<GreenThread<()>>,
}

impl Console {
    /// Removes the socket, disconnects all clients, and waits for their ends. Switches.
    pub fn stop(mut self) {
        self.served.close();
        if let Some(server) = self.server.take() {
            // Fails only if the green thread was killed.
            let _ = server.join();
        }
    }

    /// Returns the path of the console's socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.served.path
    }

    /// Returns the number of connected clients.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.served.clients.borrow().values().filter(|client| client.is_connected()).count()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.served.close();
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("path", &self.path()).field("clients", &self.clients()).finish()
    }
}

/// Closes the console when its green thread ends, begun or not, so that nothing is left at the path.
struct CloseOnDrop(Rc<ConsoleState>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The state that the console, its server and its clients share.
struct ConsoleState {
    process: u32,
    /// The location of the call of `console`.
    opened_at: &'static Location<'static>,
    path: PathBuf,
    /// Identifies the socket at the path as that of this console.
    inode: (u64, u64),
    listener: UnixListener,
    clients: RefCell<HashMap<u64, Client>>,
    next: Cell<u64>,
    closed: Cell<bool>,
    turns: Rc<Turns>,
}

struct Client {
    stream: Weak<UnixStream>,
    green: GreenThread<()>,
    usage: Rc<Usage>,
}

impl Client {
    /// Returns false if the client was disconnected in favour of another. Its green thread is about to end then.
    fn is_connected(&self) -> bool {
        !self.usage.is_dismissed.get()
    }
}

/// The use that a client makes of its place.
struct Usage {
    /// The time of the last command, or of the connection.
    last_command: Cell<Instant>,
    /// Whether the place was given to another client.
    is_dismissed: Cell<bool>,
}

impl ConsoleState {
    fn open(path: &Path, opened_at: &'static Location<'static>) -> io::Result<ConsoleState> {
        let turns = Turns::new()?;
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux `bind` makes a file with the mode of the socket. By its path, the mode of a file that another user
        // has put there would change.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
        socket.bind(&SockAddr::unix(path)?)?;
        // No client can connect before `listen`.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let made_private = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let made_private = check_mode(path);
        let opened = made_private.and_then(|()| socket.listen(16)).and_then(|()| inode(path));
        let inode = match opened {
            Ok(inode) => inode,
            Err(error) => {
                // The first error is returned, not that of the removal.
                let _ = fs::remove_file(path);
                return Err(error);
            }
        };
        let listener = UnixListener::from(OwnedFd::from(socket));
        Ok(ConsoleState {
            process: std::process::id(),
            opened_at,
            path: path.to_owned(),
            inode,
            listener,
            clients: RefCell::default(),
            next: Cell::new(0),
            closed: Cell::new(false),
            turns: Rc::new(turns),
        })
    }

    /// Serves clients until the console is closed.
    fn accept(self: &Rc<ConsoleState>) {
        let mut pauses = Pauses::begin();
        while !self.closed.get() {
            // In a forked child the connection is left to the parent.
            match self.listener.accept_if(|| self.is_of_this_process()) {
                Ok(None) => break,
                Ok(Some(stream)) => {
                    pauses = Pauses::begin();
                    self.make_room();
                    self.serve_client(stream);
                }
                Err(_) if self.listener.is_closed() => break,
                Err(error) => {
                    let goes_on = match Failure::of(&error) {
                        Some(failure) => pauses.next(&self.listener, failure, error),
                        None => Err(error),
                    };
                    if let Err(error) = goes_on {
                        hub_core::hub::warn(format!("the console at {} ends: {error}", self.path.display()));
                        break;
                    }
                }
            }
        }
        self.close();
        loop {
            let Some(number) = self.clients.borrow().keys().next().copied() else { break };
            let client = self.clients.borrow_mut().remove(&number);
            // Fails for a client that was killed, which is reported elsewhere.
            let _ = client.map(|client| client.green.join());
        }
    }

    /// Disconnects the client that has been idle longest if the bound is reached. Does not switch.
    fn make_room(&self) {
        let clients = self.clients.borrow();
        let connected = clients.iter().filter(|(_, client)| client.is_connected());
        if connected.clone().count() < CLIENTS {
            return;
        }
        let idlest = connected.min_by_key(|(number, client)| (client.usage.last_command.get(), **number));
        let Some((_, Client { stream, usage, .. })) = idlest else { return };
        usage.is_dismissed.set(true);
        if let Some(stream) = stream.upgrade() {
            // An error means that the client is gone, or takes no answers.
            let _ = rustix::net::send(&*stream, DISMISSAL, crate::socket::SEND);
            stream.close();
        }
    }

    fn serve_client(self: &Rc<ConsoleState>, stream: UnixStream) {
        let number = self.next.replace(self.next.get() + 1);
        let stream = Rc::new(stream);
        let usage = Rc::new(Usage { last_command: Cell::new(Instant::now()), is_dismissed: Cell::new(false) });
        let entry = ClientEntry { served: Rc::downgrade(self), number };
        let (weak, name) = (Rc::downgrade(&stream), format!("console client {number}"));
        let (process, turns, used) = (self.process, Rc::clone(&self.turns), Rc::clone(&usage));
        let serve = move || {
            let _entry = entry;
            // An error means that the client is gone.
            let _ = Connection { stream: &stream, process, turns: &turns, usage: &used }.serve();
        };
        if let Ok(green) = Builder::new().name(name).spawned_at(self.opened_at).spawn(serve) {
            self.clients.borrow_mut().insert(number, Client { stream: weak, green, usage });
        }
    }

    fn is_of_this_process(&self) -> bool {
        std::process::id() == self.process
    }

    /// Removes the socket and disconnects all clients, which then end. Does not switch.
    fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        // A forked child has a copy of this state while its parent still serves the path. A new socket may also be
        // there.
        if self.is_of_this_process() && inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // The path may be gone already.
            let _ = fs::remove_file(&self.path);
        }
        self.listener.close();
        for client in self.clients.borrow().values() {
            if let Some(stream) = client.stream.upgrade() {
                stream.close();
            }
        }
    }
}

/// The entry of a client, removed when dropped.
struct ClientEntry {
    served: Weak<ConsoleState>,
    number: u64,
}

impl Drop for ClientEntry {
    fn drop(&mut self) {
        let client = self.served.upgrade().and_then(|served| served.clients.borrow_mut().remove(&self.number));
        drop(client);
    }
}

/// Returns an error unless a socket of this user is at the path, to which no other user can connect.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn check_mode(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let is_private = metadata.file_type().is_socket() && metadata.permissions().mode() & 0o077 == 0;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    if is_private && is_own { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The turns of the loop in which answers are made: one for each, whichever clients have asked.
struct Turns {
    free: Semaphore,
    /// A descriptor that is ready at all times: the other end is closed.
    ready: PipeReader,
}

impl Turns {
    fn new() -> io::Result<Turns> {
        let (ready, _) = io::pipe()?;
        Ok(Turns { free: Semaphore::new(1), ready })
    }

    /// Calls `f` in a turn of its own, after the loop has looked at all descriptors and timers. Switches.
    fn run_in_next<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        let _permit = self.free.access()?;
        // After a mere yield, several slow answers might share a turn. A sleep takes as long as the hub's clock says.
        trampoline(&self.ready, Interest::READ, None)?;
        Ok(f())
    }
}

/// A connection to a client. In a forked child, reads and writes fail before they take or send anything.
struct Connection<'a> {
    stream: &'a UnixStream,
    /// The process that serves the client.
    process: u32,
    turns: &'a Turns,
    usage: &'a Usage,
}

impl Connection<'_> {
    /// Answers the client until it leaves. Switches.
    fn serve(&self) -> io::Result<()> {
        let output = |text: &str| self.send(text.as_bytes(), PATIENCE);
        let mut input = BufReader::new(self);
        let hub = get_hub();
        output(&format!(
            "greenhub console, process {}, hub {}; `help` lists the commands\n",
            self.process,
            hub.name()
        ))?;
        loop {
            output("> ")?;
            let mut line = Vec::new();
            if (&mut input).take(LONGEST).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == LONGEST {
                return output("that line is too long\n");
            }
            self.usage.last_command.set(Instant::now());
            let answer = self.turns.run_in_next(|| {
                if self.usage.is_dismissed.get() { None } else { answer(String::from_utf8_lossy(&line).trim()) }
            })?;
            match answer {
                Some(answer) => output(&answer.into_text())?,
                None => return Ok(()),
            }
        }
    }

    /// Sends all of `bytes` within `limit`. A part that can be sent at once is sent in any case. Switches.
    fn send(&self, mut bytes: &[u8], limit: Duration) -> io::Result<()> {
        let begun = Instant::now();
        while !bytes.is_empty() {
            // The timeout of a socket is for each write, and must not be zero.
            let left = limit.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            self.stream.set_write_timeout(Some(left))?;
            bytes = &bytes[self.stream.write_if(bytes, || self.check_process())?..];
            if !bytes.is_empty() && begun.elapsed() >= limit {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    fn check_process(&self) -> io::Result<()> {
        if std::process::id() == self.process { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    }
}

impl Read for &Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read_if(buffer, || self.check_process())
    }
}

/// An answer to a command.
enum Answer {
    Text(String),
    /// A text that another OS thread can write, from what was captured.
    Captured(Arc<dyn Fn() -> String + Send + Sync>),
}

impl From<String> for Answer {
    fn from(text: String) -> Answer {
        Answer::Text(text)
    }
}

impl From<Capture> for Answer {
    fn from(capture: Capture) -> Answer {
        if capture.has_backtraces() {
            Answer::captured(move || capture.to_string())
        } else {
            capture.to_string().into()
        }
    }
}

impl Answer {
    fn captured(write: impl Fn() -> String + Send + Sync + 'static) -> Answer {
        Answer::Captured(Arc::new(write))
    }

    /// Returns the text. Switches while another OS thread writes it: the names of calls may take seconds.
    fn into_text(self) -> String {
        /// A pool of its own: the other jobs of the program may be what is wrong with it.
        static WRITERS: ThreadPool = ThreadPool::named("greenhub-console", 4);

        match self {
            Answer::Text(text) => text,
            Answer::Captured(write) => {
                let there = Arc::clone(&write);
                match WRITERS.execute(move || there()) {
                    Ok(text) => text,
                    // Without another OS thread, the answer holds the loop up.
                    Err(JobError::Io(_)) => write(),
                    Err(error) => format!("there is no answer: {error}\n"),
                }
            }
        }
    }
}

/// Returns the answer to a line. `None` ends the connection.
fn answer(line: &str) -> Option<Answer> {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or_default();
    let arguments: Vec<&str> = words.collect();
    Some(match (command, &*arguments) {
        ("", _) => String::new().into(),
        ("help", []) => HELP.to_owned().into(),
        ("threads", []) => threads().into(),
        ("listeners", []) => format_listeners_at_most(MOST_LISTED).into(),
        ("timers", []) => format_timers_at_most(MOST_LISTED).into(),
        ("stats", []) => get_hub().stats().to_string().into(),
        ("dump", []) => capture_dump(MOST_LISTED).into(),
        ("snapshot", []) => {
            let snapshot = capture_snapshot(MOST_IN_SNAPSHOT);
            Answer::captured(move || snapshot() + "\n")
        }
        ("kill", [number]) => kill(number).into(),
        ("backtrace", [number]) => backtrace(number),
        ("quit", []) => return None,
        ("kill" | "backtrace", _) => {
            format!("`{command}` needs the number of one green thread; `threads` lists the numbers\n").into()
        }
        ("help" | "threads" | "dump" | "listeners" | "timers" | "stats" | "snapshot" | "quit", _) => {
            format!("`{command}` takes no arguments\n").into()
        }
        _ => format!("unknown command {command:?}; `help` lists the commands\n").into(),
    })
}

fn threads() -> String {
    let mut text = String::from("GREEN THREADS:\n");
    let (listed, omitted) = greenlets_at_most(MOST_LISTED, |_| true);
    for info in listed {
        let line = info.to_string();
        let (number, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let birth = birth_of(info.id).map(|birth| format!(".{birth}")).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {number}{birth} {rest}");
    }
    if omitted > 0 {
        let _ = writeln!(text, "  and {omitted} more");
    }
    text
}

/// Parses `N` or `N.BIRTH`.
fn parse(number: &str) -> Option<(GreenletId, Option<u32>)> {
    let (id, birth) = number.split_once('.').map_or((number, None), |(id, birth)| (id, Some(birth)));
    Some((id.parse().ok()?, birth.map(str::parse).transpose().ok()?))
}

fn kill(number: &str) -> String {
    let Some((id, birth)) = parse(number) else { return is_no_number(number) };
    match (birth_of(id), birth) {
        (Some(_), None) => {
            format!(
                "`kill` needs {number}.BIRTH, as `threads` lists it: another green thread may have the number now\n"
            )
        }
        // Nothing runs in between, so the green thread has not ended.
        (Some(now), Some(birth)) if now == birth && request_exit(id) => {
            format!("green thread {number} ends when it runs next\n")
        }
        _ => there_is_none(number),
    }
}

fn backtrace(number: &str) -> Answer {
    let Some((id, birth)) = parse(number) else { return is_no_number(number).into() };
    if birth.is_some() && birth_of(id) != birth {
        return there_is_none(number).into();
    }
    match capture_backtrace(id) {
        Ok(backtrace) => backtrace.into(),
        Err(BacktraceError::NotFound) => there_is_none(number).into(),
        Err(error) => format!("there is no backtrace of green thread {number}: {error}\n").into(),
    }
}

fn there_is_none(number: &str) -> String {
    format!("there is no green thread {number}; `threads` lists the green threads\n")
}

fn is_no_number(number: &str) -> String {
    format!("{number:?} is not the number of a green thread; `threads` lists the numbers\n")
}
