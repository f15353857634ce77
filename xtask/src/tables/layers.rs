//! The layers inside a crate, from the bottom up.

/// The layers of one crate.
pub struct Layers {
    pub package: &'static str,
    pub layers: &'static [Layer],
    /// Upward paths that are tolerated for now, as (file, file). An entry without such a path is a fault.
    pub known: &'static [(&'static str, &'static str)],
}

/// One layer.
pub struct Layer {
    pub name: &'static str,
    /// The groups of modules, from the bottom up. The modules of one group may name each other. They may also name the
    /// groups before theirs, in the same layer and in those below. A module is a file or a folder below `src`, without
    /// its ending. An item of a folder may have an entry of its own.
    pub groups: &'static [&'static [&'static str]],
}

/// The crates that have layers.
pub const LAYERS: &[Layers] = &[HUB_CORE];

const HUB_CORE: Layers = Layers {
    package: "hub-core",
    layers: &[
        Layer {
            name: "base",
            groups: &[
                &["base/sync"],
                &["base/wait_reason"],
                &["base/os_thread"],
                &["base/fork"],
                &["base/contain"],
                &["base/dormant"],
                &["base"],
            ],
        },
        Layer {
            name: "contract",
            groups: &[
                &["hub/time"],
                &["hub/round"],
                &["hub/interest"],
                &["hub/lease"],
                &["hub/loop_waker"],
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
        Layer {
            name: "greenlet",
            groups: &[
                &["greenlet/exit"],
                &["greenlet/unhandled"],
                &["greenlet/payload"],
                &["greenlet/locals"],
                &["greenlet/stack", "greenlet/overflow"],
                &["greenlet/switch"],
                &["greenlet/task/pool"],
                &["greenlet/task/unhandled"],
                &["greenlet/control", "greenlet/cold", "greenlet/task/cell", "greenlet/raw/node"],
                &["greenlet/target"],
                &["greenlet/driver"],
                &["greenlet/local", "greenlet/run/queue", "greenlet/run/fairness"],
                &["greenlet/describe"],
                &["greenlet/patience"],
                &["greenlet/run/poll"],
                &["greenlet/run/mask"],
                &["greenlet/trace/subscriber"],
                &["greenlet/trace/no_subscriber"],
                &["greenlet/spans"],
                &["greenlet/no_spans"],
                &["greenlet/trace"],
                &["greenlet/run/may_switch"],
                &["greenlet/task/waiters"],
                &["greenlet/task/life"],
                &["greenlet/task/handle"],
                &["greenlet/run/ending"],
                &["greenlet/run/start"],
                &["greenlet/task/new"],
                &["greenlet/task"],
                &[
                    "greenlet/run/hand_off",
                    "greenlet/run/stack_loop",
                    "greenlet/run/exits",
                    "greenlet/run/interrupt",
                    "greenlet/raw/route",
                ],
                &["greenlet/run/park"],
                &["greenlet/run/run_ready"],
                &["greenlet/run"],
                &["greenlet/raw"],
                &["greenlet"],
            ],
        },
        Layer {
            name: "main_loop",
            groups: &[
                &["main_loop/doubt"],
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
        Layer {
            name: "wait",
            groups: &[
                &["wait/biased"],
                &["wait/grace"],
                &["wait/parker"],
                &["wait/holder"],
                &["wait/trampoline"],
                &["wait/source"],
                &["wait/sleep"],
                &["wait/shutdown"],
                &["wait/pool"],
                &["wait/leftover"],
                &["wait/offload"],
                &["wait"],
            ],
        },
        Layer {
            name: "api",
            groups: &[
                &["api/hub_ref"],
                &["api/use_hub"],
                &["api/signal"],
                &["api/stacks"],
                &["api/detection"],
                &["api/embed"],
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
                &["api/future"],
                &["future"],
                &["api/listing"],
                &["api"],
            ],
        },
    ],
    known: &[],
};
