//! The tables of all commands: hubs, features, forced paths, faults, costs, dependencies, files with unsafe code.
//!
//! A new hub is one line in [`HUBS`]. Everything else about it follows from that.

mod layers;

#[cfg(test)]
pub use layers::Layer;
pub use layers::{LAYERS, Layers};

/// A backend of this workspace.
pub struct Hub {
    /// The canonical name, which is also the feature of the facade.
    pub name: &'static str,
    /// The crate.
    pub package: &'static str,
    /// Whether it is a default feature of the facade.
    pub default: bool,
    /// Whether it drives a runtime, over another hub. Its crate then has further items, for users of the runtime, and
    /// names parts of hub-core beside the contract. The facade has its descriptor.
    pub drives_runtime: bool,
    /// Whether its crate must forbid unsafe code.
    pub forbids_unsafe: bool,
    /// Whether this system has it. Elsewhere the crate is built, and runs those of its tests that need no such system.
    pub runs_here: bool,
    /// The library that it needs.
    pub needs: Option<Library>,
}

/// A program that some tests speak to. The tests are skipped if it is not installed and cannot be.
pub struct Peer {
    /// The command.
    pub program: &'static str,
    /// The package in Debian.
    pub package: &'static str,
    /// The crate and the test program that speak to it.
    pub tested_by: (&'static str, &'static str),
    /// The path of its tests in that program.
    pub tests: &'static str,
}

/// The green suite.
const GREEN_SUITE: (&str, &str) = ("greenhub", "it");

/// The programs that the tests speak to.
pub const PEERS: &[Peer] = &[
    Peer { program: "gdb", package: "gdb", tested_by: GREEN_SUITE, tests: "peers::gdb::" },
    Peer { program: "curl", package: "curl", tested_by: GREEN_SUITE, tests: "peers::curl::" },
    Peer { program: "wrk", package: "wrk", tested_by: GREEN_SUITE, tests: "peers::wrk::" },
    Peer { program: "nginx", package: "nginx-light", tested_by: GREEN_SUITE, tests: "peers::nginx::" },
    Peer { program: "redis-server", package: "redis-server", tested_by: GREEN_SUITE, tests: "peers::redis::" },
    Peer { program: "tmux", package: "tmux", tested_by: ("greenhub-top", "screen"), tests: "" },
];

/// A library that cargo cannot fetch. A hub or a recipe that needs it is skipped if it is not installed and cannot be.
pub struct Library {
    /// The name in pkg-config.
    pub name: &'static str,
    /// The packages in Debian.
    pub packages: &'static [&'static str],
}

/// Functions that document a panic and need no `#[track_caller]`.
pub struct UntrackedPanics {
    /// The reason.
    pub reason: &'static str,
    /// The files and the names in them.
    pub functions: &'static [(&'static str, &'static str)],
}

/// The functions that document a panic and need no `#[track_caller]`.
pub const UNTRACKED_PANICS: &[UntrackedPanics] = &[
    UntrackedPanics {
        reason: "the panic is that of a closure, a future or a constructor of the program, and has a place there",
        functions: &[
            ("crates/greenstd/src/greenpool/in_order.rs", "next"),
            ("crates/greenstd/src/pools.rs", "get"),
            ("crates/greenstd/src/pools.rs", "item"),
            ("crates/greenstd/src/sync/queue.rs", "close"),
            ("crates/greenstd/src/sync/queue.rs", "close_now"),
            ("crates/greenstd/src/time.rs", "timeout_at"),
            ("crates/hub-core/src/api/future.rs", "block_in_place"),
            ("crates/hub-core/src/api/future.rs", "try_block_on"),
            ("crates/hub-core/src/api/link.rs", "with_link"),
            ("crates/hub-core/src/api/link.rs", "with_link_error"),
            ("crates/hub-core/src/api/link.rs", "with_link_value"),
            ("crates/hub-core/src/api/shield.rs", "shield"),
            ("crates/hub-core/src/api/with_timeout.rs", "with_timeout"),
            ("crates/hub-core/src/greenlet/ask_owner.rs", "ask_owner"),
            ("crates/hub-core/src/greenlet/spans.rs", "in_span"),
            ("crates/hub-core/src/wait/shutdown.rs", "run_and_shutdown"),
        ],
    },
    UntrackedPanics {
        reason: "a poll of the returned future panics, not the call",
        functions: &[("crates/hub-core/src/wait/sleep_future.rs", "sleep"), ("crates/hub-tokio/src/join.rs", "join")],
    },
    UntrackedPanics {
        reason: "each operation of a primitive takes this lock, which would be handed the place each time",
        functions: &[("crates/hub-core/src/wait/biased.rs", "lock")],
    },
];

