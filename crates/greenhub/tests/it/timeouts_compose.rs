//! Timeouts and linked scopes around each blocking call: the object of the wait is unchanged and usable afterwards.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::green::{LONG, SHORT, held, pipe, wait_until_held};
use crate::support::run;
use greenhub::greenpool::{GreenPile, Group};
use greenhub::net::{TcpListener, TcpStream, UdpSocket};
use greenhub::os::unix::net::UnixStream;
use greenhub::sync::{
    Barrier, CappedSemaphore, Channel, Condvar, Event, LazyLock, LightQueue, Mutex, Once, OnceLock, Queue, RwLock,
    Semaphore, mpsc,
};
use greenhub::thread::{park, yield_now};
use greenhub::{GreenPool, Interest, pools, sleep, spawn, spawn_after, thread, tpool, trampoline, with_timeout};

/// A blocking call.
struct Primitive {
    name: &'static str,
    make: fn() -> Waits,
}

struct Waits {
    /// Whether the call waits for a taker of its item. The item may be taken in the moment in which a timeout strikes.
    gives: bool,
    /// Blocks until `release` is called, and checks the result of the wait.
    wait: Rc<dyn Fn()>,
    /// Ends the wait.
    release: Box<dyn FnOnce()>,
    /// Checks the state after a complete wait, however many waits have timed out before.
    then: Box<dyn FnOnce()>,
}

fn waits(wait: impl Fn() + 'static, release: impl FnOnce() + 'static) -> Waits {
    Waits { gives: false, wait: Rc::new(wait), release: Box::new(release), then: Box::new(|| ()) }
}

fn gives(wait: impl Fn() + 'static, release: impl FnOnce() + 'static) -> Waits {
    Waits { gives: true, ..waits(wait, release) }
}

impl Waits {
    fn then(self, then: impl FnOnce() + 'static) -> Waits {
        Waits { then: Box::new(then), ..self }
    }
}

/// An event that a green thread waits for before it continues.
#[derive(Clone, Default)]
struct Gate(Rc<Event<()>>);

impl Gate {
    fn wait(&self) {
        self.0.wait().unwrap();
    }

    fn open(&self) {
        self.0.send(()).unwrap();
    }
}

/// Runs `hold` in a green thread until its first wait, which is for the gate.
fn behind(gate: &Gate, hold: impl FnOnce(&Gate) + 'static) {
    let gate = gate.clone();
    spawn(move || hold(&gate));
    yield_now();
}

