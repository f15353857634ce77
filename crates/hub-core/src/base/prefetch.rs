//! Hints to the processor about memory that is needed soon.
//!
//! Ground rule: a hint reads nothing and has no effect that a program can see, whatever the address.

/// The bytes that one hint fetches.
const LINE: usize = 64;

/// Makes the processor fetch the first `LINES` cache lines from `address` on.
#[inline(always)]
pub(crate) fn prefetch<const LINES: usize>(address: usize) {
    for line in 0..LINES {
        fetch(address.wrapping_add(line * LINE));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    // SAFETY: by the ground rule. Every x86-64 processor has the instruction.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) };
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline(always)]
fn fetch(address: usize) {
    // SAFETY: by the ground rule.
    unsafe { std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags)) };
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", not(miri)))))]
#[inline(always)]
fn fetch(_: usize) {}
