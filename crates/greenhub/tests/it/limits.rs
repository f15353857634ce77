//! Limits of waits: one form of argument, and results that tell "not now" from "timed out".

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::support::green::SHORT;
use crate::support::run;
use greenhub::hub::Interest;
use greenhub::park::{Deadline, Parked, Parker, ReadyList, Source, WaitReason, Waitable, trampoline_raw};
use greenhub::sync::{
    BoundedSemaphore, CancellationToken, CappedSemaphore, Channel, Event, GetError, LightQueue, Notify, PutError,
    Queue, Semaphore, WaitError, broadcast, oneshot, watch,
};
use greenhub::{GreenError, Trampoline, TrampolineError, get_hub, select, spawn, trampoline, with_timeout};

/// Returns a pipe of which nothing can be read.
fn silent() -> (io::PipeReader, io::PipeWriter) {
    io::pipe().expect("a pipe")
}

fn is_timed_out(error: impl Into<io::Error>) {
    let error = error.into();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("timed out"), "{error}");
}

fn would_block(error: impl Into<io::Error>) {
    let error = error.into();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
}

#[test]
fn a_queue_tells_not_now_from_timed_out() {
    run("a_queue_tells_not_now_from_timed_out", || {
        let queue = Queue::bounded(1);
        assert!(matches!(queue.try_get(), Err(GetError::Empty)));
        assert!(matches!(queue.get_timeout(SHORT), Err(GetError::TimedOut)));
        queue.put(1).expect("the queue has room");
        assert!(matches!(queue.try_put(2), Err(PutError::Full(2))));
        assert!(matches!(queue.put_timeout(3, SHORT), Err(PutError::TimedOut(3))));
        would_block(queue.try_put(2).unwrap_err());
        is_timed_out(queue.put_timeout(3, Duration::ZERO).unwrap_err());
        assert_eq!(queue.get().expect("an item"), 1);
        would_block(queue.try_get().unwrap_err());
        is_timed_out(queue.get_timeout(Duration::ZERO).unwrap_err());
        let rendezvous: LightQueue<()> = LightQueue::bounded(0);
        assert!(matches!(rendezvous.put_timeout((), SHORT), Err(PutError::TimedOut(()))));
    });
}

#[test]
fn a_channel_of_messages_tells_not_now_from_timed_out_and_closed() {
    fn is_closed(error: impl Into<io::Error>) {
        assert_eq!(error.into().kind(), io::ErrorKind::BrokenPipe);
    }
    run("a_channel_of_messages_tells_not_now_from_timed_out_and_closed", || {
        let (sender, receiver) = oneshot::channel::<u8>();
        would_block(receiver.try_recv().unwrap_err());
        is_timed_out(receiver.recv_timeout(SHORT).unwrap_err());
        is_timed_out(sender.closed_timeout(SHORT).unwrap_err());
        drop(sender);
        is_closed(receiver.try_recv().unwrap_err());
        is_closed(receiver.recv_timeout(SHORT).unwrap_err());
        is_closed(receiver.recv().unwrap_err());
        let (sender, mut receiver) = watch::channel(1);
        assert!(!receiver.has_changed().expect("the channel is open"));
        is_timed_out(receiver.changed_timeout(Duration::ZERO).unwrap_err());
        is_timed_out(receiver.wait_for_timeout(SHORT, |&n| n == 2).unwrap_err());
        is_timed_out(sender.closed_timeout(SHORT).unwrap_err());
        drop(sender);
        is_closed(receiver.changed_timeout(SHORT).unwrap_err());
        is_closed(receiver.changed().unwrap_err());
        let (sender, mut receiver) = broadcast::channel::<u8>(1);
        would_block(receiver.try_recv().unwrap_err());
        is_timed_out(receiver.recv_timeout(SHORT).unwrap_err());
        is_timed_out(sender.closed_timeout(SHORT).unwrap_err());
        drop(sender);
        is_closed(receiver.try_recv().unwrap_err());
        is_closed(receiver.recv_timeout(SHORT).unwrap_err());
        is_closed(receiver.recv().unwrap_err());
    });
}

#[test]
fn a_notification_and_a_token_tell_not_now_from_timed_out() {
    run("a_notification_and_a_token_tell_not_now_from_timed_out", || {
        let notify = Notify::new();
        assert!(!notify.try_wait());
        is_timed_out(notify.wait_timeout(SHORT).unwrap_err());
        let token = CancellationToken::new();
        assert!(!token.is_cancelled());
        is_timed_out(token.wait_timeout(Duration::ZERO).unwrap_err());
    });
}

