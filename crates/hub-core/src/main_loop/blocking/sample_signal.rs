//! The watchdog's signal, and the mark by which the handler recognizes it.
//!
//! Where a signal can carry a value, the watchdog's carries a unique one, and the handler answers only that signal.
//! Elsewhere the watchdog sends one signal for each sample, and the handler answers the next signal that arrives. If
//! that is a signal of the program, the program gets the watchdog's signal in its place.
//!
//! Ground rules:
//! - A [`Recipient`] names an OS thread that has not ended. The watchdog, which sends, makes sure of that.
//! - [`sender`] runs in a signal handler. It reads only the record that the system passed to the handler.

/// The sender of a signal.
pub(super) enum Sender {
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), expect(dead_code, reason = "there is no value"))]
    Watchdog,
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), expect(dead_code, reason = "there is no value"))]
    Other,
    #[cfg_attr(
        any(target_os = "linux", target_os = "android"),
        expect(dead_code, reason = "the value identifies the sender")
    )]
    Unknown,
}

pub(super) use self::system::{MARKED, Recipient, sender};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::ffi::{c_int, c_void};
    use std::mem::MaybeUninit;
    use std::{io, ptr};

    use libc::{pid_t, siginfo_t, sigval, uid_t};

    use super::Sender;

    /// Whether signals carry a value.
    pub(in super::super) const MARKED: bool = true;

    /// A byte whose address is the value.
    static MARK: u8 = 0;

    /// An OS thread to send the signal to.
    pub(in super::super) struct Recipient {
        process: pid_t,
        thread: pid_t,
    }

    /// The layout of a `siginfo_t` with a value, after its three numbers.
    #[repr(C)]
    struct Queued {
        process: pid_t,
        user: uid_t,
        value: sigval,
    }

    impl Recipient {
        /// Returns the calling OS thread, if the system allows a signal with a value to it.
        pub(in super::super) fn this() -> io::Result<Recipient> {
            // SAFETY: these calls have no preconditions.
            let (process, thread) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid) as pid_t) };
            let recipient = Recipient { process, thread };
            // Signal number zero sends nothing; it only checks the permission.
            recipient.send(0).map(|()| recipient)
        }

        pub(in super::super) fn send(&self, signal: c_int) -> io::Result<()> {
            const AT: usize = (3 * size_of::<c_int>()).next_multiple_of(align_of::<Queued>());
            const { assert!(AT + size_of::<Queued>() <= size_of::<siginfo_t>()) }

            let value = sigval { sival_ptr: (&raw const MARK).cast_mut().cast::<c_void>() };
            // SAFETY: the call has no preconditions.
            let user = unsafe { libc::getuid() };
            let mut info = MaybeUninit::<siginfo_t>::zeroed();
            let start = info.as_mut_ptr();
            // SAFETY: all fields lie within the record, which is zeroed and aligned for a pointer. The system only
            // reads it.
            let sent = unsafe {
                (*start).si_signo = signal;
                (*start).si_code = libc::SI_QUEUE;
                start.byte_add(AT).cast::<Queued>().write(Queued { process: self.process, user, value });
                libc::syscall(libc::SYS_rt_tgsigqueueinfo, self.process, self.thread, signal, start)
            };
            if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
    }

    /// Returns the sender of a signal.
    ///
    /// # Safety
    ///
    /// `info` must be the pointer that the system passed to the handler.
    pub(in super::super) unsafe fn sender(info: *const siginfo_t) -> Sender {
        // SAFETY: the record lives while the handler runs. It has a value where the code says so.
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

    /// Whether signals carry a value. Some of these systems cannot send a signal with a value to a single OS thread.
    pub(in super::super) const MARKED: bool = false;

    /// An OS thread to send the signal to.
    pub(in super::super) struct Recipient(libc::pthread_t);

    // SAFETY: any OS thread may use the handle of an OS thread, which is a pointer on some systems.
    unsafe impl Send for Recipient {}

    impl Recipient {
        pub(in super::super) fn this() -> io::Result<Recipient> {
            // SAFETY: the call has no preconditions.
            Ok(Recipient(unsafe { libc::pthread_self() }))
        }

        pub(in super::super) fn send(&self, signal: c_int) -> io::Result<()> {
            // SAFETY: the OS thread has not ended, by the ground rules.
            match unsafe { libc::pthread_kill(self.0, signal) } {
                0 => Ok(()),
                number => Err(io::Error::from_raw_os_error(number)),
            }
        }
    }

    /// Returns the sender of a signal, which is not known.
    ///
    /// # Safety
    ///
    /// There is no requirement.
    pub(in super::super) unsafe fn sender(_: *const siginfo_t) -> Sender {
        Sender::Unknown
    }
}
