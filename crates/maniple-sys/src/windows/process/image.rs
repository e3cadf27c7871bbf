//! The running program in memory, by the headers that the loader has mapped.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::OnceLock;
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, GetModuleHandleExW,
};

pub use crate::terms::Image;

/// Returns the image that contains this code.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut module = std::ptr::null_mut();
        let flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
        // SAFETY: with these flags, the second argument is an address: of a function of this image.
        unsafe { GetModuleHandleExW(flags, image as fn() -> &'static Image as *const u16, &mut module) };
        let base = module as usize;
        if base == 0 { Image { base: 0, text: Vec::new(), build: 0 } } else { of(base) }
    })
}

/// Reads a number of an image.
fn number<T: Copy>(base: usize, offset: usize) -> T {
    // SAFETY: the callers pass the base of a loaded image and offsets in its headers, which are mapped for reading.
    unsafe { std::ptr::read_unaligned((base + offset) as *const T) }
}

/// The headers are in the form of the PE/COFF specification.
fn of(base: usize) -> Image {
    const EXECUTABLE: u32 = 0x2000_0000;
    let header = number::<u32>(base, 0x3C) as usize;
    let count = usize::from(number::<u16>(base, header + 6));
    let stamp = number::<u32>(base, header + 8);
    let sections = header + 24 + usize::from(number::<u16>(base, header + 20));
    let mut text: Vec<Range<usize>> = Vec::new();
    for section in (0..count).map(|number| sections + 40 * number) {
        if number::<u32>(base, section + 36) & EXECUTABLE != 0 {
            let start = base + number::<u32>(base, section + 12) as usize;
            text.push(start..start + number::<u32>(base, section + 8) as usize);
        }
    }
    let build = text.iter().fold(u64::from(stamp) | 1 << 32, hash);
    Image { base, text, build: build.max(1) }
}

/// FNV-1a by words: <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn hash(sum: u64, range: &Range<usize>) -> u64 {
    let words = (range.end - range.start) / 8;
    (0..words).fold(sum ^ 0xcbf2_9ce4_8422_2325, |sum, word| {
        (sum ^ number::<u64>(range.start, word * 8)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Returns `None`: the names of functions are in a file of their own.
pub fn symbol(_address: usize) -> Option<String> {
    None
}
