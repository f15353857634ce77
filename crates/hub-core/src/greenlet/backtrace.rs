//! Backtraces of greenlets: of a suspended one from its stack and the registers that the switch has saved there.
//!
//! ```text
//! x86-64, words          64-bit ARM, words          top of the stack
//! 0  control words       0   d8 … d15               ┌──────────────┐
//! 1  r12                 8   x19 … x28              │ root         │
//! 2  r13                 18  x29                    │   …          │
//! 3  r14                 19  x30                    │ park         │
//! 4  r15                 20  return address         │ saved words  │◄─ context
//! 5  rbx                 22  (the end)              └──────────────┘
//! 6  rbp
//! 7  return address
//! ```
//!
//! Ground rules:
//! - A greenlet is unwound on its own OS thread only, and while it is suspended. So no code runs on its stack, and the
//!   stack stays mapped: a stack is lent to its greenlet until the end, and the OS thread's own stack lives as long.
//! - Nothing outside of the words between the context and the top of the same stack is read. So neither a wrong unwind
//!   table nor a broken stack leads to the guard or to other memory.
//! - Unwinding runs no code of the program and does not switch, so the greenlet stays suspended meanwhile.

use std::ops::Range;
use std::ptr;

use super::control::{ControlRef, Kind};
use crate::base::own_stack::own_stack;
use crate::base::unwind::{Frames, Registers, WORD};

/// Whether this build makes backtraces.
pub(crate) const AVAILABLE: bool = true;

/// The number of words that a switch saves, at the low end of a suspended stack.
const SAVED: usize = if cfg!(target_arch = "x86_64") { 8 } else { 22 };

/// Returns the calls in progress of a suspended greenlet, without those of the switch.
///
/// Returns `None` if the greenlet is not suspended, or is suspended on a stack that is not known.
pub(crate) fn suspended(control: ControlRef) -> Option<Frames> {
    let stack = SuspendedStack::of(control)?;
    let (pc, registers) = stack.registers()?;
    let frames = Frames::find(pc, registers, |address| stack.read(address))?;
    Some(frames.without_switch())
}

/// Returns the calls in progress of the running greenlet, the caller.
#[inline(never)]
pub(crate) fn running() -> Option<Frames> {
    /// The number of frames before the caller that the unwinder may have, and those of a backtrace.
    const FRAMES: usize = 110;

    let mut addresses = Vec::new();
    backtrace::trace(|frame| {
        if frame.symbol_address().addr() == (running as *const ()).addr() {
            // The frames up to here are those of the unwinder.
            addresses.clear();
        } else if !frame.ip().is_null() {
            // An address within the call instruction, not behind it.
            addresses.push(frame.ip().addr() as u64 - 1);
        }
        addresses.len() < FRAMES
    });
    Some(Frames::new(addresses))
}

/// The part of a suspended stack that is in use.
struct SuspendedStack(Range<usize>);

impl SuspendedStack {
    fn of(control: ControlRef) -> Option<SuspendedStack> {
        let context = control.context();
        if !control.is_suspended() || context == 0 {
            return None;
        }
        let bounds = match control.stack_bounds() {
            Some(bounds) => bounds,
            // The main greenlet may also be suspended on a stack of the program's own, whose end is not known.
            None if control.kind() == Kind::Main => own_stack()?,
            None => return None,
        };
        let is_whole = bounds.contains(&context) && context.is_multiple_of(WORD);
        (is_whole && bounds.end - context >= SAVED * WORD).then_some(SuspendedStack(context..bounds.end))
    }

    /// Returns the word at an address of the stack.
    fn read(&self, address: u64) -> Result<u64, ()> {
        let address = usize::try_from(address).map_err(drop)?;
        let last = self.0.end - WORD;
        if !(self.0.start..=last).contains(&address) || !address.is_multiple_of(WORD) {
            return Err(());
        }
        // SAFETY: the word is between the context and the top of the stack of a suspended greenlet, which are mapped,
        // by the ground rules. It is aligned. The read is volatile, since the word belongs to code that is suspended.
        Ok(unsafe { ptr::with_exposed_provenance::<u64>(address).read_volatile() })
    }

    /// Returns the saved word with that number.
    fn saved(&self, number: usize) -> Option<u64> {
        self.read((self.0.start + number * WORD) as u64).ok()
    }

    /// Returns the address at which the greenlet goes on, and the registers as they are there.
    #[cfg(target_arch = "x86_64")]
    fn registers(&self) -> Option<(u64, Registers)> {
        use framehop::x86_64::Reg;

        let sp = (self.0.start + SAVED * WORD) as u64;
        let pc = self.saved(7)?;
        let mut registers = Registers::new(pc, sp, self.saved(6)?);
        for (number, register) in [(1, Reg::R12), (2, Reg::R13), (3, Reg::R14), (4, Reg::R15), (5, Reg::RBX)] {
            registers.set(register, self.saved(number)?);
        }
        Some((pc, registers))
    }

    /// Returns the address at which the greenlet goes on, and the registers as they are there.
    #[cfg(target_arch = "aarch64")]
    fn registers(&self) -> Option<(u64, Registers)> {
        let sp = (self.0.start + SAVED * WORD) as u64;
        Some((self.saved(20)?, Registers::new(self.saved(19)?, sp, self.saved(18)?)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Returns the stack that lies in `words`.
    fn stack_in(words: &[u64]) -> SuspendedStack {
        let words = words.as_ptr_range();
        SuspendedStack(words.start.expose_provenance()..words.end.expose_provenance())
    }

    #[test]
    fn no_address_outside_of_the_stack_is_read() {
        let words: Vec<u64> = (0..64).collect();
        let stack = stack_in(&words);
        let (start, end) = (stack.0.start as u64, stack.0.end as u64);
        assert_eq!((stack.read(start), stack.read(end - WORD as u64)), (Ok(0), Ok(63)));
        for address in [0, 1, start - 1, start - 8, start + 1, end - 7, end - 1, end, end + 8, u64::MAX - 7, u64::MAX] {
            assert_eq!(stack.read(address), Err(()), "{address:#x}");
        }
    }

    #[test]
    fn a_broken_stack_ends_the_backtrace() {
        let here = (running as *const ()).addr() as u64;
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut words = vec![0_u64; 256];
            let (start, end) = (words.as_ptr().addr() as u64, words.as_ptr_range().end.addr() as u64);
            for word in &mut words {
                *word = match random.u8(0..5) {
                    0 => random.u64(..),
                    1 => 0,
                    // Code, the stack, and the memory around the stack.
                    2 => here + random.u64(0..4096),
                    3 => random.u64(start..end) & !7,
                    _ => start.wrapping_add(random.u64(0..1 << 20)).wrapping_sub(1 << 19),
                };
            }
            let stack = stack_in(&words);
            let (pc, registers) = stack.registers().unwrap();
            let frames = Frames::find(pc, registers, |address| stack.read(address)).unwrap();
            assert!(frames.to_string().lines().next().is_some(), "seed {seed}");
        }
    }
}