/// Every hub.
pub const HUBS: &[Hub] = &[
    Hub { name: "epoll", package: "hub-epoll", runs_here: LINUX, ..DEFAULT_HUB },
    Hub { name: "kqueue", package: "hub-kqueue", forbids_unsafe: false, runs_here: KQUEUE, ..DEFAULT_HUB },
    Hub { name: "poll", package: "hub-poll", ..DEFAULT_HUB },
    Hub { name: "select", package: "hub-select", ..DEFAULT_HUB },
    Hub {
        name: "libevent",
        package: "hub-libevent",
        default: false,
        forbids_unsafe: false,
        runs_here: cfg!(unix),
        needs: Some(Library { name: "libevent_core", packages: &["libevent-dev", "pkg-config"] }),
        ..DEFAULT_HUB
    },
    Hub {
        name: "tokio",
        package: "hub-tokio",
        default: false,
        drives_runtime: true,
        forbids_unsafe: false,
        runs_here: LINUX || KQUEUE,
        ..DEFAULT_HUB
    },
];

/// The entries of most hubs.
pub const DEFAULT_HUB: Hub = Hub {
    name: "",
    package: "",
    default: true,
    drives_runtime: false,
    forbids_unsafe: true,
    runs_here: true,
    needs: None,
};

const LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));

const KQUEUE: bool = cfg!(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
));

/// Returns the hubs that this system has, on which the tests run.
pub fn hubs_here() -> impl Iterator<Item = &'static Hub> {
    HUBS.iter().filter(|hub| hub.runs_here)
}

/// The most crates that a program builds which depends on the facade alone, with its default features.
pub const FACADE_CRATES: usize = 37;

/// Feature lists of the facade that are checked beside no feature, each hub alone and the default. There is
/// no `--all-features`, which would need every library.
pub const FEATURE_LISTS: &[&[&str]] = &[
    &["epoll", "poll"],
    &["poll", "select"],
    &["epoll", "libevent"],
    &["poll", "tokio"],
    &["backtrace", "metrics", "poll", "tracing"],
    &["metrics"],
    &["tracing"],
    &["poll", "tokio-io"],
    &["futures-io", "poll"],
    &["hyper-io", "poll"],
    &["futures-io", "hyper-io", "poll", "tokio-io"],
    &["loop", "poll"],
    &["console", "poll"],
];

/// Features of the facade other than hubs, each with the test program that needs it.
pub const FEATURE_TESTS: &[(&str, &str)] = &[
    ("backtrace", "backtrace"),
    ("tracing", "tracing"),
    ("metrics", "metrics"),
    ("tokio", "tokio"),
    ("tokio", "joined"),
    ("console", "joined"),
    ("tokio-io", "tokio_io"),
    ("futures-io", "futures_io"),
    ("hyper-io", "hyper_io"),
];

/// Programs of [`FEATURE_TESTS`] that join a loop, or replace it by one that is joined. Only hubs with a descriptor for
/// outer loops allow it, so these programs run on the hub that the facade prefers.
pub const JOINING_TESTS: &[&str] = &["tokio", "joined"];

