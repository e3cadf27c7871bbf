//! The running program in memory. The loader maps a program with its load commands in front, and the table of symbols
//! in the segment `__LINKEDIT` (mach-o/loader.h); `_NSGetMachExecuteHeader` returns its address (crt_externs.h).

use super::super::super::macho::{self, Program};
use crate::atfork::OnceLock;
use crate::terms::Image;
use std::ops::Range;

unsafe extern "C" {
    fn _NSGetMachExecuteHeader() -> *const u8;
}

/// Returns the program's header, and what its load commands contain.
fn program() -> &'static Option<(usize, Program)> {
    static PROGRAM: OnceLock<Option<(usize, Program)>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // SAFETY: no arguments.
        let header = unsafe { _NSGetMachExecuteHeader() };
        let start = header.expose_provenance();
        let head = bytes(start..start + macho::HEADER);
        let len = macho::HEADER + macho::len_of_commands(head)?;
        Some((start, macho::read(bytes(start..start + len))?))
    })
}

fn bytes(range: Range<usize>) -> &'static [u8] {
    // SAFETY: the callers pass parts of the program, which the loader mapped readable until the program ends.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(range.start), range.len()) }
}

/// Returns the running program, without the libraries that it loads.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let Some((start, program)) = program() else { return Image { base: 0, text: Vec::new(), build: 0 } };
        let text: Vec<_> = program.code.iter().map(|code| program.loaded(*start, code)).collect();
        let build = program.uuid.map_or_else(
            || text.iter().fold(0, |so_far, range| macho::hash(so_far, bytes(range.clone()))),
            |uuid| macho::hash(0, &uuid),
        );
        Image { base: *start, text, build }
    })
}

/// Returns the name of the function at `address` from the program's own symbol table, without the underscore that the
/// system puts before each name. `None`: the program has no table, or the table has several names for the address.
pub fn symbol(address: usize) -> Option<String> {
    let (start, program) = program().as_ref()?;
    let (symbols, names) = program.tables(*start)?;
    macho::symbol_in(bytes(symbols), bytes(names), program.linked(*start, address))
}
