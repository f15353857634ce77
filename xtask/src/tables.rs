//! What the other modules go by: hubs, features, forced paths, faults, costs, arrows between crates, modules with unsafe code.
//!
//! A new hub is one line in [`HUBS`]; everything else about it follows.

mod floors;

#[cfg(test)]
pub use floors::Floor;
pub use floors::{FLOORS, Floors};

/// A backend of this workspace.
pub struct Hub {
    /// Its canonical name, which is also its feature of the facade.
    pub name: &'static str,
    /// Its crate.
    pub package: &'static str,
    /// Whether the facade has it without being asked.
    pub default: bool,
    /// Whether its crate must forbid unsafe code.
    pub forbids_unsafe: bool,
    /// Whether this system has it. Elsewhere it is built, and what its crate can test without the system is tested.
    pub runs_here: bool,
    /// What has to be installed for it.
    pub needs: Option<Library>,
}

/// A program of others that some tests speak to. Where it is not there and cannot be installed, they are skipped.
pub struct Peer {
    /// What is started.
    pub program: &'static str,
    /// Debian's package.
    pub package: &'static str,
    /// Its tests, in `peers.rs`.
    pub tests: &'static str,
}

/// All of them.
pub const PEERS: &[Peer] = &[
    Peer { program: "curl", package: "curl", tests: "curl::" },
    Peer { program: "wrk", package: "wrk", tests: "wrk::" },
    Peer { program: "nginx", package: "nginx-light", tests: "nginx::" },
    Peer { program: "redis-server", package: "redis-server", tests: "redis::" },
];

/// A library that cargo cannot fetch. Where it is not there and cannot be installed, what needs it is skipped.
pub struct Library {
    /// As pkg-config knows it.
    pub name: &'static str,
    /// Debian's packages.
    pub packages: &'static [&'static str],
}

/// The hubs that there are.
pub const HUBS: &[Hub] = &[
    Hub { name: "epoll", package: "hub-epoll", default: true, forbids_unsafe: true, runs_here: LINUX, needs: None },
    Hub { name: "kqueue", package: "hub-kqueue", default: true, forbids_unsafe: false, runs_here: KQUEUE, needs: None },
    Hub { name: "poll", package: "hub-poll", default: true, forbids_unsafe: true, runs_here: true, needs: None },
    Hub { name: "select", package: "hub-select", default: true, forbids_unsafe: true, runs_here: true, needs: None },
    Hub {
        name: "libevent",
        package: "hub-libevent",
        default: false,
        forbids_unsafe: false,
        runs_here: cfg!(unix),
        needs: Some(Library { name: "libevent_core", packages: &["libevent-dev", "pkg-config"] }),
    },
];

const LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));

const KQUEUE: bool = cfg!(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
));

/// The hubs that the tests are run on: those that this system has.
pub fn hubs_here() -> impl Iterator<Item = &'static Hub> {
    HUBS.iter().filter(|hub| hub.runs_here)
}

/// Feature lists of the facade that are built beside none, each alone and the default. Never `--all-features`:
/// what belongs together is said here.
pub const FEATURE_LISTS: &[&[&str]] =
    &[&["epoll", "poll"], &["poll", "select"], &["epoll", "libevent"], &["backtrace", "poll", "tracing"], &["tracing"]];

/// Features of the facade that are no hubs, each with the test program that needs it.
pub const FEATURE_TESTS: &[(&str, &str)] = &[("backtrace", "backtrace"), ("tracing", "tracing")];

/// Crates with a feature that brings something public, whose example is run: (crate, feature, the example's name).
pub const FEATURE_EXAMPLES: &[(&str, &str, &str)] = &[("hub-core", "tracing", "in_span")];

/// A path that is taken only where the system lacks something, forced so that it is tested everywhere.
pub struct Forced {
    pub what: &'static str,
    pub variable: &'static str,
    pub value: &'static str,
    /// The hub that knows it; none: all of them.
    pub hub: Option<&'static str>,
}

/// The fallback paths of the core and of the backends.
pub const FORCED: &[Forced] = &[
    Forced { what: "pipe instead of eventfd", variable: "GREENHUB_WAKEUP", value: "pipe", hub: None },
    Forced { what: "mprotect instead of guard advice", variable: "GREENHUB_GUARD", value: "mprotect", hub: None },
    Forced { what: "waits in milliseconds", variable: "GREENHUB_EPOLL", value: "millis", hub: Some("epoll") },
    Forced { what: "edge-triggered", variable: "GREENHUB_EPOLL", value: "edge", hub: Some("epoll") },
];

/// System calls that fail or come late, and what must come of it. One that is never made proves nothing, which is a
/// failure.
pub struct Fault {
    pub what: &'static str,
    /// As strace names them; `?` before one that not every architecture has.
    pub calls: &'static str,
    /// As strace's `inject` takes it after the calls, which are counted for each thread.
    pub how: &'static str,
    /// The hub that it is for; none: all of them.
    pub hub: Option<&'static str>,
    pub must: Must,
}

