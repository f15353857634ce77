//! Formats every public type into a writer that switches, while another green thread uses the same value.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug, Display, Write};
use std::io::{self, BufRead};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use crate::support::descriptors::{ms, pair};
use crate::support::{in_child, limited};
use greenhub::debug::Report;
use greenhub::fs::{File, OpenOptions};
use greenhub::greenlet::{Greenlet, GreenletError, Payload};
use greenhub::greenpool::{GreenPile, Group};
use greenhub::greenthread::{ExitKind, Panic};
use greenhub::hub::{
    Ended, ForkAware, Hub, HubDescriptor, Key, Lease, ManualClock, Readiness, Ready, Rearm, Stats, Watched,
    interrupt_on,
};
use greenhub::local::{AccessError, green_local};
use greenhub::net::{
    CachedResolver, Cluster, ConnectOptions, ListenOptions, ServeError, StopServe, SystemResolver, TcpListener,
    TcpStream, UdpSocket, serve_until,
};
use greenhub::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenhub::park::{BiasedMutex, Deadline, Grace, Parker, Source, notify_close};
use greenhub::pools::Pool;
use greenhub::process::{Command, Stdio};
use greenhub::select::PollFd;
use greenhub::sync::{
    Barrier, BoundedSemaphore, CancellationToken, CappedSemaphore, Channel, Condvar, Event, LazyLock, LifoQueue,
    LightQueue, Mutex, Notify, Once, OnceLock, PriorityQueue, Queue, RwLock, Semaphore, WaitError, broadcast, mpsc,
    oneshot, watch,
};
use greenhub::thread::{Scope, yield_now};
use greenhub::tpool::JobError;
use greenhub::{
    Builder, GreenError, GreenPool, Interest, Trampoline, debug, get_hub, scope, sleep, spawn, thread, tpool,
    with_timeout,
};

/// A writer that yields to other green threads at each write.
struct Switching(usize);

impl Write for Switching {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        self.0 += 1;
        yield_now();
        Ok(())
    }
}

/// Calls `write` with a writer that switches, and calls `used` at each switch.
#[track_caller]
fn meanwhile<R>(used: impl Fn() -> R, write: impl FnOnce(&mut Switching) -> fmt::Result) {
    let is_done = Cell::new(false);
    scope(|s| {
        let user = s.spawn(|| {
            while !is_done.get() {
                let _ = used();
                yield_now();
            }
        });
        let mut writer = Switching(0);
        let written = write(&mut writer);
        is_done.set(true);
        user.join().expect("the value can be used while it is formatted");
        written.expect("the writer does not fail");
        assert!(writer.0 > 0);
    });
}

#[track_caller]
fn shown<T: Debug + ?Sized, R>(value: &T, used: impl Fn(&T) -> R) {
    meanwhile(|| used(value), |writer| write!(writer, "{value:?}"));
    meanwhile(|| used(value), |writer| write!(writer, "{value:#?}"));
}

#[track_caller]
fn printed<T: Display + Debug + ?Sized, R>(value: &T, used: impl Fn(&T) -> R) {
    meanwhile(|| used(value), |writer| write!(writer, "{value}"));
    shown(value, used);
}

fn nothing<T: ?Sized>(_: &T) {}

