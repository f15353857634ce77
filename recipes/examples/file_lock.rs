//! File locks, which can only block, on the OS threads of a pool.
//!
//! `cargo run -p recipes --example file_lock -- epoll`
//!
//! The system has no way to wait for a file lock beside other events. [`lock`] tries at once, which never blocks, and
//! waits on a pool thread only if another process has the lock.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use greenhub::{sleep, spawn, tpool};
use recipes::web::AnyError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Pool threads for this purpose alone: each waiter takes one until it has its lock.
static THREADS: tpool::Pool = tpool::Pool::new(64);

fn main() -> ExitCode {
    recipes::way::main(|| {
        let path = std::env::temp_dir().join(format!("file-lock-{}", std::process::id()));
        let (first, second) = (File::create(&path)?, File::create(&path)?);
        let begun = Instant::now();
        lock(&first)?;
        println!("a free lock: {:?}", begun.elapsed());
        let waiter = spawn(move || lock(&second));
        sleep(Duration::from_millis(10));
        unlock(&first)?;
        waiter.join()??;
        println!("a lock that is held for 10 ms: {:?}", begun.elapsed());
        Ok::<_, AnyError>(std::fs::remove_file(path)?)
    })
}

/// Locks a file for this process alone, until it is unlocked or closed. Switches if another one holds the lock.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {}
        tried => return Ok(tried?),
    }
    // The job owns a descriptor of its own: an exit leaves it behind, and the lock belongs to the open file.
    let descriptor = file.as_fd().try_clone_to_owned()?;
    Ok(THREADS.execute(move || flock(&descriptor, FlockOperation::LockExclusive))??)
}

/// Unlocks a file.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::Unlock)?)
}
