//! The reasons for which green threads and OS threads wait.

/// The reason why a green thread waits, as shown in reports of an idle loop.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum WaitReason {
    /// Yields to the other green threads.
    #[default]
    Yield = 0,
    /// Sleeps.
    Sleep,
    /// Waits for a descriptor.
    Descriptor,
    /// Waits for the end of a green thread.
    Join,
    /// Waits for the green threads of a scope.
    Scope,
    /// Waits for a job on another OS thread.
    Offload,
    /// Switches to a greenlet.
    Switch,
    /// Runs a turn of the loop.
    RunOnce,
    /// Waits for the end of the loop.
    Abort,
    /// Waits for a lock.
    Lock,
    /// Waits for an event.
    Event,
    /// Waits for an item of a queue, or for free capacity.
    Queue,
    /// Waits for a semaphore.
    Semaphore,
    /// Waits for a condition.
    Condition,
    /// Waits at a barrier.
    Barrier,
    /// Waits to be unparked.
    Park,
    /// Waits for a future.
    Future,
    /// Waits for the end of all work of the loop.
    LoopJoin,
    /// Waits for a timer.
    Timer,
    /// Waits for a signal.
    Signal,
    /// Waits for a child process.
    Child,
    /// Waits for a change of a file.
    File,
    /// Waits for a wake-up or a phase of the loop.
    Watcher,
    /// Waits for a value of a channel, for free capacity, or for the end of its other side.
    Channel,
    /// Waits for a notification.
    Notification,
    /// Waits for a cancellation.
    Cancellation,
    /// Waits until a rate limiter lets it go on.
    RateLimit,
    /// Waits for one of several objects.
    Select,
}

impl WaitReason {
    /// All reasons, each at the index that is its number.
    pub(crate) const ALL: [WaitReason; 28] = [
        WaitReason::Yield,
        WaitReason::Sleep,
        WaitReason::Descriptor,
        WaitReason::Join,
        WaitReason::Scope,
        WaitReason::Offload,
        WaitReason::Switch,
        WaitReason::RunOnce,
        WaitReason::Abort,
        WaitReason::Lock,
        WaitReason::Event,
        WaitReason::Queue,
        WaitReason::Semaphore,
        WaitReason::Condition,
        WaitReason::Barrier,
        WaitReason::Park,
        WaitReason::Future,
        WaitReason::LoopJoin,
        WaitReason::Timer,
        WaitReason::Signal,
        WaitReason::Child,
        WaitReason::File,
        WaitReason::Watcher,
        WaitReason::Channel,
        WaitReason::Notification,
        WaitReason::Cancellation,
        WaitReason::RateLimit,
        WaitReason::Select,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            WaitReason::Yield => "yielding",
            WaitReason::Sleep => "sleeping",
            WaitReason::Descriptor => "waiting for a descriptor",
            WaitReason::Join => "waiting for a green thread",
            WaitReason::Scope => "waiting for the green threads of a scope",
            WaitReason::Offload => "waiting for another OS thread",
            WaitReason::Switch => "switching to a greenlet",
            WaitReason::RunOnce => "running the loop",
            WaitReason::Abort => "waiting for the loop to end",
            WaitReason::Lock => "waiting for a lock",
            WaitReason::Event => "waiting for an event",
            WaitReason::Queue => "waiting for a queue",
            WaitReason::Semaphore => "waiting for a semaphore",
            WaitReason::Condition => "waiting for a condition",
            WaitReason::Barrier => "waiting at a barrier",
            WaitReason::Park => "waiting to be unparked",
            WaitReason::Future => "waiting for a future",
            WaitReason::LoopJoin => "waiting for the end of all work",
            WaitReason::Timer => "waiting for a timer",
            WaitReason::Signal => "waiting for a signal",
            WaitReason::Child => "waiting for a child process",
            WaitReason::File => "waiting for a change of a file",
            WaitReason::Watcher => "waiting for a watcher",
            WaitReason::Channel => "waiting for a channel",
            WaitReason::Notification => "waiting for a notification",
            WaitReason::Cancellation => "waiting for a cancellation",
            WaitReason::RateLimit => "waiting for a rate limiter",
            WaitReason::Select => "waiting for one of several objects",
        }
    }
}
