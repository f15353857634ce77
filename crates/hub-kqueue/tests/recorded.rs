//! The calls that the hub makes and how it handles the answers, over a recorder that answers from a list.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Readiness, Ready, Rearm, Watched};
use hub_kqueue::{Event, Filter, Kevent, KqueueHub};
use rustix::io::Errno;

/// The arguments of one call of `kevent`.
#[derive(Clone, PartialEq, Debug)]
struct Call {
    queue: RawFd,
    changes: Vec<Event>,
    room: usize,
    timeout: Option<(i64, i32)>,
}

enum Answer {
    Fails(Errno),
    /// The error of each change, if any. Changes beyond the list get no answer.
    Changes(Vec<Option<Errno>>),
    Events(Vec<Event>),
}

#[derive(Default)]
struct Record {
    calls: Vec<Call>,
    answers: VecDeque<Answer>,
    no_queue: bool,
}

#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Record>>);

impl Kevent for Recorder {
    fn kqueue(&mut self) -> io::Result<OwnedFd> {
        if self.0.borrow().no_queue {
            return Err(Errno::MFILE.into());
        }
        Ok(File::open("/dev/null")?.into())
    }

    fn kevent(
        &mut self,
        queue: BorrowedFd<'_>,
        changes: &[Event],
        events: &mut [Event],
        timeout: Option<(i64, i32)>,
    ) -> io::Result<usize> {
        let mut record = self.0.borrow_mut();
        record.calls.push(Call { queue: queue.as_raw_fd(), changes: changes.to_vec(), room: events.len(), timeout });
        let list = match record.answers.pop_front() {
            Some(Answer::Fails(errno)) => return Err(errno.into()),
            Some(Answer::Events(list)) => list,
            Some(Answer::Changes(errors)) => {
                let answer = |(change, errno): (&Event, Option<Errno>)| Event {
                    flags: Event::ERROR,
                    data: errno.map_or(0, |errno| errno.raw_os_error().into()),
                    ..*change
                };
                changes.iter().zip(errors).map(answer).collect()
            }
            None => changes.iter().map(|change| Event { flags: Event::ERROR, data: 0, ..*change }).collect(),
        };
        let count = list.len().min(events.len());
        events[..count].copy_from_slice(&list[..count]);
        if list.len() > count {
            record.answers.push_front(Answer::Events(list[count..].to_vec()));
        }
        Ok(count)
    }
}

impl Recorder {
    fn hub(&self) -> KqueueHub {
        KqueueHub::with(Box::new(self.clone())).unwrap()
    }

    fn will_answer(&self, answer: Answer) {
        self.0.borrow_mut().answers.push_back(answer);
    }

    /// Takes the recorded change lists as (flags, filter), without `RECEIPT`, which every change must have.
    fn changes(&self) -> Vec<Vec<(u16, Filter)>> {
        let calls = std::mem::take(&mut self.0.borrow_mut().calls);
        let short = |change: &Event| {
            assert_ne!(change.flags & Event::RECEIPT, 0, "a change requests no receipt");
            (change.flags & !Event::RECEIPT, change.filter)
        };
        calls.iter().map(|call| call.changes.iter().map(short).collect()).collect()
    }

    fn last(&self) -> Call {
        self.0.borrow().calls.last().unwrap().clone()
    }
}

const ADD: u16 = Event::ADD | Event::CLEAR;

fn pipe() -> (PipeReader, PipeWriter) {
    io::pipe().unwrap()
}

fn key(fd: &impl AsRawFd) -> Key {
    Key::new(fd.as_raw_fd(), 7)
}

fn watch(hub: &mut KqueueHub, fd: &(impl AsFd + AsRawFd), interest: Interest) -> io::Result<()> {
    hub.watch(key(fd), fd.as_fd(), interest, Lease::Life)
}

fn wait(hub: &mut KqueueHub) -> Vec<(Key, Readiness)> {
    let mut ready = Ready::new();
    hub.wait(&Watched::new(), Some(Duration::ZERO), &mut ready).unwrap();
    ready.reports().to_vec()
}

fn event(fd: &impl AsRawFd, filter: Filter, flags: u16) -> Event {
    Event { number: fd.as_raw_fd(), filter, flags: flags | Event::CLEAR, fflags: 0, data: 1, generation: 7 }
}

