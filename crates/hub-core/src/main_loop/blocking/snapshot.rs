//! A copy of a stack, taken in a signal handler, and the backtrace that another OS thread makes from it.
//!
//! The handler only copies registers and words. The unwinding (finding tables, following pointers, allocating) happens
//! afterwards, on the copy: a wrong table leads to a wrong backtrace, never to a wrong access.
//!
//! Ground rule: [`Snapshot::take`] reads the words between the stack pointer and the end of the same stack, and nothing
//! else.

use std::ffi::c_void;
use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use framehop::{CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module, Unwinder};
use framehop::{UnwindRegsNative, UnwinderNative};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSegment, ReadCache, ReadRef};

/// The size of the copy in words: the last few dozen calls.
const WORDS: usize = 8192;
/// The maximum number of frames in a backtrace.
const FRAMES: usize = 100;
const WORD: usize = size_of::<u64>();

type Loaded = Module<Vec<u8>>;

/// The registers that an unwinder needs, and the end of the stack.
#[derive(Clone)]
pub(super) struct Snapshot {
    pc: u64,
    sp: u64,
    fp: u64,
    /// `rbx` on x86-64, the link register elsewhere.
    other: u64,
    words: Box<[u64; WORDS]>,
    len: usize,
}

impl Snapshot {
    pub(super) fn new() -> Snapshot {
        Snapshot { pc: 0, sp: 0, fp: 0, other: 0, words: Box::new([0; WORDS]), len: 0 }
    }

    /// Copies the interrupted code's state, if it runs on the stack with these `bounds`. Takes no lock, allocates
    /// nothing.
    ///
    /// # Safety
    ///
    /// This runs in a signal handler, and `context` is what the system passed to it. The memory within `bounds` is
    /// mapped.
    pub(super) unsafe fn take(&mut self, context: *const c_void, bounds: Option<Range<usize>>) {
        self.len = 0;
        // SAFETY: with `SA_SIGINFO` the system passes a context.
        let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        #[cfg(target_arch = "x86_64")]
        {
            let register = |which: libc::c_int| machine.gregs[which as usize] as u64;
            self.pc = register(libc::REG_RIP);
            self.sp = register(libc::REG_RSP);
            self.fp = register(libc::REG_RBP);
            self.other = register(libc::REG_RBX);
        }
        #[cfg(target_arch = "aarch64")]
        {
            self.pc = machine.pc;
            self.sp = machine.sp;
            self.fp = machine.regs[29];
            self.other = machine.regs[30];
        }
        let sp = self.sp as usize;
        let Some(bounds) = bounds.filter(|bounds| bounds.contains(&sp) && sp.is_multiple_of(WORD)) else { return };
        self.len = ((bounds.end - sp) / WORD).min(WORDS);
        let from = std::ptr::with_exposed_provenance::<u64>(sp);
        for (index, word) in self.words[..self.len].iter_mut().enumerate() {
            // SAFETY: the address is within the bounds, which are mapped. The read is volatile, since the words belong
            // to the interrupted code, which resumes afterwards.
            *word = unsafe { from.add(index).read_volatile() };
        }
    }

    /// Returns the calls in progress, innermost first, in std's format.
    pub(super) fn backtrace(&self) -> Option<String> {
        let mut text = String::new();
        for (number, address) in self.frames()?.into_iter().enumerate() {
            let mut known = false;
            backtrace::resolve(std::ptr::without_provenance_mut(address as usize), |symbol| {
                let name = symbol.name().map_or_else(|| "<unknown>".to_owned(), |name| format!("{name:#}"));
                // Names of inlined functions follow the number of the frame that they were inlined into.
                let _ = if known { write!(text, "      {name}") } else { write!(text, "{number:4}: {name}") };
                if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
                    let _ = write!(text, "\n             at {}:{line}", file.display());
                }
                text.push('\n');
                known = true;
            });
            if !known {
                let _ = writeln!(text, "{number:4}: {address:#x}");
            }
        }
        (!text.is_empty()).then_some(text)
    }

    /// Returns the addresses of the calls.
    fn frames(&self) -> Option<Vec<u64>> {
        if self.len == 0 {
            return None;
        }
        let mut unwinder = UnwinderNative::<Vec<u8>, MayAllocateDuringUnwind>::new();
        modules().ok()?.into_iter().for_each(|module| unwinder.add_module(module));
        let mut cache = CacheNative::new();
        let mut read = |address: u64| {
            let offset = address.checked_sub(self.sp).ok_or(())?;
            let index = (offset as usize) / WORD;
            let word = self.words[..self.len].get(index).ok_or(())?;
            if (offset as usize).is_multiple_of(WORD) { Ok(*word) } else { Err(()) }
        };
        let mut frames = unwinder.iter_frames(self.pc, self.registers(), &mut cache, &mut read);
        let mut found = Vec::new();
        while let Ok(Some(frame)) = frames.next()
            && found.len() < FRAMES
        {
            found.push(match frame {
                FrameAddress::InstructionPointer(address) => address,
                // An address within the call instruction, not behind it.
                FrameAddress::ReturnAddress(address) => address.get() - 1,
            });
        }
        Some(found)
    }

    #[cfg(target_arch = "x86_64")]
    fn registers(&self) -> UnwindRegsNative {
        let mut registers = UnwindRegsNative::new(self.pc, self.sp, self.fp);
        registers.set(framehop::x86_64::Reg::RBX, self.other);
        registers
    }

    #[cfg(target_arch = "aarch64")]
    fn registers(&self) -> UnwindRegsNative {
        UnwindRegsNative::new(self.other, self.sp, self.fp)
    }
}

/// Returns the code of this process, by its memory map.
fn modules() -> std::io::Result<Vec<Loaded>> {
    let map = std::fs::read_to_string("/proc/self/maps")?;
    Ok(map.lines().filter_map(module).collect())
}

/// Parses a line such as `55d0-55e0 r-xp 00001000 08:01 1234   /usr/bin/program`, if it is about code.
fn module(line: &str) -> Option<Loaded> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let parse = |number| u64::from_str_radix(number, 16).ok();
    let range = parse(start)?..parse(end)?;
    words.next().filter(|rights| rights.contains('x'))?;
    let offset = parse(words.next()?)?;
    let path = words.nth(2)?;
    if path == "[vdso]" {
        let mut image = vec![0; (range.end - range.start) as usize];
        File::open("/proc/self/mem").ok()?.read_exact_at(&mut image, range.start).ok()?;
        return load(path, range, offset, &*image);
    }
    let file = File::open(path).ok()?;
    load(path, range, offset, &ReadCache::new(BufReader::new(file)))
}

/// Returns what an unwinder needs of a file that is mapped at `range` from `offset` on.
fn load<'a, R: ReadRef<'a>>(name: &str, range: Range<u64>, offset: u64, data: R) -> Option<Loaded> {
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
