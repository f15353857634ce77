//! The interleavings of posters and a sleeper, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p hub-core --release --lib model`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::{Bell, Inbox, Message};
use crate::base::id::HubId;
use crate::hub::Notify;

/// A bell whose sleeper really blocks, so that loom finds a lost wake-up as a deadlock.
#[derive(Default)]
struct Notices {
    heard: Mutex<bool>,
    ringing: Condvar,
    /// std's atomic, since it is only counted and orders nothing.
    rung: AtomicUsize,
}

impl Notify for Notices {
    fn notify(&self) {
        self.rung.fetch_add(1, Relaxed);
        *self.heard.lock().unwrap() = true;
        self.ringing.notify_one();
    }
}

impl Notices {
    fn sleep(&self) {
        let mut heard = self.heard.lock().unwrap();
        while !*heard {
            heard = self.ringing.wait(heard).unwrap();
        }
        *heard = false;
    }
}

/// Checks the interleavings of three threads, with at most three switches away from a thread that could go on. Without
/// a bound there are too many.
fn three_threads(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn inbox() -> (Inbox, Arc<Notices>) {
    let bell = Arc::new(Notices::default());
    let inbox = Inbox::new(HubId::new(1));
    inbox.replace_bell(Bell::Notifier(bell.clone())).unwrap();
    (inbox, bell)
}

/// Runs the loop: sleeps until `done` accepts the messages. Returns the number of sleeps.
fn run(inbox: &Inbox, bell: &Notices, mut done: impl FnMut(&[Message]) -> bool) -> usize {
    let mut messages = Vec::new();
    let mut sleeps = 0;
    loop {
        inbox.take(&mut messages);
        if done(&messages) {
            return sleeps;
        }
        if inbox.prepare_sleep() {
            sleeps += 1;
            bell.sleep();
            inbox.woke();
        }
    }
}

#[test]
fn no_message_of_two_posters_is_slept_through_and_each_sleep_has_one_ring() {
    three_threads(|| {
        let (inbox, bell) = inbox();
        let posters: Vec<_> = [1, 2]
            .map(|greenlet| {
                let mailbox = Arc::clone(inbox.mailbox());
                thread::spawn(move || mailbox.post(Message::Wake { greenlet, ticket: 0 }).unwrap())
            })
            .into();
        let sleeps = run(&inbox, &bell, |messages| messages.len() == 2);
        for poster in posters {
            poster.join().unwrap();
        }
        assert!(bell.rung.load(Relaxed) <= sleeps);
    });
}

#[test]
fn a_ring_that_is_put_off_ends_the_sleep() {
    three_threads(|| {
        let (inbox, bell) = inbox();
        let mailbox = Arc::clone(inbox.mailbox());
        let late = thread::spawn(move || {
            let bell = mailbox.post_silently(Message::Stop).unwrap();
            thread::yield_now();
            if let Some(bell) = bell {
                bell.ring();
            }
        });
        let mailbox = Arc::clone(inbox.mailbox());
        let other = thread::spawn(move || mailbox.post(Message::Stop).unwrap());
        run(&inbox, &bell, |messages| messages.len() == 2);
        late.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn an_interrupt_is_never_hidden_by_a_pending_notice() {
    three_threads(|| {
        let (inbox, bell) = inbox();
        let mailbox = Arc::clone(inbox.mailbox());
        let notifier = thread::spawn(move || mailbox.notify());
        let mailbox = Arc::clone(inbox.mailbox());
        let interrupter = thread::spawn(move || mailbox.interrupt());
        let sleeps = run(&inbox, &bell, |_| inbox.take_interrupt());
        notifier.join().unwrap();
        interrupter.join().unwrap();
        assert!(bell.rung.load(Relaxed) <= sleeps);
    });
}

#[test]
fn the_last_release_is_never_slept_through() {
    loom::model(|| {
        let (inbox, bell) = inbox();
        let mailbox = Arc::clone(inbox.mailbox());
        mailbox.hold();
        let user = thread::spawn(move || mailbox.release());
        run(&inbox, &bell, |_| inbox.mailbox().users() == 0);
        user.join().unwrap();
    });
}

#[test]
fn a_message_is_either_returned_by_close_or_refused() {
    loom::model(|| {
        let (inbox, _bell) = inbox();
        let mailbox = Arc::clone(inbox.mailbox());
        let poster = thread::spawn(move || mailbox.post(Message::Stop).is_err());
        inbox.prepare_sleep();
        let left = inbox.close().len();
        let given_back = usize::from(poster.join().unwrap());
        assert_eq!(left + given_back, 1);
    });
}

#[test]
fn a_bell_is_not_replaced_while_it_is_rung() {
    loom::model(|| {
        let (inbox, _bell) = inbox();
        let mailbox = Arc::clone(inbox.mailbox());
        let poster = thread::spawn(move || mailbox.notify());
        inbox.prepare_sleep();
        inbox.replace_bell(Bell::Notifier(Arc::new(Notices::default()))).unwrap();
        poster.join().unwrap();
    });
}