#[cfg(target_os = "linux")]
#[test]
fn a_system_without_kqueue_is_unsupported() {
    assert!(!(hub_kqueue::DESCRIPTOR.available)());
    assert_eq!(KqueueHub::new().unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn each_direction_is_added_with_the_generation_of_its_key() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    assert_eq!(hub.rearm(), Rearm::Automatic);
    watch(&mut hub, &reader, Interest::BOTH).unwrap();
    let call = recorder.last();
    assert!(call.changes.iter().all(|it| it.number == reader.as_raw_fd() && it.generation == 7), "{call:?}");
    assert_eq!(recorder.changes(), [[(ADD, Filter::Read), (ADD, Filter::Write)]]);
}

#[test]
fn the_buffer_of_a_change_holds_the_answers_and_no_event() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::BOTH).unwrap();
    let call = recorder.last();
    assert_eq!((call.changes.len(), call.room, call.timeout), (2, 2, Some((0, 0))));
}

#[test]
fn watching_again_deletes_the_old_filters_and_adds_the_new_ones() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::BOTH).unwrap();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    let (delete, add) = (Event::DELETE, ADD);
    assert_eq!(
        recorder.changes()[1..],
        [
            vec![(delete, Filter::Read), (delete, Filter::Write), (add, Filter::Read)],
            vec![(delete, Filter::Read), (add, Filter::Read)]
        ]
    );
}

#[test]
fn watching_again_succeeds_if_the_system_dropped_the_registration() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    recorder.will_answer(Answer::Changes(vec![Some(Errno::NOENT), None]));
    watch(&mut hub, &reader, Interest::READ).unwrap();
}

#[test]
fn a_refused_direction_removes_the_other_direction() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Changes(vec![None, Some(Errno::NOMEM)]));
    let error = watch(&mut hub, &reader, Interest::BOTH).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOMEM));
    let undone = vec![(Event::DELETE, Filter::Read), (Event::DELETE, Filter::Write)];
    assert_eq!(recorder.changes()[1..], [undone], "the failed change was not undone");
    hub.forget(key(&reader), Some(reader.as_fd()));
    assert!(recorder.changes().is_empty(), "the hub has changed a number that it does not watch");
}

#[test]
fn watching_a_closed_number_returns_ebadf() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Changes(vec![Some(Errno::BADF)]));
    let error = watch(&mut hub, &reader, Interest::READ).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::BADF));
}

#[test]
fn watching_an_unsupported_file_returns_eperm() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Changes(vec![Some(Errno::INVAL)]));
    let error = watch(&mut hub, &reader, Interest::READ).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM));
    for path in [std::env::current_exe().unwrap(), std::env::temp_dir()] {
        let file = File::open(path).unwrap();
        recorder.changes();
        let error = watch(&mut hub, &file, Interest::READ).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM));
        assert!(recorder.changes().is_empty(), "a system call was made");
    }
}

#[test]
fn a_change_without_an_answer_is_an_error() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Changes(vec![None]));
    assert_eq!(watch(&mut hub, &reader, Interest::BOTH).unwrap_err().kind(), io::ErrorKind::Other);
}

#[test]
fn an_interrupted_change_is_submitted_again() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Fails(Errno::INTR));
    watch(&mut hub, &reader, Interest::READ).unwrap();
    assert_eq!(recorder.changes(), vec![vec![(ADD, Filter::Read)]; 2]);
}

#[test]
fn a_timer_reports_the_hang_up_of_a_pipe_without_a_reader() {
    let (recorder, (_reader, writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Changes(vec![Some(Errno::PIPE)]));
    watch(&mut hub, &writer, Interest::WRITE).unwrap();
    let timer = recorder.last().changes[0];
    assert_eq!((timer.filter, timer.data, timer.generation), (Filter::Timer, 1, 7));
    assert_eq!(recorder.changes()[1], [(Event::ADD | Event::ONESHOT, Filter::Timer)]);
    recorder.will_answer(Answer::Events(vec![event(&writer, Filter::Timer, Event::ONESHOT)]));
    assert_eq!(wait(&mut hub), [(key(&writer), Readiness::HANGUP)]);
}

#[test]
fn a_timer_of_a_forgotten_number_is_not_reported() {
    let (recorder, (_reader, writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Changes(vec![Some(Errno::PIPE)]));
    watch(&mut hub, &writer, Interest::WRITE).unwrap();
    hub.forget(key(&writer), Some(writer.as_fd()));
    recorder.will_answer(Answer::Events(vec![event(&writer, Filter::Timer, Event::ONESHOT)]));
    assert_eq!(wait(&mut hub), []);
}

#[test]
fn forget_deletes_the_filters_of_open_numbers_only() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    recorder.changes();
    recorder.will_answer(Answer::Changes(vec![Some(Errno::NOENT)]));
    hub.forget(key(&reader), Some(reader.as_fd()));
    assert_eq!(recorder.changes(), [[(Event::DELETE, Filter::Read)]]);
    watch(&mut hub, &reader, Interest::READ).unwrap();
    recorder.changes();
    hub.forget(key(&reader), None);
    assert!(recorder.changes().is_empty(), "the hub has changed a number that may be another file by now");
}

#[test]
fn events_are_reported_under_the_generation_that_they_carry() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::BOTH).unwrap();
    let old = Event { generation: 6, ..event(&reader, Filter::Read, 0) };
    let new = event(&reader, Filter::Write, Event::EOF);
    recorder.will_answer(Answer::Events(vec![old, new]));
    let stale = Key::new(reader.as_raw_fd(), 6);
    assert_eq!(wait(&mut hub), [(stale, Readiness::READ), (key(&reader), Readiness::HANGUP)]);
}

