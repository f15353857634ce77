//! Backtraces of greenlets: of a suspended one from its stack and the registers that the switch has saved there, and of
//! the running one from its registers.
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
//! - A greenlet is unwound on its own OS thread only, while it is suspended or is the caller. So its stack stays
//!   mapped: a stack is lent to its greenlet until the end, and the OS thread's own stack lives as long.
//! - Nothing outside of the words between the context (of the caller: the stack pointer) and the top of the same stack
//!   is read. So neither a wrong unwind table nor a broken stack leads to the guard or to other memory.
//! - Unwinding runs no code of the program and does not switch, so a suspended greenlet stays suspended meanwhile.
//! - No lock of another library is taken, which a fork could leave locked in the child.

use std::arch::asm;
use std::ops::Range;

use super::control::{ControlRef, Kind};
use crate::base::own_stack::own_stack;
use crate::base::read_word::read_word;
use crate::base::unwind::{Frames, Registers, Tables, WORD};

/// Whether this build makes backtraces.
pub(crate) const AVAILABLE: bool = true;

/// The number of words that a switch saves, at the low end of a suspended stack.
const SAVED: usize = if cfg!(target_arch = "x86_64") { 8 } else { 22 };

/// Returns the calls in progress of a suspended greenlet, without those of the switch.
///
/// Returns `None` if the greenlet is not suspended, or is suspended on a stack that is not known.
pub(crate) fn suspended(control: ControlRef, tables: &Tables) -> Option<Frames> {
    let stack = StackInUse::of_suspended(control)?;
    let (pc, registers) = stack.registers()?;
    Some(tables.find(pc, registers, |address| stack.read(address)).without_switch())
}

/// Returns the calls in progress of the running greenlet, the caller.
///
/// Returns `None` if it runs on a stack that is not known.
#[inline(never)]
pub(crate) fn running(control: ControlRef, tables: &Tables) -> Option<Frames> {
    let (pc, sp, registers) = registers_here();
    let stack = StackInUse::of_running(control, sp)?;
    // The first frame is that of this function.
    Some(tables.find(pc, registers, |address| stack.read(address)).without_first())
}

/// Returns the address of an instruction of the caller, and the stack pointer and the registers as they are there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn registers_here() -> (u64, usize, Registers) {
    use framehop::x86_64::Reg;

    let mut saved = [0_u64; 8];
    // SAFETY: the instructions write the 8 words of `saved` and one output register, and nothing else.
    unsafe {
        asm!(
            "lea {pc}, [rip]",
            "mov qword ptr [{to}], {pc}",
            "mov qword ptr [{to} + 8], rsp",
            "mov qword ptr [{to} + 16], rbp",
            "mov qword ptr [{to} + 24], rbx",
            "mov qword ptr [{to} + 32], r12",
            "mov qword ptr [{to} + 40], r13",
            "mov qword ptr [{to} + 48], r14",
            "mov qword ptr [{to} + 56], r15",
            to = in(reg) saved.as_mut_ptr(),
            pc = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
    let [pc, sp, bp, others @ ..] = saved;
    let mut registers = Registers::new(pc, sp, bp);
    for (register, value) in [Reg::RBX, Reg::R12, Reg::R13, Reg::R14, Reg::R15].into_iter().zip(others) {
        registers.set(register, value);
    }
    (pc, sp as usize, registers)
}

/// Returns the address of an instruction of the caller, and the stack pointer and the registers as they are there.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn registers_here() -> (u64, usize, Registers) {
    let (pc, sp, fp, lr): (u64, u64, u64, u64);
    // SAFETY: the instructions write the four output registers, and nothing else.
    unsafe {
        asm!(
            "adr {pc}, .",
            "mov {sp}, sp",
            "mov {fp}, x29",
            "mov {lr}, x30",
            pc = out(reg) pc,
            sp = out(reg) sp,
            fp = out(reg) fp,
            lr = out(reg) lr,
            options(nomem, nostack, preserves_flags),
        );
    }
    (pc, sp as usize, Registers::new(lr, sp, fp))
}

/// The part of the stack of a greenlet that is in use: of a suspended one, or of the running one as long as the
/// function that made this value has not returned.
struct StackInUse(Range<usize>);

impl StackInUse {
    fn of_suspended(control: ControlRef) -> Option<StackInUse> {
        let context = control.context();
        if !control.is_suspended() || context == 0 {
            return None;
        }
        let stack = StackInUse::from(control, context)?;
        (stack.0.len() >= SAVED * WORD).then_some(stack)
    }

    fn of_running(control: ControlRef, sp: usize) -> Option<StackInUse> {
        StackInUse::from(control, sp)
    }

    /// Returns the part of the greenlet's stack from an address of it on.
    fn from(control: ControlRef, start: usize) -> Option<StackInUse> {
        let bounds = match control.stack_bounds() {
            Some(bounds) => bounds,
            // The main greenlet may also be on a stack of the program's own, whose end is not known.
            None if control.kind() == Kind::Main => own_stack()?,
            None => return None,
        };
        let is_whole = bounds.contains(&start) && start.is_multiple_of(WORD);
        is_whole.then_some(StackInUse(start..bounds.end))
    }

    /// Returns the word at an address of the stack.
    fn read(&self, address: u64) -> Result<u64, ()> {
        let address = usize::try_from(address).map_err(drop)?;
        let last = self.0.end - WORD;
        if !(self.0.start..=last).contains(&address) || !address.is_multiple_of(WORD) {
            return Err(());
        }
        // SAFETY: the word is in the part of a stack that is in use, which is mapped by the ground rules.
        Ok(unsafe { read_word(address) })
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
    fn stack_in(words: &[u64]) -> StackInUse {
        let words = words.as_ptr_range();
        StackInUse(words.start.expose_provenance()..words.end.expose_provenance())
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
        const MOST_FRAMES: usize = 100;
        let here = (running as *const ()).addr() as u64;
        let tables = Tables::of_process().unwrap();
        let (mut all_refused, mut longest) = (0, 0);
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
            let (mut asked, mut refused) = (0_u32, 0_u32);
            let frames = tables.find(pc, registers, |address| {
                let word = stack.read(address);
                let is_inside = (start..=end - WORD as u64).contains(&address) && address.is_multiple_of(WORD as u64);
                assert_eq!(word.is_ok(), is_inside, "seed {seed}: {address:#x}");
                asked += 1;
                refused += u32::from(word.is_err());
                word
            });
            // A backtrace of one frame may end without a look at the stack.
            assert!((1..=MOST_FRAMES).contains(&frames.len()), "seed {seed}: {} frames", frames.len());
            all_refused += refused;
            longest = longest.max(frames.len());
        }
        // Some of the stacks led outside, and some led on to further frames.
        assert!(all_refused > 0 && longest > 2, "{all_refused} refused, {longest} frames");
    }
}
