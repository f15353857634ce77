//! OS threads for which no hub can be built, as in a process without free descriptors.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::hubs::default_hub;
use crate::support::{alone, run};
use greenhub::hub::{Hub, HubDescriptor, HubError};
use greenhub::net::Cluster;
use greenhub::process::Command;
use greenhub::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use greenhub::sync::mpsc::{channel, sync_channel};
use greenhub::sync::{
    Arc, Barrier, CancellationToken, CappedSemaphore, Channel, Condvar, Event, LazyLock, LightQueue, Mutex, Notify,
    Once, OnceLock, Queue, RwLock, Semaphore, WaitError, broadcast, oneshot, watch,
};
use greenhub::{pools, spawn, thread, try_get_hub, use_hub_with, with_timeout};

/// Longer than any wait of these tests.
const LONG: Duration = Duration::from_secs(100);
const SHORT: Duration = Duration::from_millis(5);

/// Runs a test on an OS thread whose hub has failed to build.
fn hubless<T: Send + 'static>(name: &str, test: impl FnOnce() -> T + Send + 'static) -> T {
    run(name, || {
        drop_hub();
        test()
    })
}

fn drop_hub() {
    let refuse = || Err::<Box<dyn Hub>, _>(io::Error::from_raw_os_error(libc::EMFILE));
    use_hub_with(refuse).unwrap();
    assert!(matches!(try_get_hub(), Err(HubError::Build { .. })));
}

/// Sets up an OS thread of a cluster, which then has no hub.
fn without_hub(_number: usize) -> io::Result<()> {
    drop_hub();
    Ok(())
}

/// Runs `serve` on another OS thread without green threads, shortly after this one has begun to `wait`.
fn served<T>(wait: impl FnOnce() -> T, serve: impl FnOnce() + Send + 'static) -> T {
    let server = std::thread::spawn(move || {
        std::thread::sleep(SHORT * 4);
        serve();
    });
    let result = wait();
    server.join().unwrap();
    result
}

#[test]
fn a_barrier_opens_for_an_os_thread_without_a_hub() {
    hubless("a_barrier_opens_for_an_os_thread_without_a_hub", || {
        let barrier = Arc::new(Barrier::new(2));
        let (other, leaders) = (Arc::clone(&barrier), Arc::new(AtomicUsize::new(0)));
        let led = Arc::clone(&leaders);
        let is_leader = served(
            || barrier.wait().is_leader(),
            move || _ = led.fetch_add(usize::from(other.wait().is_leader()), Ordering::SeqCst),
        );
        assert_eq!(leaders.load(Ordering::SeqCst) + usize::from(is_leader), 1);
    });
}

/// Holds a lock on another OS thread while `wait` begins.
fn while_held<G>(hold: impl FnOnce() -> G + Send + 'static, wait: impl FnOnce()) {
    let (held, is_held) = std::sync::mpsc::channel();
    let holder = std::thread::spawn(move || {
        let guard = hold();
        held.send(()).unwrap();
        std::thread::sleep(SHORT * 4);
        drop(guard);
    });
    is_held.recv().unwrap();
    wait();
    holder.join().unwrap();
}

#[test]
fn a_mutex_is_locked_by_an_os_thread_without_a_hub() {
    static MUTEX: Mutex<()> = Mutex::new(());
    hubless("a_mutex_is_locked_by_an_os_thread_without_a_hub", || {
        while_held(|| MUTEX.lock().unwrap(), || drop(MUTEX.lock().unwrap()));
        while_held(|| MUTEX.lock().unwrap(), || drop(MUTEX.try_lock_for(LONG).unwrap()));
        while_held(|| MUTEX.lock().unwrap(), || assert!(MUTEX.try_lock_for(Duration::ZERO).is_err()));
    });
}

#[test]
fn an_rw_lock_is_locked_by_an_os_thread_without_a_hub() {
    static LOCK: RwLock<()> = RwLock::new(());
    hubless("an_rw_lock_is_locked_by_an_os_thread_without_a_hub", || {
        while_held(|| LOCK.write().unwrap(), || drop(LOCK.read().unwrap()));
        while_held(|| LOCK.read().unwrap(), || drop(LOCK.write().unwrap()));
    });
}