/// Examples in the documentation that need a feature: (crate, feature, name of the example).
pub const FEATURE_EXAMPLES: &[(&str, &str, &str)] = &[
    ("greenstd", "console", "debug::console"),
    ("hub-core", "tracing", "in_span"),
    ("hub-core", "metrics", "publish_metrics"),
    ("hub-core", "metrics", "describe_metrics"),
    ("hub-core", "metrics", "flush_metrics"),
    ("greenstd", "hyper-io", "GreenExecutor"),
    ("greenstd", "hyper-io", "GreenTimer"),
];

/// A fallback for a system that lacks something. A variable forces it, so that it is tested everywhere.
pub struct Forced {
    pub name: &'static str,
    pub variable: &'static str,
    pub value: &'static str,
    /// The only hub that has it. None: every hub.
    pub hub: Option<&'static str>,
}

/// The fallback paths of the core and of the backends.
pub const FORCED: &[Forced] = &[
    Forced { name: "pipe instead of eventfd", variable: "GREENHUB_WAKEUP", value: "pipe", hub: None },
    Forced { name: "mprotect instead of guard advice", variable: "GREENHUB_GUARD", value: "mprotect", hub: None },
    Forced { name: "children by signal", variable: "GREENHUB_CHILD", value: "signal", hub: None },
    Forced { name: "waits in milliseconds", variable: "GREENHUB_EPOLL", value: "millis", hub: Some("epoll") },
    Forced { name: "edge-triggered", variable: "GREENHUB_EPOLL", value: "edge", hub: Some("epoll") },
];

/// Injected faults: system calls that fail or come late. A fault that hits no call is a failure, since it proves
/// nothing.
pub struct Fault {
    pub name: &'static str,
    /// Names for strace, with `?` before a call that not every architecture has.
    pub calls: &'static str,
    /// The fault in the syntax of strace's `inject`. strace counts the calls of each thread.
    pub how: &'static str,
    /// The only hub that makes these calls. None: every hub.
    pub hub: Option<&'static str>,
    pub must: Must,
}