/// Prints errors of different types.
fn errors_printed(errors: &[&(dyn std::error::Error + 'static)]) {
    for error in errors {
        printed(*error, nothing);
    }
}

#[test]
fn a_scope_takes_children_while_it_is_formatted() {
    limited(|| {
        scope(|s| {
            shown::<Scope<'_, '_>, _>(s, |_| s.spawn(|| ()));
            shown(&s.spawn(|| ()), |child| child.is_finished());
        });
    });
}

/// Returns the error of an access to a green local while it is dropped.
fn access_error() -> AccessError {
    struct UsedInDrop(Rc<Cell<Option<AccessError>>>);
    impl Drop for UsedInDrop {
        fn drop(&mut self) {
            self.0.set(USED.try_with(|_| ()).err());
        }
    }
    green_local!(static USED: RefCell<Option<UsedInDrop>> = RefCell::new(None));
    let error = Rc::new(Cell::new(None));
    let seen = UsedInDrop(Rc::clone(&error));
    spawn(move || USED.set(Some(seen))).join().expect("no panic");
    error.get().expect("the value is gone")
}

#[test]
fn green_threads_are_used_while_they_are_formatted() {
    limited(|| {
        let green = spawn(|| sleep(Duration::from_secs(3600)));
        shown(&green, |green| {
            green.unlink(green.link(|_| ()));
            let _ = with_timeout(Duration::from_micros(1), || green.wait());
        });
        shown(green.thread(), |thread| thread.unpark());
        shown(&green.thread().id(), nothing);
        shown(&green.kill(), nothing);
        shown(&Builder::new().name("a name".into()), |builder| builder.clone().spawn(|| ()));
        shown(&Greenlet::current(), |greenlet| greenlet.parent());
        let greenlet = Greenlet::new(|_| Ok(Payload::unit()));
        shown(&greenlet, |greenlet| greenlet.parent());
        shown(&Payload::unit(), nothing);
        shown(&Deadline::none(), nothing);
        let parker = Parker::new(greenhub::park::WaitReason::Lock).expect("the caller can park");
        shown(&parker, |parker| parker.unparker());
        shown(&parker.unparker(), |unparker| unparker.unpark());
        printed(&GreenError::Kill, nothing);
        printed(&ExitKind::Kill, nothing);
        printed(&GreenletError::Main, nothing);
        green_local!(static VALUE: u8 = 1);
        shown(&VALUE, |_| VALUE.with(|value| *value));
        printed(&access_error(), nothing);
        let ended = spawn(|| ());
        yield_now();
        printed(&ended.with_link(|| ()).expect_err("the green thread has ended"), nothing);
        printed(&with_timeout(Duration::ZERO, || sleep(ms(1000))).expect_err("too late"), nothing);
    });
}

/// A hub that is never called.
#[derive(Debug)]
struct Unused;

impl Hub for Unused {
    fn name(&self) -> &'static str {
        "unused"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Level
    }

    fn watch(&mut self, _: Key, _: BorrowedFd<'_>, _: Interest, _: Lease) -> io::Result<()> {
        unreachable!("the hub is never called")
    }

    fn forget(&mut self, _: Key, _: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, _: &Watched, _: Option<Duration>, _: &mut Ready) -> io::Result<()> {
        unreachable!("the hub is never called")
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_hub_is_used_while_it_is_formatted() {
    in_child(|| {
        let hub = get_hub();
        shown(&hub, |hub| hub.stats());
        printed(&hub.stats(), |_: &Stats| get_hub().stats());
        shown(&hub.remote(), |remote| remote.spawn(|| ()));
        let timer = hub.schedule(Duration::from_secs(3600), || ());
        shown(&timer, |timer| timer.cancel());
        let (reader, _writer) = io::pipe().expect("a pipe");
        shown(&Trampoline::new(&reader).read(), |_| get_hub().run_once(Some(Duration::ZERO)));
        let registration = hub.listen(reader, Interest::READ, |_: Readiness| ()).expect("the hub accepts the listener");
        shown(&registration, |_| notify_close(1000));
        shown(&interrupt_on(libc::SIGUSR1).expect("a signal"), nothing);
        shown(&ManualClock::new(), |clock| clock.advance(ms(1)));
        shown(&ManualClock::new().drive(Unused), |hub| hub.now());
        let build: fn() -> io::Result<Box<dyn Hub>> = || Ok(Box::new(Unused));
        shown(&HubDescriptor { name: "unused", aliases: &[], available: || true, build }, |hub| {
            hub.answers_to("unused")
        });
        shown(&Ended::default(), |ended| ended.is_complete());
        shown(&Grace::begin(), |grace| grace.left());
        shown(&ForkAware::new(OwnedFd::from(io::pipe().expect("a pipe").0)).expect("an aware pipe"), nothing);
        let stuck = std::thread::spawn(|| get_hub().run_once(None).expect_err("nothing is left"));
        let stuck = stuck.join().expect("no panic");
        printed(stuck.loop_exit().expect("nothing is left"), nothing);
        let gone = std::thread::spawn(|| get_hub().remote()).join().expect("no panic");
        shown(&gone, |gone| gone.is_gone());
        printed(&gone.spawn(|| ()).expect_err("its thread has ended"), |gone| gone.hub_id());
        shown(&thread::os::Builder::new(), nothing);
        shown(&Watched::new(), nothing);
        for info in debug::greenlets() {
            printed(&info, |_| debug::greenlets());
        }
        for info in debug::timers() {
            printed(&info, |_| debug::timers());
        }
        for info in debug::listeners() {
            printed(&info, |_| debug::listeners());
        }
        printed(&Report::Warning("a warning".to_owned()), |_| greenhub::debug::set_report_stream(|_| ()));
    });
}

#[test]
fn locks_are_used_while_they_are_formatted() {
    limited(|| {
        let mutex = Mutex::new(1);
        shown(&mutex, |mutex| *mutex.lock().expect("no poison") += 1);
        printed(&mutex.lock().expect("no poison"), |_| mutex.try_lock().expect_err("the lock is held"));
        let rw_lock = RwLock::new(1);
        shown(&rw_lock, |lock| *lock.write().expect("no poison") += 1);
        printed(&rw_lock.read().expect("no poison"), |_| rw_lock.read().expect("no poison"));
        printed(&rw_lock.write().expect("no poison"), |_| rw_lock.try_read().expect_err("the lock is held"));
        shown(&Condvar::new(), Condvar::notify_all);
        shown(&Barrier::new(1), |barrier| barrier.wait());
        shown(&Barrier::new(1).wait(), nothing);
        shown(&Once::new(), |once| once.call_once(|| ()));
        Once::new().call_once_force(|state| shown(state, nothing));
        shown(&OnceLock::new(), |lock: &OnceLock<u8>| lock.set(1));
        let lazy: LazyLock<u8> = LazyLock::new(|| 1);
        shown(&lazy, |lazy| *LazyLock::force(lazy));
        shown(&BiasedMutex::new(1), |mutex| *mutex.lock() += 1);
        shown(&BiasedMutex::new(1).lock(), |guard| **guard);
        for semaphore in [Semaphore::new(1), Semaphore::new(0)] {
            shown(&semaphore, |semaphore| {
                semaphore.release();
                semaphore.acquire().expect("a permit is free");
            });
        }
        let semaphore = Semaphore::new(1);
        shown(&semaphore.access().expect("a permit is free"), |_| semaphore.release());
        shown(&BoundedSemaphore::new(1), |semaphore| semaphore.release());
        let capped = CappedSemaphore::new(1, 2).expect("below the limit");
        shown(&capped, |semaphore| semaphore.balance());
    });
}

#[test]
fn queues_are_used_while_they_are_formatted() {
    limited(|| {
        shown(&Queue::new(), |queue: &Queue<u8>| {
            queue.put(1).expect("the queue has room");
            queue.get().expect("an item");
            queue.task_done().expect("one was put");
        });
        printed(&Queue::<u8>::new().task_done().expect_err("nothing was put"), nothing);
        shown(&LightQueue::new(), |queue: &LightQueue<u8>| (queue.try_put(1), queue.try_get()));
        shown(&LifoQueue::new(), |queue: &LifoQueue<u8>| (queue.try_put(1), queue.try_get()));
        shown(&PriorityQueue::new(), |queue: &PriorityQueue<u8>| (queue.try_put(1), queue.try_get()));
        let channel = Channel::bounded(1);
        shown(&channel, |channel: &Channel<u8>| (channel.send(1), channel.wait()));
        shown(&Event::new(), |event: &Event<u8>| {
            let _ = event.send(1);
            event.reset().expect("the event was sent");
        });
        let (sender, receiver) = mpsc::channel();
        shown(&sender, |sender: &mpsc::Sender<u8>| sender.send(1).expect("a receiver"));
        shown(&receiver, |receiver| receiver.try_recv());
        shown(&receiver.iter(), |_| receiver.try_recv());
        shown(&receiver.try_iter(), |_| receiver.try_recv());
        let (sync_sender, kept) = mpsc::sync_channel(1);
        shown(&sync_sender, |sender: &mpsc::SyncSender<u8>| sender.try_send(1));
        shown(&kept.into_iter(), |_| sync_sender.try_send(1));
        printed(&mpsc::RecvError, nothing);
    });
}

#[test]
fn channels_of_messages_are_used_while_they_are_formatted() {
    limited(|| {
        let (sender, receiver) = oneshot::channel::<u8>();
        shown(&sender, oneshot::Sender::is_closed);
        shown(&receiver, |receiver| receiver.try_recv());
        printed(&receiver.try_recv().expect_err("nothing was sent"), nothing);
        errors_printed(&[&oneshot::RecvError::Closed, &oneshot::RecvTimeoutError::TimedOut]);
        let (sender, receiver) = watch::channel(1);
        shown(&sender, |sender: &watch::Sender<u8>| sender.send(1).expect("a receiver"));
        shown(&receiver, watch::Receiver::has_changed);
        shown(&receiver.borrow(), |_| sender.send(2).expect("a receiver"));
        let (sender, receiver) = broadcast::channel::<u8>(1);
        shown(&sender, |sender| sender.send(1).expect("a receiver"));
        shown(&receiver, broadcast::Receiver::len);
        printed(&broadcast::SendError(1), nothing);
        errors_printed(&[&broadcast::RecvError::Lagged(1), &broadcast::RecvTimeoutError::TimedOut]);
        printed(&broadcast::TryRecvError::Empty, nothing);
        shown(&Notify::new(), Notify::notify_one);
        let token = CancellationToken::new();
        shown(&token, CancellationToken::child_token);
        shown(&token.clone().drop_guard(), |_| token.cancel());
    });
}

#[test]
fn pools_and_groups_are_used_while_they_are_formatted() {
    limited(|| {
        shown(&GreenPool::new(2), |pool| pool.spawn(|| ()));
        let pile = RefCell::new(GreenPile::new(2));
        {
            let pile = pile.borrow();
            shown(&*pile, |_: &GreenPile<u8>| yield_now());
        }
        let pool = GreenPool::new(2);
        shown(&pool.imap(0..3, |n| n), |_| pool.spawn(|| ()));
        shown(&Group::new(), |group| {
            group.spawn(|| ()).unwrap();
            group.kill_all();
        });
        let items = Pool::new(2, || Ok(1));
        shown(&items, |pool| {
            let item = pool.get().expect("the pool makes an item");
            pool.put(item);
            pool.resize(2);
        });
        shown(&items.item().expect("the pool makes an item"), |_| items.resize(3));
        shown(&tpool::Pool::new(1), |pool| pool.execute(|| ()).expect("the job is done"));
        errors_printed(&[
            &GreenError::Deadlock,
            &JobError::Panic(Panic::new(Box::new("a payload"))),
            &WaitError::TimedOut,
        ]);
        printed(&Panic::new(Box::new("a payload")), nothing);
    });
}

#[test]
fn sockets_are_used_while_they_are_formatted() {
    limited(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        shown(&listener, |listener| {
            let client = TcpStream::connect(address).expect("the server listens");
            drop(listener.accept().expect("a connection"));
            drop(client);
        });
        let stream = TcpStream::connect(address).expect("the server listens");
        shown(&stream, |stream| io::Write::write(&mut &*stream, b"x"));
        shown(&UdpSocket::bind("127.0.0.1:0").expect("a socket"), |socket| {
            let _ = socket.send_to(b"x", socket.local_addr().expect("an address"));
        });
        let (left, right) = UnixStream::pair().expect("a pair");
        shown(&left, |left| {
            io::Write::write_all(&mut &*left, b"x").expect("the buffer has room");
            io::Read::read_exact(&mut &right, &mut [0]).expect("the read succeeds");
        });
        shown(&right, |right| right.close());
        shown(&UnixDatagram::unbound().expect("a socket"), |socket| socket.local_addr());
        let path = std::env::temp_dir().join(format!("greenhub-formatting-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a listener");
        shown(&listener, |listener| listener.local_addr());
        std::fs::remove_file(&path).expect("the file exists");
        let (source, _peer) = pair();
        shown(&source.waker(), |waker| waker.wake(Interest::READ));
        shown(&PollFd::new(&source, Interest::READ), |waited| waited.readiness());
        shown(&source, Source::close);
        shown(&CachedResolver::new(SystemResolver), |resolver| resolver.clear());
        shown(&SystemResolver, nothing);
        let stop = StopServe::new();
        shown(&stop, |stop| stop.stop());
        let served = serve_until(&stop, &listener, &GreenPool::new(1), |_, _| ()).expect("the server was stopped");
        shown(&served, nothing);
        shown(&served.end, nothing);
        let server = Cluster::new(1).serve("127.0.0.1:0", |_, _| ()).expect("the server listens");
        shown(&server, |server| server.local_addr());
        server.stop().stop();
        server.join().expect("the server has ended");
        errors_printed(&[&ServeError::Panic(Panic::new(Box::new("a payload")))]);
        shown(&Cluster::new(1), nothing);
        shown(&ConnectOptions::new(), nothing);
        shown(&ListenOptions::new(), nothing);
    });
}

#[test]
fn files_and_processes_are_used_while_they_are_formatted() {
    in_child(|| {
        let file = OpenOptions::new().read(true).open("/dev/null").expect("the file exists");
        shown(&file, |file: &File| io::Read::read(&mut &*file, &mut [0]));
        shown(&OpenOptions::new(), nothing);
        let mut entries = greenhub::fs::read_dir("/").expect("the file exists");
        shown(&entries, |_| yield_now());
        let entry = entries.next().expect("the directory has entries").expect("the entry can be read");
        shown(&entry, |entry| entry.file_type());
        let (reader, writer) = greenhub::io::pipe().expect("a pipe");
        shown(&reader, |_| io::Write::write(&mut &writer, b"x"));
        shown(&writer, |_| io::Read::read(&mut &reader, &mut [0]));
        let command = Command::new("true");
        shown(&command, nothing);
        let mut command = command;
        let (stdin, stdout, stderr) = (Stdio::piped(), Stdio::piped(), Stdio::piped());
        let child = RefCell::new(command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().expect("a child"));
        shown(&child.borrow().stdin, |_| child.borrow().id());
        shown(&child.borrow().stdout, |_| child.borrow().id());
        shown(&child.borrow().stderr, |_| child.borrow().id());
        let child_id = child.borrow().id();
        shown(&*child.borrow(), |child| assert_eq!(child.id(), child_id));
        child.borrow_mut().wait().expect("our child");
        let stdin = greenhub::io::stdin();
        shown(&stdin, nothing);
        shown(&greenhub::io::stdout(), |_| greenhub::io::stdout().lock());
        shown(&greenhub::io::stdout().lock(), |_| greenhub::io::stderr().lock());
        shown(&greenhub::io::stderr().lock(), |_| greenhub::io::stdout().lock());
        let lock = stdin.lock();
        shown(&lock, |_: &greenhub::io::StdinLock<'_>| yield_now());
        drop(lock);
        let _: fn(&mut greenhub::io::StdinLock<'static>) -> io::Result<usize> = |lock| lock.fill_buf().map(<[u8]>::len);
    });
}

#[cfg(feature = "console")]
#[test]
fn a_console_is_formatted_into_a_writer_that_switches() {
    limited(|| {
        let path = std::env::temp_dir().join(format!("greenhub-formatting-console-{}", std::process::id()));
        let console = greenhub::debug::console(&path).expect("a console");
        shown(&console, |_| {
            greenhub::spawn_n(|| ());
            drop(UnixStream::connect(&path));
        });
        console.stop();
    });
}

/// Formats values that have no operations to call meanwhile. Nothing may stay borrowed for them either, because other
/// values are formatted at the same time.
#[test]
fn plain_values_are_formatted_into_a_writer_that_switches() {
    limited(|| {
        fn plain(values: &[&dyn Debug]) {
            for value in values {
                shown(*value, |value| {
                    let text = format!("{value:?}");
                    assert!(!text.is_empty());
                });
            }
        }
        let key = greenhub::hub::Key::new(3, 1);
        let mut ready = greenhub::hub::Ready::new();
        ready.push(key, Readiness::READ);
        plain(&[
            &key,
            &ready,
            &Interest::READ,
            &Readiness::WRITE,
            &greenhub::hub::Time::default(),
            &greenhub::hub::Lease::Life,
        ]);
        plain(&[
            &greenhub::hub::Rearm::Level,
            &greenhub::park::WaitReason::Lock,
            &greenhub::park::Parked::TimedOut,
            &greenhub::park::ReadHint::Nothing,
        ]);
        plain(&[&greenhub::greenthread::StackPolicy::Guarded, &greenhub::greenthread::KillOutcome::Cancelled]);
        let (condvar, mutex) = (Condvar::new(), Mutex::new(()));
        let waited = condvar.wait_timeout(mutex.lock().expect("no poison"), ms(1)).expect("no poison").1;
        plain(&[&waited]);
        let linked = spawn(|| ()).link(|_| ());
        plain(&[&linked, &greenhub::fs::DirBuilder::new()]);
        errors_printed(&[
            &greenhub::hub::HubError::NoneAvailable,
            &greenhub::hub::LoopError::from(greenhub::hub::LoopErrorKind::Aborted),
            &greenhub::TrampolineError::TimedOut { fd: 3 },
            &greenhub::net::ServeError::Inside,
            &greenhub::sync::mpsc::RecvError,
        ]);
        let full = LightQueue::bounded(0).try_put(1).expect_err("no getter");
        printed(&full, nothing);
        printed(&LightQueue::<u8>::new().try_get().expect_err("no putter"), nothing);
        printed(&Event::<u8>::new().reset().expect_err("nothing was sent"), nothing);
        printed(&BoundedSemaphore::new(1).release().expect_err("the semaphore is full"), nothing);
        printed(&CappedSemaphore::new(3, 2).expect_err("above the limit"), nothing);
    });
}

#[test]
fn the_debug_form_of_an_error_is_its_message() {
    in_child(|| {
        let loop_exit = get_hub().run_once(None).expect_err("nothing is left");
        let unknown = greenhub::use_hub("nonsense").expect_err("there is no such hub");
        let timeout = with_timeout(Duration::ZERO, || sleep(Duration::MAX)).expect_err("a timeout");
        let job = tpool::execute(|| -> () { crate::support::green::quiet_panic("a payload") });
        let job = job.expect_err("the job panics");
        let (reader, _writer) = greenhub::io::pipe().expect("a pipe");
        let refused =
            greenhub::trampoline(&reader, Interest::READ | Interest::WRITE, None).expect_err("both directions");
        let errors: [&dyn std::error::Error; 5] = [&loop_exit, &unknown, &timeout, &job, &refused];
        for error in errors {
            assert_eq!(format!("{error:?}"), error.to_string());
        }
        assert!(format!("{:?}", io::Error::from(unknown)).contains("nonsense"));
    });
}
