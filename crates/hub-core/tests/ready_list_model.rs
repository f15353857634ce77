//! Explores by loom the interleavings of a waiter for two objects and the OS threads that make them ready:
//! `RUSTFLAGS="--cfg loom" cargo test -p hub-core --release --test ready_list_model`.
//!
//! The list and the marks are the source file that every wait for several objects uses. This file plays its
//! dependencies: a lock of loom's, and a wait that ends once. A lost wake-up is a deadlock, which loom reports. The
//! objects follow the protocol of the primitives of greenstd, such as the semaphore.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;

use main_loop::deadline::Deadline;
use wait::biased::BiasedMutex;
use wait::ready_list::{LeftMark, ReadyList, ReadyMark, ReadyMarks};

#[allow(dead_code, unreachable_pub, reason = "the models use a part of it")]
#[path = "../src/wait"]
mod wait {
    pub(crate) mod ready_list;

    pub(crate) mod biased {
        use loom::sync::{Mutex, MutexGuard};

        #[derive(Default)]
        pub(crate) struct BiasedMutex<T>(Mutex<T>);

        impl<T> BiasedMutex<T> {
            pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
                self.0.lock().unwrap()
            }
        }
    }

    pub(crate) mod parker {
        use std::sync::Arc;

        use loom::sync::{Condvar, Mutex};

        use super::unparker::Unparker;
        use crate::base::wait_reason::WaitReason;
        use crate::error::LoopError;
        use crate::main_loop::deadline::Deadline;
        use crate::main_loop::parked::Parked;

        /// A wait: whether it was ended, and the signal of its end.
        #[derive(Default)]
        pub(crate) struct Wait {
            pub(super) is_ended: Mutex<bool>,
            pub(super) ended: Condvar,
        }

        pub(crate) struct Parker(Arc<Wait>);

        impl Parker {
            pub(crate) fn new(_: WaitReason) -> Result<Parker, LoopError> {
                Ok(Parker(Arc::default()))
            }

            pub(crate) fn unparker(&self) -> Unparker {
                Unparker(Arc::clone(&self.0))
            }

            pub(crate) fn park(self, deadline: &mut Deadline) -> Result<Parked, LoopError> {
                let mut is_ended = self.0.is_ended.lock().unwrap();
                while !*is_ended {
                    if matches!(deadline, Deadline::Passed) {
                        return Ok(Parked::TimedOut);
                    }
                    is_ended = self.0.ended.wait(is_ended).unwrap();
                }
                Ok(Parked::Unparked)
            }
        }
    }

    pub(crate) mod unparker {
        use std::sync::Arc;

        use super::parker::Wait;

        pub(crate) struct Unparker(pub(super) Arc<Wait>);

        pub(crate) fn unpark_under_lock(unparker: Unparker) {
            *unparker.0.is_ended.lock().unwrap() = true;
            unparker.0.ended.notify_one();
        }
    }

    /// Waits for descriptors too, which no model does.
    pub(crate) mod trampoline {
        use std::os::fd::BorrowedFd;

        use super::parker::Parker;
        use crate::error::TrampolineError;
        use crate::hub::Interest;
        use crate::main_loop::deadline::Deadline;

        pub(crate) fn check_interests(_: &[(BorrowedFd<'_>, Interest)]) -> Result<(), TrampolineError> {
            unreachable!()
        }

        pub(crate) fn park_for_any(
            _: Parker,
            _: &[(BorrowedFd<'_>, Interest)],
            _: &mut Deadline,
        ) -> Result<(), TrampolineError> {
            unreachable!()
        }
    }
}

mod base {
    pub(crate) mod wait_reason {
        pub(crate) enum WaitReason {
            Select,
        }
    }
}

#[allow(dead_code, reason = "no model has an error")]
mod error {
    #[derive(Debug)]
    pub(crate) struct LoopError;

    pub(crate) enum TrampolineError {
        TimedOut {},
        Loop(LoopError),
    }

    impl From<LoopError> for TrampolineError {
        fn from(error: LoopError) -> TrampolineError {
            TrampolineError::Loop(error)
        }
    }
}

mod hub {
    pub(crate) struct Interest;
}

mod greenlet {
    /// The hub, which only a wait for descriptors needs.
    pub(crate) mod local {
        use crate::error::LoopError;

        pub(crate) struct Local {
            pub(crate) main_loop: MainLoop,
        }

        pub(crate) struct MainLoop;

        impl MainLoop {
            pub(crate) fn ensure_hub(&self) -> Result<(), LoopError> {
                unreachable!()
            }
        }

        pub(crate) fn get_unless_ended() -> Result<Local, LoopError> {
            unreachable!()
        }
    }
}

mod main_loop {
    pub(crate) mod deadline {
        pub(crate) enum Deadline {
            None,
            Passed,
        }
    }

    pub(crate) mod parked {
        #[derive(PartialEq, Eq)]
        pub(crate) enum Parked {
            Unparked,
            TimedOut,
        }
    }
}

/// An object with items, of which a waiter gets none with its mark.
#[derive(Default)]
struct Object(BiasedMutex<State>);

#[derive(Default)]
struct State {
    items: usize,
    marks: ReadyMarks,
}

impl Object {
    fn put(&self) {
        let mut state = self.0.lock();
        state.items += 1;
        state.marks.set_all();
    }

    /// Takes an item without a wait.
    fn take(&self) -> bool {
        let mut state = self.0.lock();
        let is_ready = state.items > 0;
        state.items -= usize::from(is_ready);
        is_ready
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.0.lock();
        if state.items == 0 {
            return state.marks.leave(mark);
        }
        drop(state);
        mark.set();
        LeftMark::SET
    }

    fn take_back(&self, left: &LeftMark) {
        self.0.lock().marks.take_back(left);
    }
}

type Objects = [Object; 2];

/// Waits for one of the objects and takes its item. The loser of a race for an item waits again.
fn take_one(objects: &Objects) -> usize {
    loop {
        if let Some(number) = wait_for_one(objects, &mut Deadline::None)
            && objects[number].take()
        {
            return number;
        }
    }
}

/// Leaves a mark with each object, waits for one, and takes the marks back.
fn wait_for_one(objects: &Objects, deadline: &mut Deadline) -> Option<usize> {
    let list = ReadyList::new();
    let left = [0, 1].map(|number| objects[number].leave(list.mark(number)));
    let next = list.next(deadline).unwrap();
    objects.iter().zip(&left).for_each(|(object, left)| object.take_back(left));
    next
}

/// Asserts that no mark is left with an object, and returns the numbers of items.
fn items_left(objects: &Objects) -> [usize; 2] {
    [0, 1].map(|number| {
        let state = objects[number].0.lock();
        assert!(state.marks.is_empty(), "a mark is left with object {number}");
        state.items
    })
}

/// Spawns a thread that makes an object ready.
fn put(objects: &Arc<Objects>, number: usize) -> thread::JoinHandle<()> {
    let objects = Arc::clone(objects);
    thread::spawn(move || objects[number].put())
}

fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

#[test]
fn an_object_that_becomes_ready_while_marks_are_left_ends_the_wait() {
    for number in [0, 1] {
        model(4, move || {
            let objects = Arc::new(Objects::default());
            let putter = put(&objects, number);
            assert_eq!(take_one(&objects), number);
            putter.join().unwrap();
            assert_eq!(items_left(&objects), [0, 0]);
        });
    }
}

#[test]
fn two_objects_that_become_ready_at_once_are_both_given() {
    model(3, || {
        let objects = Arc::new(Objects::default());
        let putters = [0, 1].map(|number| put(&objects, number));
        let mut taken = [take_one(&objects), take_one(&objects)];
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        assert_eq!(items_left(&objects), [0, 0]);
    });
}

#[test]
fn one_list_gives_each_object_that_becomes_ready_once() {
    model(3, || {
        let objects = Arc::new(Objects::default());
        let putters = [0, 1].map(|number| put(&objects, number));
        let list = ReadyList::new();
        let left = [0, 1].map(|number| objects[number].leave(list.mark(number)));
        let mut given = [(); 2].map(|()| list.next(&mut Deadline::None).unwrap());
        given.sort_unstable();
        assert_eq!(given, [Some(0), Some(1)]);
        objects.iter().zip(&left).for_each(|(object, left)| object.take_back(left));
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        assert_eq!(items_left(&objects), [1, 1]);
        // Each mark was set or dropped, and none is in the list.
        assert_eq!(format!("{list:?}"), "ReadyList { ready: 0, open: 0 }");
    });
}

#[test]
fn a_waiter_that_gives_up_leaves_the_item_and_no_mark() {
    model(4, || {
        let objects = Arc::new(Objects::default());
        let putter = put(&objects, 1);
        let gave = wait_for_one(&objects, &mut Deadline::Passed);
        assert!(matches!(gave, None | Some(1)));
        putter.join().unwrap();
        assert_eq!(items_left(&objects), [0, 1]);
        // The next waiter gets it at once.
        assert_eq!(wait_for_one(&objects, &mut Deadline::Passed), Some(1));
        assert_eq!(items_left(&objects), [0, 1]);
    });
}

#[test]
fn two_waiters_for_one_item_take_it_once_and_none_sleeps_over_the_second() {
    model(2, || {
        let objects = Arc::new(Objects::default());
        let putter = put(&objects, 0);
        let other = Arc::clone(&objects);
        let waiter = thread::spawn(move || take_one(&other));
        objects[1].put();
        let own = take_one(&objects);
        let others = waiter.join().unwrap();
        putter.join().unwrap();
        assert_eq!(own + others, 1);
        assert_eq!(items_left(&objects), [0, 0]);
    });
}
