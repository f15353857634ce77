//! File locks on pool threads.

use std::fs::File;

use greenhub::{spawn, with_timeout};

use crate::file_lock::{lock, unlock};
use crate::support::{MANY, run_many};

#[test]
fn many_green_threads_hold_a_lock_one_after_another() {
    run_many(|_| {
        let path = std::env::temp_dir().join(format!("recipes-many-locks-{}", std::process::id()));
        let holders = std::rc::Rc::new(std::cell::Cell::new(0));
        let green: Vec<_> = (0..MANY)
            .map(|_| {
                let (file, holders) = (File::create(&path).expect("a file"), std::rc::Rc::clone(&holders));
                spawn(move || {
                    lock(&file).expect("a lock");
                    assert_eq!(holders.replace(1), 0);
                    greenhub::thread::yield_now();
                    assert_eq!(holders.replace(0), 1);
                    unlock(&file)
                })
            })
            .collect();
        green.into_iter().for_each(|green| green.join().expect("no panic").expect("a lock"));
        std::fs::remove_file(path).expect("a file");
    });
}

#[test]
fn a_lock_that_is_held_parks_one_green_thread() {
    run_many(|ticker| {
        let path = std::env::temp_dir().join(format!("recipes-lock-{}", std::process::id()));
        let open = || File::create(&path).expect("a file");
        let (first, second, third) = (open(), open(), open());
        lock(&first).expect("a free lock");
        let waiter = spawn(move || lock(&second).map(|()| second));
        ticker.gate().pass();
        assert!(!waiter.is_finished());
        unlock(&first).expect("a lock");
        drop(waiter.join().expect("no panic").expect("a lock"));
        // A wait that is left early leaves its job behind. The job's lock is that of the same open file.
        lock(&first).expect("a free lock");
        assert!(with_timeout(std::time::Duration::from_millis(5), || lock(&third)).is_err());
        drop(third);
        unlock(&first).expect("a lock");
        lock(&first).expect("the job left no lock behind");
        std::fs::remove_file(path).expect("a file");
    });
}
