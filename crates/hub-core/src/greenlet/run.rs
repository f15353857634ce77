//! The run queue, parking, waking, and the hand-off from one greenlet to the next.
//!
//! - [`queue`]: the queue, the running greenlet, wake-ups; [`fairness`]: the length of a turn;
//! - [`may_switch`]: the places in which nothing switches; [`mask`] and [`poll_mode`]: parts that hold exits or
//!   switches back;
//! - [`start`] and [`ending`]: how a greenlet begins, and how it ends;
//! - [`hand_off`] and [`stack_loop`]: from one greenlet to the next, and from one body to the next on the same stack;
//! - [`throw_exit`](mod@throw_exit) and [`exit_request`]: the throw of an exit, and the request for it;
//! - [`park`]: parks and yields; [`run_ready`](mod@run_ready): the main loop's part of a turn.
//!
//! A greenlet that parks switches straight to the next ready one. The switch goes to the main loop only when no
//! greenlet is ready, or the turn is over. A wake-up only queues its target.
//!
//! Ground rules:
//! - `current` is set before the jump, by the greenlet that switches. So a greenlet that arrives is current.
//! - A block is in the run queue, once, if and only if its state is Unstarted, Ready, Cancelled or Callback.
//! - A ticket is woken at most once: a wake-up advances it, and so does every other end of a park.
//! - No borrow of a `RefCell` or of a hub is held when a greenlet is left.
//! - The boundary of the unsafe code is this folder: its files share the links and counts of the queue, which code
//!   outside cannot reach. The running greenlet and the state of the OS thread are private to [`queue`].

mod ending;
pub(super) mod exit_request;
mod fairness;
mod hand_off;
pub(super) mod mask;
pub(super) mod may_switch;
mod park;
mod poll_mode;
pub(super) mod queue;
mod run_ready;
mod stack_loop;
pub(super) mod start;
pub(super) mod throw_exit;

pub(crate) use self::ending::{abandon, end_abandoned};
pub(crate) use self::exit_request::request_exit;
pub(crate) use self::fairness::{charge, fire, is_yield_due, resume_hand_off, stop_hand_off, switches};
pub use self::fairness::{set_turn_time, turn_time};
pub(crate) use self::hand_off::end_mainloop;
pub(crate) use self::mask::{Mask, Shield, lift_shields};
pub(crate) use self::may_switch::{in_mainloop, must_not_switch};
pub(crate) use self::park::{Park, may_leave, operations_used_up, yield_now};
pub(super) use self::park::{arrive, must_check_switch};
pub(crate) use self::poll_mode::PollMode;
pub(crate) use self::queue::{
    RunEpoch, clear_queue, current, end_switch, is_between_turns, queue_callback, ready, rouse, run_epoch,
    running_address, set_asleep, set_between_turns,
};
pub(crate) use self::run_ready::run_ready;
pub(super) use self::stack_loop::enter_stack;
pub(crate) use self::start::start_delayed;
pub use self::throw_exit::throw_exit;
pub(crate) use self::throw_exit::{check_exit, exit_again, exit_is_pending, exit_now, has_to_exit};
