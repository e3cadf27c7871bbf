//! The running program in memory: the addresses of its code, and its build.
#![allow(unsafe_code)]

use crate::atfork::OnceLock;
#[cfg(target_pointer_width = "32")]
use libc::Elf32_Phdr as Header;
#[cfg(target_pointer_width = "64")]
use libc::Elf64_Phdr as Header;
use std::ops::Range;

pub use crate::terms::Image;

/// Returns the running program, without the libraries that it loads.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut image = Image { base: 0, text: Vec::new(), build: 0 };
        // SAFETY: the call passes `&mut image` to `first`, and only until it returns.
        unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut image).cast()) };
        image
    })
}

/// Reads the first object, which is the program, and ends the iteration.
unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _size: usize, image: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `dl_iterate_phdr` passes the pointer to `image` from its caller, and a valid description of an object.
    let (image, info) = unsafe { (&mut *image.cast::<Image>(), &*info) };
    image.base = info.dlpi_addr as usize;
    // SAFETY: the loader's description has `dlpi_phnum` headers at `dlpi_phdr`.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let range = |h: &Header| {
        let start = image.base.wrapping_add(h.p_vaddr as usize);
        start..start.wrapping_add(h.p_memsz as usize)
    };
    let loaded = |h: &&Header| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_R != 0;
    image.text = headers.iter().filter(|h| loaded(h) && h.p_flags & libc::PF_X != 0).map(range).collect();
    // SAFETY: the loader mapped these segments readable until the program ends.
    let bytes = |r: Range<usize>| unsafe {
        std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(r.start), r.len())
    };
    let notes = headers.iter().filter(|h| h.p_type == libc::PT_NOTE).map(range);
    image.build = match notes.into_iter().find_map(|r| build_id(bytes(r))) {
        Some(id) => hash(0, id),
        None => image.text.iter().fold(0, |so_far, r| hash(so_far, bytes(r.clone()))),
    };
    1
}

/// Returns the linker's build id from a list of notes (`elf(5)`: name length, content length, type, name, content,
/// padded to 4).
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const BUILD_ID: u32 = 3;
    while let Some((head, rest)) = notes.split_at_checked(12) {
        let number = |at: usize| head[at..at + 4].try_into().map(u32::from_ne_bytes).unwrap_or(0);
        let name_len = number(0) as usize;
        let (name, rest) = rest.split_at_checked(name_len.next_multiple_of(4))?;
        let len = number(4) as usize;
        let content = rest.get(..len)?;
        if number(8) == BUILD_ID && name.starts_with(b"GNU\0") {
            return Some(content);
        }
        notes = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}

/// Hashes by FNV-1a over words instead of bytes: some megabytes take about a millisecond.
fn hash(so_far: u64, bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>();
    let mut hash = so_far ^ 0xcbf2_9ce4_8422_2325;
    let mut take = |word: u64| hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    words.0.iter().for_each(|w| take(u64::from_le_bytes(*w)));
    words.1.iter().for_each(|b| take(u64::from(*b)));
    take(bytes.len() as u64);
    hash
}

/// Returns the name of the function at `address` from the program's own symbol table, unchanged. `None`: the program
/// has no table, or the table has several names for the address, for example because the compiler merged two equal
/// functions.
pub fn symbol(address: usize) -> Option<String> {
    symbol_in(&std::fs::File::open("/proc/self/exe").ok()?, address.wrapping_sub(image().base) as u64)
}

/// Sizes of a section's header and of a symbol, and where their fields are (`elf(5)`). Those for 32 bits are not those for
/// 64 bits with shorter numbers: the fields of a symbol have another order.
#[cfg(target_pointer_width = "64")]
mod layout {
    pub const SECTIONS: usize = 40;
    pub const COUNT: usize = 60;
    pub const SECTION: usize = 64;
    pub const CONTENT: usize = 24;
    pub const LEN: usize = 32;
    pub const LINK: usize = 40;
    pub const SYMBOL: usize = 24;
    pub const INFO: usize = 4;
    pub const VALUE: usize = 8;
}
#[cfg(target_pointer_width = "32")]
mod layout {
    pub const SECTIONS: usize = 32;
    pub const COUNT: usize = 48;
    pub const SECTION: usize = 40;
    pub const CONTENT: usize = 16;
    pub const LEN: usize = 20;
    pub const LINK: usize = 24;
    pub const SYMBOL: usize = 16;
    pub const INFO: usize = 12;
    pub const VALUE: usize = 4;
}

/// See `elf(5)`.
fn symbol_in(program: &std::fs::File, wanted: u64) -> Option<String> {
    use layout::{CONTENT, COUNT, INFO, LEN, LINK, SECTION, SECTIONS, SYMBOL, VALUE};
    use std::os::unix::fs::FileExt;
    const SYMBOLS: u64 = 2;
    const FUNCTION: u8 = 2;
    // The greatest length of a table that it reads.
    const MOST: usize = 256 << 20;
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; Some(len).filter(|&len| len <= MOST)?];
        program.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    let long = |bytes: &[u8], at: usize| Some(usize::from_ne_bytes(*bytes.get(at..)?.first_chunk()?) as u64);
    let word = |bytes: &[u8], at: usize| Some(u64::from(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)));
    let half = |bytes: &[u8], at: usize| Some(usize::from(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)));
    let header = read(0, 64)?;
    let sections = read(long(&header, SECTIONS)?, SECTION * half(&header, COUNT)?)?;
    let section = |index: usize| sections.get(index * SECTION..(index + 1) * SECTION);
    let table = (0..).map_while(section).find(|s| word(s, 4) == Some(SYMBOLS))?;
    let names = section(word(table, LINK)? as usize)?;
    let content = |section: &[u8]| read(long(section, CONTENT)?, long(section, LEN)? as usize);
    let (symbols, names) = (content(table)?, content(names)?);
    let is_it = |s: &&[u8]| s[INFO] & 15 == FUNCTION && long(s, VALUE) == Some(wanted);
    let mut found = symbols.chunks_exact(SYMBOL).filter(is_it).filter_map(|s| {
        let name = names.get(word(s, 0)? as usize..)?.split(|&byte| byte == 0).next()?;
        std::str::from_utf8(name).ok()
    });
    let first = found.next()?;
    found.all(|other| other == first).then(|| first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_contains_this_programs_code() {
        let here = the_image_contains_this_programs_code as fn() as usize;
        assert!(image().text.iter().any(|r| r.contains(&here)));
        assert!(!image().text.iter().any(|r| r.contains(&(libc::getpid as *const () as usize))));
        assert_ne!(image().build, 0);
    }

    #[test]
    fn a_symbol_has_its_functions_name() {
        let here = a_symbol_has_its_functions_name as fn() as usize;
        assert!(symbol(here).unwrap().contains("a_symbol_has_its_functions_name"));
        assert_eq!(symbol(here + 1), None);
    }

    #[test]
    fn a_build_id_is_found_among_other_notes() {
        let note = |kind: u32, content: &[u8]| {
            let mut n: Vec<u8> = [4, content.len() as u32, kind].iter().flat_map(|x| x.to_ne_bytes()).collect();
            n.extend(b"GNU\0");
            n.extend(content);
            n.resize(n.len().next_multiple_of(4), 0);
            n
        };
        let notes = [note(1, &[0; 16]), note(3, &[7; 20])].concat();
        assert_eq!(build_id(&notes), Some(&[7; 20][..]));
        assert_eq!(build_id(&note(1, b"abc")), None);
        for cut in 0..notes.len() {
            let _ = build_id(&notes[..cut]);
        }
    }
}
