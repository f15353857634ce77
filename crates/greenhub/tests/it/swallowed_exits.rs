//! Swallowed exits: how often they are thrown, which green threads run between the throws, and the reports.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::green;
use crate::support::green::{LONG, Log, SHORT, keep_reports, reports};
use crate::support::{alone, run};
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenpool::Group;
use greenhub::greenthread::{ExitKind, KillOutcome, exit_kind, is_exit};
use greenhub::net::{Cluster, StopServe, TcpListener, TcpStream, serve_until};
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenPool, GreenThread, get_hub, scope, shield, sleep, spawn, spawn_n, with_timeout};

/// The number of times the same exit is thrown.
const MAX: usize = 100;

/// Sleeps in a loop and catches every exit, until `stop` is set.
fn supervise(stop: &Cell<bool>, caught: &Cell<usize>) {
    while !stop.get() {
        if catch_unwind(|| sleep(SHORT)).is_err() {
            caught.set(caught.get() + 1);
        }
    }
}

/// A green thread that swallows every exit.
struct Supervisor {
    green: GreenThread<()>,
    stop: Rc<Cell<bool>>,
    caught: Rc<Cell<usize>>,
}

impl Supervisor {
    fn new() -> Supervisor {
        let (stop, caught) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (own, count) = (Rc::clone(&stop), Rc::clone(&caught));
        Supervisor { green: spawn(move || supervise(&own, &count)), stop, caught }
    }

    fn end(self) {
        self.stop.set(true);
        self.green.join().unwrap();
    }
}

#[test]
fn kill_returns_refused_for_a_target_that_swallows_its_exits() {
    run("kill_returns_refused_for_a_target_that_swallows_its_exits", || {
        let one = Supervisor::new();
        yield_now();
        assert_eq!(one.green.kill(), KillOutcome::Refused);
        assert_eq!(one.caught.get(), MAX);
        // The supervisor lives on, and its waits work as before.
        sleep(SHORT);
        assert_eq!(one.caught.get(), MAX);
        one.end();
    });
}

#[test]
fn a_refused_kill_is_reported_once_with_the_spawn_location() {
    run("a_refused_kill_is_reported_once_with_the_spawn_location", || {
        keep_reports();
        let one = Supervisor::new();
        yield_now();
        for round in 1..=3 {
            assert_eq!(one.green.kill(), KillOutcome::Refused);
            assert_eq!(one.caught.get(), round * MAX);
        }
        let place = one.green.spawned_at().to_string();
        let reported = reports();
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(reported[0].contains(&place) && reported[0].contains("same kill 100 times"), "{reported:?}");
        one.end();
    });
}

#[test]
fn others_run_between_two_throws() {
    run("others_run_between_two_throws", || {
        let one = Supervisor::new();
        let (ticks, timers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (tick, timer) = (Rc::clone(&ticks), Rc::clone(&timers));
        spawn_n(move || {
            loop {
                yield_now();
                tick.set(tick.get() + 1);
            }
        });
        spawn_n(move || {
            loop {
                sleep(Duration::from_nanos(1));
                timer.set(timer.get() + 1);
            }
        });
        yield_now();
        let before = (ticks.get(), timers.get());
        assert_eq!(one.green.kill(), KillOutcome::Refused);
        // Ready green threads run, and so do those that the loop wakes.
        assert!(ticks.get() - before.0 >= MAX - 2, "{} ticks", ticks.get() - before.0);
        assert!(timers.get() - before.1 >= MAX / 4, "{} timers", timers.get() - before.1);
        one.end();
    });
}

#[test]
fn a_target_that_ends_after_some_throws_has_ended_when_kill_returns() {
    run("a_target_that_ends_after_some_throws_has_ended_when_kill_returns", || {
        for swallows in [1, 2, 10, MAX - 1] {
            let green = spawn(move || {
                for _ in 0..swallows {
                    assert!(catch_unwind(|| sleep(LONG)).is_err());
                }
            });
            yield_now();
            assert_eq!(green.kill(), KillOutcome::Ended, "{swallows}");
            green.join().unwrap();
        }
    });
}

#[test]
fn a_target_that_waits_in_a_shield_after_a_throw_is_killed_after_it() {
    run("a_target_that_waits_in_a_shield_after_a_throw_is_killed_after_it", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            assert!(catch_unwind(|| sleep(LONG)).is_err());
            shield(|| sleep(SHORT));
            own.add("gave back");
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["gave back"]);
    });
}

