//! The handling of stack overflows: a message that names the greenlet, and the end of the process.
//!
//! The process has one handler, for the two signals that an access to a guard may raise. A fault elsewhere is passed to
//! the handler that was installed before. That is usually std's, which reports overflows of OS threads.
//!
//! Ground rules:
//! - The handler runs on the OS thread's alternate signal stack, which may have 8 KiB, at any point of any code. It
//!   takes no lock and no memory, reads only cells of its own OS thread, and writes only to its own frame and to
//!   standard error.
//! - Everything that the handler needs is in place before the handler is installed.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Once, OnceLock};

use libc::{c_int, c_void, sigaction, siginfo_t, stack_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::param::page_size;

use super::stack::{StackRef, stack_guarded_at};

/// Writes which greenlet runs on a stack, such as `green thread "worker" (spawned at src/main.rs:12:5)`.
///
/// Called in a signal handler: it may take no lock and no memory, and has a few KiB of stack.
pub(crate) type Describe = fn(StackRef, &mut dyn FnMut(&[u8]));

thread_local! {
    static DESCRIBE: Cell<Option<Describe>> = const { Cell::new(None) };
    static ALTERNATE: AlternateStack = AlternateStack::ensure();
}

/// Sets the function that describes the greenlets of this OS thread in the message.
pub(crate) fn set_describe(describe: Describe) {
    DESCRIBE.set(Some(describe));
}

/// Ensures that an overflow on this OS thread is reported. Called for each new slab.
pub(super) fn watch() {
    // An OS thread that is ending has released its alternate stack and gets no other.
    let _ = ALTERNATE.try_with(|_| ());
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        for (signal, previous) in &PREVIOUS {
            install(*signal, previous);
        }
    });
}

/// The signals of an access to a guard, with their former actions.
static PREVIOUS: [(c_int, OnceLock<sigaction>); 2] =
    [(libc::SIGSEGV, OnceLock::new()), (libc::SIGBUS, OnceLock::new())];

fn install(signal: c_int, previous: &OnceLock<sigaction>) {
    let mut old = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: only queries the action, and writes it to `old`.
    if unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the call above succeeded, so it has written `old`.
    let old = unsafe { old.assume_init() };
    previous.get_or_init(|| old);

    // SAFETY: all-zero bytes are a `sigaction`: a default action, no flags, an empty or zero mask.
    let mut new = unsafe { MaybeUninit::<sigaction>::zeroed().assume_init() };
    new.sa_sigaction = on_fault as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the mask is a local variable. The handler has the type that `SA_SIGINFO` requires and does only what a
    // handler may do. If the call fails, an overflow ends the process without a message.
    unsafe {
        libc::sigemptyset(&raw mut new.sa_mask);
        libc::sigaction(signal, &raw const new, ptr::null_mut());
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: with `SA_SIGINFO` the system passes a valid record. For these signals it contains an address; if a
    // process sent them, other bytes of the record, which are no guard's address.
    let address = unsafe { (*info).si_addr() }.addr();
    match stack_guarded_at(address) {
        Some(stack) => report(stack),
        None => pass_on(signal, info, context),
    }
}

/// A line of text in a buffer of fixed size. Text that does not fit is left out.
struct Message {
    bytes: [u8; 768],
    len: usize,
}

impl Message {
    fn push(&mut self, text: &[u8]) {
        self.push_within(self.bytes.len(), text);
    }

    /// Appends text up to `end`. The rest of the buffer stays free.
    fn push_within(&mut self, end: usize, text: &[u8]) {
        for (place, byte) in self.bytes[..end].iter_mut().skip(self.len).zip(text) {
            *place = *byte;
            self.len += 1;
        }
    }

    fn push_number(&mut self, number: usize) {
        let mut power = 1;
        while number / power >= 10 {
            power *= 10;
        }
        while power > 0 {
            self.push(&[b'0' + (number / power % 10) as u8]);
            power /= 10;
        }
    }
}

fn report(stack: StackRef) -> ! {
    /// The largest length of a description, in bytes.
    const DESCRIPTION: usize = 512;

    let mut message = Message { bytes: [0; 768], len: 0 };
    message.push(b"\n");
    match DESCRIBE.get() {
        Some(describe) => describe(stack, &mut |text| message.push_within(DESCRIPTION, text)),
        None => message.push(b"a greenlet"),
    }
    // SAFETY: the stack was found in the list of this OS thread's slabs, so it is mapped.
    let size = unsafe { stack.as_ref() }.size();
    message.push(b" has overflowed its stack of ");
    message.push_number(size >> 10);
    message.push(b" KiB\nfatal: stack overflow; `Builder::stack_size` gives a greenlet a larger stack\n");
    // SAFETY: plain system calls, both allowed in a signal handler. A failure to write the message cannot be handled.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.bytes.as_ptr().cast(), message.len);
        libc::abort()
    }
}

