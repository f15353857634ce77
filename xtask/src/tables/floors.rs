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
        Floor {
            name: "base",
            rooms: &[
                &["base/sync"],
                &["base/wait_reason"],
                &["base/os_thread"],
                &["base/fork"],
                &["base/contain"],
                &["base/dormant"],
                &["base"],
            ],
        },
        Floor {
            name: "contract",
            rooms: &[
                &["hub/time"],
                &["hub/round"],
                &["hub/interest"],
                &["hub/lease"],
                &["hub/watched"],
                &["hub/ready"],
                &["hub/contract"],
                &["hub/descriptor"],
                &["hub/clock"],
                &["hub/fork_aware"],
                &["error"],
                &["report"],
                &["hub"],
                &["timer_queue"],
            ],
        },
        Floor { name: "greenlet", rooms: &[&["greenlet"]] },
        Floor {
            name: "main_loop",
            rooms: &[
                &["main_loop/descriptors"],
                &["main_loop/deadline"],
                &["main_loop/listener"],
                &["main_loop/wakeup"],
                &["main_loop/remote"],
                &["main_loop/reach"],
                &["main_loop/blocking"],
                &["main_loop"],
            ],
        },
        Floor {
            name: "wait",
            rooms: &[
                &["wait/biased"],
                &["wait/grace"],
                &["wait/doubt"],
                &["wait/parker"],
                &["wait/holder"],
                &["wait/trampoline"],
                &["wait/source"],
                &["wait/shutdown"],
                &["wait/pool"],
                &["wait/leftover"],
                &["wait/offload"],
                &["wait"],
            ],
        },
        Floor {
            name: "api",
            rooms: &[
                &["api/hub_ref"],
                &["api/use_hub"],
                &["api/signal"],
                &["api/stacks"],
                &["api/detection"],
                &["api/green_local"],
                &["api/shield"],
                &["api/timeout"],
                &["api/sleep"],
                &["api/kill"],
                &["api/thread"],
                &["api/green_thread"],
                &["api/spawn"],
                &["api/run_in_place"],
                &["api/scope"],
                &["api/builder"],
                &["api/link"],
                &["api/listing"],
                &["api"],
            ],
        },
    ],
    known: &[],
};
