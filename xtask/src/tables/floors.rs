//! The floors inside a crate, from the bottom up.

/// The modules of one crate.
pub struct Floors {
    pub package: &'static str,
    pub floors: &'static [Floor],
    /// Arrows that point up and have to go: (file, file). Each that is gone has to leave the list.
    pub known: &'static [(&'static str, &'static str)],
}

/// One floor.
pub struct Floor {
    pub name: &'static str,
    /// From the bottom up. The modules of one room may name each other; a room may name the rooms before it, on its own
    /// floor and on those below. A module is a file or a folder below `src`, without its ending; what is in a folder may
    /// have a place of its own.
    pub rooms: &'static [&'static [&'static str]],
}

/// The crates that have floors.
pub const FLOORS: &[Floors] = &[HUB_CORE];

const HUB_CORE: Floors = Floors {
    package: "hub-core",
    floors: &[
        Floor { name: "base", rooms: &[&["sync"], &["fork"], &["fork_aware"]] },
        Floor {
            name: "contract",
            rooms: &[&["time"], &["round"], &["interest"], &["watched"], &["ready"], &["hub"], &["clock"], &["error"]],
        },
        Floor { name: "greenlet", rooms: &[&["greenlet", "green_local", "report", "trace", "unhandled"]] },
        Floor {
            name: "main_loop",
            rooms: &[
                &["timer_queue"],
                &["descriptors"],
                &["listener"],
                &["dormant"],
                &["wakeup"],
                &["remote"],
                &["blocking"],
                &["main_loop"],
            ],
        },
        Floor {
            name: "wait",
            rooms: &[
                &["biased"],
                &["grace"],
                &["limit"],
                &["doubt"],
                &["pool"],
                &["parker"],
                &["holder"],
                &["trampoline"],
                &["source"],
                &["leftover"],
                &["offload"],
            ],
        },
        Floor {
            name: "api",
            rooms: &[
                &["shutdown"],
                &["current"],
                &["signal"],
                &["stacks"],
                &["green_thread"],
                &["thread"],
                &["scope"],
                &["timeout"],
                &["link"],
                &["shield"],
                &["listing"],
            ],
        },
    ],
    known: &[
        ("blocking.rs", "main_loop.rs"),
        ("error.rs", "link.rs"),
        ("error.rs", "timeout.rs"),
        ("green_thread.rs", "thread.rs"),
        ("greenlet/local.rs", "main_loop.rs"),
        ("greenlet/local.rs", "parker.rs"),
        ("greenlet/patience.rs", "descriptors.rs"),
        ("greenlet/task.rs", "thread.rs"),
        ("greenlet/task.rs", "timer_queue.rs"),
        ("greenlet/unwind.rs", "link.rs"),
        ("greenlet/unwind.rs", "timeout.rs"),
        ("greenlet/unwind.rs", "timer_queue.rs"),
        ("main_loop.rs", "current.rs"),
        ("main_loop/callback_table.rs", "listing.rs"),
        ("main_loop/callbacks.rs", "listing.rs"),
        ("main_loop/hub.rs", "current.rs"),
        ("main_loop/hub.rs", "green_thread.rs"),
        ("main_loop/hub.rs", "parker.rs"),
        ("main_loop/listing.rs", "listing.rs"),
        ("main_loop/outside.rs", "limit.rs"),
        ("main_loop/outside.rs", "parker.rs"),
        ("main_loop/stats.rs", "pool.rs"),
        ("main_loop/watching.rs", "limit.rs"),
        ("main_loop/watching.rs", "source.rs"),
        ("pool.rs", "shutdown.rs"),
        ("remote/mailbox.rs", "source.rs"),
        ("unhandled.rs", "offload.rs"),
        ("unhandled.rs", "remote/mod.rs"),
        ("unhandled.rs", "timeout.rs"),
        ("watched.rs", "hub.rs"),
    ],
};