/// The expected outcome of a fault.
pub enum Must {
    /// The tests of the backend pass.
    Pass,
    /// The loop says what failed and lives on: the tests `faults` of the facade pass.
    LiveOn,
    /// The example `echo` serves every connection and reports nothing.
    GoUnnoticed,
    /// The example serves every connection and reports the fault in one line with these words.
    BeOutlived(&'static str),
    /// The example ends with one line that has these words.
    EndIt(&'static str),
}

/// Every call by which a hub waits or polls.
const WAITS: &str = "?epoll_wait,?epoll_pwait,?epoll_pwait2,?poll,?ppoll,?select,?_newselect,?pselect6";

/// Both system calls that accept a connection.
const ACCEPT: &str = "?accept,accept4";

/// Stands in [`Fault::how`] for the number of the first call that maps stacks.
pub const STACKS: &str = "STACKS";

const fn fault(name: &'static str, calls: &'static str, how: &'static str, must: Must) -> Fault {
    Fault { name, calls, how, hub: None, must }
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

/// The limits of one operation of `hot_paths`.
pub struct Cost {
    pub operation: &'static str,
    /// Instructions in user space, on x86-64, in release mode.
    pub instructions: u64,
    /// Reads and writes that miss the first cache of data in a thousand operations, in a simulation.
    pub misses: u64,
    /// System calls in a thousand operations.
    pub calls: u64,
    /// Allocations and reallocations in a thousand operations.
    pub allocations: u64,
}

/// A limit of instructions is about a fifth above the count at the time of writing, or more. This leaves room for other
/// compilers. A limit of misses is about a tenth above, because they depend on where memory lies. Calls are exact
/// except for the start. Nothing allocates but the mail of another OS thread, two nodes for each round trip, and rows
/// with a comment about it.
pub const COSTS: &[Cost] = &[
    Cost { operation: "switch", instructions: 310, misses: 20, calls: 1, allocations: 0 },
    Cost { operation: "yield2", instructions: 100, misses: 20, calls: 5, allocations: 0 },
    Cost { operation: "yield1000", instructions: 100, misses: 3400, calls: 5, allocations: 0 },
    Cost { operation: "spawn_join", instructions: 290, misses: 8000, calls: 5, allocations: 0 },
    Cost { operation: "spawn_n", instructions: 270, misses: 5400, calls: 5, allocations: 0 },
    // Whether two of its lines meet in one set of the cache depends on the addresses of the run.
    Cost { operation: "timer", instructions: 215, misses: 40, calls: 1, allocations: 0 },
    Cost { operation: "timer100k", instructions: 215, misses: 20, calls: 1, allocations: 1 },
    Cost { operation: "channel", instructions: 1040, misses: 20, calls: 10, allocations: 0 },
    Cost { operation: "queue", instructions: 1590, misses: 20, calls: 10, allocations: 0 },
    // The next rows need not wait.
    Cost { operation: "mpsc_ready", instructions: 200, misses: 20, calls: 1, allocations: 0 },
    Cost { operation: "queue_ready", instructions: 335, misses: 20, calls: 1, allocations: 0 },
    // The allocation is the state that both halves share.
    Cost { operation: "oneshot", instructions: 690, misses: 20, calls: 1, allocations: 1000 },
    Cost { operation: "watch", instructions: 140, misses: 20, calls: 1, allocations: 0 },
    // The allocation is the value, of which receivers make their clones without the lock.
    Cost { operation: "broadcast", instructions: 415, misses: 20, calls: 1, allocations: 1000 },
    Cost { operation: "notify", instructions: 145, misses: 20, calls: 1, allocations: 0 },
    Cost { operation: "mutex", instructions: 145, misses: 20, calls: 1, allocations: 0 },
    // Between two OS threads, as below.
    Cost { operation: "across", instructions: 8000, misses: 60_000, calls: 7200, allocations: 2600 },
    Cost { operation: "sleep", instructions: 2040, misses: 40, calls: 1010, allocations: 0 },
    Cost { operation: "echo", instructions: 3560, misses: 20, calls: 6010, allocations: 0 },
    Cost { operation: "echo1000", instructions: 2280, misses: 43_000, calls: 4040, allocations: 0 },
    // Tokio's allocations decide whether two hot lines meet in one set of the cache: then an operation has two misses.
    Cost { operation: "tokio_echo", instructions: 4950, misses: 2500, calls: 6260, allocations: 0 },
    // In the rows with a peer this is another OS thread. The limits are for the case in which each answer finds the
    // loop asleep. The counts are lower the more the two overlap. The start adds some twenty calls for a thousand.
    Cost { operation: "tokio_peer", instructions: 6200, misses: 2500, calls: 7200, allocations: 0 },
    Cost { operation: "tokio_task", instructions: 6200, misses: 2500, calls: 2010, allocations: 0 },
    Cost { operation: "joined_echo", instructions: 5800, misses: 2500, calls: 6260, allocations: 0 },
    Cost { operation: "joined_peer", instructions: 6600, misses: 2500, calls: 7200, allocations: 0 },
    Cost { operation: "joined_task", instructions: 5300, misses: 2500, calls: 2010, allocations: 0 },
];

/// The operations of two OS threads whose calls depend on how far the threads overlap.
pub const OVERLAPPING: &[&str] = &["across", "tokio_peer", "joined_peer"];

/// The number of seeds of random tests in a full run: (variable, value).
pub const LONG_SEEDS: (&str, &str) = ("GREENHUB_SEEDS", "20000");

/// The factor for the seeds of the random tests of transports in a full run: (variable, value).
pub const TRANSPORT_SEEDS: (&str, &str) = ("TRANSPORT_SEEDS", "20");

/// The number of repetitions of a test that depends on a race, in a full run: (variable, value).
pub const MANY_RUNS: (&str, &str) = ("GREENHUB_RUNS", "200");

/// Variables that would change a test run. Each step starts without them.
pub const VARIABLES: &[&str] = &[
    "GREENHUB_HUB",
    "EVENTLET_HUB",
    "GREENHUB_WAKEUP",
    "GREENHUB_GUARD",
    "GREENHUB_CHILD",
    "GREENHUB_EPOLL",
    "GREENHUB_BLOCKING",
    "GREENHUB_SEEDS",
    "TRANSPORT_SEEDS",
    "GREENHUB_RUNS",
    "GREENHUB_FAULTS",
];

/// Targets for which the code is checked if the sources of std are installed.
pub const OTHER_TARGETS: &[&str] =
    &["x86_64-unknown-freebsd", "x86_64-unknown-openbsd", "x86_64-apple-darwin", "aarch64-apple-darwin"];

/// The crate of programs with other libraries. It builds many crates, so only a full test run and a job of its own in
/// CI build it.
pub const RECIPES: &str = "recipes";

/// The features of [`RECIPES`], and the library that each needs.
pub const RECIPE_FEATURES: &[(&str, Library)] =
    &[("native-tls", Library { name: "openssl", packages: &["libssl-dev", "pkg-config"] })];

/// The crate of adapters for other libraries. Without its features, which are off by default, it is empty.
pub const ADAPTERS: &str = "greenhub-adapters";

/// The features of [`ADAPTERS`], each of which is built alone.
pub const ADAPTER_FEATURES: &[&str] = &["http-server", "redis-1", "ureq-3", "ureq-3-rustls"];

/// The crates of this workspace on which a crate may depend.
pub struct Dependencies {
    pub package: &'static str,
    pub normal: &'static [&'static str],
    /// Dependencies of tests and examples.
    pub dev: &'static [&'static str],
}

/// The allowed dependencies of every crate but the backends. `*` stands for every backend. A backend with an entry here
/// has these dependencies instead of [`BACKEND_DEPENDENCIES`].
pub const DEPENDENCIES: &[Dependencies] = &[
    Dependencies { package: "hub-core", normal: &[], dev: &["greenhub", "hub-testkit"] },
    Dependencies { package: "hub-testkit", normal: &["hub-core"], dev: &["*"] },
    Dependencies {
        package: "hub-tokio",
        normal: &["hub-core"],
        dev: &["greenhub", "greenstd", "hub-testkit", "hub-epoll", "hub-kqueue"],
    },
    Dependencies { package: "hub-loop", normal: &["hub-core"], dev: &["greenhub"] },
    Dependencies { package: "greenstd", normal: &["hub-core"], dev: &["greenhub", "hub-poll"] },
    Dependencies { package: "greenhub", normal: &["hub-core", "hub-loop", "greenstd", "*"], dev: &["hub-testkit"] },
    Dependencies {
        package: "benches",
        normal: &["greenhub", ADAPTERS, "greenstd", "hub-core", "*"],
        dev: &["greenhub", "greenstd", "hub-core", "*"],
    },
    Dependencies { package: "guide", normal: &["greenhub", ADAPTERS, "hub-tokio"], dev: &["hub-core", "hub-testkit"] },
    Dependencies { package: "greenhub-top", normal: &[], dev: &["greenhub"] },
    Dependencies { package: ADAPTERS, normal: &["greenhub"], dev: &["greenhub"] },
    Dependencies { package: RECIPES, normal: &["greenhub", ADAPTERS, "hub-tokio"], dev: &[ADAPTERS] },
    Dependencies { package: "xtask", normal: &[], dev: &[] },
];

/// The allowed dependencies of each backend: those of the library, and those of its tests.
pub const BACKEND_DEPENDENCIES: (&[&str], &[&str]) = (&["hub-core"], &["hub-testkit"]);

/// The module of hub-core from which backends and the testkit import.
pub const CONTRACT: Option<&str> = Some("hub");

/// The most names at the root of the facade, modules included.
pub const ROOT_NAMES: usize = 46;

/// The only files under a `src` folder with unsafe code. Each opens with its ground rules.
pub const UNSAFE_FILES: &[&str] = &[
    "crates/hub-core/src/api/scope.rs",
    "crates/hub-core/src/api/signal.rs",
    "crates/hub-core/src/api/stacks.rs",
    "crates/hub-core/src/base/at_exit.rs",
    "crates/hub-core/src/base/fork.rs",
    "crates/hub-core/src/base/own_stack.rs",
    "crates/hub-core/src/base/prefetch.rs",
    "crates/hub-core/src/base/read_word.rs",
    "crates/hub-core/src/greenlet/backtrace.rs",
    "crates/hub-core/src/greenlet/cold.rs",
    "crates/hub-core/src/greenlet/control.rs",
    "crates/hub-core/src/greenlet/control/arena.rs",
    "crates/hub-core/src/greenlet/debugger.rs",
    "crates/hub-core/src/greenlet/local.rs",
    "crates/hub-core/src/greenlet/overflow.rs",
    "crates/hub-core/src/greenlet/raw.rs",
    "crates/hub-core/src/greenlet/raw/node.rs",
    "crates/hub-core/src/greenlet/raw/route.rs",
    "crates/hub-core/src/greenlet/run/ending.rs",
    "crates/hub-core/src/greenlet/run/exit_request.rs",
    "crates/hub-core/src/greenlet/run/fairness.rs",
    "crates/hub-core/src/greenlet/run/hand_off.rs",
    "crates/hub-core/src/greenlet/run/mask.rs",
    "crates/hub-core/src/greenlet/run/park.rs",
    "crates/hub-core/src/greenlet/run/queue.rs",
    "crates/hub-core/src/greenlet/run/run_ready.rs",
    "crates/hub-core/src/greenlet/run/stack_loop.rs",
    "crates/hub-core/src/greenlet/run/start.rs",
    "crates/hub-core/src/greenlet/stack.rs",
    "crates/hub-core/src/greenlet/stack/guard.rs",
    "crates/hub-core/src/greenlet/stack/slab.rs",
    "crates/hub-core/src/greenlet/switch.rs",
    "crates/hub-core/src/greenlet/task/cell.rs",
    "crates/hub-core/src/greenlet/task/handle.rs",
    "crates/hub-core/src/greenlet/task/life.rs",
    "crates/hub-core/src/greenlet/task/new.rs",
    "crates/hub-core/src/greenlet/task/pool.rs",
    "crates/hub-core/src/hub/watched.rs",
    "crates/hub-core/src/main_loop/blocking/no_snapshot.rs",
    "crates/hub-core/src/main_loop/blocking/sample_signal.rs",
    "crates/hub-core/src/main_loop/blocking/sample.rs",
    "crates/hub-core/src/main_loop/blocking/snapshot.rs",
    "crates/hub-core/src/main_loop/descriptors.rs",
    "crates/hub-core/src/main_loop/descriptors/tests.rs",
    "crates/hub-core/src/main_loop/listening.rs",
    "crates/hub-core/src/main_loop/remote/mailbox.rs",
    "crates/hub-core/src/main_loop/signal_wait.rs",
    "crates/hub-core/src/main_loop/thread_end.rs",
    "crates/hub-core/src/main_loop/waker_table.rs",
    "crates/hub-core/src/main_loop/wakers.rs",
    "crates/hub-core/src/main_loop/watching.rs",
    "crates/hub-core/src/wait/biased.rs",
    "crates/hub-core/src/wait/biased/model.rs",
    "crates/hub-core/src/wait/biased/raw_mutex.rs",
    "crates/hub-core/src/wait/offload.rs",
    "crates/hub-core/src/wait/source.rs",
    "crates/hub-core/src/wait/source/model.rs",
    "crates/hub-core/src/wait/source/poll.rs",
    "crates/hub-core/src/wait/source/state.rs",
    "crates/hub-core/src/wait/source/word.rs",
    "crates/hub-core/src/wait/trampoline.rs",
    "crates/hub-kqueue/src/sys.rs",
    "crates/hub-libevent/src/base.rs",
    "crates/hub-libevent/src/sys.rs",
    "crates/hub-testkit/src/allocations.rs",
    "crates/hub-testkit/src/fixture.rs",
    "crates/hub-testkit/src/process.rs",
    "crates/hub-tokio/src/raw.rs",
];

/// The only files of libraries that may print. Their output is for the person who runs a test.
pub const PRINTING_FILES: &[&str] = &["crates/hub-testkit/src/process.rs"];
