//! The ends of loops, and of all their work.

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::{alone, run};
use crate::{LONG, SHORT};
use greenhub::debug::set_report_stream;
use greenhub::gevent::{Run, Watcher, event_loop, spawn_later};
use greenhub::hub::LoopErrorKind;
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, get_hub, sleep, spawn, use_hub};

/// Returns two green threads that wait for each other.
fn deadlock() -> [Rc<GreenThread<()>>; 2] {
    let (sender, receiver) = channel::<Rc<GreenThread<()>>>();
    let left = Rc::new(spawn(move || drop(receiver.recv().unwrap().wait_for_end())));
    let waits = Rc::clone(&left);
    let right = Rc::new(spawn(move || waits.wait_for_end().unwrap()));
    sender.send(Rc::clone(&right)).unwrap();
    yield_now();
    [left, right]
}

#[test]
fn main_gets_the_loop_exit_and_the_other_waiter_can_still_be_woken() {
    run("main_gets_the_loop_exit_and_the_other_waiter_can_still_be_woken", || {
        let [left, right] = deadlock();
        for _ in 0..2 {
            let waited = left.wait_for_end();
            assert!(matches!(waited, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit));
            assert!(!left.is_finished() && !right.is_finished());
        }
        right.kill();
        left.wait_for_end().unwrap();
    });
}

#[test]
fn a_loop_works_again_after_each_join() {
    run("a_loop_works_again_after_each_join", || {
        for _ in 0..3 {
            assert!(get_hub().join(None).unwrap());
            sleep(SHORT);
            event_loop().timer(SHORT).wait(None).unwrap();
        }
    });
}

#[test]
fn a_join_after_the_end_of_a_hub_returns_at_once() {
    run("a_join_after_the_end_of_a_hub_returns_at_once", || {
        let timer = event_loop().timer(LONG);
        timer.start(|_, ()| ()).unwrap();
        assert!(!get_hub().join(Duration::ZERO).unwrap());
        let former = get_hub();
        use_hub(former.name()).unwrap();
        assert!(former.join(None).unwrap());
    });
}

#[test]
fn the_end_of_a_hub_calls_and_reports_nothing() {
    alone("the_end_of_a_hub_calls_and_reports_nothing", || {
        let (sender, reports) = channel();
        set_report_stream(move |report| sender.send(report.to_string()).unwrap());
        sleep(SHORT);
        event_loop().run_callback(|| panic!("called after the end of its hub"));
        let timer = event_loop().timer(Duration::ZERO);
        timer.start(|_, ()| panic!("called after the end of its hub")).unwrap();
        use_hub(get_hub().name()).unwrap();
        sleep(SHORT);
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [""; 0]);
    });
}

#[test]
fn a_wait_for_an_uncounted_timer_does_not_keep_the_loop_alive() {
    run("a_wait_for_an_uncounted_timer_does_not_keep_the_loop_alive", || {
        let timer = event_loop().timer(LONG);
        timer.set_counted(false);
        let sleeper = spawn(move || timer.wait(None).map(drop));
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert!(!sleeper.is_finished());
        sleeper.kill();
    });
}

#[test]
fn a_delayed_start_keeps_the_loop_alive() {
    run("a_delayed_start_keeps_the_loop_alive", || {
        let green = spawn_later(SHORT, || 7);
        assert!(!green.is_started());
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert!(green.is_finished());
        assert_eq!(green.join().unwrap(), 7);
        let later = spawn_later(LONG, || ());
        assert!(event_loop().run(Run::NoWait).unwrap());
        assert!(later.cancel());
        assert!(!event_loop().run(Run::NoWait).unwrap());
    });
}

#[test]
fn the_body_of_a_green_thread_is_dropped_at_its_end() {
    run("the_body_of_a_green_thread_is_dropped_at_its_end", || {
        let argument = Rc::new(());
        let inside = Rc::clone(&argument);
        let green = spawn(move || drop(Rc::clone(&inside)));
        assert_eq!(Rc::strong_count(&argument), 2);
        green.wait_for_end().unwrap();
        assert_eq!(Rc::strong_count(&argument), 1, "the handle keeps the result alone");
        green.join().unwrap();
    });
}
