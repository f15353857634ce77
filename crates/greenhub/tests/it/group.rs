//! Groups: wait for several green threads, and kill them, together.

use std::cell::RefCell;
use std::fmt;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::{LONG, Log, OnDrop, SHORT, held, keep_reports, quiet_panic, reports};
use crate::support::random::Rng;
use crate::support::run;
use greenhub::greenpool::Group;
use greenhub::greenthread::{KillOutcome, LinkId};
use greenhub::hub::LoopErrorKind;
use greenhub::local::green_local;
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, get_hub, sleep, spawn, spawn_after, with_timeout};

fn yields(count: usize) {
    for _ in 0..count {
        yield_now();
    }
}

#[test]
fn a_group_holds_its_members_until_they_end() {
    run("a_group_holds_its_members_until_they_end", || {
        let (group, before) = (Group::new(), held());
        assert!(group.is_empty());
        let value = group
            .spawn(|| {
                sleep(SHORT);
                7
            })
            .unwrap();
        let failing = group.spawn(|| -> () { quiet_panic("fails") }).unwrap();
        let killed = group.spawn(|| sleep(LONG)).unwrap();
        let unstarted = group.spawn(|| unreachable!()).unwrap();
        let later = spawn_after(LONG, || ());
        assert!(group.add(&later));
        assert_eq!(group.len(), 5);
        assert!(unstarted.cancel());
        assert!(!group.contains(&unstarted) && group.contains(&killed));
        yield_now();
        assert!(!group.contains(&failing));
        killed.kill();
        later.kill();
        assert_eq!(group.len(), 1);
        group.wait_all().unwrap();
        assert!(group.is_empty());
        assert_eq!(value.join().unwrap(), 7);
        assert!(failing.join().is_err());
        drop((killed, unstarted, later));
        assert_eq!(held(), before);
    });
}

#[test]
fn waiting_for_an_empty_group_does_not_switch() {
    run("waiting_for_an_empty_group_does_not_switch", || {
        let (group, log) = (Group::new(), Log::new());
        let to = log.clone();
        let other = spawn(move || to.add("ran"));
        group.wait_all().unwrap();
        group.try_wait_all().unwrap();
        log.is(&[]);
        other.join().unwrap();
    });
}

#[test]
fn all_waiters_are_woken_by_the_end_of_the_last_member() {
    run("all_waiters_are_woken_by_the_end_of_the_last_member", || {
        let (group, log) = (Group::new(), Log::new());
        for number in 0..3 {
            let log = log.clone();
            group
                .spawn(move || {
                    yields(3 - number);
                    log.add("member");
                })
                .unwrap();
        }
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let (group, log) = (group.clone(), log.clone());
                spawn(move || {
                    group.wait_all().unwrap();
                    log.add("waited");
                })
            })
            .collect();
        group.wait_all().unwrap();
        log.add("main");
        for waiting in waiting {
            waiting.join().unwrap();
        }
        log.is(&["member", "member", "member", "main", "waited", "waited"]);
    });
}

#[test]
fn a_wait_ends_when_the_group_was_empty_once() {
    run("a_wait_ends_when_the_group_was_empty_once", || {
        let group = Group::new();
        let first = spawn(yield_now);
        let own = group.clone();
        // Runs after the last member has ended, and before the waiters.
        first.link(move |_| {
            spawn(move || drop(own.spawn(|| sleep(LONG))));
        });
        group.add(&first);
        let own = group.clone();
        let waiting = spawn(move || {
            own.wait_all().unwrap();
            own.len()
        });
        assert_eq!(waiting.join().unwrap(), 1, "a member was added since");
        group.kill_all();
        group.wait_all().unwrap();
    });
}

#[test]
fn a_member_cannot_wait_for_its_own_group() {
    run("a_member_cannot_wait_for_its_own_group", || {
        let group = Group::new();
        for wait in [Group::wait_all, Group::try_wait_all] {
            let own = group.clone();
            let inside = group
                .spawn(move || {
                    assert!(own.contains_current());
                    wait(&own)
                })
                .unwrap();
            let error = inside.join().unwrap().unwrap_err();
            assert!(matches!(error, GreenError::Deadlock));
            assert_eq!(std::io::Error::from(error).kind(), ErrorKind::Deadlock);
        }
        assert!(!group.contains_current());
        // A former member may wait for the group.
        let own = group.clone();
        let outside = group
            .spawn(move || {
                yield_now();
                own.wait_all()
            })
            .unwrap();
        assert!(group.discard(&outside));
        outside.join().unwrap().unwrap();
    });
}