const PRIMITIVES: &[Primitive] = &[
    Primitive {
        name: "Event::wait",
        make: || {
            let event = Rc::new(Event::new());
            let sender = event.clone();
            let idle = event.clone();
            waits(move || assert_eq!(event.wait().unwrap(), 7), move || sender.send(7).unwrap())
                .then(move || assert_eq!(idle.waiting(), 0))
        },
    },
    Primitive {
        name: "Queue::get",
        make: || {
            let queue = Rc::new(Queue::new());
            let (putter, rest) = (queue.clone(), queue.clone());
            waits(move || assert_eq!(queue.get().unwrap(), 7), move || putter.put(7).unwrap())
                .then(move || assert_eq!((rest.len(), rest.getting()), (0, 0)))
        },
    },
    Primitive {
        name: "Queue::put",
        make: || {
            let queue = Rc::new(Queue::bounded(1));
            queue.put(1).unwrap();
            let (getter, rest) = (queue.clone(), queue.clone());
            gives(move || queue.put(2).unwrap(), move || assert_eq!(getter.get().unwrap(), 1)).then(move || {
                assert_eq!(rest.get().unwrap(), 2, "the item that was put");
                assert_eq!((rest.len(), rest.putting(), rest.unfinished()), (0, 0, 2));
            })
        },
    },
    Primitive {
        name: "Queue::join",
        make: || {
            let queue = Rc::new(Queue::new());
            queue.put(1).unwrap();
            let getter = queue.clone();
            waits(
                move || queue.join().unwrap(),
                move || {
                    getter.get().unwrap();
                    getter.task_done().unwrap();
                },
            )
        },
    },
    Primitive {
        name: "LightQueue::put, in person",
        make: || {
            let queue = Rc::new(LightQueue::bounded(0));
            let (getter, rest) = (queue.clone(), queue.clone());
            gives(move || queue.put(7).unwrap(), move || assert_eq!(getter.get().unwrap(), 7))
                .then(move || assert!(rest.try_get().is_err()))
        },
    },
    Primitive {
        name: "LightQueue::get, in person",
        make: || {
            let queue = Rc::new(LightQueue::bounded(0));
            let putter = queue.clone();
            waits(move || assert_eq!(queue.get().unwrap(), 7), move || putter.put(7).unwrap())
        },
    },
    Primitive {
        name: "Channel::wait",
        make: || {
            let channel = Rc::new(Channel::new());
            let sender = channel.clone();
            waits(move || assert_eq!(channel.wait().unwrap(), 7), move || sender.send(7).unwrap())
        },
    },
    Primitive {
        name: "Channel::send",
        make: || {
            let channel = Rc::new(Channel::new());
            let receiver = channel.clone();
            gives(move || channel.send(7).unwrap(), move || assert_eq!(receiver.wait().unwrap(), 7))
        },
    },
    Primitive {
        name: "Semaphore::acquire",
        make: || {
            let permits = Rc::new(Semaphore::new(0));
            let (giver, rest) = (permits.clone(), permits.clone());
            waits(move || permits.acquire().unwrap(), move || giver.release())
                .then(move || assert_eq!(rest.balance(), 0))
        },
    },
    Primitive {
        name: "Semaphore::access",
        make: || {
            let permits = Rc::new(Semaphore::new(0));
            let (giver, rest) = (permits.clone(), permits.clone());
            waits(move || drop(permits.access().unwrap()), move || giver.release())
                .then(move || assert_eq!(rest.balance(), 1))
        },
    },
    Primitive {
        name: "CappedSemaphore::release",
        make: || {
            let permits = Rc::new(CappedSemaphore::new(1, 1).unwrap());
            let (taker, rest) = (permits.clone(), permits.clone());
            gives(move || permits.release().unwrap(), move || taker.acquire().unwrap())
                .then(move || assert_eq!(rest.balance(), 1))
        },
    },
    Primitive {
        name: "Mutex::lock",
        make: || {
            let (mutex, gate) = (Rc::new(Mutex::new(0)), Gate::default());
            let (held, rest) = (mutex.clone(), mutex.clone());
            behind(&gate, move |gate| {
                let mut guard = held.lock().unwrap();
                gate.wait();
                *guard += 1;
            });
            waits(move || *mutex.lock().unwrap() += 1, move || gate.open())
                .then(move || assert_eq!(*rest.try_lock().unwrap(), 2))
        },
    },
    Primitive {
        name: "RwLock::read",
        make: || {
            let (lock, gate) = (Rc::new(RwLock::new(0)), Gate::default());
            let (held, rest) = (lock.clone(), lock.clone());
            behind(&gate, move |gate| {
                let mut guard = held.write().unwrap();
                gate.wait();
                *guard = 7;
            });
            waits(move || assert_eq!(*lock.read().unwrap(), 7), move || gate.open())
                .then(move || drop(rest.try_write().unwrap()))
        },
    },
    Primitive {
        name: "RwLock::write",
        make: || {
            let (lock, gate) = (Rc::new(RwLock::new(0)), Gate::default());
            let (held, rest) = (lock.clone(), lock.clone());
            behind(&gate, move |gate| {
                let _guard = held.read().unwrap();
                gate.wait();
            });
            waits(move || *lock.write().unwrap() += 1, move || gate.open())
                .then(move || assert_eq!(*rest.try_read().unwrap(), 1))
        },
    },
    Primitive {
        name: "Condvar::wait",
        make: || {
            let pair = Rc::new((Mutex::new(false), Condvar::new()));
            let (changer, rest) = (pair.clone(), pair.clone());
            waits(
                move || {
                    let guard = pair.0.lock().unwrap();
                    assert!(*pair.1.wait_while(guard, |ready| !*ready).unwrap());
                },
                move || {
                    *changer.0.lock().unwrap() = true;
                    changer.1.notify_one();
                },
            )
            .then(move || drop(rest.0.try_lock().unwrap()))
        },
    },
    Primitive {
        name: "Barrier::wait",
        make: || {
            let barrier = Rc::new(Barrier::new(2));
            let other = barrier.clone();
            waits(
                move || _ = barrier.wait(),
                move || {
                    spawn(move || other.wait());
                },
            )
        },
    },
    Primitive {
        name: "Once::call_once",
        make: || {
            let (once, gate) = (Rc::new(Once::new()), Gate::default());
            let running = once.clone();
            behind(&gate, move |gate| running.call_once(|| gate.wait()));
            waits(move || once.call_once(|| unreachable!()), move || gate.open())
        },
    },
    Primitive {
        name: "Once::wait",
        make: || {
            let once = Rc::new(Once::new());
            let caller = once.clone();
            waits(move || once.wait(), move || caller.call_once(|| ()))
        },
    },
    Primitive {
        name: "OnceLock::get_or_init",
        make: || {
            let (lock, gate) = (Rc::new(OnceLock::new()), Gate::default());
            let making = lock.clone();
            behind(&gate, move |gate| {
                making.get_or_init(|| {
                    gate.wait();
                    7
                });
            });
            waits(move || assert_eq!(*lock.get_or_init(|| unreachable!()), 7), move || gate.open())
        },
    },
    Primitive {
        name: "LazyLock::force",
        make: || {
            let gate = Gate::default();
            let opened = gate.clone();
            let lazy = Rc::new(LazyLock::new(move || {
                opened.wait();
                7
            }));
            let making = lazy.clone();
            behind(&gate, move |_| assert_eq!(**making, 7));
            waits(move || assert_eq!(*LazyLock::force(&lazy), 7), move || gate.open())
        },
    },
    Primitive {
        name: "mpsc::Receiver::recv",
        make: || {
            let (sender, receiver) = mpsc::channel();
            waits(move || assert_eq!(receiver.recv().unwrap(), 7), move || sender.send(7).unwrap())
        },
    },
    Primitive {
        name: "mpsc::SyncSender::send",
        make: || {
            let (sender, receiver) = mpsc::sync_channel(1);
            sender.send(1).unwrap();
            let receiver = Rc::new(receiver);
            let rest = receiver.clone();
            gives(move || sender.send(2).unwrap(), move || assert_eq!(receiver.recv().unwrap(), 1)).then(move || {
                assert_eq!(rest.try_recv().unwrap(), 2, "the item that was put");
                assert!(rest.try_recv().is_err());
            })
        },
    },
    Primitive {
        name: "GreenThread::wait",
        make: || {
            let gate = Gate::default();
            let inside = gate.clone();
            let green = spawn(move || {
                inside.wait();
                7
            });
            waits(move || assert_eq!(green.wait().unwrap(), 7), move || gate.open())
        },
    },
    Primitive {
        name: "thread::park",
        make: || {
            let (parked, woken) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
            let (who, released) = (parked.clone(), woken.clone());
            waits(
                move || {
                    while !woken.get() {
                        parked.set(Some(thread::current()));
                        park();
                    }
                },
                move || {
                    released.set(true);
                    // The caller may not have parked yet.
                    if let Some(parked) = who.take() {
                        parked.unpark();
                    }
                },
            )
        },
    },
    Primitive {
        name: "GreenPool::spawn",
        make: || {
            let (pool, gate) = (GreenPool::new(1), Gate::default());
            let worker = gate.clone();
            pool.spawn_n(move || worker.wait()).unwrap();
            let rest = pool.clone();
            waits(move || drop(pool.spawn(|| 7).unwrap()), move || gate.open()).then(move || {
                assert_eq!((rest.running(), rest.waiting()), (1, 0));
                rest.wait_all().unwrap();
                assert_eq!(rest.free(), 1);
            })
        },
    },
    Primitive {
        name: "GreenPool::wait_all",
        make: || {
            let (pool, gate) = (GreenPool::new(2), Gate::default());
            let worker = gate.clone();
            pool.spawn_n(move || worker.wait()).unwrap();
            waits(move || pool.wait_all().unwrap(), move || gate.open())
        },
    },
    Primitive {
        name: "GreenPile::next",
        make: || {
            let (mut pile, gate) = (GreenPile::new(2), Gate::default());
            let worker = gate.clone();
            pile.spawn(move || {
                worker.wait();
                7
            })
            .unwrap();
            let pile = RefCell::new(pile);
            waits(move || assert_eq!(pile.borrow_mut().next().unwrap().unwrap(), 7), move || gate.open())
        },
    },
    Primitive {
        name: "Imap::next",
        make: || {
            let (pool, gate) = (GreenPool::new(2), Gate::default());
            let worker = gate.clone();
            let results = RefCell::new(pool.imap([7, 8], move |number| {
                worker.wait();
                number
            }));
            waits(move || assert_eq!(results.borrow_mut().next().unwrap().unwrap(), 7), move || gate.open())
        },
    },
    Primitive {
        name: "Group::wait_all",
        make: || {
            let (group, gate) = (Group::new(), Gate::default());
            let worker = gate.clone();
            group.spawn(move || worker.wait()).unwrap();
            waits(move || group.wait_all().unwrap(), move || gate.open())
        },
    },
    Primitive {
        name: "Group::try_wait_all",
        make: || {
            let (group, gate) = (Group::new(), Gate::default());
            let worker = gate.clone();
            group.spawn(move || worker.wait()).unwrap();
            waits(move || group.try_wait_all().unwrap(), move || gate.open())
        },
    },
    Primitive {
        name: "pools::Pool::item",
        make: || {
            let pool = Rc::new(pools::Pool::new(1, || Ok(String::from("resource"))));
            let item = pool.get().unwrap();
            let (user, rest) = (pool.clone(), pool.clone());
            waits(move || assert_eq!(*user.item().unwrap(), "resource"), move || pool.put(item))
                .then(move || assert_eq!((rest.free(), rest.waiting(), rest.len()), (1, 0, 1)))
        },
    },
    Primitive {
        name: "tpool::execute",
        make: || {
            let released = Arc::new(AtomicBool::new(false));
            let job = released.clone();
            let wait = move || {
                let released = job.clone();
                let job = move || {
                    while !released.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    7
                };
                assert_eq!(tpool::execute(job).unwrap(), 7);
            };
            waits(wait, move || released.store(true, Ordering::SeqCst))
        },
    },
    Primitive {
        name: "trampoline",
        make: || {
            let (reader, mut writer) = pipe();
            let wait = move || assert!(trampoline(&reader, Interest::READ, None).is_ok());
            waits(wait, move || writer.write_all(b"x").unwrap())
        },
    },
    Primitive {
        name: "TcpStream::read",
        make: || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (reader, _) = listener.accept().unwrap();
            let wait = move || {
                let mut buffer = [0; 8];
                assert_eq!((&reader).read(&mut buffer).unwrap(), 4);
                assert_eq!(&buffer[..4], b"late");
            };
            waits(wait, move || writer.write_all(b"late").unwrap())
        },
    },
    Primitive {
        name: "TcpListener::accept",
        make: || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            waits(move || drop(listener.accept().unwrap()), move || drop(TcpStream::connect(address).unwrap()))
        },
    },
    Primitive {
        name: "UdpSocket::recv",
        make: || {
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = receiver.local_addr().unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let wait = move || assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 4);
            waits(wait, move || assert_eq!(sender.send_to(b"late", address).unwrap(), 4))
        },
    },
    Primitive {
        name: "UnixStream::write",
        make: || {
            let (reader, writer) = UnixStream::pair().unwrap();
            writer.set_nonblocking(true).unwrap();
            while (&writer).write(&[0; 4096]).is_ok() {}
            writer.set_nonblocking(false).unwrap();
            let release = move || {
                let mut buffer = vec![0; 1 << 20];
                // Keeps the peer open, with free buffer space.
                while (&reader).read(&mut buffer).unwrap() == buffer.len() {}
                std::mem::forget(reader);
            };
            gives(move || assert_ne!((&writer).write(&[0; 64]).unwrap(), 0), release)
        },
    },
];

