//! The unwind tables of the code that the process has mapped.
//!
//! The tables come from the mapped images. The file of an image may be gone by now, or be another build, a FIFO or a
//! device. The images are read through `/proc/self/mem`: a part that another OS thread has unmapped is an error there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use framehop::{CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module};
use framehop::{Unwinder, UnwinderNative};
use object::NativeEndian;
use object::elf::{FileHeader64, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use super::{Frames, Registers};
use crate::base::fork::PerProcess;

/// The maximum number of frames in a backtrace.
pub(super) const FRAMES: usize = 100;

/// The size of the beginning of an image that contains the program headers.
const HEADERS: u64 = 4096;

/// The size of the largest table that is read. A larger one is a broken image.
const LARGEST: u64 = 1 << 30;

type Modules = Arc<UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>>;

/// The unwind tables of all mapped code, as it was when they were made.
pub(crate) struct Tables {
    modules: Modules,
    /// The steps from frame to frame that were found before. Greenlets wait in few places.
    steps: RefCell<CacheNative<MayAllocateDuringUnwind>>,
}

impl Tables {
    /// Returns the tables of the process, which are kept until the mappings change.
    ///
    /// This reads the list of all mappings: backtraces that are made together share one call. Returns `None` if the
    /// system does not tell what is mapped.
    pub(crate) fn of_process() -> Option<Tables> {
        modules().ok().map(|modules| Tables { modules, steps: RefCell::default() })
    }

    /// Finds the calls in progress on a stack whose innermost code is at `pc`.
    ///
    /// `read` returns the word at an address of the stack, and an error for any other address.
    pub(crate) fn find(&self, pc: u64, registers: Registers, mut read: impl FnMut(u64) -> Result<u64, ()>) -> Frames {
        let mut steps = self.steps.borrow_mut();
        let mut frames = self.modules.iter_frames(pc, registers, &mut steps, &mut read);
        let mut addresses = Vec::new();
        while addresses.len() < FRAMES
            && let Ok(Some(frame)) = frames.next()
        {
            addresses.push(match frame {
                FrameAddress::InstructionPointer(address) => address,
                // An address within the call instruction, not behind it.
                FrameAddress::ReturnAddress(address) => address.get() - 1,
            });
        }
        Frames { addresses, in_switch: false }
    }
}

fn modules() -> io::Result<Modules> {
    struct Known {
        code: String,
        modules: Modules,
    }
    static KNOWN: PerProcess<Mutex<Option<Known>>> = PerProcess::new();

    let map = fs::read_to_string("/proc/self/maps")?;
    let is_code = |line: &&str| Mapping::parse(line).is_some_and(|mapping| mapping.is_code);
    let code: String = map.lines().filter(is_code).flat_map(|line| [line, "\n"]).collect();
    let mut known = KNOWN.get_or_make(Mutex::default)?.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.as_ref().filter(|known| known.code == code) {
        return Ok(Arc::clone(&known.modules));
    }
    let memory = File::open("/proc/self/mem")?;
    let mut modules = UnwinderNative::new();
    for image in images(&map) {
        if let Some(module) = load(&memory, &image) {
            modules.add_module(module);
        }
    }
    let modules = Arc::new(modules);
    *known = Some(Known { code, modules: Arc::clone(&modules) });
    Ok(modules)
}

/// A line of the list of mappings, such as `55d0-55e0 r-xp 00001000 08:01 1234   /usr/bin/program`.
struct Mapping<'a> {
    range: Range<u64>,
    is_code: bool,
    offset: u64,
    /// The device and inode of the file; inode 0 for memory without a file.
    file: (&'a str, &'a str),
    /// The path, which may contain spaces and may end with ` (deleted)`. It is never opened.
    path: &'a str,
}

impl Mapping<'_> {
    fn parse(line: &str) -> Option<Mapping<'_>> {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let parse = |number| u64::from_str_radix(number, 16).ok();
        let range = parse(start)?..parse(end)?;
        let is_code = words.next()?.contains('x');
        let offset = parse(words.next()?)?;
        let file = (words.next()?, words.next()?);
        Some(Mapping { range, is_code, offset, file, path: words.next().unwrap_or_default().trim_start() })
    }

    /// Returns whether the mapping may be a part of an ELF image.
    fn may_be_image(&self) -> bool {
        // A read from the memory of a device may have any effect.
        let is_device = self.path.starts_with("/dev/") && !self.path.starts_with("/dev/shm/");
        self.path == "[vdso]" || self.file.1 != "0" && !is_device
    }
}

/// Code of an ELF image.
struct Image<'a> {
    /// The addresses of the code.
    code: Range<u64>,
    /// The address of the beginning of the image.
    start: u64,
    name: &'a str,
}

/// Returns the code in a list of mappings, which is sorted by address.
fn images(map: &str) -> Vec<Image<'_>> {
    let mut images = Vec::new();
    // The last beginning of each file. A loader maps the parts of an image one behind the other.
    let mut starts = HashMap::new();
    for mapping in map.lines().filter_map(Mapping::parse).filter(Mapping::may_be_image) {
        if mapping.offset == 0 {
            starts.insert(mapping.file, mapping.range.start);
        }
        if mapping.is_code
            && let Some(&start) = starts.get(&mapping.file)
        {
            images.push(Image { code: mapping.range, start, name: mapping.path });
        }
    }
    images
}

