//! Two barriers, of which one is for nothing: the heavy one is felt by all threads of the process.

pub(super) use self::system::{available, heavy, light};

#[cfg(all(not(loom), any(target_os = "linux", target_os = "android")))]
mod system {
    use std::io;
    use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};

    use rustix::io::Errno;
    use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

    const YES: u8 = 1;
    const NO: u8 = 2;

    /// Whether there is a heavy one; 0 before somebody has asked. Not a lock: a fork could leave the thread behind that
    /// asks. Several may ask at once.
    static KNOWN: AtomicU8 = AtomicU8::new(0);

    /// Whether there is a heavy one.
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

    /// Keeps the compiler from moving loads before stores. What the processor does is up to the heavy one.
    #[inline(always)]
    pub(in super::super) fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    /// Has every thread of the process pass a full memory barrier before this returns. There is none any more if it is
    /// refused.
    pub(in super::super) fn heavy() -> io::Result<()> {
        let passed = match membarrier(MembarrierCommand::PrivateExpedited) {
            // Not registered: a child may have to do it again.
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

/// In a model both are the fence that they make together.
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