/// Runs `test` on each primitive, then checks a complete wait, the final state, and that nothing is left behind.
///
/// Each primitive has an OS thread, because a lock holds each timeout back for the lock patience.
fn on_each(test_name: &'static str, test: fn(&Waits, &str)) {
    let on_one = |primitive: &'static Primitive| {
        run(&format!("{test_name}: {}", primitive.name), move || {
            let before = held();
            let waits = (primitive.make)();
            test(&waits, primitive.name);
            let Waits { wait, release, then, .. } = waits;
            let released = spawn(release);
            with_timeout(LONG, || wait()).unwrap();
            released.join().unwrap();
            then();
            drop(wait);
            wait_until_held(&before, primitive.name);
        });
    };
    std::thread::scope(|scope| {
        for primitive in PRIMITIVES {
            scope.spawn(move || on_one(primitive));
        }
    });
}

#[test]
fn a_timed_out_wait_can_be_repeated_and_loses_nothing() {
    on_each("a_timed_out_wait_can_be_repeated_and_loses_nothing", |waits, name| {
        for limit in [SHORT, Duration::ZERO, SHORT] {
            assert_eq!(with_timeout(limit, || (waits.wait)()).unwrap_err().after(), Some(limit), "{name}");
        }
        // A wait of another green thread times out as well.
        let wait = waits.wait.clone();
        assert!(spawn(move || with_timeout(SHORT, || wait()).is_err()).join().unwrap(), "{name}");
    });
}