/// Does what the system or the former handler would have done without this handler.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.iter().find(|(of, _)| *of == signal).and_then(|(_, previous)| previous.get());
    let action = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    // SAFETY: the system passes a valid record.
    let code = unsafe { (*info).si_code };
    // Linux uses codes up to zero for signals from processes; other systems have a constant for it.
    let sent = code <= 0 || code == 0x10001;

    if action == libc::SIG_IGN && sent {
        return;
    }
    if action == libc::SIG_DFL || action == libc::SIG_IGN {
        // A fault cannot be ignored: the access would be repeated forever.
        // SAFETY: plain system calls, both allowed in a signal handler. The signal is blocked while
        // its handler runs, so it is taken with the default action where the fault was.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return;
    }
    let with_info = previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0);
    // SAFETY: the address was installed as a handler of the type that its flags name. It is called as the system would
    // call it, with the arguments from the system.
    unsafe {
        if with_info {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = std::mem::transmute(action);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(c_int) = std::mem::transmute(action);
            handler(signal);
        }
    }
}

/// The stack for signal handlers of this OS thread, if this module has installed it.
///
/// std gives one to the main thread and to the OS threads it starts. Other OS threads have none.
struct AlternateStack {
    memory: Option<(*mut c_void, usize)>,
}

impl AlternateStack {
    /// Ensures that this OS thread has an alternate stack. Without memory for one, an overflow ends the process without
    /// a message.
    fn ensure() -> AlternateStack {
        AlternateStack { memory: if Self::exists() { None } else { Self::make().ok() } }
    }

    fn current() -> io::Result<stack_t> {
        let mut current = MaybeUninit::<stack_t>::zeroed();
        // SAFETY: only queries the stack, and writes it to `current`.
        if unsafe { libc::sigaltstack(ptr::null(), current.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above succeeded, so it has written `current`.
        Ok(unsafe { current.assume_init() })
    }

    fn exists() -> bool {
        Self::current().is_ok_and(|current| current.ss_flags & libc::SS_DISABLE == 0)
    }

    fn make() -> io::Result<(*mut c_void, usize)> {
        let len = (signal_frame().max(libc::SIGSTKSZ) + (16 << 10)).next_multiple_of(page_size());
        // SAFETY: a new mapping at an address of the system's choice.
        let base =
            unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
        // SAFETY: all-zero bytes are a `stack_t`.
        let mut stack = unsafe { MaybeUninit::<stack_t>::zeroed().assume_init() };
        stack.ss_sp = base.cast();
        stack.ss_size = len;
        // SAFETY: the memory is used by no other code, and stays until this OS thread has another alternate stack or
        // none.
        if unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } != 0 {
            let error = io::Error::last_os_error();
            // SAFETY: the mapping from above, which is not in use.
            let _ = unsafe { munmap(base, len) };
            return Err(error);
        }
        Ok((base, len))
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        let Some((base, len)) = self.memory else { return };
        let ours = Self::current().is_ok_and(|current| current.ss_sp.cast::<c_void>() == base);
        // SAFETY: all-zero bytes are a `stack_t`.
        let mut none = unsafe { MaybeUninit::<stack_t>::zeroed().assume_init() };
        none.ss_flags = libc::SS_DISABLE;
        none.ss_size = len;
        // SAFETY: no handler runs on the stack, because this code does not. A stack that cannot be taken out of use
        // stays mapped.
        if !ours || unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) } == 0 {
            // SAFETY: the mapping that `make` made, which the system no longer uses.
            let _ = unsafe { munmap(base, len) };
        }
    }
}

/// Returns the size of the frame that the system puts on the stack of a signal handler, at most.
///
/// Large vector registers make it larger than the constant.
fn signal_frame() -> usize {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // Absent from `libc` for some targets.
        const AT_MINSIGSTKSZ: libc::c_ulong = 51;
        // SAFETY: reads a table that the system gave to the process; returns zero if the entry is missing.
        unsafe { libc::getauxval(AT_MINSIGSTKSZ) as usize }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    0
}
