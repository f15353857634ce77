//! The debug listings of a hub (green threads, listeners, timers), and the switches of reports.

use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::{LONG, SHORT, pipe, quiet_panic};
use crate::support::{is_child, rerun, run};
use greenhub::debug::{
    GreenletInfo, GreenletKind, GreenletState, ListenerInfo, TargetInfo, TimerPurpose, format_green_threads,
    format_hub_listeners, format_hub_timers, greenlets, hub_exceptions, hub_listener_stacks,
    hub_prevent_multiple_readers, hub_timer_stacks, listeners, timers,
};
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::{GreenletId, current_id};
use greenhub::park::WaitReason;
use greenhub::select::Select;
use greenhub::sync::{
    CancellationToken, Event, Mutex, Notify, Queue, RateLimiter, Semaphore, broadcast, mpsc, oneshot, watch,
};
use greenhub::thread::yield_now;
use greenhub::{Builder, GreenThread, Interest, get_hub, sleep, spawn, spawn_after, trampoline, with_timeout};

fn one(id: Option<GreenletId>) -> GreenletInfo {
    let all = greenlets();
    all.into_iter().find(|one| Some(one.id) == id).expect("the green thread has not ended")
}

fn description(target: &TargetInfo) -> String {
    match target {
        TargetInfo::Greenlet { description, .. } => description.clone(),
        other => other.to_string(),
    }
}

#[test]
fn each_green_thread_is_listed_with_its_wait_reason() {
    run("each_green_thread_is_listed_with_its_wait_reason", || {
        let (reader, _writer) = pipe();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let reading = Builder::new()
            .name("reading".into())
            .spawn(move || trampoline(&reader, Interest::READ, Some(LONG)).map(drop))
            .unwrap();
        let sleeping = spawn(|| sleep(LONG));
        // A timer is listed from the next turn on.
        sleep(SHORT);
        let lock = Rc::new(Mutex::new(()));
        let guard = lock.lock().unwrap();
        let locking = spawn({
            let lock = Rc::clone(&lock);
            move || drop(lock.lock())
        });
        let joining = spawn(move || locking.join());
        let yielding = spawn(|| (0..3).for_each(|_| yield_now()));
        yield_now();
        let new = spawn(|| ());
        let later = spawn_after(LONG, || ());

        let found = one(reading.id());
        assert_eq!((found.name.as_deref(), found.kind), (Some("reading"), GreenletKind::GreenThread));
        assert!(found.made_at.is_some_and(|at| at.file() == file!()));
        assert!(matches!(
            found.state,
            GreenletState::Waiting { reason: WaitReason::Descriptor, descriptor: Some((there, Interest::READ)), due_in: Some(_), .. }
                if there == fd
        ));
        let waits = |id, expected| matches!(one(id).state, GreenletState::Waiting { reason, .. } if reason == expected);
        assert!(waits(sleeping.id(), WaitReason::Sleep) && waits(joining.id(), WaitReason::Join));
        assert!(greenlets().iter().any(|one| matches!(
            one.state,
            GreenletState::Waiting { reason: WaitReason::Lock, descriptor: None, future: None, due_in: None }
        )));
        assert_eq!(one(yielding.id()).state, GreenletState::Ready);
        assert_eq!(one(new.id()).state, GreenletState::Unstarted);
        assert!(matches!(one(later.id()).state, GreenletState::Delayed { .. }));
        assert_eq!(one(Some(current_id())).state, GreenletState::Running);
        drop(guard);
        joining.join().unwrap().unwrap();
        sleeping.kill();
        later.kill();
        reading.kill();
    });
}

/// Returns the reason for which each of these green threads waits.
fn reasons<T: 'static>(waiting: &[GreenThread<T>]) -> Vec<WaitReason> {
    let reason = |green: &GreenThread<T>| match one(green.id()).state {
        GreenletState::Waiting { reason, .. } => reason,
        other => panic!("{other}"),
    };
    waiting.iter().map(reason).collect()
}