#[test]
fn waiting_on_the_main_loop_is_refused() {
    run("waiting_on_the_main_loop_is_refused", || {
        let group = Group::new();
        group.spawn(|| sleep(SHORT)).unwrap();
        let (own, refused) = (group.clone(), Rc::new(RefCell::new(Vec::new())));
        let results = refused.clone();
        let _timer = get_hub().schedule(Duration::ZERO, move || {
            results.borrow_mut().extend([own.wait_all(), own.try_wait_all()]);
        });
        group.wait_all().unwrap();
        let is_refusal =
            |result: &_| matches!(&result, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::InMainloop);
        assert_eq!(refused.borrow().len(), 2);
        assert!(refused.borrow().iter().all(is_refusal));
    });
}

#[test]
fn a_member_counts_once_and_an_ended_green_thread_cannot_be_added() {
    run("a_member_counts_once_and_an_ended_green_thread_cannot_be_added", || {
        let (group, other) = (Group::new(), Group::new());
        let green = spawn(|| 7);
        assert!(group.add(&green) && other.add(&green));
        assert!(!group.add(&green));
        assert_eq!((group.len(), other.len()), (1, 1));
        green.wait().unwrap();
        assert!(group.is_empty() && other.is_empty());
        assert!(!group.add(&green) && !group.contains(&green));
        assert!(group.is_empty());
    });
}

#[test]
fn a_discarded_member_runs_on_and_ends_the_wait() {
    run("a_discarded_member_runs_on_and_ends_the_wait", || {
        let group = Group::new();
        let green = group
            .spawn(|| {
                sleep(SHORT);
                7
            })
            .unwrap();
        let own = group.clone();
        let waiting = spawn(move || own.wait_all());
        yield_now();
        assert!(group.discard(&green));
        assert!(!group.discard(&green));
        // The discarded member was the last, so the wait ends.
        waiting.join().unwrap().unwrap();
        assert!(!green.is_finished());
        group.kill_all();
        // Added, discarded and added again: its end counts once.
        assert!(group.add(&green) && group.discard(&green) && group.add(&green));
        group.wait_all().unwrap();
        assert_eq!(green.join().unwrap(), 7);
    });
}

#[test]
fn kill_all_strikes_each_member_once() {
    run("kill_all_strikes_each_member_once", || {
        type AtEnd = OnDrop<Box<dyn FnMut()>>;
        green_local!(static AT_END: RefCell<Vec<AtEnd>> = RefCell::default());
        let (group, log) = (Group::new(), Log::new());
        let to = log.clone();
        let green = group
            .spawn(move || {
                AT_END.with(|at_end| {
                    let blocks = move || {
                        to.add("destructor blocks");
                        sleep(SHORT);
                        to.add("destructor ends");
                    };
                    at_end.borrow_mut().push(OnDrop(Box::new(blocks)));
                });
                sleep(LONG);
            })
            .unwrap();
        yield_now();
        group.kill_all();
        group.kill_all_with(GreenError::custom("too late"));
        assert_eq!(group.len(), 1, "a killed green thread has left the group before it has run");
        yield_now();
        log.is(&["destructor blocks"]);
        // The kill that ended the body does not interrupt a destructor.
        group.kill_all();
        group.wait_all().unwrap();
        log.is(&["destructor blocks", "destructor ends"]);
        assert!(green.join().unwrap_err().is_kill());
    });
}

#[test]
fn kill_all_disarms_the_timer_of_a_delayed_member() {
    run("kill_all_disarms_the_timer_of_a_delayed_member", || {
        let group = Group::new();
        let later = spawn_after(LONG, || unreachable!("killed before its delay has passed"));
        assert!(group.add(&later));
        group.kill_all();
        assert!(group.is_empty() && later.is_finished());
        assert_eq!(get_hub().stats().timers, 0, "nothing keeps the loop alive");
    });
}