#[test]
fn events_beyond_a_batch_come_with_the_next_wait() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    recorder.will_answer(Answer::Events(vec![event(&reader, Filter::Read, 0); 300]));
    let (first, second) = (wait(&mut hub).len(), wait(&mut hub).len());
    assert_eq!((first + second, first), (300, recorder.last().room));
}

#[test]
fn a_batch_of_dropped_events_hides_no_report() {
    let (recorder, (reader, writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    recorder.will_answer(Answer::Events(Vec::new()));
    assert_eq!(wait(&mut hub), []);
    // Two whole batches. The events of one forgotten number count like those of many.
    let mut events = vec![event(&writer, Filter::Timer, Event::ONESHOT); 2 * recorder.last().room];
    events.push(event(&reader, Filter::Read, 0));
    recorder.will_answer(Answer::Events(events));
    assert_eq!(wait(&mut hub), [(key(&reader), Readiness::READ)]);
}

#[test]
fn an_interrupted_wait_returns_no_report() {
    let recorder = Recorder::default();
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Fails(Errno::INTR));
    let mut ready = Ready::new();
    hub.wait(&Watched::new(), None, &mut ready).unwrap();
    assert_eq!(ready.reports(), []);
    assert_eq!(recorder.changes().len(), 1, "one call");
}

#[test]
fn an_interrupted_look_is_repeated() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    recorder.will_answer(Answer::Fails(Errno::INTR));
    recorder.will_answer(Answer::Events(vec![event(&reader, Filter::Read, 0)]));
    assert_eq!(wait(&mut hub), [(key(&reader), Readiness::READ)]);
}

#[test]
fn other_errors_of_a_wait_are_returned() {
    let recorder = Recorder::default();
    let mut hub = recorder.hub();
    recorder.will_answer(Answer::Fails(Errno::BADF));
    let error = hub.wait(&Watched::new(), None, &mut Ready::new()).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::BADF));
}

#[test]
fn timeouts_are_counted_in_nanoseconds_and_capped() {
    let recorder = Recorder::default();
    let mut hub = recorder.hub();
    let mut asked = |timeout| {
        hub.wait(&Watched::new(), timeout, &mut Ready::new()).unwrap();
        recorder.last().timeout
    };
    assert_eq!(asked(None), None);
    assert_eq!(asked(Some(Duration::ZERO)), Some((0, 0)));
    assert_eq!(asked(Some(Duration::new(3, 200_001))), Some((3, 200_001)));
    assert_eq!(asked(Some(Duration::MAX)), Some((100_000_000, 0)), "some systems refuse more");
}

#[test]
fn a_forked_child_creates_a_queue_and_does_not_close_the_old_number() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    let old = recorder.last().queue;
    hub.after_fork().unwrap();
    recorder.changes();
    watch(&mut hub, &reader, Interest::READ).unwrap();
    assert_ne!(recorder.last().queue, old);
    assert_eq!(hub.pollable().unwrap().as_raw_fd(), recorder.last().queue);
    assert_eq!(recorder.changes(), [[(ADD, Filter::Read)]], "the new queue has other changes");
    let _still_open = rustix::io::fcntl_getfd(recorded(old)).unwrap();
}

#[test]
fn a_forked_child_without_a_queue_returns_errors_and_closes_nothing() {
    let (recorder, (reader, _writer)) = (Recorder::default(), pipe());
    let mut hub = recorder.hub();
    let old = hub.pollable().unwrap().as_raw_fd();
    recorder.0.borrow_mut().no_queue = true;
    assert_eq!(Errno::from_io_error(&hub.after_fork().unwrap_err()), Some(Errno::MFILE));
    assert!(hub.pollable().is_none());
    assert!(watch(&mut hub, &reader, Interest::READ).is_err());
    assert!(hub.wait(&Watched::new(), None, &mut Ready::new()).is_err());
    drop(hub);
    let _still_open = rustix::io::fcntl_getfd(recorded(old)).unwrap();
}

/// Borrows the queue that the hub has leaked under `number`.
fn recorded(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the hub leaks the queue. If it closed the number, `fcntl_getfd` would fail with EBADF and so would the
    // test.
    unsafe { BorrowedFd::borrow_raw(number) }
}
