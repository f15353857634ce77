//! Green-thread-local values, Eventlet's `corolocal`.
//!
//! std's `thread_local!` has one value for all green threads of an OS thread.

pub use hub_core::{AccessError, LocalKey};

#[doc(inline)]
pub use crate::green_local;

/// Declares green-thread-local values, like std's `thread_local!` for OS threads. Does not switch by itself.
///
/// Each green thread has its own value, initialized at the first use and dropped when the green thread ends. The main
/// greenlet, and an OS thread without green threads, have their own values, too. [`LocalKey`] describes the access.
///
/// ```
/// use std::cell::{Cell, RefCell};
/// greenhub::local::green_local! {
///     static REQUEST: Cell<u32> = Cell::new(0);
///     static NOTES: RefCell<Vec<String>> = RefCell::default();
/// }
/// REQUEST.set(7);
/// NOTES.with_borrow_mut(|notes| notes.push("of main".into()));
/// let other = greenhub::thread::spawn(|| (REQUEST.get(), NOTES.with_borrow(Vec::len)));
/// assert_eq!(other.join().unwrap(), (0, 0));
/// assert_eq!(REQUEST.get(), 7);
/// ```
#[doc(alias = "corolocal")]
#[doc(alias = "thread_local")]
#[macro_export]
macro_rules! green_local {
    () => {};
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = $init:expr $(; $($rest:tt)*)?) => {
        $(#[$attribute])*
        $visibility static $name: $crate::local::LocalKey<$type> = {
            fn init() -> $type {
                $init
            }
            $crate::local::LocalKey::new(init)
        };
        $($crate::green_local! { $($rest)* })?
    };
}