#[test]
fn nested_timeouts_around_each_wait_keep_their_identity() {
    on_each("nested_timeouts_around_each_wait_keep_their_identity", |waits, name| {
        let wait = || (waits.wait)();
        let inner = with_timeout(LONG, || with_timeout(SHORT, wait)).unwrap().unwrap_err();
        assert_eq!(inner.after(), Some(SHORT), "{name}");
        let outer = with_timeout(SHORT, || with_timeout(LONG, wait).map_err(drop)).unwrap_err();
        assert_eq!(outer.after(), Some(SHORT), "{name}");
        assert_ne!(outer, inner);
        // The inner timeout is spent when the outer one strikes.
        let longer = SHORT * 3;
        let mut caught = false;
        let outer = with_timeout(longer, || {
            caught = with_timeout(SHORT, wait).is_err();
            wait();
        });
        assert_eq!((outer.unwrap_err().after(), caught), (Some(longer), true), "{name}");
    });
}

#[test]
fn a_linked_scope_around_each_wait_leaves_its_object_unchanged() {
    on_each("a_linked_scope_around_each_wait_leaves_its_object_unchanged", |waits, name| {
        let other = spawn(|| sleep(SHORT));
        let linked = other.with_link(|| with_timeout(LONG, || (waits.wait)()));
        assert!(linked.unwrap_err().error().is_none(), "{name}");
        // The linked scope inside the timeout.
        let other = spawn(|| sleep(SHORT));
        let linked = with_timeout(LONG, || other.with_link(|| (waits.wait)()));
        assert!(linked.unwrap().is_err(), "{name}");
    });
}

#[test]
fn a_release_at_the_time_of_the_timeout_is_not_lost() {
    for primitive in PRIMITIVES {
        run(&format!("a_release_at_the_time_of_the_timeout_is_not_lost: {}", primitive.name), move || {
            for delay in [SHORT, SHORT + Duration::from_micros(50), SHORT - Duration::from_micros(50)] {
                let Waits { gives, wait, release, then } = (primitive.make)();
                if gives {
                    return;
                }
                let released = spawn_after(delay, release);
                if with_timeout(SHORT, || wait()).is_err() {
                    with_timeout(LONG, || wait()).unwrap();
                }
                released.join().unwrap();
                then();
            }
        });
    }
}