#[test]
fn a_condvar_notifies_an_os_thread_without_a_hub() {
    static PAIR: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    hubless("a_condvar_notifies_an_os_thread_without_a_hub", || {
        let wait = || drop(PAIR.1.wait_while(PAIR.0.lock().unwrap(), |notified| !*notified).unwrap());
        served(wait, || {
            *PAIR.0.lock().unwrap() = true;
            PAIR.1.notify_one();
        });
        let begun = Instant::now();
        let (guard, waited) = PAIR.1.wait_timeout_while(PAIR.0.lock().unwrap(), SHORT, |notified| *notified).unwrap();
        assert!(waited.timed_out() && begun.elapsed() >= SHORT);
        drop(guard);
    });
}

#[test]
fn one_time_initialization_is_waited_for_by_an_os_thread_without_a_hub() {
    static ONCE: Once = Once::new();
    static CELL: OnceLock<u8> = OnceLock::new();
    static LAZY: LazyLock<u8> = LazyLock::new(slow);
    fn slow() -> u8 {
        std::thread::sleep(SHORT * 8);
        1
    }
    hubless("one_time_initialization_is_waited_for_by_an_os_thread_without_a_hub", || {
        served(|| ONCE.wait(), || ONCE.call_once(|| ()));
        served(|| assert_eq!(*CELL.wait(), 1), || assert_eq!(*CELL.get_or_init(slow), 1));
        let (begun, has_begun) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            begun.send(()).unwrap();
            *LAZY
        });
        has_begun.recv().unwrap();
        assert_eq!((*LAZY, other.join().unwrap()), (1, 1));
    });
}

#[test]
fn semaphores_and_events_serve_an_os_thread_without_a_hub() {
    hubless("semaphores_and_events_serve_an_os_thread_without_a_hub", || {
        let semaphore = Arc::new(Semaphore::new(0));
        let other = Arc::clone(&semaphore);
        served(|| semaphore.acquire().unwrap(), move || other.release());
        assert!(matches!(semaphore.acquire_timeout(SHORT), Err(WaitError::TimedOut)));
        let capped = Arc::new(CappedSemaphore::new(1, 1).unwrap());
        let other = Arc::clone(&capped);
        served(|| capped.release().unwrap(), move || other.acquire().unwrap());
        let event = Arc::new(Event::new());
        let other = Arc::clone(&event);
        assert_eq!(served(|| event.wait().unwrap(), move || other.send(7).unwrap()), 7);
    });
}

#[test]
fn queues_and_channels_serve_an_os_thread_without_a_hub() {
    const MANY: usize = 100;
    hubless("queues_and_channels_serve_an_os_thread_without_a_hub", || {
        let queue = Arc::new(Queue::<usize>::bounded(1));
        let other = Arc::clone(&queue);
        served(
            || (0..MANY).for_each(|n| queue.put(n).unwrap()),
            move || (0..MANY).for_each(|n| assert_eq!(other.get().unwrap(), n)),
        );
        let other = Arc::clone(&queue);
        served(|| queue.join().unwrap(), move || (0..MANY).for_each(|_| other.task_done().unwrap()));
        let light = Arc::new(LightQueue::<usize>::new());
        let other = Arc::clone(&light);
        assert_eq!(served(|| light.get().unwrap(), move || other.put(3).unwrap()), 3);
        assert!(light.get_timeout(SHORT).is_err());
        let values = Arc::new(Channel::new());
        let other = Arc::clone(&values);
        assert_eq!(served(|| values.wait().unwrap(), move || other.send(5).unwrap()), 5);

        let (sender, receiver) = channel();
        assert!(served(|| receiver.recv().is_ok(), move || sender.send(()).unwrap()));
        let (sender, receiver) = sync_channel(0);
        served(|| sender.send(1).unwrap(), move || assert_eq!(receiver.recv(), Ok(1)));
    });
}

#[test]
fn channels_of_messages_serve_an_os_thread_without_a_hub() {
    hubless("channels_of_messages_serve_an_os_thread_without_a_hub", || {
        let (sender, receiver) = oneshot::channel();
        served(|| assert_eq!(receiver.recv().unwrap(), 1), move || sender.send(1).unwrap());
        let (sender, mut receiver) = watch::channel(0);
        assert!(matches!(receiver.changed_timeout(SHORT), Err(watch::RecvTimeoutError::TimedOut)));
        served(|| assert_eq!(*receiver.wait_for(|&n| n == 1).unwrap(), 1), move || sender.send(1).unwrap());
        let (sender, mut receiver) = broadcast::channel(1);
        served(|| assert_eq!(receiver.recv().unwrap(), 1), move || _ = sender.send(1).unwrap());
        assert!(matches!(receiver.recv(), Err(broadcast::RecvError::Closed)));
        let notify = Arc::new(Notify::new());
        let other = Arc::clone(&notify);
        served(|| notify.wait().unwrap(), move || other.notify_one());
        let token = CancellationToken::new();
        let own = token.child_token();
        served(|| own.wait().unwrap(), move || token.cancel());
    });
}