#[test]
fn a_swallowed_timeout_gives_up_and_is_reported() {
    run("a_swallowed_timeout_gives_up_and_is_reported", || {
        keep_reports();
        let caught = Cell::new(0);
        for round in 1..=2 {
            let value = with_timeout(SHORT, || {
                let before = caught.get();
                while caught.get() < before + MAX {
                    if catch_unwind(|| sleep(SHORT)).is_err() {
                        caught.set(caught.get() + 1);
                    }
                }
                // All throws are used up.
                sleep(SHORT);
                yield_now();
                "lives on"
            });
            assert_eq!(value.unwrap(), "lives on");
            assert_eq!(caught.get(), round * MAX);
        }
        let reported = reports();
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(reported[0].contains("the main greenlet") && reported[0].contains("same timeout"), "{reported:?}");
    });
}

#[test]
fn an_outer_timeout_strikes_after_an_inner_one_gave_up() {
    run("an_outer_timeout_strikes_after_an_inner_one_gave_up", || {
        let late = with_timeout(20 * SHORT, || {
            with_timeout(SHORT, || {
                for _ in 0..MAX {
                    while catch_unwind(|| sleep(SHORT)).is_ok() {}
                }
                sleep(LONG);
            })
        });
        assert!(late.is_err());
    });
}

#[test]
fn others_run_while_a_timeout_is_swallowed() {
    run("others_run_while_a_timeout_is_swallowed", || {
        let ticks = Rc::new(Cell::new(0));
        let tick = Rc::clone(&ticks);
        let stop = Rc::new(Cell::new(false));
        let over = Rc::clone(&stop);
        spawn_n(move || {
            for _ in 0..MAX / 2 {
                yield_now();
                tick.set(tick.get() + 1);
            }
            // Ends the body only after these turns.
            over.set(true);
        });
        with_timeout(Duration::ZERO, || {
            while !stop.get() {
                let _ = catch_unwind(|| sleep(SHORT));
            }
        })
        .unwrap();
        assert_eq!(ticks.get(), MAX / 2);
    });
}

#[test]
fn a_swallowed_link_exit_gives_up() {
    run("a_swallowed_link_exit_gives_up", || {
        let caught = Cell::new(0);
        let peer = spawn(|| ());
        let linked = peer.with_link(|| {
            while caught.get() < MAX {
                if catch_unwind(|| sleep(SHORT)).is_err() {
                    caught.set(caught.get() + 1);
                }
            }
            sleep(SHORT);
        });
        assert!(linked.is_ok());
    });
}

#[test]
fn a_repeated_self_kill_is_refused_in_the_end() {
    run("a_repeated_self_kill_is_refused_in_the_end", || {
        let me = Rc::new(RefCell::new(None::<GreenThread<KillOutcome>>));
        let own = Rc::clone(&me);
        me.replace(Some(spawn(move || {
            loop {
                let killed = catch_unwind(AssertUnwindSafe(|| own.borrow().as_ref().unwrap().kill()));
                if let Ok(killed) = killed {
                    return killed;
                }
            }
        })));
        me.borrow().as_ref().unwrap().wait_for_end().unwrap();
        assert_eq!(me.take().unwrap().join().unwrap(), KillOutcome::Refused);
    });
}

#[test]
fn a_self_kill_after_a_swallowed_kill_ends_with_the_newer_error() {
    run("a_self_kill_after_a_swallowed_kill_ends_with_the_newer_error", || {
        let me = Rc::new(RefCell::new(None::<GreenThread<()>>));
        let own = Rc::clone(&me);
        me.replace(Some(spawn(move || {
            assert!(catch_unwind(|| sleep(LONG)).is_err());
            own.borrow().as_ref().unwrap().kill_with(GreenError::custom("newer"));
        })));
        yield_now();
        let green = me.borrow().as_ref().map(|green| green.id().unwrap()).unwrap();
        assert!(hub_core::internal::request_exit_with(green, GreenError::custom("older")));
        me.borrow().as_ref().unwrap().wait_for_end().unwrap();
        assert_eq!(me.take().unwrap().join().unwrap_err().to_string(), "newer");
    });
}