#[test]
fn a_wait_for_a_channel_is_told_from_a_wait_for_a_queue() {
    run("a_wait_for_a_channel_is_told_from_a_wait_for_a_queue", || {
        let (_sender, receiver) = mpsc::channel::<u8>();
        let (full, _full) = mpsc::sync_channel(1);
        full.send(1).unwrap();
        let (rendezvous, _rendezvous) = mpsc::sync_channel(0);
        let (_once_sender, once) = oneshot::channel::<u8>();
        let (closing_once, _once) = oneshot::channel::<u8>();
        let (_state_sender, mut state) = watch::channel(1);
        let (closing_state, _state) = watch::channel(1);
        let (_news_sender, mut news) = broadcast::channel::<u8>(1);
        let (closing_news, _news) = broadcast::channel::<u8>(1);
        let waiting = [
            spawn(move || _ = receiver.recv()),
            spawn(move || _ = full.send(2)),
            spawn(move || _ = rendezvous.send(1)),
            spawn(move || drop(once.recv())),
            spawn(move || drop(closing_once.closed())),
            spawn(move || drop(state.changed())),
            spawn(move || drop(closing_state.closed())),
            spawn(move || drop(news.recv())),
            spawn(move || drop(closing_news.closed())),
            spawn(|| drop(Queue::<u8>::new().get())),
        ];
        yield_now();
        let found = reasons(&waiting);
        let (queue, channels) = found.split_last().expect("ten reasons");
        assert_eq!(channels, [WaitReason::Channel; 9]);
        assert_eq!(*queue, WaitReason::Queue);
        assert_eq!(format_green_threads().matches("waiting for a channel").count(), 9);
        waiting.iter().for_each(|green| _ = green.kill());
    });
}

#[test]
fn main_the_loop_and_plain_greenlets_are_listed() {
    run("main_the_loop_and_plain_greenlets_are_listed", || {
        sleep(SHORT);
        let plain = Greenlet::new(|_| {
            let kinds: Vec<_> = greenlets().iter().map(|one| one.kind).collect();
            Ok(Payload::new(kinds))
        });
        let kinds = plain.switch(Payload::unit()).unwrap().downcast::<Vec<GreenletKind>>().unwrap();
        for kind in [GreenletKind::Main, GreenletKind::MainLoop, GreenletKind::Plain] {
            assert!(kinds.contains(&kind), "{kinds:?} has no {kind}");
        }
    });
}

#[test]
fn a_plain_greenlet_is_as_old_as_its_begin() {
    run("a_plain_greenlet_is_as_old_as_its_begin", || {
        let older = spawn(|| sleep(LONG));
        sleep(4 * SHORT);
        let plain = Greenlet::new(|_| {
            let plain = greenlets().into_iter().find(|one| one.kind == GreenletKind::Plain);
            Ok(Payload::new(plain.and_then(|plain| plain.age)))
        });
        let age = plain.switch(Payload::unit()).unwrap().downcast::<Option<Duration>>().unwrap();
        let older = one(older.id()).age;
        assert!(age.is_some() && age < older, "{age:?}, {older:?}");
    });
}

#[test]
fn the_waits_for_a_notification_a_cancellation_a_rate_and_several_objects_have_names() {
    run("the_waits_for_a_notification_a_cancellation_a_rate_and_several_objects_have_names", || {
        let waiting = [
            spawn(|| drop(Notify::new().wait())),
            spawn(|| drop(CancellationToken::new().wait())),
            spawn(|| {
                let limiter = RateLimiter::new(1, LONG);
                drop(limiter.acquire().and_then(|()| limiter.acquire()))
            }),
            spawn(|| {
                let event = Event::<()>::new();
                let mut select = Select::new();
                select.wait(&event);
                drop(select.ready())
            }),
        ];
        yield_now();
        let names = [WaitReason::Notification, WaitReason::Cancellation, WaitReason::RateLimit, WaitReason::Select];
        assert_eq!(reasons(&waiting), names);
        waiting.iter().for_each(|green| _ = green.kill());
    });
}

#[test]
fn ages_count_from_before_a_first_wait_without_timers() {
    run("ages_count_from_before_a_first_wait_without_timers", || {
        let waiting = spawn(greenhub::thread::park);
        let (reader, mut writer) = std::io::pipe().unwrap();
        let pause = 20 * SHORT;
        let written = std::thread::spawn(move || {
            std::thread::sleep(pause);
            writer.write_all(b"x")
        });
        trampoline(&reader, Interest::READ, None).unwrap();
        written.join().unwrap().unwrap();
        let age = one(waiting.id()).age;
        assert!(age.is_some_and(|age| age >= pause / 2), "{age:?}");
    });
}

