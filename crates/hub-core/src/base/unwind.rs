//! Backtraces: the calls in progress on a stack, by the unwind tables of the files that the process has mapped.
//!
//! The stack is read by a closure of the caller, which refuses every address that it does not know. So a wrong table
//! or a broken stack ends the backtrace, and nothing else.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use framehop::{CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module};
use framehop::{Unwinder, UnwinderNative};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSegment, ReadCache, ReadRef};

pub(crate) use framehop::UnwindRegsNative as Registers;

use super::fork::PerProcess;

/// The size of a word of a stack, in bytes.
pub(crate) const WORD: usize = size_of::<u64>();

/// The maximum number of frames in a backtrace.
const FRAMES: usize = 100;

/// The modules whose frames do the switch away from a suspended greenlet.
const SWITCH: &str = "hub_core::greenlet::";
/// The function at the top of the stack of a greenlet. The frames behind it are no calls.
const ROOT: &str = "hub_core::greenlet::switch::root";

type Tables = UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>;

/// The calls in progress on a stack, innermost first. The text is in std's format, and made on demand.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    /// Addresses within the call instructions.
    addresses: Vec<u64>,
    /// Whether the innermost frames do a switch, which is left out.
    in_switch: bool,
}

impl Frames {
    /// Makes a backtrace of addresses that are each within a call instruction.
    pub(crate) fn new(addresses: Vec<u64>) -> Frames {
        Frames { addresses, in_switch: false }
    }

    /// Leaves out the frames of the switch away from a suspended greenlet.
    pub(crate) fn without_switch(self) -> Frames {
        Frames { in_switch: true, ..self }
    }

    /// Finds the calls in progress on a stack whose innermost code is at `pc`.
    ///
    /// Returns `None` if the system does not tell which files are mapped. `read` returns the word at an address of the
    /// stack, and an error for any other address.
    pub(crate) fn find(pc: u64, registers: Registers, mut read: impl FnMut(u64) -> Result<u64, ()>) -> Option<Frames> {
        let tables = tables().ok()?;
        let mut cache = CacheNative::new();
        let mut frames = tables.iter_frames(pc, registers, &mut cache, &mut read);
        let mut addresses = Vec::new();
        while let Ok(Some(frame)) = frames.next()
            && addresses.len() < FRAMES
        {
            addresses.push(match frame {
                FrameAddress::InstructionPointer(address) => address,
                // An address within the call instruction, not behind it.
                FrameAddress::ReturnAddress(address) => address.get() - 1,
            });
        }
        Some(Frames::new(addresses))
    }

    /// Returns the calls with their names, from the first that is no part of a switch up to the root of the stack.
    fn resolve(&self) -> Vec<Call> {
        let mut calls: Vec<Call> = Vec::new();
        for (number, &address) in self.addresses.iter().enumerate() {
            let before = calls.len();
            // `resolve` looks up the address before the one that it is given.
            let behind = ptr::without_provenance_mut((address as usize).wrapping_add(1));
            backtrace::resolve(behind, |symbol| {
                calls.push(Call {
                    frame: number,
                    name: symbol.name().map(|name| format!("{name:#}")),
                    address,
                    at: symbol.filename().zip(symbol.lineno()).map(|(file, line)| format!("{}:{line}", file.display())),
                });
            });
            if calls.len() == before {
                calls.push(Call { frame: number, name: None, address, at: None });
            }
            if calls[before..].iter().any(Call::is_root) {
                break;
            }
        }
        if self.in_switch {
            let switch = calls.iter().take_while(|call| call.is_in_switch()).count();
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
        let calls = self.resolve();
        let mut number = 0;
        for (index, call) in calls.iter().enumerate() {
            // Names of inlined functions follow the number of the frame that they were inlined into.
            if index > 0 && calls[index - 1].frame == call.frame {
                f.write_str("      ")?;
            } else {
                write!(f, "{number:4}: ")?;
                number += 1;
            }
            match &call.name {
                Some(name) => writeln!(f, "{name}")?,
                None => writeln!(f, "{:#x}", call.address)?,
            }
            if let Some(at) = &call.at {
                writeln!(f, "             at {at}")?;
            }
        }
        Ok(())
    }
}

/// A call in progress. A frame has several if functions are inlined into each other.
struct Call {
    frame: usize,
    name: Option<String>,
    address: u64,
    at: Option<String>,
}

impl Call {
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

/// Returns the unwind tables of all files that are mapped as code. They are kept until the mappings change.
fn tables() -> io::Result<Arc<Tables>> {
    struct Known {
        map: String,
        tables: Arc<Tables>,
    }
    static KNOWN: PerProcess<Mutex<Option<Known>>> = PerProcess::new();

    let map = fs::read_to_string("/proc/self/maps")?;
    let map: String = map.lines().filter(|line| is_code(line)).flat_map(|line| [line, "\n"]).collect();
    let mut known = KNOWN.get_or_make(Mutex::default)?.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.as_ref().filter(|known| known.map == map) {
        return Ok(Arc::clone(&known.tables));
    }
    let mut tables = Tables::new();
    map.lines().filter_map(module).for_each(|module| tables.add_module(module));
    let tables = Arc::new(tables);
    *known = Some(Known { map, tables: Arc::clone(&tables) });
    Ok(tables)
}

/// Returns whether a line such as `55d0-55e0 r-xp 00001000 08:01 1234   /usr/bin/program` is about code.
fn is_code(line: &str) -> bool {
    line.split_whitespace().nth(1).is_some_and(|rights| rights.contains('x'))
}

/// Loads the file of such a line.
fn module(line: &str) -> Option<Module<Vec<u8>>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let parse = |number| u64::from_str_radix(number, 16).ok();
    let range = parse(start)?..parse(end)?;
    let offset = parse(words.nth(1)?)?;
    let path = words.nth(2)?;
    if path == "[vdso]" {
        let mut image = vec![0; (range.end - range.start) as usize];
        File::open("/proc/self/mem").ok()?.read_exact_at(&mut image, range.start).ok()?;
        return load(path, range, offset, &*image);
    }
    let file = File::open(path).ok()?;
    load(path, range, offset, &ReadCache::new(BufReader::new(file)))
}

/// Returns the parts of a file that an unwinder needs. The file is mapped at `range` from `offset` on.
fn load<'a, R: ReadRef<'a>>(name: &str, range: Range<u64>, offset: u64, data: R) -> Option<Module<Vec<u8>>> {
    let file = ElfFile64::<object::NativeEndian, R>::parse(data).ok()?;
    let base = file.segments().find_map(|segment| {
        let (start, len) = segment.file_range();
        // Mappings begin at whole pages; segments need not.
        let at = offset.max(start);
        let is_it = segment.permissions().executable() && at < start + len;
        is_it.then(|| (range.start + (at - offset)).wrapping_sub(segment.address() + (at - start)))
    })?;
    let address = |name: &str| {
        let section = file.section_by_name(name)?;
        Some(section.address()..section.address() + section.size())
    };
    let content = |name: &str| Some(file.section_by_name(name)?.uncompressed_data().ok()?.into_owned());
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: address(".text"),
        got_svma: address(".got"),
        eh_frame_svma: address(".eh_frame"),
        eh_frame: content(".eh_frame"),
        eh_frame_hdr_svma: address(".eh_frame_hdr"),
        eh_frame_hdr: content(".eh_frame_hdr"),
        ..ExplicitModuleSectionInfo::default()
    };
    Some(Module::new(name.to_owned(), range, base, sections))
}
