//! Green threads as futures.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::green::{Drops, LONG, SHORT, held, keep_reports, quiet_panic, reports, reports_naming};
use crate::support::run;
use greenhub::future::{RemoteDeferred, block_on, defer_to_green_thread};
use greenhub::greenthread::current_id;
use greenhub::hub::LoopErrorKind;
use greenhub::thread::{os, yield_now};
use greenhub::{GreenError, get_hub, sleep, spawn};
use hub_core::internal::request_exit;

use super::on_one_and_on_two;

/// Counts its wake-ups, and panics in those on request.
#[derive(Default)]
struct Foreign {
    wakes: AtomicUsize,
    panics: bool,
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        if self.panics {
            quiet_panic("a waker panics");
        }
    }
}

/// Panics when its last waker is dropped.
struct Hostile;

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Hostile {
    fn drop(&mut self) {
        quiet_panic("a drop of a waker panics");
    }
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Sleeps for a long time, and counts its end.
fn sleeper(drops: &Drops) -> impl FnOnce() + 'static {
    let one = drops.one();
    move || {
        let _one = one;
        sleep(LONG);
    }
}

#[test]
fn a_deferred_begins_without_a_poll_and_returns_the_result() {
    on_one_and_on_two("a_deferred_begins_without_a_poll_and_returns_the_result", || {
        let begun = Rc::new(Cell::new(false));
        let seen = Rc::clone(&begun);
        let deferred = defer_to_green_thread(move || {
            seen.set(true);
            sleep(SHORT);
            (current_id(), "result")
        });
        let id = deferred.thread().id().unwrap();
        assert!(!begun.get());
        yield_now();
        assert!(begun.get());
        assert_eq!(block_on(deferred).unwrap(), (id, "result"));
        assert_ne!(id, current_id());
    });
}

#[test]
fn a_deferred_that_has_ended_is_ready_at_the_first_poll() {
    run("a_deferred_that_has_ended_is_ready_at_the_first_poll", || {
        let mut deferred = defer_to_green_thread(|| 1);
        yield_now();
        let Poll::Ready(Ok(1)) = poll(&mut deferred, Waker::noop()) else { panic!("it has ended") };
        let Poll::Ready(Err(GreenError::Taken)) = poll(&mut deferred, Waker::noop()) else { panic!("it was taken") };
    });
}

#[test]
fn a_deferred_returns_a_panic_and_a_kill_as_errors() {
    on_one_and_on_two("a_deferred_returns_a_panic_and_a_kill_as_errors", || {
        let failed = block_on(defer_to_green_thread(|| quiet_panic("on purpose"))).unwrap_err();
        assert_eq!(failed.into_panic().downcast_ref(), Some(&"on purpose"));
        for begun in [false, true] {
            let deferred = defer_to_green_thread(|| sleep(LONG));
            if begun {
                yield_now();
            }
            let id = deferred.thread().id().unwrap();
            get_hub().schedule(Duration::ZERO, move || assert!(request_exit(id)));
            assert!(block_on(deferred).unwrap_err().is_kill(), "begun: {begun}");
        }
    });
}

#[test]
fn the_end_of_the_green_thread_wakes_the_last_waker_alone() {
    run("the_end_of_the_green_thread_wakes_the_last_waker_alone", || {
        let mut deferred = defer_to_green_thread(|| sleep(SHORT));
        let targets = [(); 3].map(|()| Arc::new(Foreign::default()));
        for target in &targets {
            let waker = Waker::from(Arc::clone(target));
            assert!(poll(&mut deferred, &waker).is_pending());
            assert!(poll(&mut deferred, &waker).is_pending());
        }
        while !deferred.thread().is_finished() {
            sleep(SHORT);
        }
        let wakes = targets.each_ref().map(|target| target.wakes.load(Ordering::SeqCst));
        assert_eq!(wakes, [0, 0, 1]);
        // The deferred holds none of them any more.
        assert!(targets.iter().all(|target| Arc::strong_count(target) == 1));
    });
}