/// Returns the parts of an image that an unwinder needs.
fn load(memory: &File, image: &Image<'_>) -> Option<Module<Vec<u8>>> {
    let headers = read(memory, image.start..image.start.checked_add(HEADERS)?)?;
    let header = FileHeader64::<NativeEndian>::parse(&*headers).ok()?;
    let segments = header.program_headers(NativeEndian, &*headers).ok()?;
    let first = segments.iter().find(|segment| is_loaded(segment) && segment.p_offset(NativeEndian) == 0)?;
    // The difference between the addresses in memory and those in the file.
    let base = image.start.wrapping_sub(first.p_vaddr(NativeEndian));
    let content = |range: &Range<u64>| read(memory, range.start.wrapping_add(base)..range.end.wrapping_add(base));

    let index = segments.iter().find(|segment| segment.p_type(NativeEndian) == PT_GNU_EH_FRAME).map(addresses)?;
    let eh_frame_hdr = content(&index)?;
    let table = table_address(index.start, &eh_frame_hdr)?;
    // The headers do not tell the end of the table. The index leads only to entries of the table.
    let segment = segments.iter().filter(|segment| is_loaded(segment)).map(addresses);
    let table = table..segment.into_iter().find(|segment| segment.contains(&table))?.end;
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        eh_frame: Some(content(&table)?),
        eh_frame_svma: Some(table),
        eh_frame_hdr: Some(eh_frame_hdr),
        eh_frame_hdr_svma: Some(index),
        ..ExplicitModuleSectionInfo::default()
    };
    Some(Module::new(image.name.to_owned(), image.code.clone(), base, sections))
}

fn is_loaded(segment: &ProgramHeader64<NativeEndian>) -> bool {
    segment.p_type(NativeEndian) == PT_LOAD
}

/// Returns the addresses of a segment with content from the file, as they are in the file.
fn addresses(segment: &ProgramHeader64<NativeEndian>) -> Range<u64> {
    let start = segment.p_vaddr(NativeEndian);
    start..start.saturating_add(segment.p_filesz(NativeEndian))
}

/// Returns the address of the table of an index that begins at `index`.
fn table_address(index: u64, content: &[u8]) -> Option<u64> {
    /// `DW_EH_PE_pcrel | DW_EH_PE_sdata4`, the encoding that linkers use.
    const RELATIVE: u8 = 0x1b;
    /// The offset of the encoded address, behind the version and three encodings.
    const AT: usize = 4;

    if content.get(..2)? != [1, RELATIVE] {
        return None;
    }
    let distance = i32::from_ne_bytes(*content.get(AT..)?.first_chunk()?);
    Some(index.wrapping_add(AT as u64).wrapping_add_signed(distance.into()))
}

/// Reads memory of the process.
fn read(memory: &File, range: Range<u64>) -> Option<Vec<u8>> {
    let len = range.end.checked_sub(range.start).filter(|len| *len <= LARGEST)?;
    let mut content = vec![0; len as usize];
    memory.read_exact_at(&mut content, range.start).ok()?;
    Some(content)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_is_one_word_of_a_mapping() {
        let line = "55d0000-55e0000 r-xp 00001000 08:01 1234                       /a b/c  d (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!((mapping.range, mapping.offset, mapping.is_code), (0x55d_0000..0x55e_0000, 0x1000, true));
        assert_eq!((mapping.file, mapping.path), (("08:01", "1234"), "/a b/c  d (deleted)"));
    }

    #[test]
    fn code_belongs_to_the_last_beginning_of_the_same_file() {
        let map = "1000-2000 r--p 00000000 08:01 7 /a b\n\
                   2000-3000 r-xp 00001000 08:01 7 /a b\n\
                   3000-4000 r-xp 00000000 08:01 8 /c\n\
                   5000-6000 r--p 00000000 08:01 7 /a b\n\
                   6000-7000 rw-p 00000000 00:00 0 \n\
                   7000-8000 r-xp 00001000 08:01 7 /a b\n\
                   8000-9000 r-xp 00001000 08:01 9 /without/a/beginning\n\
                   9000-a000 rwxp 00000000 00:00 0 \n\
                   a000-b000 r-xp 00000000 00:05 6 /dev/device\n\
                   b000-c000 r-xp 00000000 00:00 0 [vdso]\n";
        let found: Vec<(u64, u64)> = images(map).iter().map(|image| (image.code.start, image.start)).collect();
        assert_eq!(found, [(0x2000, 0x1000), (0x3000, 0x3000), (0x7000, 0x5000), (0xb000, 0xb000)]);
    }

    #[test]
    fn an_index_of_another_encoding_has_no_table() {
        assert_eq!(table_address(0x1000, &[1, 0x1b, 3, 0x3b, 0xfc, 0xff, 0xff, 0xff]), Some(0x1000));
        assert_eq!(table_address(0x1000, &[1, 0xff, 3, 0x3b, 0, 0, 0, 0]), None);
        assert_eq!(table_address(0x1000, &[1, 0x1b, 3, 0x3b, 0, 0, 0]), None);
    }

    #[test]
    fn an_image_without_tables_is_left_out() {
        let memory = File::open("/proc/self/mem").unwrap();
        let page = vec![0_u8; 2 * HEADERS as usize];
        let start = page.as_ptr().expose_provenance() as u64;
        assert!(load(&memory, &Image { code: start..start + HEADERS, start, name: "" }).is_none());
        assert!(load(&memory, &Image { code: 0..HEADERS, start: 0, name: "" }).is_none());
    }
}