#[test]
fn pools_and_parks_serve_an_os_thread_without_a_hub() {
    hubless("pools_and_parks_serve_an_os_thread_without_a_hub", || {
        let pool = Arc::new(pools::Pool::new(1, || Ok(1)));
        let taken = pool.get().unwrap();
        let other = Arc::clone(&pool);
        assert_eq!(served(|| pool.get().unwrap(), move || other.put(taken)), 1);
        let this = thread::current();
        served(thread::park, move || this.unpark());
    });
}

#[test]
fn a_wait_uses_a_hub_that_can_be_built_later() {
    run("a_wait_uses_a_hub_that_can_be_built_later", || {
        static REFUSES: AtomicBool = AtomicBool::new(true);
        fn build() -> io::Result<Box<dyn Hub>> {
            if REFUSES.load(Ordering::SeqCst) {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            default_hub()
        }
        hub_core::internal::use_hub_descriptor(Some(HubDescriptor {
            name: "later",
            aliases: &[],
            available: || true,
            build,
        }))
        .unwrap();
        let semaphore = Arc::new(Semaphore::new(0));
        assert!(matches!(semaphore.acquire_timeout(SHORT), Err(WaitError::TimedOut)) && !greenhub::hub::has_hub());
        REFUSES.store(false, Ordering::SeqCst);
        assert!(matches!(semaphore.acquire_timeout(SHORT), Err(WaitError::TimedOut)));
        assert!(greenhub::hub::has_hub());
        // Green threads run during the next wait.
        let other = Arc::clone(&semaphore);
        let green = spawn(move || other.release());
        semaphore.acquire().unwrap();
        green.join().unwrap();
    });
}

#[test]
fn a_wait_that_needs_a_hub_fails_without_one() {
    hubless("a_wait_that_needs_a_hub_fails_without_one", || {
        let semaphore = Arc::new(Semaphore::new(0));
        let other = Arc::clone(&semaphore);
        // Without a hub, the timeout could not strike.
        let error = with_timeout(LONG, || semaphore.acquire()).unwrap().unwrap_err();
        assert!(error.to_string().contains("could not be built"), "{error}");
        // Only the green thread would release the semaphore, and it cannot run.
        let _green = spawn(move || other.release());
        let error = semaphore.acquire().unwrap_err();
        assert!(error.to_string().contains("could not be built"), "{error}");
    });
}

#[test]
fn a_cluster_without_hubs_serves_nothing_and_returns_the_cause() {
    hubless("a_cluster_without_hubs_serves_nothing_and_returns_the_cause", || {
        // The caller has no hub either while it waits for the failing OS threads.
        let refused = Cluster::new(3).setup(without_hub).serve("127.0.0.1:0", |_, _| ());
        let error = refused.map(drop).unwrap_err().to_string();
        assert!(error.contains("could not be built"), "{error}");
    });
}

#[test]
fn a_cluster_with_one_thread_without_a_hub_serves_nothing() {
    run("a_cluster_with_one_thread_without_a_hub_serves_nothing", || {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = Cluster::new(3)
            .setup(|number| {
                if number == 1 {
                    drop_hub();
                }
                Ok(())
            })
            .serve(address, |_, _| ());
        let error = refused.map(drop).unwrap_err().to_string();
        assert!(error.contains("could not be built"), "{error}");
        assert!(std::net::TcpStream::connect(address).is_err(), "a thread listens");
    });
}

#[test]
fn a_child_is_waited_for_without_a_hub() {
    hubless("a_child_is_waited_for_without_a_hub", || {
        assert!(Command::new("sleep").arg("0.05").status().unwrap().success());
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
        child.kill().unwrap();
        assert!(!child.wait_timeout(LONG).unwrap().unwrap().success());
        let mut reader = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        assert!(reader.wait().unwrap().success(), "the input of the child is open");
    });
}

#[test]
fn a_child_is_waited_for_without_a_hub_and_without_descriptors() {
    use nix::sys::resource::{Resource, setrlimit};
    const TEST: &str = "a_child_is_waited_for_without_a_hub_and_without_descriptors";
    alone(TEST, || {
        let mut child = Command::new("sleep").arg("0.05").spawn().unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        let status = child.wait();
        drop(taken);
        assert!(status.unwrap().success());
    });
}