#[test]
fn an_exit_passes_through_any_number_of_spawns_in_place() {
    fn nest(pool: &GreenPool, depth: usize) {
        if depth == 0 {
            sleep(LONG);
        } else {
            let own = pool.clone();
            // The pool is full, so its worker runs the closure in place.
            pool.spawn_n(move || nest(&own, depth - 1)).unwrap();
        }
    }
    alone("an_exit_passes_through_any_number_of_spawns_in_place", || {
        keep_reports();
        greenhub::greenthread::set_default_stack_size(4 << 20).unwrap();
        let (pool, log) = (GreenPool::new(1), Log::new());
        let (own, passed) = (pool.clone(), log.clone());
        let green = pool
            .spawn(move || {
                nest(&own, 2 * MAX);
                passed.add("lives on");
            })
            .unwrap();
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Ended);
        log.is(&[]);
        assert!(reports().is_empty());
        greenhub::greenthread::set_default_stack_size(256 << 10).unwrap();
    });
}

#[test]
fn a_kill_from_the_main_loop_is_scheduled() {
    run("a_kill_from_the_main_loop_is_scheduled", || {
        let one = Rc::new(Supervisor::new());
        let (target, killed) = (Rc::clone(&one), Rc::new(Cell::new(None)));
        let seen = Rc::clone(&killed);
        yield_now();
        get_hub().schedule(Duration::ZERO, move || seen.set(Some(target.green.kill())));
        while one.caught.get() < MAX {
            sleep(SHORT);
        }
        assert_eq!(killed.get(), Some(KillOutcome::Scheduled));
        one.stop.set(true);
        one.green.wait_for_end().unwrap();
    });
}

#[test]
fn a_killer_that_is_killed_during_its_kill_unwinds() {
    run("a_killer_that_is_killed_during_its_kill_unwinds", || {
        let one = Rc::new(Supervisor::new());
        let target = Rc::clone(&one);
        yield_now();
        let killer = spawn(move || target.green.kill());
        yield_now();
        assert_eq!(killer.kill(), KillOutcome::Ended);
        assert!(killer.join().unwrap_err().is_kill());
        while one.caught.get() < MAX {
            yield_now();
        }
        one.stop.set(true);
        one.green.wait_for_end().unwrap();
    });
}

#[test]
fn two_killers_both_get_refused() {
    run("two_killers_both_get_refused", || {
        let one = Rc::new(Supervisor::new());
        yield_now();
        let killers = [0, 1].map(|_| {
            let target = Rc::clone(&one);
            spawn(move || target.green.kill())
        });
        for killer in killers {
            assert_eq!(killer.join().unwrap(), KillOutcome::Refused);
        }
        one.stop.set(true);
        one.green.wait_for_end().unwrap();
    });
}

#[test]
fn dropping_the_last_handle_of_a_refusing_greenlet_returns() {
    run("dropping_the_last_handle_of_a_refusing_greenlet_returns", || {
        keep_reports();
        let stop = Rc::new(Cell::new(false));
        let (own, main) = (Rc::clone(&stop), Greenlet::current());
        let greenlet = Greenlet::new(move |_| {
            let caught = Cell::new(0);
            let _ = catch_unwind(AssertUnwindSafe(|| main.switch(Payload::unit())));
            supervise(&own, &caught);
            Ok(Payload::unit())
        });
        greenlet.switch(Payload::unit()).unwrap();
        drop(greenlet);
        assert!(reports()[0].contains("a greenlet made at"), "{:?}", reports());
        stop.set(true);
        sleep(4 * SHORT);
    });
}

#[test]
fn a_scope_waits_for_a_refusing_child_without_spinning() {
    run("a_scope_waits_for_a_refusing_child_without_spinning", || {
        let (stop, caught) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (over, count) = (Rc::clone(&stop), Rc::clone(&caught));
        spawn_n(move || {
            while count.get() < MAX {
                sleep(SHORT);
            }
            sleep(20 * SHORT);
            over.set(true);
        });
        let late = with_timeout(SHORT, || {
            scope(|s| {
                s.spawn(|| supervise(&stop, &caught));
            });
        });
        assert!(late.is_err());
        assert!(stop.get());
        assert_eq!(caught.get(), MAX);
    });
}

