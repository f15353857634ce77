//! Two barriers: a light one that costs nothing, and a heavy one that acts on all OS threads of the process.

pub(super) use self::system::{available, heavy, light};

#[cfg(all(not(loom), any(target_os = "linux", target_os = "android")))]
mod system {
    use std::io;
    use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};

    use rustix::io::Errno;
    use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

    const YES: u8 = 1;
    const NO: u8 = 2;

    /// Whether the system has the heavy barrier; 0 until it was asked. This is not a lock, since a fork could leave the
    /// OS thread that asks behind. Several OS threads may ask at once.
    static KNOWN: AtomicU8 = AtomicU8::new(0);

    /// Returns whether the system has the heavy barrier.
    pub(in super::super) fn available() -> bool {
        match KNOWN.load(Ordering::Relaxed) {
            YES => true,
            NO => false,
            _ => {
                let available =
                    membarrier_query().contains_command(MembarrierCommand::PrivateExpedited) && register().is_ok();
                KNOWN.store(if available { YES } else { NO }, Ordering::Relaxed);
                available
            }
        }
    }

    fn register() -> rustix::io::Result<()> {
        membarrier(MembarrierCommand::RegisterPrivateExpedited)
    }

    /// Keeps the compiler from moving loads before stores. The heavy barrier takes care of the processor.
    #[inline(always)]
    pub(in super::super) fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    /// Makes every OS thread of the process pass a full memory barrier before this returns. If the system refuses it,
    /// the barrier counts as unavailable from now on.
    pub(in super::super) fn heavy() -> io::Result<()> {
        let passed = match membarrier(MembarrierCommand::PrivateExpedited) {
            // The process is not registered: a forked child may have to register again.
            Err(Errno::PERM) => register().and_then(|()| membarrier(MembarrierCommand::PrivateExpedited)),
            passed => passed,
        };
        if passed.is_err() {
            KNOWN.store(NO, Ordering::Relaxed);
        }
        Ok(passed?)
    }
}

#[cfg(all(not(loom), not(any(target_os = "linux", target_os = "android"))))]
mod system {
    use std::io;

    pub(in super::super) fn available() -> bool {
        false
    }

    #[inline(always)]
    pub(in super::super) fn light() {}

    pub(in super::super) fn heavy() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// In a model both barriers are the fence that they amount to together.
#[cfg(loom)]
mod system {
    use std::io;

    use loom::sync::atomic::{Ordering, fence};

    pub(in super::super) fn available() -> bool {
        true
    }

    pub(in super::super) fn light() {
        fence(Ordering::SeqCst);
    }

    pub(in super::super) fn heavy() -> io::Result<()> {
        light();
        Ok(())
    }
}