#[test]
fn kill_all_does_not_switch_and_keeps_members_until_they_have_run() {
    run("kill_all_does_not_switch_and_keeps_members_until_they_have_run", || {
        let (group, log) = (Group::new(), Log::new());
        for name in ["first", "second"] {
            let end = log.on_drop(name);
            group
                .spawn(move || {
                    let _end = end;
                    sleep(LONG);
                })
                .unwrap();
        }
        yield_now();
        let unstarted = group.spawn(|| unreachable!()).unwrap();
        group.kill_all();
        log.is(&[]);
        assert!(unstarted.is_finished());
        assert_eq!(group.len(), 2);
        yield_now();
        log.is(&["first", "second"]);
        assert!(group.is_empty());
        // The same holds for a kill from the main loop.
        let member = group.spawn(|| sleep(LONG)).unwrap();
        yield_now();
        let own = group.clone();
        let _timer = get_hub().schedule(Duration::ZERO, move || own.kill_all());
        group.wait_all().unwrap();
        assert!(member.join().unwrap_err().is_kill());
    });
}

#[test]
fn kill_all_ends_a_calling_member_too() {
    run("kill_all_ends_a_calling_member_too", || {
        let (group, log) = (Group::new(), Log::new());
        let others = [group.spawn(|| sleep(LONG)).unwrap(), group.spawn(|| sleep(LONG)).unwrap()];
        let (own, to) = (group.clone(), log.clone());
        let killer = group
            .spawn(move || {
                own.kill_all_with(GreenError::custom("all together"));
                to.add("goes on");
                yield_now();
                to.add("never");
            })
            .unwrap();
        group.wait_all().unwrap();
        log.is(&["goes on"]);
        for green in others.into_iter().chain([killer]) {
            assert_eq!(green.join().unwrap_err().to_string(), "all together");
        }
    });
}

#[test]
fn kill_all_strikes_only_its_members_while_others_come_and_go() {
    run("kill_all_strikes_only_its_members_while_others_come_and_go", || {
        let (group, before) = (Group::new(), held());
        // The destructor of the first member's body discards a member, yields, and adds a member.
        let own = group.clone();
        let saved: Rc<RefCell<Option<GreenThread<&'static str>>>> = Rc::default();
        let to_save = saved.clone();
        let on_drop = OnDrop(move || {
            let saved = to_save.borrow();
            assert!(own.discard(saved.as_ref().unwrap()));
            yield_now();
            // The new member may reuse the number of an ended member that `kill_all` has still to visit.
            own.spawn(|| sleep(LONG)).unwrap();
        });
        group.spawn(move || drop(on_drop)).unwrap();
        let body = || {
            sleep(SHORT);
            "saved"
        };
        *saved.borrow_mut() = Some(group.spawn(body).unwrap());
        let last = group.spawn(|| "quick").unwrap();
        group.kill_all();
        assert_eq!(group.len(), 1, "the later member was killed");
        assert_eq!(saved.take().unwrap().join().unwrap(), "saved");
        assert!(last.is_finished() && last.join().is_ok(), "ended before the kill reached it");
        group.kill_all();
        group.wait_all().unwrap();
        assert_eq!(held(), before);
    });
}

#[test]
fn try_wait_all_returns_the_first_failure() {
    run("try_wait_all_returns_the_first_failure", || {
        keep_reports();
        let group = Group::new();
        // A failure before the wait does not count, and neither does a kill.
        let failed = group.spawn(|| -> () { quiet_panic("before") }).unwrap();
        yield_now();
        let killed = group.spawn(|| sleep(LONG)).unwrap();
        let other = group.spawn(|| sleep(LONG)).unwrap();
        let discarded = group.spawn(|| -> () { quiet_panic("discarded") }).unwrap();
        assert!(group.discard(&discarded));
        group.spawn(move || killed.kill()).unwrap();
        let failing = group
            .spawn(|| -> () {
                yields(3);
                quiet_panic("meanwhile")
            })
            .unwrap();
        let plain = {
            let group = group.clone();
            spawn(move || group.wait_all())
        };
        let error = group.try_wait_all().unwrap_err();
        assert!(matches!(&error, GreenError::Panic(panic) if panic.message() == "meanwhile"));
        assert!(!other.is_finished() && !plain.is_finished(), "a green thread that was not killed has ended");
        assert_eq!(group.len(), 1);
        other.kill_with(GreenError::custom("shut down"));
        plain.join().unwrap().unwrap();
        group.try_wait_all().unwrap();
        for green in [failing, failed, other, discarded] {
            assert!(green.join().is_err());
        }
        assert_eq!(reports(), [""; 0]);
    });
}

/// An error whose `Display` panics.
#[derive(Debug)]
struct Hostile;

impl fmt::Display for Hostile {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        quiet_panic("no text")
    }
}

impl std::error::Error for Hostile {}

