//! The load commands of a program in the system's format, and its table of symbols (mach-o/loader.h, mach-o/nlist.h).
//! Only bytes come in, so this is tested on any system.
#![cfg_attr(not(target_os = "macos"), allow(dead_code))]

use std::ops::Range;

/// Bytes of `struct mach_header_64`.
pub(super) const HEADER: usize = 32;
const MAGIC: u32 = 0xfeed_facf;
const SEGMENT: u32 = 0x19;
const SYMBOLS: u32 = 2;
const UUID: u32 = 0x1b;
/// `VM_PROT_EXECUTE`.
const EXECUTE: u32 = 4;
/// Bytes of `struct nlist_64`.
const SYMBOL: usize = 16;
/// `N_STAB`, `N_TYPE`, `N_SECT`: what a symbol is.
const STAB: u8 = 0xe0;
const TYPE: u8 = 0x0e;
const SECTION: u8 = 0x0e;

/// What the load commands of a program contain. Addresses are those of the linker.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    /// Where the linker put the header.
    header: u64,
    /// The segments with code.
    pub code: Vec<Range<u64>>,
    /// The linker's number of the build.
    pub uuid: Option<[u8; 16]>,
    /// The place of the segment `__LINKEDIT`: its address, and its part of the file.
    tables: Option<(u64, Range<u64>)>,
    /// The parts of the file with symbols and with their names.
    symbols: Option<(Range<u64>, Range<u64>)>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns the length of the commands that follow a header.
pub(super) fn len_of_commands(header: &[u8]) -> Option<usize> {
    (word(header, 0)? == MAGIC).then_some(word(header, 20)? as usize)
}

/// Reads a header with its commands. `None`: they are damaged.
pub(super) fn read(bytes: &[u8]) -> Option<Program> {
    let (count, mut program) = (word(bytes, 16)?, Program::default());
    let mut rest = bytes.get(HEADER..)?;
    for _ in 0..count {
        let len = word(rest, 4)? as usize;
        let command = rest.get(..len).filter(|command| command.len() >= 8)?;
        match word(command, 0)? {
            SEGMENT => {
                let (address, len) = (long(command, 24)?, long(command, 32)?);
                let (offset, size) = (long(command, 40)?, long(command, 48)?);
                if word(command, 60)? & EXECUTE != 0 {
                    program.code.push(address..address.checked_add(len)?);
                }
                match command.get(8..24)?.split(|&byte| byte == 0).next()? {
                    b"__TEXT" => program.header = address,
                    b"__LINKEDIT" => program.tables = Some((address, offset..offset.checked_add(size)?)),
                    _ => {}
                }
            }
            SYMBOLS => {
                let number = |at| word(command, at).map(u64::from);
                let (symbols, count) = (number(8)?, number(12)?);
                let (names, len) = (number(16)?, number(20)?);
                program.symbols = Some((symbols..symbols + count * SYMBOL as u64, names..names + len));
            }
            UUID => program.uuid = Some(*command.get(8..)?.first_chunk()?),
            _ => {}
        }
        rest = rest.get(len..)?;
    }
    Some(program)
}

impl Program {
    /// Returns where a range is in a process whose loader has put the header at `start`.
    pub fn loaded(&self, start: usize, range: &Range<u64>) -> Range<usize> {
        let place = |address: u64| (address.wrapping_sub(self.header) as usize).wrapping_add(start);
        place(range.start)..place(range.end)
    }

    /// Returns the linker's address of an address in such a process.
    pub fn linked(&self, start: usize, address: usize) -> u64 {
        (address.wrapping_sub(start) as u64).wrapping_add(self.header)
    }

    /// Returns where the symbols and their names are in such a process.
    pub fn tables(&self, start: usize) -> Option<(Range<usize>, Range<usize>)> {
        let (address, file) = self.tables.as_ref()?;
        let (symbols, names) = self.symbols.as_ref()?;
        let place = |part: &Range<u64>| {
            (file.start <= part.start && part.end <= file.end).then(|| {
                let begin = address + (part.start - file.start);
                self.loaded(start, &(begin..begin + (part.end - part.start)))
            })
        };
        Some((place(symbols)?, place(names)?))
    }
}

