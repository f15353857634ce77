use super::*;
use crate::base::fork::tests::holds_in_child;
use crate::base::id::HubId;
use crate::main_loop::remote::Inbox;

fn wait(thread: u64) -> WaitId {
    WaitId { thread, greenlet: NonZeroU64::MIN, ticket: 1 }
}

#[test]
fn a_wait_lasts_until_its_unpark() {
    let plain = Plain::default();
    let ticket = plain.begin();
    assert!(plain.lasts(ticket));
    assert!(plain.end(ticket));
    plain.wake();
    assert!(!plain.lasts(ticket));
}

#[test]
fn an_ended_thread_has_no_entry() {
    let thread = std::thread::spawn(|| {
        local::get();
        // Enters the OS thread without its own thread-local, whose destructor would remove the entry.
        threads().expect("forks are noticed");
        abandon(std::iter::once(7));
        fork::this_thread()
    });
    let thread = thread.join().expect("no panic");
    assert!(!threads().expect("forks are noticed").lock().reach.contains_key(&thread));
}

#[test]
fn an_early_wake_up_waits_for_the_mailbox_of_the_childs_first_thread() {
    fork::install().expect("forks are noticed");
    fork::this_thread();
    assert!(holds_in_child(|| {
        let threads = Threads::default();
        let (first, other) = (fork::this_thread(), fork::this_thread() + 1);
        let (inbox, others) = (Inbox::new(HubId::new(1)), Inbox::new(HubId::new(2)));
        let early = threads.unpark(wait(first));
        threads.register(other, |reach| reach.mailbox = Some(Arc::clone(others.mailbox())));
        // By a wait of the OS thread as a whole, before its loop registers.
        threads.register(first, |reach| reach.plain = Some(Arc::default()));
        let too_early = inbox.has_mail() || others.has_mail();
        threads.register(first, |reach| reach.mailbox = Some(Arc::clone(inbox.mailbox())));
        early && !too_early && inbox.has_mail() && !others.has_mail()
    }));
}