#[test]
fn a_failed_member_leaves_even_if_its_report_fails() {
    run("a_failed_member_leaves_even_if_its_report_fails", || {
        keep_reports();
        let group = Group::new();
        let error = group.spawn(|| -> () { quiet_panic("applied") }).unwrap().join().unwrap_err();
        assert!(matches!(error, GreenError::Panic(panic) if panic.message() == "applied"));
        assert!(group.is_empty());
        drop(group.spawn(|| -> Result<(), Box<dyn std::error::Error>> { Err(Box::new(Hostile)) }).unwrap());
        drop(group.spawn(|| -> () { quiet_panic("no waiter") }).unwrap());
        group.wait_all().unwrap();
        assert!(group.is_empty());
        assert_eq!(reports().len(), 2);
        assert!(reports()[1].contains("no waiter"), "{:?}", reports());
    });
}

#[test]
fn a_wait_that_ends_early_leaves_nothing_behind() {
    run("a_wait_that_ends_early_leaves_nothing_behind", || {
        let (group, before) = (Group::new(), held());
        for wait in [Group::wait_all, Group::try_wait_all] {
            let member = group.spawn(|| sleep(LONG)).unwrap();
            assert!(with_timeout(SHORT, || wait(&group)).is_err());
            let own = group.clone();
            let waiting = spawn(move || {
                wait(&own).unwrap();
                sleep(LONG);
            });
            yield_now();
            // The wait was granted before the kill, which takes effect at the next wait.
            member.kill();
            waiting.kill();
            assert!(waiting.join().unwrap_err().is_kill());
            drop(member);
            wait(&group).unwrap();
        }
        assert_eq!(held(), before);
    });
}

/// The ends that a link is called for.
#[derive(Copy, Clone, PartialEq)]
enum Kind {
    Any,
    Value,
    Error,
}

impl Kind {
    fn covers(self, value: bool) -> bool {
        self == Kind::Any || value == (self == Kind::Value)
    }
}

/// The expected state of a green thread that yields until its gate is open, with its membership and its links.
#[derive(Default)]
struct Model {
    started: bool,
    gate: bool,
    member: bool,
    /// Whether it exits at its next run.
    struck: bool,
    links: Vec<(usize, Kind)>,
    /// Whether it ended with a value. `None` while it runs.
    end: Option<bool>,
    called: Vec<usize>,
}

impl Model {
    fn end(&mut self, value: bool) {
        self.member = false;
        self.end = Some(value);
        for (link, kind) in std::mem::take(&mut self.links) {
            if kind.covers(value) {
                self.called.push(link);
            }
        }
    }
}

#[derive(Default)]
struct World {
    greens: Vec<Model>,
    /// Whether each `wait_all` must have returned.
    waiters: Vec<bool>,
}

impl World {
    fn members(&self) -> usize {
        self.greens.iter().filter(|green| green.member).count()
    }

    /// Releases the waiters if the group is empty.
    fn release_waiters(&mut self) {
        if self.members() == 0 {
            self.waiters.fill(true);
        }
    }

    /// Lets each green thread run once.
    fn settle(&mut self) {
        for green in self.greens.iter_mut().filter(|green| green.end.is_none()) {
            match (green.struck, green.gate) {
                (true, _) => green.end(false),
                (false, true) => green.end(true),
                _ => green.started = true,
            }
        }
        self.release_waiters();
    }

    fn kill(&mut self, number: usize) {
        let green = &mut self.greens[number];
        if green.end.is_some() {
            return;
        }
        green.end(false);
        let switches = green.started;
        self.release_waiters();
        if switches {
            self.settle();
        }
    }

    fn kill_all(&mut self) {
        for green in self.greens.iter_mut().filter(|green| green.member) {
            if green.started { green.struck = true } else { green.end(false) }
        }
        self.release_waiters();
    }
}

