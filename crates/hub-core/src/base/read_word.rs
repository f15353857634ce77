//! Reads of single words of a stack.
//!
//! Ground rule: a read is an instruction that the compiler does not see. A word of a stack may be padding or a dead
//! slot, which has no value in Rust, or may belong to a variable that code on the stack has borrowed. The processor
//! reads each of them.

use std::arch::asm;

/// Returns the word at `address`, with whatever bits the memory has.
///
/// # Safety
///
/// The 8 bytes from `address` on are mapped, and stay so during the call.
#[inline]
pub(crate) unsafe fn read_word(address: usize) -> u64 {
    let word;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction only reads 8 bytes, which are mapped by the caller's promise.
    unsafe {
        asm!("mov {word}, qword ptr [{address}]", address = in(reg) address, word = lateout(reg) word,
            options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("ldr {word}, [{address}]", address = in(reg) address, word = lateout(reg) word,
            options(nostack, preserves_flags, readonly));
    }
    word
}
