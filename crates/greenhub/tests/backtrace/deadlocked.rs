//! Backtraces in the reports of deadlocks.

use std::cell::OnceCell;
use std::hint::black_box;
use std::rc::Rc;

use crate::shows;
use crate::support::fork::{exit, in_fork};
use crate::support::run;
use greenhub::debug::{Report, set_report_stream};
use greenhub::sync::Mutex;
use greenhub::thread::yield_now;
use greenhub::{GreenThread, spawn, tpool};

type Shared = Rc<OnceCell<Rc<GreenThread<()>>>>;

#[inline(never)]
fn wait_in_vain(for_other: &Shared) {
    let _ = black_box(for_other.get().unwrap().wait());
}

#[test]
fn the_error_of_a_wait_that_nothing_can_end_shows_all_parked_green_threads() {
    run("the_error_of_a_wait_that_nothing_can_end_shows_all_parked_green_threads", || {
        let [first, second] = [Shared::default(), Shared::default()];
        for (it, other) in [(&first, &second), (&second, &first)] {
            let other = Rc::clone(other);
            let _ = it.set(Rc::new(spawn(move || wait_in_vain(&other))));
        }
        let green = Rc::clone(first.get().unwrap());
        let error = green.wait().unwrap_err().to_string();
        assert!(error.contains("block forever"), "{error}");
        shows(
            &error,
            &["the main greenlet, waiting for", "support/mod.rs:", "spawned at ", "wait_in_vain", "switch.rs:"],
        );
        assert_eq!(error.matches("wait_in_vain").count(), 2);
        green.kill();
    });
}

#[inline(never)]
fn hold_on(lock: &Mutex<()>) {
    drop(black_box(lock.lock()));
}

#[test]
fn the_report_of_a_deadlock_shows_the_backtraces_of_its_greenlets() {
    static MAINS: Mutex<()> = Mutex::new(());
    static OTHER: Mutex<()> = Mutex::new(());
    in_fork(|| {
        set_report_stream(|report| {
            let Report::Deadlock { threads } = report else { return };
            let text = threads.join("\n");
            let all = ["main greenlet", "hold_on", "deadlocked.rs:", "spawned at ", "tpool", "deadlocked.rs:"];
            let in_order = all.iter().try_fold(&*text, |rest, call| rest.split_once(call).map(|(_, rest)| rest));
            if in_order.is_none() {
                println!("{text}");
            }
            exit(i32::from(in_order.is_none()));
        });
        let _held = MAINS.lock().unwrap();
        spawn(|| {
            let _other = OTHER.lock().unwrap();
            tpool::execute(|| drop(MAINS.lock())).unwrap();
        });
        yield_now();
        hold_on(&OTHER);
        panic!("main has got the lock");
    });
}
