//! The watchdog's signal, and by what the handler knows it.
//!
//! Where a signal can carry a value, it carries one that nobody else has: only the watchdog's own is taken. Elsewhere one
//! signal is sent for each question, and one is taken for it. If one of the program's comes in between it is taken for
//! the question, and the program gets the watchdog's in its place.
//!
//! Ground rules:
//! - An [`Asked`] leads to an OS thread that has not ended; whoever sends sees to that.
//! - [`sender`] runs in a signal handler. It reads what the system passed to that, and nothing else.

/// Whose signal it is.
pub(super) enum Sender {
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), expect(dead_code, reason = "there is no value"))]
    Watchdog,
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), expect(dead_code, reason = "there is no value"))]
    Other,
    #[cfg_attr(any(target_os = "linux", target_os = "android"), expect(dead_code, reason = "the value tells"))]
    Unknown,
}

pub(super) use self::system::{Asked, MARKED, sender};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::ffi::{c_int, c_void};
    use std::mem::MaybeUninit;
    use std::{io, ptr};

    use libc::{pid_t, siginfo_t, sigval, uid_t};

    use super::Sender;

    /// Signals carry a value.
    pub(in super::super) const MARKED: bool = true;

    /// Its address is the value.
    static MARK: u8 = 0;

    /// An OS thread that is asked.
    pub(in super::super) struct Asked {
        process: pid_t,
        thread: pid_t,
    }

    /// What a `siginfo_t` has after its three numbers when it carries a value.
    #[repr(C)]
    struct Queued {
        process: pid_t,
        user: uid_t,
        value: sigval,
    }

    impl Asked {
        /// The calling thread, if the system lets it be sent `signal` with a value.
        pub(in super::super) fn this() -> io::Result<Asked> {
            // SAFETY: always allowed.
            let (process, thread) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid) as pid_t) };
            let asked = Asked { process, thread };
            // The signal zero is none; it is only looked whether one might be sent.
            asked.send(0).map(|()| asked)
        }

        pub(in super::super) fn send(&self, signal: c_int) -> io::Result<()> {
            const AT: usize = (3 * size_of::<c_int>()).next_multiple_of(align_of::<Queued>());
            const { assert!(AT + size_of::<Queued>() <= size_of::<siginfo_t>()) }

            let value = sigval { sival_ptr: (&raw const MARK).cast_mut().cast::<c_void>() };
            // SAFETY: always allowed.
            let user = unsafe { libc::getuid() };
            let mut info = MaybeUninit::<siginfo_t>::zeroed();
            let start = info.as_mut_ptr();
            // SAFETY: all lies within the record, which is zeroed and aligned for a pointer; the system reads it.
            let sent = unsafe {
                (*start).si_signo = signal;
                (*start).si_code = libc::SI_QUEUE;
                start.byte_add(AT).cast::<Queued>().write(Queued { process: self.process, user, value });
                libc::syscall(libc::SYS_rt_tgsigqueueinfo, self.process, self.thread, signal, start)
            };
            if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
    }

    /// Who has sent it.
    ///
    /// # Safety
    ///
    /// `info` is what the system passed to the handler.
    pub(in super::super) unsafe fn sender(info: *const siginfo_t) -> Sender {
        // SAFETY: it lives while the handler runs; a value is there where the code says so.
        let is_ours = unsafe {
            (*info).si_code == libc::SI_QUEUE && ptr::eq((*info).si_value().sival_ptr.cast::<u8>(), &raw const MARK)
        };
        if is_ours { Sender::Watchdog } else { Sender::Other }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::ffi::c_int;
    use std::io;

    use libc::siginfo_t;

    use super::Sender;

    /// Not all of these systems send a value to one OS thread.
    pub(in super::super) const MARKED: bool = false;

    /// An OS thread that is asked.
    pub(in super::super) struct Asked(libc::pthread_t);

    // SAFETY: the handle of an OS thread, a pointer on some systems, may be used by any.
    unsafe impl Send for Asked {}

    impl Asked {
        pub(in super::super) fn this() -> io::Result<Asked> {
            // SAFETY: always allowed.
            Ok(Asked(unsafe { libc::pthread_self() }))
        }

        pub(in super::super) fn send(&self, signal: c_int) -> io::Result<()> {
            // SAFETY: the thread has not ended, by the ground rules.
            match unsafe { libc::pthread_kill(self.0, signal) } {
                0 => Ok(()),
                number => Err(io::Error::from_raw_os_error(number)),
            }
        }
    }

    /// Who has sent it.
    ///
    /// # Safety
    ///
    /// None is needed.
    pub(in super::super) unsafe fn sender(_: *const siginfo_t) -> Sender {
        Sender::Unknown
    }
}
