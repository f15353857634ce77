//! Numbers that a hub is lent stay open, whatever safe code does inside the hub, and are given up before they are
//! closed.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::run;
use greenhub::hub::{Hub, HubDescriptor, Key, Lease, Notify, Ready, Rearm, Watched};
use greenhub::park::Source;
use greenhub::{Interest, get_hub, register_hub, scope, sleep, use_hub, use_hub_with};

const SHORT: Duration = Duration::from_millis(5);

type InWait = Box<dyn FnOnce(&Watched)>;
type InWatch = (RawFd, Box<dyn FnOnce(BorrowedFd<'_>)>);

thread_local! {
    static FAIL: Cell<bool> = const { Cell::new(false) };
    static IN_WAIT: RefCell<Option<InWait>> = const { RefCell::new(None) };
    static IN_WATCH: RefCell<Option<InWatch>> = const { RefCell::new(None) };
    static WATCHED: Cell<Option<Key>> = const { Cell::new(None) };
    static FORGOTTEN: Cell<Option<Key>> = const { Cell::new(None) };
}

/// A hub without reports, which runs code of the test in its methods.
struct Hooked;

impl Hub for Hooked {
    fn name(&self) -> &'static str {
        "lent-numbers"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, _: Interest, _: Lease) -> io::Result<()> {
        WATCHED.set(Some(key));
        if IN_WATCH.with_borrow(|hook| hook.as_ref().is_some_and(|(number, _)| *number == key.fd())) {
            (IN_WATCH.take().expect("a hook").1)(fd);
        }
        Ok(())
    }

    fn forget(&mut self, key: Key, _: Option<BorrowedFd<'_>>) {
        FORGOTTEN.set(Some(key));
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, _: &mut Ready) -> io::Result<()> {
        if FAIL.take() {
            return Err(io::ErrorKind::Other.into());
        }
        if let Some(hook) = IN_WAIT.take() {
            hook(watched);
        }
        std::thread::sleep(timeout.unwrap_or(Duration::MAX).min(SHORT));
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_open(fd: BorrowedFd<'_>) -> bool {
    rustix::io::fcntl_getfd(fd).is_ok()
}

fn in_next_wait(hook: impl FnOnce(&Watched) + 'static) {
    IN_WAIT.set(Some(Box::new(hook)));
    sleep(2 * SHORT);
    assert!(IN_WAIT.take().is_none(), "the loop has not waited");
}

#[test]
fn a_registration_dropped_inside_wait_keeps_its_descriptor_open() {
    run("a_registration_dropped_inside_wait_keeps_its_descriptor_open", || {
        use_hub_with(|| Ok(Hooked)).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let number = reader.as_raw_fd();
        let registration = get_hub().listen(reader, Interest::READ, |_| ()).unwrap();
        in_next_wait(move |watched| {
            drop(registration);
            assert!(watched.iter().any(|(key, ..)| key.fd() == number), "the direction is not armed");
            assert!(watched.iter().all(|(_, fd, _)| is_open(fd)), "a closed number is lent");
        });
        in_next_wait(move |watched| {
            assert!(watched.iter().all(|(key, ..)| key.fd() != number), "the registration has survived its drop");
        });
    });
}

#[test]
fn a_source_dropped_inside_wait_keeps_its_number_open() {
    run("a_source_dropped_inside_wait_keeps_its_number_open", || {
        use_hub_with(|| Ok(Hooked)).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let source = Source::new(reader.into()).unwrap();
        source.wait(Interest::READ, Some(SHORT)).unwrap_err();
        let key = WATCHED.get().expect("a wait is watched");
        in_next_wait(move |watched| {
            drop(source);
            assert!(watched.fd(key).is_some_and(is_open), "a closed number is lent");
        });
        in_next_wait(move |watched| assert!(watched.fd(key).is_none(), "the source has survived its drop"));
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_source_is_read_inside_wait_without_a_panic() {
    run("a_source_is_read_inside_wait_without_a_panic", || {
        use_hub_with(|| Ok(Hooked)).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let source = Source::new(reader.into()).unwrap();
        writer.write_all(b"x").unwrap();
        in_next_wait(move |_| {
            let read = || {
                source.read(None, |fd| {
                    let mut buffer = [0; 8];
                    Ok((rustix::io::read(fd, &mut buffer)?, greenhub::park::ReadHint::Nothing))
                })
            };
            assert_eq!(read().unwrap(), 1);
            assert!(read().unwrap_err().to_string().contains("main loop"));
        });
    });
}

#[test]
fn notify_close_is_refused_inside_wait() {
    run("notify_close_is_refused_inside_wait", || {
        use_hub_with(|| Ok(Hooked)).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let number = reader.as_raw_fd();
        let _registration = get_hub().listen(reader, Interest::READ, |_| ()).unwrap();
        in_next_wait(move |watched| {
            let refused = catch_unwind(|| greenhub::park::notify_close(number)).unwrap_err();
            let text = refused.downcast_ref::<String>().expect("a message");
            assert!(text.contains(&format!("descriptor {number} cannot be given up")), "{text}");
            assert!(watched.iter().any(|(key, ..)| key.fd() == number), "the number was given up");
        });
    });
}

#[test]
fn a_registration_dropped_inside_the_watch_of_a_new_hub_keeps_the_borrowed_descriptor_open() {
    run("a_registration_dropped_inside_the_watch_of_a_new_hub_keeps_the_borrowed_descriptor_open", || {
        register_hub(HubDescriptor {
            name: "lent-numbers",
            aliases: &[],
            available: || true,
            build: || Ok(Box::new(Hooked)),
        })
        .unwrap();
        use_hub("lent-numbers").unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let number = reader.as_raw_fd();
        let registration = get_hub().listen(reader, Interest::READ, |_| ()).unwrap();
        thread_local!(static OPEN: Cell<Option<bool>> = const { Cell::new(None) });
        let hook = move |fd: BorrowedFd<'_>| {
            drop(registration);
            OPEN.set(Some(is_open(fd)));
        };
        IN_WATCH.set(Some((number, Box::new(hook))));
        FAIL.set(true);
        for _ in 0..3 {
            // The wait of the failed hub panics in the main greenlet.
            let _ = catch_unwind(|| sleep(SHORT));
        }
        assert_eq!(OPEN.get(), Some(true));
        assert_eq!(FORGOTTEN.get().map(Key::fd), Some(number), "the hub still watches the number");
    });
}

#[test]
fn close_leaves_the_file_to_an_operation_of_another_os_thread() {
    run("close_leaves_the_file_to_an_operation_of_another_os_thread", || {
        let (reader, mut writer) = io::pipe().unwrap();
        let source = Arc::new(Source::new(reader.into()).unwrap());
        // The last OS thread that has waited for the source has ended.
        let waited = Arc::clone(&source);
        let waits = move || waited.wait(Interest::READ, Some(SHORT)).unwrap_err();
        std::thread::spawn(waits).join().unwrap();
        writer.write_all(b"data").unwrap();
        let (operated, at) = (Arc::clone(&source), Arc::new(Barrier::new(2)));
        let others = Arc::clone(&at);
        let operation = std::thread::spawn(move || {
            operated.with(|fd| {
                others.wait();
                others.wait();
                let mut buffer = [0; 8];
                let read = rustix::io::read(fd, &mut buffer)?;
                Ok(buffer[..read].to_vec())
            })
        });
        at.wait();
        source.close();
        at.wait();
        assert_eq!(operation.join().unwrap().unwrap(), b"data");
        drop(source);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

/// The state that the two OS threads of the next test share.
#[derive(Default)]
struct Shared {
    rung: Mutex<bool>,
    changed: Condvar,
    turns: AtomicU64,
    key: AtomicU64,
    asks: AtomicBool,
    is_lent: AtomicBool,
}

/// A hub of another OS thread. It cannot watch the wake-up descriptor, so it is woken by its notifier, which returns
/// after two more turns.
struct Slow {
    shared: Arc<Shared>,
    refuses: bool,
}

struct SlowNotifier(Arc<Shared>);

impl Notify for SlowNotifier {
    fn notify(&self) {
        *self.0.rung.lock().unwrap() = true;
        self.0.changed.notify_all();
        let (seen, begun) = (self.0.turns.load(Ordering::SeqCst), Instant::now());
        while self.0.turns.load(Ordering::SeqCst) < seen + 2 && begun.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Hub for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, key: Key, _: BorrowedFd<'_>, _: Interest, _: Lease) -> io::Result<()> {
        if std::mem::take(&mut self.refuses) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.shared.key.store(key.to_u64(), Ordering::SeqCst);
        Ok(())
    }

    fn forget(&mut self, _: Key, _: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, _: &mut Ready) -> io::Result<()> {
        let shared = &*self.shared;
        shared.turns.fetch_add(1, Ordering::SeqCst);
        if shared.asks.load(Ordering::SeqCst) {
            let key = Key::from_u64(shared.key.load(Ordering::SeqCst));
            shared.is_lent.store(watched.fd(key).is_some(), Ordering::SeqCst);
            shared.asks.store(false, Ordering::SeqCst);
        }
        let limit = timeout.unwrap_or(Duration::MAX).min(SHORT);
        let rung = shared.rung.lock().unwrap();
        *shared.changed.wait_timeout_while(rung, limit, |rung| !*rung).unwrap().0 = false;
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        Some(Arc::new(SlowNotifier(Arc::clone(&self.shared))))
    }
}

#[test]
fn into_fd_returns_a_number_that_no_other_hub_is_lent() {
    run("into_fd_returns_a_number_that_no_other_hub_is_lent", || {
        let shared = Arc::<Shared>::default();
        let (give, take) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let other = Arc::clone(&shared);
        let other = std::thread::spawn(move || {
            use_hub_with(move || Ok(Slow { shared: other, refuses: true })).unwrap();
            let (reader, _writer) = io::pipe().unwrap();
            let source = Source::new(reader.into()).unwrap();
            source.wait(Interest::READ, Some(SHORT)).unwrap_err();
            give.send(source).unwrap();
            while ends.try_recv() == Err(mpsc::TryRecvError::Empty) {
                sleep(SHORT);
            }
        });
        let source = take.recv().unwrap();
        let number = source.as_raw_fd();
        let fd = source.into_fd().unwrap();
        // A hub that has not carried out its request yet keeps the number, and the caller gets a duplicate.
        let is_taken = fd.as_raw_fd() == number;
        drop(fd);
        shared.asks.store(true, Ordering::SeqCst);
        while shared.asks.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!is_taken || !shared.is_lent.load(Ordering::SeqCst), "the other hub is lent a closed number");
        drop(end);
        other.join().unwrap();
    });
}

#[test]
fn a_scope_that_cannot_wait_for_its_children_is_refused_before_it_has_any() {
    thread_local! {
        static OPEN: Cell<u32> = const { Cell::new(0) };
        static OUTLIVED: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Opens another scope when it is dropped.
    struct Opens(u32);

    impl Drop for Opens {
        fn drop(&mut self) {
            nest(self.0);
        }
    }

    /// A value of the frame that the children borrow from.
    struct Frame(u32);

    impl Drop for Frame {
        fn drop(&mut self) {
            OPEN.set(self.0 - 1);
        }
    }

    fn nest(depth: u32) {
        if depth > 300 {
            return;
        }
        OPEN.set(depth);
        let frame = Frame(depth);
        let _ = catch_unwind(AssertUnwindSafe(|| {
            scope(|scope| {
                let opens = Opens(depth + 1);
                scope.spawn(|| {
                    let _opens = std::mem::ManuallyDrop::new(opens);
                    if OPEN.get() < frame.0 {
                        OUTLIVED.set(Some(depth));
                    }
                });
                resume_unwind(Box::new(()));
            })
        }));
    }

    let nested = std::thread::Builder::new().stack_size(256 << 20).spawn(|| {
        use_hub_with(|| Ok(Hooked)).unwrap();
        nest(1);
        sleep(2 * SHORT);
        assert_eq!(OUTLIVED.get(), None, "a child of this depth runs after its frame is gone");
    });
    nested.unwrap().join().unwrap();
}