#[test]
fn groups_and_links_match_their_model() {
    run("groups_and_links_match_their_model", || {
        for seed in 0..200 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let (group, mut model) = (Group::new(), World::default());
            let gates: Rc<RefCell<Vec<bool>>> = Rc::default();
            let called: Rc<RefCell<Vec<Vec<usize>>>> = Rc::default();
            let mut greens: Vec<Rc<GreenThread<usize>>> = Vec::new();
            let mut links: Vec<(usize, usize, LinkId)> = Vec::new();
            let mut scopes: Vec<(usize, GreenThread<bool>)> = Vec::new();
            let mut waiters: Vec<GreenThread<()>> = Vec::new();
            for step in 0..80 {
                let at = format!("seed {seed}, step {step}");
                let some = random.usize(..greens.len().max(1));
                match random.usize(..12) {
                    0 | 1 => {
                        let number = greens.len();
                        gates.borrow_mut().push(false);
                        called.borrow_mut().push(Vec::new());
                        let gates = gates.clone();
                        let body = move || {
                            while !gates.borrow()[number] {
                                yield_now();
                            }
                            number
                        };
                        let member = random.usize(..2) == 0;
                        greens.push(Rc::new(if member { group.spawn(body).unwrap() } else { spawn(body) }));
                        model.greens.push(Model { member, ..Model::default() });
                    }
                    2 => {
                        let own = group.clone();
                        waiters.push(spawn(move || own.wait_all().unwrap()));
                        model.waiters.push(false);
                        // The new waiter is last in the run queue, so all others run before it.
                        yield_now();
                        model.settle();
                    }
                    _ if greens.is_empty() => {}
                    3 => {
                        let green = &mut model.greens[some];
                        let fresh = green.end.is_none() && !std::mem::replace(&mut green.member, green.end.is_none());
                        assert_eq!(group.add(&greens[some]), fresh, "{at}");
                    }
                    4 => {
                        let was = std::mem::take(&mut model.greens[some].member);
                        if was {
                            model.release_waiters();
                        }
                        assert_eq!(group.discard(&greens[some]), was, "{at}");
                    }
                    5 | 6 => {
                        let (number, called) = (links.len(), called.clone());
                        let call = move || called.borrow_mut()[some].push(number);
                        let (kind, link) = match random.usize(..3) {
                            0 => (Kind::Any, greens[some].link(move |_| call())),
                            1 => (Kind::Value, greens[some].link_value(move |_| call())),
                            _ => (Kind::Error, greens[some].link_error(move |_| call())),
                        };
                        links.push((some, number, link));
                        let green = &mut model.greens[some];
                        match green.end {
                            None => green.links.push((number, kind)),
                            Some(value) if kind.covers(value) => green.called.push(number),
                            Some(_) => {}
                        }
                    }
                    7 if !links.is_empty() => {
                        let (of, number, link) = links[random.usize(..links.len())];
                        let known = &mut model.greens[of].links;
                        let place = known.iter().position(|(other, _)| *other == number);
                        assert_eq!(greens[of].unlink(link), place.is_some(), "{at}");
                        place.map(|place| known.remove(place));
                    }
                    8 => {
                        let own = greens[some].clone();
                        scopes.push((some, spawn(move || own.with_link(|| sleep(LONG)).is_err())));
                    }
                    9 => {
                        gates.borrow_mut()[some] = true;
                        model.greens[some].gate = true;
                    }
                    10 => match random.usize(..3) {
                        0 => {
                            group.kill_all();
                            model.kill_all();
                        }
                        1 if !scopes.is_empty() => {
                            let (_, scope) = scopes.swap_remove(random.usize(..scopes.len()));
                            // A kill of a parked green thread switches. All others are ready, and run before the
                            // killer continues.
                            if scope.kill() == KillOutcome::Ended {
                                model.settle();
                            }
                        }
                        _ => {}
                    },
                    _ => {
                        greens[some].kill();
                        model.kill(some);
                    }
                }
                let real = called.borrow().clone();
                for (number, green) in model.greens.iter().enumerate() {
                    assert_eq!(greens[number].is_finished(), green.end.is_some(), "{at}: {number}");
                    assert_eq!(group.contains(&greens[number]), green.member, "{at}: {number}");
                    assert_eq!(real[number], green.called, "{at}: {number}");
                }
                assert_eq!(group.len(), model.members(), "{at}");
                // Not after each step, so that several steps affect green threads that have not run in between.
                if random.usize(..2) == 0 {
                    continue;
                }
                for _ in 0..3 {
                    yield_now();
                    model.settle();
                }
                for (of, scope) in &scopes {
                    assert_eq!(scope.is_finished(), model.greens[*of].end.is_some(), "{at}");
                }
                assert!(waiters.iter().map(GreenThread::is_finished).eq(model.waiters.iter().copied()), "{at}");
            }
            for green in &greens {
                group.add(green);
            }
            group.kill_all();
            group.wait_all().unwrap();
            for (_, scope) in scopes {
                assert!(scope.join().unwrap(), "seed {seed}");
            }
            for waiter in waiters {
                waiter.join().unwrap();
            }
            drop(greens);
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}
