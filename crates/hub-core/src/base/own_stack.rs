//! The stack that an OS thread begins with.
//!
//! Ground rule: the calls only ask the system, and nothing of the stack is read.

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::mem::MaybeUninit;
use std::ops::Range;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::ptr;

/// Returns the stack of this OS thread, where the system knows it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn own_stack() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut len) = (ptr::null_mut(), 0);
    // SAFETY: the first call writes the attributes, which the second reads and the third destroys.
    let found = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
            let found = libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut len) == 0;
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            found
        }
    };
    found.then(|| start.addr()..start.addr() + len)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn own_stack() -> Option<Range<usize>> {
    None
}
