//! Values of which each green thread has its own. Eventlet's `corolocal`.
//!
//! std's `thread_local!` has one value for all green threads of an OS thread.

pub use hub_core::{AccessError, LocalKey};

/// Declares values of which each green thread has its own, as std's `thread_local!` does for OS threads. They are made
/// at their first use and dropped when the green thread ends; the main greenlet, and an OS thread without green threads,
/// have theirs too. How they are used says [`LocalKey`]. Does not switch by itself.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use std::cell::{Cell, RefCell};
/// greenstd::green_local! {
///     static REQUEST: Cell<u32> = Cell::new(0);
///     static NOTES: RefCell<Vec<String>> = RefCell::default();
/// }
/// REQUEST.set(7);
/// NOTES.with_borrow_mut(|notes| notes.push("of main".into()));
/// let other = greenstd::thread::spawn(|| (REQUEST.get(), NOTES.with_borrow(Vec::len)));
/// assert_eq!(other.join().unwrap(), (0, 0));
/// assert_eq!(REQUEST.get(), 7);
/// # });
/// ```
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