/// Returns the name of the function at the linker's address `wanted`. `None`: there is none, or there are several.
pub(super) fn symbol_in(symbols: &[u8], names: &[u8], wanted: u64) -> Option<String> {
    let is_it = |s: &&[u8]| s[4] & STAB == 0 && s[4] & TYPE == SECTION && long(s, 8) == Some(wanted);
    let mut found = symbols.chunks_exact(SYMBOL).filter(is_it).filter_map(|s| {
        let name = names.get(word(s, 0)? as usize..)?.split(|&byte| byte == 0).next()?;
        std::str::from_utf8(name).ok()
    });
    let first = found.next()?;
    found.all(|other| other == first).then(|| first.strip_prefix('_').unwrap_or(first).to_owned())
}

/// Hashes by FNV-1a over words.
pub(super) fn hash(so_far: u64, bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>();
    let mut hash = so_far ^ 0xcbf2_9ce4_8422_2325;
    let mut take = |word: u64| hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    words.0.iter().for_each(|word| take(u64::from_le_bytes(*word)));
    words.1.iter().for_each(|byte| take(u64::from(*byte)));
    take(bytes.len() as u64);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str, address: u64, len: u64, offset: u64, access: u32) -> Vec<u8> {
        let mut bytes = [SEGMENT.to_ne_bytes(), 72u32.to_ne_bytes()].concat();
        bytes.extend(name.bytes().chain(std::iter::repeat(0)).take(16));
        [address, len, offset, len].iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        [7, access, 0, 0].iter().for_each(|number: &u32| bytes.extend(number.to_ne_bytes()));
        bytes
    }

    fn program() -> Vec<u8> {
        let mut symbols = Vec::new();
        [SYMBOLS, 24, 0x2000, 3, 0x2030, 16].iter().for_each(|number| symbols.extend(number.to_ne_bytes()));
        let mut uuid = [UUID.to_ne_bytes(), 24u32.to_ne_bytes()].concat();
        uuid.extend([7; 16]);
        let commands = [
            segment("__PAGEZERO", 0, 1 << 32, 0, 0),
            segment("__TEXT", 1 << 32, 0x1000, 0, 5),
            segment("__LINKEDIT", (1 << 32) + 0x4000, 0x1000, 0x2000, 1),
            symbols,
            uuid,
        ];
        let mut bytes = Vec::new();
        let len: usize = commands.iter().map(Vec::len).sum();
        [MAGIC, 0, 0, 2, 5, len as u32, 0, 0].iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        commands.iter().for_each(|command| bytes.extend(command));
        bytes
    }

    #[test]
    fn the_commands_of_a_program_are_read() {
        let bytes = program();
        assert_eq!(len_of_commands(&bytes), Some(bytes.len() - HEADER));
        let program = read(&bytes).unwrap();
        assert_eq!((program.code.len(), program.uuid), (1, Some([7; 16])));
        assert_eq!(program.loaded(0x5000, &program.code[0]), 0x5000..0x6000);
        assert_eq!(program.linked(0x5000, 0x5010), (1 << 32) + 0x10);
        assert_eq!(program.tables(0x5000), Some((0x9000..0x9030, 0x9030..0x9040)));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), None);
        }
    }

    #[test]
    fn a_symbol_is_found_by_its_address() {
        let symbol = |name: u32, kind: u8, value: u64| {
            let mut bytes = name.to_ne_bytes().to_vec();
            bytes.extend([kind, 1, 0, 0]);
            bytes.extend(value.to_ne_bytes());
            bytes
        };
        let names = b"\0_one\0_two\0same\0";
        let symbols = [
            symbol(1, 0x0f, 0x10),
            symbol(6, 0x24, 0x10),
            symbol(6, 0x0e, 0x20),
            symbol(11, 0x0e, 0x20),
            symbol(99, 0x0e, 0x30),
        ];
        let named = |address| symbol_in(&symbols.concat(), names, address);
        assert_eq!(named(0x10).as_deref(), Some("one"));
        assert_eq!((named(0x20), named(0x30), named(0x40)), (None, None, None));
    }
}
