//! Backtraces: the calls in progress on a stack, by the unwind tables of the code that the process has mapped.
//!
//! The stack is read by a closure of the caller, which refuses every address that it does not know. So a wrong table
//! or a broken stack ends the backtrace, and nothing else.

mod tables;

use std::collections::HashMap;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

pub(crate) use framehop::UnwindRegsNative as Registers;

pub(crate) use self::tables::Tables;
use super::fork::PerProcess;

/// The size of a word of a stack, in bytes.
pub(crate) const WORD: usize = size_of::<u64>();

/// The modules whose frames do the switch away from a suspended greenlet.
const SWITCH: &str = "hub_core::greenlet::";
/// The function at the top of the stack of a greenlet. The frames behind it are no calls.
const ROOT: &str = "hub_core::greenlet::switch::root";

/// The calls in progress on a stack, innermost first. The text is in std's format, and made on demand.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    /// Addresses within the call instructions.
    addresses: Vec<u64>,
    /// Whether the innermost frames do a switch, which is left out.
    in_switch: bool,
}

impl Frames {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Leaves out the frames of the switch away from a suspended greenlet.
    pub(crate) fn without_switch(self) -> Frames {
        Frames { in_switch: true, ..self }
    }

    /// Leaves out the innermost frame.
    pub(crate) fn without_first(mut self) -> Frames {
        self.addresses.drain(..self.addresses.len().min(1));
        self
    }

    /// Returns the text, with the names of calls from `names`.
    pub(crate) fn to_text(&self, names: &mut Names) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(names, &mut text);
        text
    }

    fn write(&self, names: &mut Names, out: &mut dyn fmt::Write) -> fmt::Result {
        let calls = self.resolve(names);
        let mut number = 0;
        for (index, call) in calls.iter().enumerate() {
            // Names of inlined functions follow the number of the frame that they were inlined into.
            if index > 0 && calls[index - 1].frame == call.frame {
                out.write_str("      ")?;
            } else {
                write!(out, "{number:4}: ")?;
                number += 1;
            }
            match &call.symbol.name {
                Some(name) => writeln!(out, "{name}")?,
                None => writeln!(out, "{:#x}", call.address)?,
            }
            if let Some(at) = &call.symbol.at {
                writeln!(out, "             at {at}")?;
            }
        }
        Ok(())
    }

    /// Returns the calls with their names, from the first that is no part of a switch up to the root of the stack.
    fn resolve<'a>(&self, names: &'a mut Names) -> Vec<Call<'a>> {
        let is_root = |&address: &u64| names.look_up(address).iter().any(Symbol::is_root);
        let root = self.addresses.iter().position(is_root);
        let shown = root.map_or(&*self.addresses, |root| &self.addresses[..=root]);
        let names = &*names;
        let calls_at = |(frame, &address): (usize, &u64)| {
            names.known(address).iter().map(move |symbol| Call { frame, address, symbol })
        };
        let mut calls: Vec<Call<'a>> = shown.iter().enumerate().flat_map(calls_at).collect();
        if self.in_switch {
            let switch = calls.iter().take_while(|call| call.symbol.is_in_switch()).count();
            // A backtrace of nothing but the switch, such as that of a stack at rest, stays whole.
            if switch < calls.len() {
                calls.drain(..switch);
            }
        }
        calls
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(&mut Names::default(), f)
    }
}

/// The names of calls. Backtraces that are written together share them: greenlets wait in few places.
#[derive(Default)]
pub(crate) struct Names(HashMap<u64, Vec<Symbol>>);

impl Names {
    /// Returns the functions at an address, of which inlined functions come first. There is at least one.
    fn look_up(&mut self, address: u64) -> &[Symbol] {
        self.0.entry(address).or_insert_with(|| symbols_at(address))
    }

    /// Returns the same for an address that was looked up before.
    fn known(&self, address: u64) -> &[Symbol] {
        self.0.get(&address).map_or(&[], Vec::as_slice)
    }
}

/// Looks up the functions at an address.
///
/// The crate `backtrace` holds a lock of its own meanwhile. A fork leaves it locked if another OS thread was inside.
/// Such a child and its descendants find no names, instead of waiting forever.
fn symbols_at(address: u64) -> Vec<Symbol> {
    /// Held for each look-up: at most one OS thread of a process is inside.
    static LOOK_UP: PerProcess<Mutex<()>> = PerProcess::new();
    /// Whether an OS thread of this process is inside, or one of an ancestor was when it forked.
    static IS_INSIDE: AtomicBool = AtomicBool::new(false);

    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            IS_INSIDE.store(false, Ordering::Release);
        }
    }

    let mut symbols = Vec::new();
    if let Ok(look_up) = LOOK_UP.get_or_make(Mutex::default) {
        let _look_up = look_up.lock().unwrap_or_else(PoisonError::into_inner);
        // No OS thread of this process is inside now.
        let was_left_behind = IS_INSIDE.swap(true, Ordering::AcqRel);
        if !was_left_behind {
            let _inside = Inside;
            // `resolve` looks up the address before the one that it is given.
            let behind = ptr::without_provenance_mut((address as usize).wrapping_add(1));
            backtrace::resolve(behind, |symbol| {
                symbols.push(Symbol {
                    name: symbol.name().map(|name| format!("{name:#}")),
                    at: symbol.filename().zip(symbol.lineno()).map(|(file, line)| format!("{}:{line}", file.display())),
                });
            });
        }
    }
    if symbols.is_empty() {
        symbols.push(Symbol::default());
    }
    symbols
}

/// A call in progress. A frame has several if functions are inlined into each other.
struct Call<'a> {
    frame: usize,
    address: u64,
    symbol: &'a Symbol,
}

/// A function, and the line of it at some address.
#[derive(Default)]
struct Symbol {
    name: Option<String>,
    at: Option<String>,
}

impl Symbol {
    /// Returns whether the function belongs to the switch between greenlets.
    fn is_in_switch(&self) -> bool {
        self.is_in(SWITCH) || self.is_at("greenlet/")
    }

    /// Returns whether it is the function at the top of the stack of a greenlet.
    fn is_root(&self) -> bool {
        let is_named_so = self.name.as_deref().is_some_and(|name| name.starts_with("root"));
        self.is_in(ROOT) || self.is_at("greenlet/switch.rs:") && is_named_so
    }

    /// Returns whether the function is in the module `path`, or is an item of that name.
    fn is_in(&self, path: &str) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        // `<hub_core::…::Type>::method`
        name.trim_start_matches(['<', '&']).starts_with(path)
    }

    /// Returns whether the code is in that file or folder of this crate. Debug information that has only lines names
    /// functions without their modules.
    fn is_at(&self, path: &str) -> bool {
        let sources = file!().strip_suffix("base/unwind.rs").unwrap_or_default();
        let at = self.at.as_deref().unwrap_or_default();
        at.rsplit_once(sources).is_some_and(|(_, file)| file.starts_with(path))
    }
}