/// What must come of a fault.
pub enum Must {
    /// The tests of the backend pass.
    Pass,
    /// The loop says what failed and lives on: the test `faults` of the facade passes.
    LiveOn,
    /// The example `echo` serves every connection and has nothing to tell.
    GoUnnoticed,
    /// It serves every connection and tells of the fault in one line with these words.
    BeOutlived(&'static str),
    /// It ends with one line that has these words.
    EndIt(&'static str),
}

/// Every call in which a hub sleeps, and those with which it looks once more.
const WAITS: &str = "?epoll_wait,?epoll_pwait,?epoll_pwait2,?poll,?ppoll,?select,?_newselect,?pselect6";

/// Both names of it.
const ACCEPT: &str = "?accept,accept4";

/// In [`Fault::how`]: the number of the first call that makes room for stacks.
pub const STACKS: &str = "STACKS";

const fn fault(what: &'static str, calls: &'static str, how: &'static str, must: Must) -> Fault {
    Fault { what, calls, how, hub: None, must }
}

pub const FAULTS: &[Fault] = &[
    fault("every third wait of its tests is interrupted", WAITS, "error=EINTR:when=3+3", Must::Pass),
    Fault { hub: Some("epoll"), ..fault("no epoll_pwait2", "?epoll_pwait2", "error=ENOSYS", Must::Pass) },
    fault("every second wait finds no memory", WAITS, "error=ENOMEM:when=2+2", Must::LiveOn),
    fault("every second wait is to be tried again", WAITS, "error=EAGAIN:when=2+2", Must::LiveOn),
    fault("every second wait is interrupted", WAITS, "error=EINTR:when=2+2", Must::GoUnnoticed),
    fault("every wait begins late", WAITS, "delay_enter=10000", Must::GoUnnoticed),
    fault("every wait ends late", WAITS, "delay_exit=10000", Must::GoUnnoticed),
    fault("a wait finds no memory", WAITS, "error=ENOMEM:when=20", Must::EndIt("Cannot allocate memory")),
    fault("no descriptor to accept with", ACCEPT, "error=EMFILE:when=2+3", Must::BeOutlived("Too many open files")),
    fault("clients gone before accept", ACCEPT, "error=ECONNABORTED:when=2+3", Must::BeOutlived("connection abort")),
    fault("accept is interrupted", ACCEPT, "error=EINTR:when=2+3", Must::GoUnnoticed),
    fault("accept finds nothing", ACCEPT, "error=EAGAIN:when=2+3", Must::GoUnnoticed),
    fault("connect is interrupted", "connect", "error=EINTR:when=3+3", Must::GoUnnoticed),
    fault("receiving is interrupted", "recvfrom", "error=EINTR:when=3+3", Must::GoUnnoticed),
    fault("receiving finds nothing", "recvfrom", "error=EAGAIN:when=3+3", Must::GoUnnoticed),
    fault("sending is interrupted", "sendto", "error=EINTR:when=3+3", Must::GoUnnoticed),
    fault("sending finds no room", "sendto", "error=EAGAIN:when=3+3", Must::GoUnnoticed),
    fault("a connection breaks", "recvfrom", "error=ECONNRESET:when=500", Must::BeOutlived("Connection reset")),
    Fault { hub: Some("epoll"), ..FULL_SET },
    Fault { hub: Some("libevent"), ..FULL_SET },
    Fault { hub: Some("epoll"), ..NO_SET },
    Fault { hub: Some("libevent"), ..NO_SET },
    fault("no descriptor for the wake-up", "eventfd2", "error=EMFILE", Must::EndIt("Too many open files")),
    fault("no room for stacks", "mmap", "error=ENOMEM:when=STACKS+", Must::EndIt("no stack for another greenlet")),
];

const FULL_SET: Fault =
    fault("no room in the set", "epoll_ctl", "error=ENOSPC:when=70+10", Must::BeOutlived("No space left"));

const NO_SET: Fault = fault(
    "no descriptor for the set",
    "?epoll_create,epoll_create1",
    "error=EMFILE",
    Must::EndIt("Too many open files"),
);

/// What one of the operations of `hot_paths` may cost.
pub struct Cost {
    pub operation: &'static str,
    /// Instructions outside the system, on x86-64, in release mode.
    pub instructions: u64,
    /// System calls in a thousand operations.
    pub calls: u64,
}

/// A quarter above what was counted when the line was written, which leaves room for another compiler; calls are exact
/// but for the start.
pub const COSTS: &[Cost] = &[
    Cost { operation: "switch", instructions: 820, calls: 1 },
    Cost { operation: "yield2", instructions: 100, calls: 5 },
    Cost { operation: "yield1000", instructions: 100, calls: 5 },
    Cost { operation: "spawn_join", instructions: 340, calls: 5 },
    Cost { operation: "spawn_n", instructions: 290, calls: 5 },
    Cost { operation: "timer", instructions: 250, calls: 1 },
    Cost { operation: "timer100k", instructions: 250, calls: 1 },
    Cost { operation: "channel", instructions: 1050, calls: 10 },
    Cost { operation: "mutex", instructions: 145, calls: 1 },
    Cost { operation: "sleep", instructions: 2040, calls: 1010 },
    Cost { operation: "echo", instructions: 3560, calls: 6010 },
    Cost { operation: "echo1000", instructions: 2280, calls: 4010 },
];

/// How many seeds the random tests take: (variable, value) of the long run.
pub const LONG_SEEDS: (&str, &str) = ("GREENHUB_SEEDS", "20000");

/// How often a test is repeated that depends on who comes first: (variable, value) of the long run.
pub const MANY_RUNS: (&str, &str) = ("GREENHUB_RUNS", "200");

/// Variables that would change a test run; each step starts without them.
pub const VARIABLES: &[&str] = &[
    "EVENTLET_HUB",
    "GREENHUB_WAKEUP",
    "GREENHUB_GUARD",
    "GREENHUB_EPOLL",
    "GREENHUB_SEEDS",
    "GREENHUB_RUNS",
    "GREENHUB_FAULTS",
];

/// Targets whose code is type-checked where a toolchain with the sources of std is there.
pub const OTHER_TARGETS: &[&str] =
    &["x86_64-unknown-freebsd", "x86_64-unknown-openbsd", "x86_64-apple-darwin", "aarch64-apple-darwin"];

/// On which crates of ours a crate may depend.
pub struct Arrows {
    pub package: &'static str,
    pub to: &'static [&'static str],
    /// In tests and examples only.
    pub dev: &'static [&'static str],
}