#[test]
fn a_group_counts_refusing_members() {
    run("a_group_counts_refusing_members", || {
        let (group, stop) = (Group::new(), Rc::new(Cell::new(false)));
        for _ in 0..3 {
            let own = Rc::clone(&stop);
            group.spawn(move || supervise(&own, &Cell::new(0))).unwrap();
            group.spawn(|| sleep(LONG)).unwrap();
        }
        yield_now();
        // Returns long before the limit.
        assert_eq!(group.kill_all_timeout(LONG).unwrap(), 3);
        stop.set(true);
        group.wait_all().unwrap();
        assert_eq!(group.kill_all_timeout(LONG).unwrap(), 0);
    });
}

#[test]
fn a_group_counts_members_left_at_the_limit() {
    run("a_group_counts_members_left_at_the_limit", || {
        let (group, go) = (Group::new(), Rc::new(greenhub::sync::Event::new()));
        let own = Rc::clone(&go);
        group.spawn(move || shield(|| drop(own.wait()))).unwrap();
        group.spawn(|| sleep(LONG)).unwrap();
        yield_now();
        let begin = Instant::now();
        assert_eq!(group.kill_all_timeout(4 * SHORT).unwrap(), 1);
        assert!(begin.elapsed() >= 4 * SHORT);
        go.send(()).unwrap();
        group.wait_all().unwrap();
    });
}

#[test]
fn a_pool_counts_refusing_workers() {
    run("a_pool_counts_refusing_workers", || {
        let (pool, stop) = (GreenPool::new(4), Rc::new(Cell::new(false)));
        for _ in 0..2 {
            let own = Rc::clone(&stop);
            pool.spawn_n(move || supervise(&own, &Cell::new(0))).unwrap();
            pool.spawn_n(|| sleep(LONG)).unwrap();
        }
        yield_now();
        assert_eq!(pool.kill_all_timeout(LONG).unwrap(), 2);
        stop.set(true);
        pool.wait_all().unwrap();
    });
}

/// Serves a connection and swallows every exit.
fn stubborn(mut stream: TcpStream) {
    loop {
        let answered = catch_unwind(AssertUnwindSafe(|| -> std::io::Result<usize> {
            let mut buffer = [0; 64];
            let n = stream.read(&mut buffer)?;
            stream.write_all(&buffer[..n])?;
            Ok(n)
        }));
        if matches!(answered, Ok(Ok(0) | Err(_))) {
            break;
        }
    }
}

#[test]
fn a_server_with_a_deadline_returns_despite_a_refusing_handler() {
    run("a_server_with_a_deadline_returns_despite_a_refusing_handler", || {
        let (listener, stop) = (TcpListener::bind("127.0.0.1:0").unwrap(), StopServe::new());
        let (address, last_orders) = (listener.local_addr().unwrap(), stop.clone());
        let client = spawn(move || {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            last_orders.stop_within(SHORT);
            client
        });
        let pool = GreenPool::new(10);
        let served = serve_until(&stop, &listener, &pool, |stream, _| stubborn(stream)).unwrap();
        assert_eq!((served.accepted, served.killed, served.left), (1, 1, 1));
        drop(client.join().unwrap());
        pool.wait_all().unwrap();
    });
}

#[test]
fn a_server_with_a_deadline_returns_despite_a_shielded_handler() {
    run("a_server_with_a_deadline_returns_despite_a_shielded_handler", || {
        let (listener, stop) = (TcpListener::bind("127.0.0.1:0").unwrap(), StopServe::new());
        let (address, last_orders) = (listener.local_addr().unwrap(), stop.clone());
        let client = spawn(move || TcpStream::connect(address).unwrap());
        let pool = GreenPool::new(10);
        let served = serve_until(&stop, &listener, &pool, move |mut stream: TcpStream, _| {
            last_orders.stop_within(SHORT);
            shield(|| stream.read(&mut [0]))
        })
        .unwrap();
        assert_eq!((served.accepted, served.killed, served.left), (1, 1, 1));
        drop(client.join().unwrap());
        pool.wait_all().unwrap();
    });
}

