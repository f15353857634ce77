//! The examples of std's `sync`, without `mpsc`.

use super::examples;

examples! {
    fn barrier() {
        use greenhub::sync::Barrier;
        use greenhub::thread;

        let n = 10;
        let barrier = Barrier::new(n);
        thread::scope(|s| {
            for _ in 0..n {
                s.spawn(|| {
                    barrier.wait();
                });
            }
        });
    }

    fn barrier_wait_result() {
        use greenhub::sync::Barrier;

        let barrier = Barrier::new(1);
        let barrier_wait_result = barrier.wait();
        assert!(barrier_wait_result.is_leader());
    }

    fn condvar() {
        use greenhub::sync::{Arc, Condvar, Mutex};
        use greenhub::thread;

        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let pair2 = Arc::clone(&pair);
        thread::spawn(move || {
            let (lock, cvar) = &*pair2;
            let mut started = lock.lock().unwrap();
            *started = true;
            cvar.notify_one();
        });
        let (lock, cvar) = &*pair;
        let mut started = lock.lock().unwrap();
        while !*started {
            started = cvar.wait(started).unwrap();
        }
    }

    fn condvar_wait_while() {
        use greenhub::sync::{Arc, Condvar, Mutex};
        use greenhub::thread;

        let pair = Arc::new((Mutex::new(true), Condvar::new()));
        let pair2 = Arc::clone(&pair);
        thread::spawn(move || {
            let (lock, cvar) = &*pair2;
            let mut pending = lock.lock().unwrap();
            *pending = false;
            cvar.notify_all();
        });
        let (lock, cvar) = &*pair;
        let guard = cvar.wait_while(lock.lock().unwrap(), |pending| *pending).unwrap();
        assert!(!*guard);
    }

    fn condvar_wait_timeout() {
        use greenhub::sync::{Arc, Condvar, Mutex};
        use greenhub::thread;
        use greenhub::time::Duration;

        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let pair2 = Arc::clone(&pair);
        thread::spawn(move || {
            let (lock, cvar) = &*pair2;
            *lock.lock().unwrap() = true;
            cvar.notify_one();
        });
        let (lock, cvar) = &*pair;
        let mut started = lock.lock().unwrap();
        loop {
            let result = cvar.wait_timeout(started, Duration::from_millis(10)).unwrap();
            started = result.0;
            if *started {
                break;
            }
        }
    }

    fn condvar_wait_timeout_while() {
        use greenhub::sync::{Arc, Condvar, Mutex};
        use greenhub::thread;
        use greenhub::time::Duration;

        let pair = Arc::new((Mutex::new(true), Condvar::new()));
        let pair2 = Arc::clone(&pair);
        thread::spawn(move || {
            let (lock, cvar) = &*pair2;
            *lock.lock().unwrap() = false;
            cvar.notify_one();
        });
        let (lock, cvar) = &*pair;
        let pending = |pending: &mut bool| *pending;
        let result = cvar.wait_timeout_while(lock.lock().unwrap(), Duration::from_secs(60), pending).unwrap();
        assert!(!result.1.timed_out());
    }

    fn wait_timeout_result() {
        use greenhub::sync::{Condvar, Mutex};
        use greenhub::time::Duration;

        let (lock, cvar) = (Mutex::new(false), Condvar::new());
        loop {
            let result = cvar.wait_timeout(lock.lock().unwrap(), Duration::from_millis(1)).unwrap();
            if result.1.timed_out() {
                break;
            }
        }
    }

    fn lazy_lock() {
        use greenhub::sync::LazyLock;

        static DEEP_THOUGHT: LazyLock<String> = LazyLock::new(|| "42".to_string());
        let _ = &*DEEP_THOUGHT;
    }

    fn lazy_lock_in_a_field() {
        use greenhub::sync::LazyLock;

        struct UseCellLock {
            number: LazyLock<u32>,
        }
        let lock: LazyLock<u32> = LazyLock::new(|| 0u32);
        let data = UseCellLock { number: lock };
        assert_eq!(*data.number, 0);
    }

    fn lazy_lock_new() {
        use greenhub::sync::LazyLock;

        let hello = "Hello, World!".to_string();
        let lazy = LazyLock::new(|| hello.to_uppercase());
        assert_eq!(&*lazy, "HELLO, WORLD!");
    }

    fn lazy_lock_force() {
        use greenhub::sync::LazyLock;

        let lazy = LazyLock::new(|| 92);
        assert_eq!(LazyLock::force(&lazy), &92);
        assert_eq!(&*lazy, &92);
    }

    fn mutex() {
        use greenhub::sync::mpsc::channel;
        use greenhub::sync::{Arc, Mutex};
        use greenhub::thread;

        const N: usize = 10;
        let data = Arc::new(Mutex::new(0));
        let (tx, rx) = channel();
        for _ in 0..N {
            let (data, tx) = (Arc::clone(&data), tx.clone());
            thread::spawn(move || {
                let mut data = data.lock().unwrap();
                *data += 1;
                if *data == N {
                    tx.send(()).unwrap();
                }
            });
        }
        rx.recv().unwrap();
    }

    fn mutex_recovers_from_poison() {
        use greenhub::sync::{Arc, Mutex};
        use greenhub::thread;

        let lock = Arc::new(Mutex::new(0_u32));
        let lock2 = Arc::clone(&lock);
        let _ = thread::spawn(move || {
            let _guard = lock2.lock().unwrap();
            panic!();
        })
        .join();
        assert!(lock.is_poisoned());
        let mut guard = match lock.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        };
        *guard += 1;
    }

    fn mutex_lock() {
        use greenhub::sync::{Arc, Mutex};
        use greenhub::thread;

        let mutex = Arc::new(Mutex::new(0));
        let c_mutex = Arc::clone(&mutex);
        thread::spawn(move || *c_mutex.lock().unwrap() = 10).join().expect("thread::spawn failed");
        assert_eq!(*mutex.lock().unwrap(), 10);
    }

    fn mutex_try_lock() {
        use greenhub::sync::{Arc, Mutex};
        use greenhub::thread;

        let mutex = Arc::new(Mutex::new(0));
        let c_mutex = Arc::clone(&mutex);
        thread::spawn(move || {
            let mut lock = c_mutex.try_lock();
            if let Ok(ref mut mutex) = lock {
                **mutex = 10;
            } else {
                panic!("try_lock failed");
            }
        })
        .join()
        .expect("thread::spawn failed");
        assert_eq!(*mutex.lock().unwrap(), 10);
    }

    fn mutex_clear_poison() {
        use greenhub::sync::{Arc, Mutex};
        use greenhub::thread;

        let mutex = Arc::new(Mutex::new(0));
        let c_mutex = Arc::clone(&mutex);
        let _ = thread::spawn(move || {
            let _lock = c_mutex.lock().unwrap();
            panic!();
        })
        .join();
        assert!(mutex.is_poisoned());
        let x = mutex.lock().unwrap_or_else(|mut e| {
            **e.get_mut() = 1;
            mutex.clear_poison();
            e.into_inner()
        });
        assert!(!mutex.is_poisoned());
        assert_eq!(*x, 1);
    }

    fn mutex_into_inner_and_get_mut() {
        use greenhub::sync::Mutex;

        let mutex = Mutex::new(0);
        assert_eq!(mutex.into_inner().unwrap(), 0);
        let mut mutex = Mutex::new(0);
        *mutex.get_mut().unwrap() = 10;
        assert_eq!(*mutex.lock().unwrap(), 10);
    }

    fn once() {
        use greenhub::sync::Once;

        static START: Once = Once::new();
        START.call_once(|| {
            // The initialization.
        });
    }

    fn once_call_once_force() {
        use greenhub::sync::Once;
        use greenhub::thread;

        static INIT: Once = Once::new();
        let handle = thread::spawn(|| INIT.call_once(|| panic!()));
        assert!(handle.join().is_err());
        let handle = thread::spawn(|| INIT.call_once(|| {}));
        assert!(handle.join().is_err());
        INIT.call_once_force(|state| assert!(state.is_poisoned()));
        INIT.call_once(|| {});
    }

    fn once_is_completed() {
        use greenhub::sync::Once;

        static INIT: Once = Once::new();
        assert!(!INIT.is_completed());
        INIT.call_once(|| assert!(!INIT.is_completed()));
        assert!(INIT.is_completed());
    }

    fn once_wait() {
        use greenhub::sync::Once;
        use greenhub::thread;

        static READY: Once = Once::new();
        let thread = thread::spawn(|| READY.wait());
        READY.call_once(|| ());
        thread.join().unwrap();
    }

    fn once_state() {
        use greenhub::sync::{Once, OnceState};

        fn initialize(state: &OnceState) {
            assert!(!state.is_poisoned());
        }
        static INIT: Once = Once::new();
        INIT.call_once_force(initialize);
    }

    fn once_lock() {
        use greenhub::sync::OnceLock;

        static CELL: OnceLock<usize> = OnceLock::new();
        assert!(CELL.get().is_none());
        greenhub::thread::spawn(|| {
            let value = CELL.get_or_init(|| 12345);
            assert_eq!(value, &12345);
        })
        .join()
        .unwrap();
        assert_eq!(CELL.get(), Some(&12345));
    }

    fn once_lock_set() {
        use greenhub::sync::OnceLock;

        static CELL: OnceLock<i32> = OnceLock::new();
        assert!(CELL.get().is_none());
        greenhub::thread::spawn(|| assert_eq!(CELL.set(92), Ok(()))).join().unwrap();
        assert_eq!(CELL.set(62), Err(62));
        assert_eq!(CELL.get(), Some(&92));
    }

    fn once_lock_wait() {
        use greenhub::sync::OnceLock;
        use greenhub::thread;

        let value = OnceLock::new();
        thread::scope(|s| {
            s.spawn(|| value.set(1 + 1));
            let result = value.wait();
            assert_eq!(result, &2);
        })
    }

    fn once_lock_into_inner_and_take() {
        use greenhub::sync::OnceLock;

        let cell: OnceLock<String> = OnceLock::new();
        assert_eq!(cell.into_inner(), None);
        let mut cell = OnceLock::new();
        cell.set("hello".to_string()).unwrap();
        assert_eq!(cell.take(), Some("hello".to_string()));
        assert_eq!(cell.get(), None);
    }

    fn once_lock_from_and_eq() -> Result<(), i32> {
        use greenhub::sync::OnceLock;

        let a = OnceLock::from(3);
        let b = OnceLock::new();
        b.set(3)?;
        assert_eq!(a, b);
        assert_eq!(OnceLock::<()>::new(), OnceLock::default());
        Ok(())
    }

    fn poison_error() {
        use greenhub::sync::{Arc, Mutex};
        use greenhub::thread;

        let mutex = Arc::new(Mutex::new(1));
        let c_mutex = Arc::clone(&mutex);
        let _ = thread::spawn(move || {
            let mut data = c_mutex.lock().unwrap();
            *data = 2;
            panic!();
        })
        .join();
        match mutex.lock() {
            Ok(_) => unreachable!(),
            Err(p_err) => {
                let data = p_err.get_ref();
                assert_eq!(**data, 2);
            }
        };
    }

    fn rw_lock() {
        use greenhub::sync::RwLock;

        let lock = RwLock::new(5);
        {
            let r1 = lock.read().unwrap();
            let r2 = lock.read().unwrap();
            assert_eq!(*r1, 5);
            assert_eq!(*r2, 5);
        }
        {
            let mut w = lock.write().unwrap();
            *w += 1;
            assert_eq!(*w, 6);
        }
    }

    fn rw_lock_read() {
        use greenhub::sync::{Arc, RwLock};
        use greenhub::thread;

        let lock = Arc::new(RwLock::new(1));
        let c_lock = Arc::clone(&lock);
        let n = lock.read().unwrap();
        assert_eq!(*n, 1);
        thread::spawn(move || {
            let r = c_lock.read();
            assert!(r.is_ok());
        })
        .join()
        .unwrap();
    }

    fn rw_lock_try_read() {
        use greenhub::sync::RwLock;

        let lock = RwLock::new(1);
        match lock.try_read() {
            Ok(n) => assert_eq!(*n, 1),
            Err(_) => unreachable!(),
        };
    }

    fn rw_lock_write_and_try_write() {
        use greenhub::sync::RwLock;

        let lock = RwLock::new(1);
        let mut n = lock.write().unwrap();
        *n = 2;
        assert!(lock.try_read().is_err());
        drop(n);
        let n = lock.read().unwrap();
        assert_eq!(*n, 2);
        assert!(lock.try_write().is_err());
    }

    fn rw_lock_clear_poison() {
        use greenhub::sync::{Arc, RwLock};
        use greenhub::thread;

        let lock = Arc::new(RwLock::new(0));
        let c_lock = Arc::clone(&lock);
        let _ = thread::spawn(move || {
            let _lock = c_lock.write().unwrap();
            panic!();
        })
        .join();
        assert!(lock.is_poisoned());
        let guard = lock.write().unwrap_or_else(|mut e| {
            **e.get_mut() = 1;
            lock.clear_poison();
            e.into_inner()
        });
        assert!(!lock.is_poisoned());
        assert_eq!(*guard, 1);
    }

    fn rw_lock_into_inner_and_get_mut() {
        use greenhub::sync::RwLock;

        let lock = RwLock::new(String::new());
        lock.write().unwrap().push_str("modified");
        assert_eq!(lock.into_inner().unwrap(), "modified");
        let mut lock = RwLock::new(0);
        *lock.get_mut().unwrap() = 10;
        assert_eq!(*lock.read().unwrap(), 10);
    }
}