#[test]
fn an_ended_greenlet_is_not_listed() {
    run("an_ended_greenlet_is_not_listed", || {
        sleep(SHORT);
        let before = format_green_threads();
        let ended = spawn(|| ());
        ended.wait().unwrap();
        spawn(|| sleep(LONG)).kill();
        get_hub().schedule(Duration::ZERO, || ());
        assert_eq!(format_green_threads(), before);
    });
}

#[test]
fn listeners_are_listed_with_readers_first() {
    run("listeners_are_listed_with_readers_first", || {
        assert_eq!(format_hub_listeners(), "READERS:\nWRITERS:\n");
        let (first, full) = std::os::unix::net::UnixStream::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut &full, &[0; 4096]).is_ok() {}
        let writing = Builder::new()
            .name("writer".into())
            .spawn(move || trampoline(&full, Interest::WRITE, None).map(drop))
            .unwrap();
        let (reader, _writer) = pipe();
        let registration = get_hub().listen(reader, Interest::READ, |_| ()).unwrap();
        yield_now();
        let text = format_hub_listeners();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (4, "READERS:", "WRITERS:"), "{text}");
        assert!(lines[1].contains("reading from") && lines[1].contains(file!()), "{text}");
        assert!(lines[3].contains("writing to") && lines[3].contains("\"writer\""), "{text}");
        let interests: Vec<_> = listeners().iter().map(|listener| listener.interest).collect();
        assert_eq!(interests, [Interest::READ, Interest::WRITE]);
        drop(registration);
        drop(first);
        writing.join().unwrap().unwrap();
        assert_eq!(format_hub_listeners(), "READERS:\nWRITERS:\n");
    });
}

#[test]
fn queued_waiters_of_a_descriptor_are_listed_in_order() {
    if !is_child() {
        let test = "queued_waiters_of_a_descriptor_are_listed_in_order";
        return assert!(rerun(test, |_| ()).status.success());
    }
    // This setting is process-wide.
    hub_prevent_multiple_readers(false);
    let (reader, writer) = pipe();
    let reader = Rc::new(reader);
    let names = ["first", "second", "third"];
    let waiting = names.map(|name| {
        let reader = Rc::clone(&reader);
        Builder::new().name(name.into()).spawn(move || trampoline(&*reader, Interest::READ, None).map(drop)).unwrap()
    });
    yield_now();
    let found: Vec<ListenerInfo> = listeners();
    assert_eq!(found.iter().map(|one| one.queued).collect::<Vec<_>>(), [false, true, true]);
    for (listener, name) in found.iter().zip(names) {
        assert!(description(&listener.target).contains(name), "{listener}");
    }
    drop(writer);
    waiting.into_iter().for_each(|one| one.join().unwrap().unwrap());
}

#[test]
fn every_timer_is_listed_including_those_of_this_turn() {
    run("every_timer_is_listed_including_those_of_this_turn", || {
        let sleeper = spawn(|| sleep(LONG));
        sleep(SHORT);
        get_hub().schedule(LONG / 2, || ());
        get_hub().schedule(Duration::ZERO, || ());
        let later = spawn_after(LONG, || ());
        with_timeout(LONG, || {
            let all = timers();
            let purposes: Vec<TimerPurpose> = all.iter().map(|timer| timer.purpose).collect();
            assert_eq!(all.len(), get_hub().stats().timers, "{}", format_hub_timers());
            for purpose in [TimerPurpose::Wake, TimerPurpose::Begin, TimerPurpose::Timeout] {
                assert_eq!(purposes.iter().filter(|one| **one == purpose).count(), 1, "{purposes:?}");
            }
            assert_eq!(purposes.iter().filter(|one| **one == TimerPurpose::Call).count(), 2, "{purposes:?}");
            assert!(format_hub_timers().contains("the main greenlet"), "{}", format_hub_timers());
        })
        .unwrap();
        sleeper.kill();
        later.kill();
    });
}

