//! The examples of std's `thread`.

use super::examples;

examples! {
    fn module() {
        use greenhub::thread;

        thread::spawn(move || {
            // Some work.
        });
    }

    fn module_joins() {
        use greenhub::thread;

        let computation = thread::spawn(|| 6 * 7);
        assert_eq!(computation.join().unwrap(), 42);
    }

    fn builder() {
        use greenhub::thread;

        let builder = thread::Builder::new();
        let handler = builder.spawn(|| ()).unwrap();
        handler.join().unwrap();
    }

    fn builder_new() {
        use greenhub::thread;

        let builder = thread::Builder::new().name("foo".into()).stack_size(32 * 1024);
        let handler = builder.spawn(|| ()).unwrap();
        handler.join().unwrap();
    }

    fn builder_name() {
        use greenhub::thread;

        let builder = thread::Builder::new().name("foo".into());
        let handler = builder.spawn(|| assert_eq!(thread::current().name(), Some("foo"))).unwrap();
        handler.join().unwrap();
    }

    fn builder_stack_size() {
        use greenhub::thread;

        let builder = thread::Builder::new().stack_size(32 * 1024);
        drop(builder);
    }

    fn builder_spawn_scoped() {
        use greenhub::thread;

        let mut a = vec![1, 2, 3];
        let mut x = 0;
        thread::scope(|s| {
            let first = thread::Builder::new().name("first".to_string());
            first
                .spawn_scoped(s, || {
                    assert_eq!(thread::current().name(), Some("first"));
                    assert_eq!(&a, &[1, 2, 3]);
                })
                .unwrap();
            let second = thread::Builder::new().name("second".to_string());
            second.spawn_scoped(s, || x += a[0] + a[2]).unwrap();
        });
        a.push(4);
        assert_eq!(x, a.len());
    }

    fn join_handle() {
        use greenhub::thread;

        let join_handle: thread::JoinHandle<_> = thread::spawn(|| {
            // Some work.
        });
        join_handle.join().expect("Couldn't join on the associated thread");
    }

    fn join_handle_from_a_builder() {
        use greenhub::thread;

        let builder = thread::Builder::new();
        let join_handle: thread::JoinHandle<_> = builder.spawn(|| ()).unwrap();
        let thread = join_handle.thread();
        assert!(!format!("{:?}", thread.id()).is_empty());
    }

    fn thread_name() {
        use greenhub::thread;

        let builder = thread::Builder::new();
        let handler = builder.spawn(|| assert!(thread::current().name().is_none())).unwrap();
        handler.join().unwrap();
    }

    fn thread_unpark() {
        use greenhub::sync::atomic::{AtomicBool, Ordering};
        use greenhub::thread;
        use greenhub::time::Duration;

        static QUEUED: AtomicBool = AtomicBool::new(false);
        let parked_thread = thread::Builder::new()
            .spawn(|| {
                QUEUED.store(true, Ordering::Release);
                thread::park();
            })
            .unwrap();
        thread::sleep(Duration::from_millis(10));
        while !QUEUED.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        parked_thread.thread().unpark();
        parked_thread.join().unwrap();
    }

    fn thread_id() {
        use greenhub::thread;

        let other_thread = thread::spawn(|| thread::current().id());
        let other_thread_id = other_thread.join().unwrap();
        assert!(thread::current().id() != other_thread_id);
    }

    fn scope() {
        use greenhub::thread;

        let mut a = vec![1, 2, 3];
        let mut x = 0;
        thread::scope(|s| {
            s.spawn(|| assert_eq!(a.len(), 3));
            s.spawn(|| x += a[0] + a[2]);
        });
        a.push(4);
        assert_eq!(x, a.len());
    }

    fn scope_in_a_function_that_names_its_types() {
        use greenhub::thread::{Scope, ScopedJoinHandle, scope};

        fn count<'scope, 'env>(s: &'scope Scope<'scope, 'env>, text: &'env str) -> ScopedJoinHandle<'scope, usize> {
            s.spawn(|| text.len())
        }
        let text = String::from("lent");
        assert_eq!(scope(|s| count(s, &text).join().unwrap()), 4);
    }

    fn scoped_join_handle_thread() {
        use greenhub::thread;

        thread::scope(|s| {
            let t = s.spawn(|| ());
            assert!(!format!("{:?}", t.thread().id()).is_empty());
        });
    }

    fn scoped_join_handle_join() {
        use greenhub::thread;

        thread::scope(|s| {
            let t = s.spawn(|| panic!("oh no"));
            assert!(t.join().is_err());
        });
    }

    fn spawn() {
        use greenhub::thread;

        let handler = thread::spawn(|| {
            // Thread code.
        });
        handler.join().unwrap();
    }

    fn spawn_with_a_channel() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;

        let (tx, rx) = channel();
        let sender = thread::spawn(move || tx.send("Hello, thread".to_owned()).expect("Unable to send on channel"));
        let receiver = thread::spawn(move || {
            let value = rx.recv().expect("Unable to receive from channel");
            assert_eq!(value, "Hello, thread");
        });
        sender.join().expect("The sender thread has panicked");
        receiver.join().expect("The receiver thread has panicked");
    }

    fn spawn_with_both_of_its_parameters() {
        use greenhub::thread;

        let handle = thread::spawn::<_, u8>(|| 1);
        assert_eq!(handle.join().unwrap(), 1);
    }

    fn current() {
        use greenhub::thread;

        let handler = thread::Builder::new().name("named thread".into()).spawn(|| {
            let handle = thread::current();
            assert_eq!(handle.name(), Some("named thread"));
        });
        handler.unwrap().join().unwrap();
    }

    fn yield_now() {
        use greenhub::thread;

        thread::yield_now();
    }

    fn panicking() {
        use greenhub::thread;

        struct SomeStruct;
        impl Drop for SomeStruct {
            fn drop(&mut self) {
                assert!(!thread::panicking());
            }
        }
        drop(SomeStruct);
    }

    fn sleep() {
        use greenhub::{thread, time};

        let ten_millis = time::Duration::from_millis(10);
        let now = time::Instant::now();
        thread::sleep(ten_millis);
        assert!(now.elapsed() >= ten_millis);
    }

    fn park() {
        use greenhub::sync::atomic::{AtomicBool, Ordering};
        use greenhub::sync::Arc;
        use greenhub::thread;
        use greenhub::time::Duration;

        let flag = Arc::new(AtomicBool::new(false));
        let flag2 = Arc::clone(&flag);
        let parked_thread = thread::spawn(move || {
            while !flag2.load(Ordering::Relaxed) {
                thread::park();
            }
        });
        thread::sleep(Duration::from_millis(10));
        flag.store(true, Ordering::Relaxed);
        parked_thread.thread().unpark();
        parked_thread.join().unwrap();
    }

    fn park_timeout() {
        use greenhub::thread::park_timeout;
        use greenhub::time::{Duration, Instant};

        let timeout = Duration::from_millis(10);
        let beginning_park = Instant::now();
        let mut timeout_remaining = timeout;
        loop {
            park_timeout(timeout_remaining);
            let elapsed = beginning_park.elapsed();
            if elapsed >= timeout {
                break;
            }
            timeout_remaining = timeout - elapsed;
        }
    }

    fn available_parallelism() -> greenhub::io::Result<()> {
        use greenhub::thread;

        let count = thread::available_parallelism()?.get();
        assert!(count >= 1_usize);
        Ok(())
    }
}