#[test]
fn a_semaphore_tells_not_now_from_timed_out() {
    run("a_semaphore_tells_not_now_from_timed_out", || {
        let semaphore = Semaphore::new(0);
        assert!(!semaphore.try_acquire() && semaphore.try_access().is_none());
        assert!(matches!(semaphore.acquire_timeout(SHORT), Err(WaitError::TimedOut)));
        is_timed_out(semaphore.access_timeout(SHORT).unwrap_err());
        semaphore.release();
        semaphore.acquire_timeout(SHORT).expect("a permit");
        semaphore.release();
        drop(semaphore.access_timeout(SHORT).expect("a permit"));
        let bounded = BoundedSemaphore::new(1);
        let _permit = bounded.access_timeout(SHORT).expect("a permit");
        is_timed_out(bounded.acquire_timeout(SHORT).unwrap_err());
        let capped = CappedSemaphore::new(1, 1).expect("below the limit");
        assert!(!capped.try_release());
        is_timed_out(capped.release_timeout(SHORT).unwrap_err());
        capped.acquire_timeout(SHORT).expect("a permit");
        is_timed_out(capped.acquire_timeout(SHORT).unwrap_err());
        capped.release_timeout(SHORT).expect("the semaphore has room");
    });
}

#[test]
fn an_event_tells_its_own_timeout_from_the_error_that_was_sent() {
    run("an_event_tells_its_own_timeout_from_the_error_that_was_sent", || {
        let event: Event<u8> = Event::new();
        assert!(event.poll().is_none());
        let late = event.wait_timeout(SHORT).unwrap_err();
        assert!(matches!(late, GreenError::TimedOut) && late.is_timeout());
        is_timed_out(late);
        let scoped = spawn(|| with_timeout(SHORT, || greenhub::thread::park()).unwrap_err()).join().expect("no panic");
        event.send_error(GreenError::Timeout(scoped)).expect("the event is fresh");
        assert!(matches!(event.wait_timeout(SHORT), Err(GreenError::Timeout(_))));
        event.reset().expect("the event was sent");
        event.send(7).expect("the event is fresh");
        assert_eq!(event.wait_timeout(SHORT).expect("the event was sent"), 7);

        let channel: Channel<u8> = Channel::bounded(1);
        is_timed_out(channel.wait_timeout(SHORT).unwrap_err());
        channel.send(7).expect("the channel has room");
        assert_eq!(channel.wait_timeout(SHORT).expect("an item was sent"), 7);
    });
}

#[test]
fn a_ready_list_ends_without_an_item_at_its_limit() {
    run("a_ready_list_ends_without_an_item_at_its_limit", || {
        let (list, green) = (ReadyList::new(), spawn(greenhub::thread::park));
        let left = green.leave(list.mark(7));
        assert_eq!(list.next(&mut Deadline::from(SHORT)).expect("the main greenlet can wait"), None);
        green.kill();
        assert_eq!(list.next(&mut Deadline::from(SHORT)).expect("the main greenlet can wait"), Some(7));
        green.take_back(left);
    });
}

#[test]
fn a_limit_is_none_or_some_duration_or_a_duration() {
    run("a_limit_is_none_or_some_duration_or_a_duration", || {
        let (reader, mut writer) = silent();
        is_timed_out(trampoline(&reader, Interest::READ, SHORT).unwrap_err());
        is_timed_out(trampoline(&reader, Interest::READ, Some(SHORT)).unwrap_err());
        is_timed_out(Trampoline::new(&reader).read().timeout(SHORT).wait().unwrap_err());
        // SAFETY: `reader` keeps the number open.
        let raw = unsafe { trampoline_raw(reader.as_raw_fd(), Interest::READ, SHORT) };
        assert!(matches!(raw, Err(TrampolineError::TimedOut { fd }) if fd == reader.as_raw_fd()));
        let (readable, _) = select::select::<_, &io::PipeReader>(&[&reader], &[], SHORT).expect("a look");
        assert!(readable.is_empty());
        let mut fds = [select::PollFd::new(&reader, Interest::READ)];
        assert_eq!(select::poll(&mut fds, SHORT).expect("a look"), 0);
        get_hub().run_once(Duration::ZERO).expect("a turn");
        get_hub().run_once(Some(Duration::ZERO)).expect("a turn");
        let parker = Parker::new(WaitReason::Event).expect("the main greenlet can wait");
        assert_eq!(parker.park(&mut Deadline::from(SHORT)).expect("the main greenlet can wait"), Parked::TimedOut);

        io::Write::write_all(&mut writer, b"x").expect("the buffer has room");
        trampoline(&reader, Interest::READ, None).expect("the descriptor becomes readable");
        assert_eq!(select::poll(&mut fds, None).expect("the descriptor becomes readable"), 1);
        let source = Source::new(reader.into()).expect("a source");
        source.wait(Interest::READ, None).expect("the descriptor becomes readable");
        source.wait(Interest::READ, SHORT).expect("the descriptor becomes readable");
        let end = get_hub().shutdown(SHORT).expect("the main greenlet");
        assert!(end.is_complete());
    });
}