#[test]
fn a_dropped_deferred_detaches_its_green_thread_and_drops_the_waker() {
    on_one_and_on_two("a_dropped_deferred_detaches_its_green_thread_and_drops_the_waker", || {
        let done = Rc::new(Cell::new(false));
        let seen = Rc::clone(&done);
        let mut deferred = defer_to_green_thread(move || {
            sleep(SHORT);
            seen.set(true);
        });
        let target = Arc::new(Foreign::default());
        assert!(poll(&mut deferred, &Waker::from(Arc::clone(&target))).is_pending());
        drop(deferred);
        assert_eq!(Arc::strong_count(&target), 1);
        while !done.get() {
            sleep(SHORT);
        }
        assert_eq!(target.wakes.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn kill_on_drop_kills_without_a_switch() {
    on_one_and_on_two("kill_on_drop_kills_without_a_switch", || {
        let before = held();
        let drops = Drops::default();
        let switched = Rc::new(Cell::new(false));
        for begun in [false, true] {
            let deferred = defer_to_green_thread(sleeper(&drops)).kill_on_drop();
            if begun {
                yield_now();
            }
            let seen = Rc::clone(&switched);
            let other = spawn(move || seen.set(true));
            let mut kept = Some(deferred);
            // Inside a poll, and a nested one.
            block_on(async {
                block_on(poll_fn(|cx| {
                    let deferred = kept.as_mut().unwrap();
                    assert!(poll(deferred, cx.waker()).is_pending());
                    drop(kept.take());
                    Poll::Ready(())
                }));
                assert!(!switched.get());
            });
            // A green thread that has not begun never does: its closure is dropped at once.
            assert_eq!(drops.count(), usize::from(!begun) + usize::from(begun));
            yield_now();
            assert!(switched.replace(false));
            assert_eq!(drops.count(), 1 + usize::from(begun));
            other.join().unwrap();
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn kill_on_drop_leaves_an_ended_green_thread_alone() {
    run("kill_on_drop_leaves_an_ended_green_thread_alone", || {
        assert_eq!(block_on(defer_to_green_thread(|| 3).kill_on_drop()).unwrap(), 3);
        // The number of its greenlet belongs to another green thread now.
        let deferred = defer_to_green_thread(|| ()).kill_on_drop();
        yield_now();
        let other = spawn(|| {
            sleep(SHORT);
            4
        });
        drop(deferred);
        assert_eq!(other.join().unwrap(), 4);
    });
}

#[test]
fn a_waker_that_panics_is_reported_and_the_result_stays() {
    run("a_waker_that_panics_is_reported_and_the_result_stays", || {
        keep_reports();
        let mut deferred = defer_to_green_thread(|| 5);
        let target = Arc::new(Foreign { panics: true, ..Foreign::default() });
        assert!(poll(&mut deferred, &Waker::from(target)).is_pending());
        yield_now();
        let reports = reports();
        assert!(reports.iter().any(|report| report.contains("a waker panics")), "{reports:?}");
        assert!(matches!(poll(&mut deferred, Waker::noop()), Poll::Ready(Ok(5))));
    });
}

#[test]
fn a_waker_whose_drop_panics_leaves_the_deferred_usable() {
    run("a_waker_whose_drop_panics_leaves_the_deferred_usable", || {
        let mut deferred = defer_to_green_thread(|| {
            sleep(SHORT);
            6
        });
        let (waker, other) = (Waker::from(Arc::new(Hostile)), Arc::new(Foreign::default()));
        assert!(poll(&mut deferred, &waker).is_pending());
        drop(waker);
        // The deferred holds the last one. It gives it up for the next, and the panic leaves that poll.
        let replaced = catch_unwind(AssertUnwindSafe(|| poll(&mut deferred, &Waker::from(Arc::clone(&other)))));
        assert_eq!(replaced.unwrap_err().downcast_ref(), Some(&"a drop of a waker panics"));
        while !deferred.thread().is_finished() {
            sleep(SHORT);
        }
        assert_eq!(other.wakes.load(Ordering::SeqCst), 1);
        assert!(matches!(poll(&mut deferred, Waker::noop()), Poll::Ready(Ok(6))));
    });
}

/// Runs the loop of this OS thread until another one has ended, and returns its result.
fn serve_until_ended<T>(other: std::thread::JoinHandle<T>) -> T {
    while !other.is_finished() {
        sleep(Duration::from_millis(1));
    }
    other.join().unwrap()
}

#[test]
fn a_remote_deferred_returns_the_result_to_another_os_thread() {
    on_one_and_on_two("a_remote_deferred_returns_the_result_to_another_os_thread", || {
        let (remote, here) = (get_hub().remote(), std::thread::current().id());
        // A plain OS thread, and one with a hub of its own.
        for with_hub in [false, true] {
            let remote = remote.clone();
            let other = std::thread::spawn(move || {
                if with_hub {
                    yield_now();
                }
                let deferred = remote.defer(|| {
                    sleep(SHORT);
                    std::thread::current().id()
                });
                block_on(deferred.unwrap()).unwrap()
            });
            assert_eq!(serve_until_ended(other), here);
        }
        let deferred = remote.defer(|| 8).unwrap();
        assert_eq!(block_on(deferred).unwrap(), 8, "on its own OS thread");
    });
}

#[test]
fn a_remote_deferred_is_awaited_by_a_runtime() {
    run("a_remote_deferred_is_awaited_by_a_runtime", || {
        let remote = get_hub().remote();
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async move {
                let deferred = |number: u64| {
                    remote.defer(move || {
                        sleep(SHORT);
                        number
                    })
                };
                let tasks: Vec<_> = (0..10).map(|number| tokio::spawn(deferred(number).unwrap())).collect();
                let mut sum = 0;
                for task in tasks {
                    sum += task.await.unwrap().unwrap();
                }
                sum
            })
        });
        assert_eq!(serve_until_ended(other), 45);
    });
}

#[test]
fn a_remote_deferred_returns_a_panic_and_a_kill_as_errors() {
    run("a_remote_deferred_returns_a_panic_and_a_kill_as_errors", || {
        keep_reports();
        let remote = get_hub().remote();
        let failed = block_on(remote.defer(|| quiet_panic("on purpose")).unwrap()).unwrap_err();
        assert_eq!(failed.into_panic().downcast_ref(), Some(&"on purpose"));
        let (tell, hear) = mpsc::channel();
        let deferred = remote.defer(move || {
            tell.send(current_id()).unwrap();
            sleep(LONG);
        });
        spawn(move || {
            yield_now();
            sleep(SHORT);
            assert!(request_exit(hear.try_recv().unwrap()));
        });
        assert!(block_on(deferred.unwrap()).unwrap_err().is_kill());
        assert!(reports().is_empty(), "{:?}", reports());
    });
}

#[test]
fn a_panic_that_no_remote_deferred_receives_is_reported() {
    run("a_panic_that_no_remote_deferred_receives_is_reported", || {
        keep_reports();
        drop(get_hub().remote().defer(|| quiet_panic("a panic that nothing receives")).unwrap());
        sleep(SHORT);
        assert_eq!(reports_naming("a panic that nothing receives").len(), 1);
    });
}

#[test]
fn a_shutdown_completes_remote_deferreds_with_an_error() {
    run("a_shutdown_completes_remote_deferreds_with_an_error", || {
        let (tell, hear) = mpsc::channel();
        let (go, ready) = mpsc::channel::<()>();
        let served = os::spawn(move || {
            tell.send(get_hub().remote()).unwrap();
            while ready.try_recv().is_err() {
                sleep(Duration::from_millis(1));
            }
        });
        let remote = hear.recv().unwrap();
        let parked: RemoteDeferred<()> = remote.defer(|| sleep(LONG)).unwrap();
        let waiting = spawn(move || block_on(parked));
        sleep(SHORT);
        go.send(()).unwrap();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::ThreadEnding), "{error:?}");
        served.join().unwrap();
        assert!(remote.defer(|| ()).is_err());
    });
}

#[test]
fn a_remote_deferred_of_an_abandoned_green_thread_fails_at_its_next_poll() {
    run("a_remote_deferred_of_an_abandoned_green_thread_fails_at_its_next_poll", || {
        keep_reports();
        let deferred = std::thread::spawn(|| {
            let deferred = get_hub().remote().defer(|| sleep(LONG)).unwrap();
            sleep(SHORT);
            deferred
        });
        let mut deferred = deferred.join().unwrap();
        let Poll::Ready(Err(GreenError::Loop(error))) = poll(&mut deferred, Waker::noop()) else {
            panic!("its OS thread has ended")
        };
        assert_eq!(error.kind(), LoopErrorKind::ThreadEnding);
    });
}

#[test]
fn the_end_of_an_os_thread_wakes_waiters_for_its_abandoned_green_threads() {
    run("the_end_of_an_os_thread_wakes_waiters_for_its_abandoned_green_threads", || {
        let (tell, hear) = mpsc::channel();
        let (go, ready) = mpsc::channel::<()>();
        let served = std::thread::spawn(move || {
            keep_reports();
            tell.send(get_hub().remote()).unwrap();
            while ready.try_recv().is_err() {
                sleep(Duration::from_millis(1));
            }
        });
        let remote = hear.recv().unwrap();
        let parked = remote.defer(|| sleep(LONG)).unwrap();
        let waiting = spawn(move || block_on(parked));
        sleep(SHORT);
        assert!(!waiting.is_finished());
        go.send(()).unwrap();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::ThreadEnding), "{error:?}");
        served.join().unwrap();
    });
}

#[test]
fn the_end_of_an_os_thread_wakes_waiters_for_green_threads_that_have_not_begun() {
    run("the_end_of_an_os_thread_wakes_waiters_for_green_threads_that_have_not_begun", || {
        let (tell, hear) = mpsc::channel();
        let (go, ready) = std::sync::mpsc::channel::<()>();
        let served = std::thread::spawn(move || {
            keep_reports();
            tell.send(get_hub().remote()).unwrap();
            // Blocks the OS thread, so that its loop reads no message any more.
            ready.recv().unwrap();
        });
        let remote = hear.recv().unwrap();
        let unread = remote.defer(|| ()).unwrap();
        let waiting = spawn(move || block_on(unread));
        sleep(SHORT);
        go.send(()).unwrap();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::ThreadEnding), "{error:?}");
        served.join().unwrap();
    });
}

#[test]
fn a_dropped_remote_deferred_drops_the_result_and_detaches_the_green_thread() {
    run("a_dropped_remote_deferred_drops_the_result_and_detaches_the_green_thread", || {
        let (done, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let (seen, result) = (Arc::clone(&done), Arc::clone(&dropped));
        let mut deferred = get_hub()
            .remote()
            .defer(move || {
                sleep(SHORT);
                seen.fetch_add(1, Ordering::SeqCst);
                result
            })
            .unwrap();
        let target = Arc::new(Foreign::default());
        assert!(poll(&mut deferred, &Waker::from(Arc::clone(&target))).is_pending());
        drop(deferred);
        assert_eq!(Arc::strong_count(&target), 1);
        while done.load(Ordering::SeqCst) == 0 {
            sleep(SHORT);
        }
        yield_now();
        assert_eq!(Arc::strong_count(&dropped), 1);
        assert_eq!(target.wakes.load(Ordering::SeqCst), 0);
    });
}