#[test]
fn timers_are_listed_in_order_of_due_time() {
    run("timers_are_listed_in_order_of_due_time", || {
        let hub = get_hub();
        for seconds in [30, 10, 20] {
            hub.schedule(Duration::from_secs(seconds), || ());
        }
        // Lets the next turn begin.
        sleep(SHORT);
        let due: Vec<u64> = timers().iter().map(|timer| timer.due_in.unwrap().as_secs().div_ceil(10)).collect();
        assert_eq!(due, [1, 2, 3]);
        assert!(format_hub_timers().starts_with("TIMERS:\n  in "), "{}", format_hub_timers());
    });
}

#[inline(never)]
fn listen_here() -> greenhub::hub::Registration {
    let (reader, _writer) = pipe();
    get_hub().listen(reader, Interest::READ, |_| ()).unwrap()
}

#[inline(never)]
fn schedule_here() -> greenhub::hub::TimerHandle {
    get_hub().schedule(LONG, || ())
}

#[test]
fn listeners_record_their_creation_stack_on_request() {
    if !is_child() {
        return assert!(rerun("listeners_record_their_creation_stack_on_request", |_| ()).status.success());
    }
    let plain = listen_here();
    assert!(!format_hub_listeners().contains("listen_here"));
    drop(plain);
    hub_listener_stacks(true);
    let asked = listen_here();
    assert!(format_hub_listeners().contains("listen_here"), "{}", format_hub_listeners());
    hub_listener_stacks(false);
    assert!(format_hub_listeners().contains("listen_here"), "the registration has lost its stack");
    drop((asked, listen_here()));
    let _timer = schedule_here();
    assert!(!format_hub_timers().contains("schedule_here"), "the switch for listeners has recorded a timer");
}

#[test]
fn timers_record_their_creation_stack_on_request() {
    if !is_child() {
        return assert!(rerun("timers_record_their_creation_stack_on_request", |_| ()).status.success());
    }
    let plain = schedule_here();
    assert!(!format_hub_timers().contains("schedule_here"));
    plain.cancel();
    hub_timer_stacks(true);
    // The setting holds on green threads and on other hubs too.
    let text = std::thread::spawn(|| {
        let green = spawn(|| {
            let _timer = schedule_here();
            format_hub_timers()
        });
        green.join().unwrap()
    });
    let text = text.join().unwrap();
    assert!(text.contains("schedule_here"), "{text}");
}

#[test]
fn silenced_reports_leave_the_error_to_the_waiter() {
    if !is_child() {
        let output = rerun("silenced_reports_leave_the_error_to_the_waiter", |_| ());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("is reported") && !text.contains("is silenced"), "{text}");
        return;
    }
    drop(spawn(|| Err::<(), _>("is reported")));
    yield_now();
    hub_exceptions(false);
    drop(spawn(|| Err::<(), _>("is silenced")));
    let waited = spawn(|| -> () { quiet_panic("is silenced, too") });
    yield_now();
    assert!(waited.join().unwrap_err().to_string().contains("is silenced, too"));
    hub_exceptions(true);
}

#[test]
fn an_os_thread_without_a_hub_has_empty_listings() {
    std::thread::spawn(|| {
        assert!(greenlets().is_empty() && listeners().is_empty() && timers().is_empty());
        assert!(!greenhub::hub::has_hub(), "listing has started a hub");
    })
    .join()
    .unwrap();
}

#[test]
fn the_listing_names_each_of_many_waiters() {
    run("the_listing_names_each_of_many_waiters", || {
        let room = Rc::new(Semaphore::new(0));
        let waiting: Vec<_> = (0..600)
            .map(|number| {
                let room = Rc::clone(&room);
                Builder::new().name(format!("waiter {number}")).spawn(move || drop(room.acquire())).unwrap()
            })
            .collect();
        yield_now();
        let text = format_green_threads();
        for number in 0..600 {
            assert!(text.contains(&format!("\"waiter {number}\"")), "{number}");
        }
        assert_eq!(text.matches("waiting for a semaphore").count(), 600);
        for one in waiting {
            one.kill();
        }
    });
}
