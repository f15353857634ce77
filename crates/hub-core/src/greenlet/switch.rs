//! All calls into the crate `context`: leaving one greenlet and entering another.
//!
//! ```text
//! fresh                     running                   suspended
//! ┌──────────────┐ top      ┌──────────────┐ top      ┌──────────────┐ top
//! │ first frame: │          │ root         │          │ root         │
//! │ entry = root │◄─context │ catch_unwind │          │ catch_unwind │
//! │              │          │ the body     │          │ the body     │
//! │              │          │   …          │          │ park / switch│
//! │              │          │              │◄─sp      │ saved        │
//! │              │          │              │          │ registers    │◄─context
//! │ guard        │          │ guard        │          │ guard        │
//! └──────────────┘ bottom   └──────────────┘ bottom   └──────────────┘ bottom
//! ```
//!
//! A stack whose body has ended is *at rest*: suspended inside `root`, with no frame of a user on it. It is entered
//! again like any suspended stack, and `root` then runs the current greenlet.
//!
//! Ground rules:
//! - A context is a number in a cell. The number is taken out before the context is entered. The greenlet that arrives
//!   stores the context of the one that left, as its very first action: [`land`]. So a context is entered at most once.
//! - Nothing unwinds across a switch. `root` never returns and never unwinds: every piece of foreign code below it is
//!   under `catch_unwind`. A greenlet is made to exit by a flag that it reads after it has landed.
//! - Between the choice of a successor and the jump no foreign code runs. The cold state of a plain greenlet is dropped
//!   in between; `stack_loop` says why that runs no foreign code.
//! - Greenlets never leave their OS thread: `Context` is `Send`, but its number is in a cell of a block that is not
//!   `Send`.

#[cfg(target_arch = "x86_64")]
use std::arch::{asm, naked_asm};
use std::cell::Cell;
use std::mem::transmute;

use context::{Context, Transfer};

use super::stack::StackRef;

/// Leaves the running greenlet, saves its context in `save`, and enters `context`.
///
/// Returns when the saved context is entered.
///
/// # Safety
///
/// `context` must come from a cell that [`jump`] or [`fresh`] filled on this OS thread, and must not be entered again.
/// `save` must be valid until the arriving greenlet has stored to it.
#[inline(always)]
pub(super) unsafe fn jump(context: usize, save: *const Cell<usize>) {
    // SAFETY: `Context` is one pointer, and this number came out of one in `land` or `fresh`. The context is suspended,
    // and is entered only this once, by the contract.
    let transfer = unsafe { resume(transmute::<usize, Context>(context), save as usize) };
    land(transfer);
}

/// Does what [`Context::resume`] does.
///
/// On ARM `jump_fcontext` leaves by a return, which the call of it balances.
///
/// # Safety
///
/// The same as [`Context::resume`]: the context is suspended, and is entered only this once.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn resume(context: Context, data: usize) -> Transfer {
    // SAFETY: by the contract.
    unsafe { context.resume(data) }
}

/// Does what [`Context::resume`] does, without a call.
///
/// The processor pairs calls with returns to predict the returns, and `jump_fcontext` leaves by a jump here. After a
/// call of it, each later return of the entered greenlet would be predicted by the call before its own.
///
/// # Safety
///
/// The same as [`Context::resume`]: the context is suspended, and is entered only this once.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn resume(context: Context, data: usize) -> Transfer {
    let (previous, returned): (usize, usize);
    // SAFETY: `enter` runs `jump_fcontext` as if called, with its arguments in their registers and the label as return
    // address. `jump_fcontext` saves and restores the registers that the C convention preserves, stack pointer and
    // control words included; the others are clobbered. It returns to the label when the saved context is entered, with
    // the two words of its result in the registers for them. The rest is the contract.
    unsafe {
        asm!(
            "lea r8, [rip + 2f]",
            "jmp {enter}",
            "2:",
            enter = sym enter,
            inlateout("rdi") transmute::<Context, usize>(context) => _,
            inlateout("rsi") data => _,
            lateout("rax") previous,
            lateout("rdx") returned,
            clobber_abi("C"),
        );
        Transfer { context: transmute::<usize, Context>(previous), data: returned }
    }
}

/// Enters `jump_fcontext` as a call would, with the return address that is in `r8`.
///
/// It is a function of its own, so that each instruction in the caller of [`jump`] has the stack that its unwind
/// information describes. Its own unwind information has no return address before the push.
///
/// # Safety
///
/// It is entered by a jump, with the arguments of `jump_fcontext` and the return address in their registers.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn enter() {
    unsafe extern "C" {
        fn jump_fcontext();
    }
    naked_asm!(
        ".cfi_startproc",
        ".cfi_def_cfa rsp, 0",
        ".cfi_undefined rip",
        "push r8",
        ".cfi_def_cfa_offset 8",
        ".cfi_offset rip, -8",
        "jmp {jump}",
        ".cfi_endproc",
        jump = sym jump_fcontext,
    )
}

/// Stores the context of the previous greenlet in the cell that came with the jump.
#[inline(always)]
fn land(transfer: Transfer) {
    let save = transfer.data as *const Cell<usize>;
    // SAFETY: every jump of this module passes a cell that is valid until now; `Context` is one pointer.
    unsafe { (*save).set(transmute::<Context, usize>(transfer.context)) };
}

/// The code that a stack runs between two jumps.
pub(super) trait Root {
    /// Runs the current greenlet, and then each next one that may run on the same stack. Never unwinds.
    ///
    /// Returns the context to enter next, taken out of its cell, and the cell for the context of this stack, in its
    /// header.
    fn run() -> (usize, *const Cell<usize>);
}

/// Creates a context that will run `root` from the top of an unused stack.
///
/// # Safety
///
/// The stack was taken from its pool, and no frame is on it. It is entered only by the returned context, and given back
/// only by `root`.
pub(super) unsafe fn fresh<R: Root>(stack: StackRef) -> usize {
    // SAFETY: a stack that was taken is mapped, and so is its header.
    let stack = unsafe { stack.as_ref() };
    // SAFETY: top and bottom delimit mapped, writable memory that is not in use. It stays mapped until the stack is
    // given back, which only `root` does, by the contract, and `context` copies nothing but the entry.
    let context =
        unsafe { Context::new(&context::stack::Stack::new(stack.top().cast(), stack.bottom().cast()), root::<R>) };
    // SAFETY: `Context` is one pointer.
    unsafe { transmute::<Context, usize>(context) }
}

extern "C" fn root<R: Root>(transfer: Transfer) -> ! {
    land(transfer);
    loop {
        let (context, save) = R::run();
        // SAFETY: `Root::run` took the context out of its cell. `save` is in the header of this stack, which is never
        // moved or freed while the stack exists.
        unsafe { jump(context, save) };
    }
}