/// Every crate but the backends, whose arrows are [`BACKEND_ARROWS`]. `*` stands for every backend.
pub const ARROWS: &[Arrows] = &[
    Arrows { package: "hub-core", to: &[], dev: &["hub-testkit"] },
    Arrows { package: "hub-testkit", to: &["hub-core"], dev: &["*"] },
    Arrows { package: "greenstd", to: &["hub-core"], dev: &["hub-poll"] },
    Arrows { package: "greenhub", to: &["hub-core", "greenstd", "*"], dev: &["hub-testkit"] },
    Arrows {
        package: "benches",
        to: &["greenhub", "greenstd", "hub-core", "*"],
        dev: &["greenhub", "greenstd", "hub-core", "*"],
    },
    Arrows { package: "xtask", to: &[], dev: &[] },
];

/// The arrows of each backend.
pub const BACKEND_ARROWS: (&[&str], &[&str]) = (&["hub-core"], &["hub-testkit"]);

/// The module of hub-core from which backends and the testkit import. None: it does not exist yet.
pub const CONTRACT: Option<&str> = None;

/// The only files under a `src` folder with unsafe code. Each opens with its ground rules.
pub const UNSAFE_FILES: &[&str] = &[
    "crates/hub-core/src/biased.rs",
    "crates/hub-core/src/biased/model.rs",
    "crates/hub-core/src/biased/raw_mutex.rs",
    "crates/hub-core/src/blocking/no_snapshot.rs",
    "crates/hub-core/src/blocking/question.rs",
    "crates/hub-core/src/blocking/sample.rs",
    "crates/hub-core/src/blocking/snapshot.rs",
    "crates/hub-core/src/descriptors.rs",
    "crates/hub-core/src/fork.rs",
    "crates/hub-core/src/greenlet/control.rs",
    "crates/hub-core/src/greenlet/local.rs",
    "crates/hub-core/src/greenlet/overflow.rs",
    "crates/hub-core/src/greenlet/raw.rs",
    "crates/hub-core/src/greenlet/run.rs",
    "crates/hub-core/src/greenlet/stack.rs",
    "crates/hub-core/src/greenlet/stack/guard.rs",
    "crates/hub-core/src/greenlet/stack/slab.rs",
    "crates/hub-core/src/greenlet/switch.rs",
    "crates/hub-core/src/greenlet/task.rs",
    "crates/hub-core/src/greenlet/unwind.rs",
    "crates/hub-core/src/main_loop/watching.rs",
    "crates/hub-core/src/offload.rs",
    "crates/hub-core/src/remote/mailbox.rs",
    "crates/hub-core/src/scope.rs",
    "crates/hub-core/src/signal.rs",
    "crates/hub-core/src/source.rs",
    "crates/hub-core/src/stacks.rs",
    "crates/hub-core/src/trampoline.rs",
    "crates/hub-core/src/watched.rs",
    "crates/hub-kqueue/src/sys.rs",
    "crates/hub-libevent/src/base.rs",
    "crates/hub-libevent/src/sys.rs",
    "crates/hub-testkit/src/allocations.rs",
    "crates/hub-testkit/src/fixture.rs",
    "crates/hub-testkit/src/process.rs",
];

/// The only libraries' files that may print: what a test says to whoever runs it.
pub const PRINTING_FILES: &[&str] = &["crates/hub-testkit/src/process.rs"];