#[test]
fn a_cluster_ends_despite_a_refusing_handler() {
    run("a_cluster_ends_despite_a_refusing_handler", || {
        let server = Cluster::new(2).serve("127.0.0.1:0", |stream, _| stubborn(stream)).unwrap();
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        server.stop().stop_within(SHORT);
        let begin = Instant::now();
        let served: Vec<_> = server.join().unwrap().into_iter().map(|thread| thread.unwrap()).collect();
        assert_eq!(served.iter().map(|served| served.left).sum::<usize>(), 1);
        assert!(begin.elapsed() < greenhub::thread::os::SHUTDOWN_LIMIT, "{:?}", begin.elapsed());
    });
}

#[test]
fn a_shutdown_does_not_wait_for_a_refusing_green_thread() {
    run("a_shutdown_does_not_wait_for_a_refusing_green_thread", || {
        spawn_n(|| {
            loop {
                let _ = catch_unwind(|| sleep(LONG));
            }
        });
        spawn_n(|| sleep(LONG));
        yield_now();
        let ended = get_hub().shutdown(None).unwrap();
        assert_eq!((ended.unwound, ended.abandoned), (1, 1));
    });
}

#[test]
fn an_os_thread_ends_despite_a_refusing_green_thread() {
    fn leave_behind() {
        spawn_n(|| {
            loop {
                let _ = catch_unwind(|| sleep(LONG));
            }
        });
        spawn_n(|| {
            loop {
                let _ = catch_unwind(|| shield(|| sleep(LONG)));
            }
        });
        spawn_n(|| {
            loop {
                shield(|| drop(catch_unwind(|| sleep(LONG))));
            }
        });
        yield_now();
    }
    run("an_os_thread_ends_despite_a_refusing_green_thread", || {
        // An orderly end with a limit, and an end without a shutdown.
        let limit = Some(20 * SHORT);
        std::thread::spawn(move || greenhub::thread::os::run_and_shutdown(limit, leave_behind)).join().unwrap();
        std::thread::spawn(leave_behind).join().unwrap();
    });
}

#[test]
fn exit_kind_recognises_a_caught_exit() {
    run("exit_kind_recognises_a_caught_exit", || {
        let (kinds, log) = (Rc::new(RefCell::new(Vec::new())), Log::new());
        let seen = Rc::clone(&kinds);
        let catch = move |f: &dyn Fn()| {
            let payload = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
            // Accepts the box, its contents, and a reference to either.
            assert_eq!(exit_kind(&payload), exit_kind(payload.as_ref()));
            assert_eq!(is_exit(&payload), exit_kind(&payload).is_some());
            seen.borrow_mut().push(exit_kind(&payload));
            resume_unwind(payload)
        };
        assert!(with_timeout(SHORT, || catch(&|| sleep(LONG))).is_err());
        assert!(spawn(|| ()).with_link(|| catch(&|| sleep(LONG))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| catch(&|| green::quiet_panic("a panic")))).is_err());
        let own = log.clone();
        let green = spawn(move || {
            own.add("begins");
            catch(&|| sleep(LONG));
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Ended);
        log.is(&["begins"]);
        assert_eq!(*kinds.borrow(), [Some(ExitKind::Timeout), Some(ExitKind::Link), None, Some(ExitKind::Kill)]);
    });
}

#[test]
fn a_queue_is_usable_between_two_throws_in_a_wait_for_it() {
    run("a_queue_is_usable_between_two_throws_in_a_wait_for_it", || {
        let queue = Arc::new(greenhub::sync::Queue::<u32>::new());
        let own = queue.clone();
        let stubborn = spawn(move || {
            let get = || catch_unwind(AssertUnwindSafe(|| own.get()));
            (0..3).filter(|_| get().is_err()).count()
        });
        let others = queue.clone();
        let looks = spawn(move || {
            for _ in 0..20 {
                assert_eq!(others.len(), 0);
                yield_now();
            }
        });
        yield_now();
        stubborn.kill();
        assert_eq!(stubborn.join().unwrap(), 3);
        looks.join().unwrap();
    });
}
