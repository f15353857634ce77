//! A copy of a stack, taken in a signal handler, and the backtrace that another OS thread makes from it.
//!
//! The handler only copies registers and words. The unwinding (finding tables, following pointers, allocating) happens
//! afterwards, on the copy: a wrong table leads to a wrong backtrace, never to a wrong access.
//!
//! Ground rule: [`Snapshot::take`] reads the words between the stack pointer and the end of the same stack, and nothing
//! else.

use std::ffi::c_void;
use std::ops::Range;

use crate::base::read_word::read_word;
use crate::base::unwind::{Registers, Tables, WORD};

/// The size of the copy in words: the last few dozen calls.
const WORDS: usize = 8192;

/// The registers that an unwinder needs, and the end of the stack.
#[derive(Clone)]
pub(super) struct Snapshot {
    pc: u64,
    sp: u64,
    fp: u64,
    /// `rbx` on x86-64, the link register elsewhere.
    other: u64,
    words: Box<[u64; WORDS]>,
    len: usize,
}

impl Snapshot {
    pub(super) fn new() -> Snapshot {
        Snapshot { pc: 0, sp: 0, fp: 0, other: 0, words: Box::new([0; WORDS]), len: 0 }
    }

    /// Copies the interrupted code's state, if it runs on the stack with these `bounds`. Takes no lock, allocates
    /// nothing.
    ///
    /// # Safety
    ///
    /// This runs in a signal handler, and `context` is what the system passed to it. The memory within `bounds` is
    /// mapped.
    pub(super) unsafe fn take(&mut self, context: *const c_void, bounds: Option<Range<usize>>) {
        self.len = 0;
        // SAFETY: with `SA_SIGINFO` the system passes a context.
        let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        #[cfg(target_arch = "x86_64")]
        {
            let register = |which: libc::c_int| machine.gregs[which as usize] as u64;
            self.pc = register(libc::REG_RIP);
            self.sp = register(libc::REG_RSP);
            self.fp = register(libc::REG_RBP);
            self.other = register(libc::REG_RBX);
        }
        #[cfg(target_arch = "aarch64")]
        {
            self.pc = machine.pc;
            self.sp = machine.sp;
            self.fp = machine.regs[29];
            self.other = machine.regs[30];
        }
        let sp = self.sp as usize;
        let Some(bounds) = bounds.filter(|bounds| bounds.contains(&sp) && sp.is_multiple_of(WORD)) else { return };
        self.len = ((bounds.end - sp) / WORD).min(WORDS);
        for (index, word) in self.words[..self.len].iter_mut().enumerate() {
            // SAFETY: the address is within the bounds, which are mapped.
            *word = unsafe { read_word(sp + index * WORD) };
        }
    }

    /// Returns the calls in progress, innermost first, in std's format.
    pub(super) fn backtrace(&self) -> Option<String> {
        if self.len == 0 {
            return None;
        }
        let read = |address: u64| {
            let offset = address.checked_sub(self.sp).ok_or(())?;
            let index = (offset as usize) / WORD;
            let word = self.words[..self.len].get(index).ok_or(())?;
            if (offset as usize).is_multiple_of(WORD) { Ok(*word) } else { Err(()) }
        };
        let text = Tables::of_process()?.find(self.pc, self.registers(), read).to_string();
        (!text.is_empty()).then_some(text)
    }

    #[cfg(target_arch = "x86_64")]
    fn registers(&self) -> Registers {
        let mut registers = Registers::new(self.pc, self.sp, self.fp);
        registers.set(framehop::x86_64::Reg::RBX, self.other);
        registers
    }

    #[cfg(target_arch = "aarch64")]
    fn registers(&self) -> Registers {
        Registers::new(self.other, self.sp, self.fp)
    }
}
