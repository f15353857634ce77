use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Bell, Inbox, Message, Remote};
use crate::base::dormant::Sleep;
use crate::base::id::HubId;
use crate::hub::Notify;

#[derive(Default)]
struct Notices(AtomicUsize);

impl Notify for Notices {
    fn notify(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Notices {
    fn rung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn inbox() -> (Inbox, Arc<Notices>) {
    let bell = Arc::new(Notices::default());
    let inbox = Inbox::new(HubId::new(7));
    inbox.replace_bell(Bell::Notifier(bell.clone())).unwrap();
    (inbox, bell)
}

fn wake(greenlet: u32) -> Message {
    Message::Wake { greenlet, ticket: 0 }
}

fn names(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| format!("{message:?}")).collect()
}

#[test]
fn post_to_an_awake_hub_does_not_ring() {
    let (inbox, bell) = inbox();
    inbox.mailbox().post(wake(1)).unwrap();
    inbox.mailbox().notify();
    assert!(inbox.has_mail());
    assert_eq!(bell.rung(), 0);
}

#[test]
fn a_sleep_lasts_until_a_message_or_a_notice() {
    let (inbox, _bell) = inbox();
    let lasts = || inbox.mailbox().lasts(0);
    let messages: [fn(&Inbox); 2] = [|inbox| inbox.mailbox().notify(), |inbox| inbox.mailbox().post(wake(1)).unwrap()];
    for post in messages {
        assert!(lasts());
        assert!(inbox.prepare_sleep());
        assert!(lasts());
        post(&inbox);
        assert!(!lasts());
        inbox.woke();
        assert!(!lasts());
        inbox.take(&mut Vec::new());
    }
}

#[test]
fn a_handle_of_the_program_is_distinguished_from_handles_of_jobs() {
    let (inbox, _bell) = inbox();
    let mailbox = inbox.mailbox();
    mailbox.hold_for_job();
    assert!(mailbox.only_jobs_hold());
    mailbox.hold();
    assert!(!mailbox.only_jobs_hold());
    mailbox.release_for_job();
    assert!(!mailbox.only_jobs_hold());
    mailbox.release();
    assert!(mailbox.only_jobs_hold());
}

#[test]
fn many_messages_to_a_sleeping_hub_are_one_ring() {
    let (inbox, bell) = inbox();
    assert!(inbox.prepare_sleep());
    for greenlet in 0..1000 {
        inbox.mailbox().post(wake(greenlet)).unwrap();
        inbox.mailbox().notify();
        inbox.mailbox().interrupt();
    }
    assert_eq!(bell.rung(), 1);
}

#[test]
fn each_sleep_is_ended_by_one_ring() {
    let (inbox, bell) = inbox();
    for sleep in 1..=3 {
        assert!(inbox.prepare_sleep());
        inbox.mailbox().notify();
        inbox.woke();
        assert!(inbox.take(&mut Vec::new()));
        assert_eq!(bell.rung(), sleep);
    }
}

#[test]
fn a_hub_that_woke_by_itself_is_not_rung() {
    let (inbox, bell) = inbox();
    assert!(inbox.prepare_sleep());
    inbox.woke();
    inbox.mailbox().post(wake(1)).unwrap();
    assert_eq!(bell.rung(), 0);
}

#[test]
fn mail_prevents_a_sleep() {
    let (inbox, _) = inbox();
    inbox.mailbox().post(wake(1)).unwrap();
    assert!(!inbox.prepare_sleep());
    assert!(inbox.take(&mut Vec::new()));
    inbox.mailbox().notify();
    assert!(!inbox.prepare_sleep());
    assert!(inbox.take(&mut Vec::new()));
    assert!(inbox.prepare_sleep());
}

#[test]
fn messages_are_appended_in_order() {
    let (inbox, _) = inbox();
    let mut messages = vec![wake(0)];
    inbox.mailbox().notify();
    for greenlet in 1..4 {
        inbox.mailbox().post(wake(greenlet)).unwrap();
        inbox.mailbox().notify();
    }
    assert!(inbox.take(&mut messages));
    assert_eq!(names(&messages), ["Wake(0, 0)", "Wake(1, 0)", "Wake(2, 0)", "Wake(3, 0)"]);
    assert!(!inbox.take(&mut messages));
}

#[test]
fn messages_of_each_thread_stay_in_order() {
    let (inbox, _) = inbox();
    let posters: Vec<_> = (0..4)
        .map(|poster| {
            let mailbox = Arc::clone(inbox.mailbox());
            thread::spawn(move || {
                for ticket in 0..1000 {
                    mailbox.post(Message::Wake { greenlet: poster, ticket }).unwrap();
                }
            })
        })
        .collect();
    let mut messages = Vec::new();
    while messages.len() < 4000 {
        inbox.take(&mut messages);
    }
    for poster in posters {
        poster.join().unwrap();
    }
    let mut next = [0; 4];
    for message in messages {
        let Message::Wake { greenlet, ticket } = message else { panic!("not posted: {message:?}") };
        assert_eq!(ticket, next[greenlet as usize]);
        next[greenlet as usize] += 1;
    }
}

#[test]
fn an_interrupt_is_mail_and_is_taken_once() {
    let (inbox, _) = inbox();
    inbox.mailbox().interrupt();
    inbox.mailbox().interrupt();
    assert!(inbox.take(&mut Vec::new()));
    assert!(inbox.take_interrupt());
    assert!(!inbox.take_interrupt());
}

#[test]
fn a_gone_hub_gives_the_message_back() {
    let (inbox, _) = inbox();
    let mailbox = Arc::clone(inbox.mailbox());
    drop(inbox);
    let (sender, receiver) = std::sync::mpsc::channel();
    let Err(Message::Spawn(_, run, _)) =
        mailbox.post(Message::Spawn(Location::caller(), Box::new(move || sender.send(3).unwrap()), None))
    else {
        panic!("the message was not given back");
    };
    run();
    assert_eq!(receiver.recv(), Ok(3));
}

#[test]
fn close_returns_unread_messages_and_drops_the_bell() {
    let (inbox, bell) = inbox();
    let mailbox = Arc::clone(inbox.mailbox());
    mailbox.post(wake(1)).unwrap();
    mailbox.post(wake(2)).unwrap();
    assert_eq!(names(&inbox.close()), ["Wake(1, 0)", "Wake(2, 0)"]);
    assert_eq!(Arc::strong_count(&bell), 1);
    mailbox.notify();
    mailbox.interrupt();
    assert_eq!(bell.rung(), 0);
    assert!(!inbox.has_mail());
}

#[test]
fn a_replaced_bell_is_dropped_and_the_new_one_rings() {
    let (inbox, old) = inbox();
    let new = Arc::new(Notices::default());
    inbox.replace_bell(Bell::Notifier(new.clone())).unwrap();
    assert_eq!(Arc::strong_count(&old), 1);
    assert!(inbox.prepare_sleep());
    inbox.mailbox().notify();
    assert_eq!((old.rung(), new.rung()), (0, 1));
}

#[test]
fn a_bell_that_panics_does_not_keep_the_inbox_from_closing() {
    struct Broken;
    impl Notify for Broken {
        fn notify(&self) {
            std::panic::resume_unwind(Box::new("broken"));
        }
    }
    let inbox = Inbox::new(HubId::new(7));
    inbox.replace_bell(Bell::Notifier(Arc::new(Broken))).unwrap();
    assert!(inbox.prepare_sleep());
    catch_unwind(AssertUnwindSafe(|| inbox.mailbox().notify())).unwrap_err();
    inbox.close();
}

#[test]
fn handles_of_users_are_counted() {
    let (inbox, _) = inbox();
    assert_eq!(inbox.mailbox().users(), 0);
    let first = Remote::new(inbox.mailbox());
    let second = first.clone();
    assert_eq!(inbox.mailbox().users(), 2);
    drop(first);
    drop(second);
    assert_eq!(inbox.mailbox().users(), 0);
}

#[test]
fn only_the_drop_of_the_last_handle_wakes_the_hub() {
    let (inbox, bell) = inbox();
    let first = Remote::new(inbox.mailbox());
    let second = first.clone();
    assert!(inbox.prepare_sleep());
    drop(first);
    assert_eq!(bell.rung(), 0);
    drop(second);
    assert_eq!(bell.rung(), 1);
}

#[test]
fn a_remote_sends_closures_and_the_stop_in_order() {
    let (inbox, _) = inbox();
    let remote = Remote::new(inbox.mailbox());
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    remote.spawn(move || _ = count.fetch_add(1, Ordering::SeqCst)).unwrap();
    remote.stop().unwrap();
    let mut messages = Vec::new();
    inbox.take(&mut messages);
    assert_eq!(names(&messages), ["Spawn", "Stop"]);
    let Message::Spawn(_, f, _) = messages.swap_remove(0) else { panic!("not a closure") };
    f();
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[test]
fn a_remote_of_a_gone_hub_returns_an_error_and_drops_the_closure() {
    let (inbox, _) = inbox();
    let remote = Remote::new(inbox.mailbox());
    assert!(!remote.is_gone());
    drop(inbox);
    assert!(remote.is_gone());
    let held = Arc::new(());
    let inside = Arc::clone(&held);
    let error = remote.spawn(move || drop(inside)).unwrap_err();
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(
        error.to_string(),
        "cannot spawn a green thread on hub 7: its OS thread has ended, or was left behind by a fork"
    );
    assert_eq!(error.hub_id(), HubId::new(7));
    assert!(remote.stop().is_err());
}

#[test]
fn a_renumbered_hub_is_named_by_its_new_number() {
    let (inbox, _) = inbox();
    let remote = Remote::new(inbox.mailbox());
    inbox.renumber(HubId::new(8));
    assert_eq!(remote.hub_id(), HubId::new(8));
}

#[test]
fn a_remote_crosses_threads() {
    fn crosses<T: Send + Sync + Clone + 'static>() {}
    crosses::<Remote>();
}

mod forked {
    use super::*;
    use crate::base::fork::tests::holds_in_child;
    use std::cell::RefCell;

    thread_local! {
        static MADE: RefCell<Option<(Inbox, Arc<Notices>)>> = const { RefCell::new(None) };
    }

    /// Makes an inbox before the fork, for `look` in the child.
    fn child_sees(look: fn() -> bool) {
        MADE.set(Some(inbox()));
        assert!(holds_in_child(look));
    }

    fn with<R>(look: impl FnOnce(&Inbox, &Notices) -> R) -> R {
        MADE.with_borrow(|made| {
            let (inbox, bell) = made.as_ref().expect("the inbox was made");
            look(inbox, bell)
        })
    }

    #[test]
    fn the_parents_bell_is_not_rung_by_the_child() {
        child_sees(|| {
            with(|inbox, bell| {
                inbox.prepare_sleep();
                inbox.mailbox().post(wake(1)).is_ok() && bell.rung() == 0 && inbox.has_mail()
            })
        });
    }

    #[test]
    fn a_child_with_a_new_bell_keeps_its_messages() {
        MADE.set(Some(inbox()));
        with(|inbox, _| inbox.mailbox().post(wake(1)).unwrap());
        assert!(holds_in_child(|| {
            with(|inbox, old| {
                let new = Arc::new(Notices::default());
                inbox.replace_bell(Bell::Notifier(new.clone())).unwrap();
                let mut messages = Vec::new();
                inbox.take(&mut messages);
                inbox.prepare_sleep();
                inbox.mailbox().notify();
                messages.len() == 1 && (old.rung(), new.rung()) == (0, 1)
            })
        }));
        with(|inbox, _| assert!(inbox.has_mail()));
    }

    #[test]
    fn a_hub_of_a_thread_left_behind_is_gone_in_the_child() {
        static REMOTE: std::sync::Mutex<Option<Remote>> = std::sync::Mutex::new(None);
        let (inbox, _) = inbox();
        *REMOTE.lock().unwrap() = Some(Remote::new(inbox.mailbox()));
        let forker = thread::spawn(|| {
            holds_in_child(|| {
                let remote = REMOTE.lock().unwrap();
                let remote = remote.as_ref().expect("the remote was made");
                remote.is_gone() && remote.spawn(|| ()).is_err()
            })
        });
        assert!(forker.join().unwrap());
        assert!(!REMOTE.lock().unwrap().take().unwrap().is_gone());
    }
}
