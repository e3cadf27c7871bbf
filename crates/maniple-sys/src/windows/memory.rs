//! Shared memory: sections of the page file.
//!
//! **Its size is fixed**, as that of every section. The system rounds it up to whole pages, so the exact length is in
//! the section's name. The name has 128 unpredictable bits; no program opens memory by it. It identifies the memory in
//! every process that has a handle on it: see [`futex`](super::futex).
//!
//! **All of it is charged** to the system's commit limit when it is made.
#![allow(unsafe_code)]

use super::nt;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::collections::BTreeMap;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError, RwLock};
use windows_sys::Win32::System::Memory::{
    FILE_MAP, FILE_MAP_COPY, FILE_MAP_READ, FILE_MAP_WRITE, MEM_RELEASE, MEM_RESERVE, MEMORY_BASIC_INFORMATION,
    MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFileEx, PAGE_NOACCESS, UnmapViewOfFile, VirtualAlloc, VirtualFree,
    VirtualQuery,
};

pub use crate::terms::Share;

/// A multiple of every system's page size: parts of memory that are mapped or freed separately begin at multiples of
/// it.
pub const PAGES: usize = 64 * 1024;

const PREFIX: &str = "maniple-m-";
const NOT_ENOUGH_MEMORY: i32 = 8;
const OUT_OF_MEMORY: i32 = 14;
const FILE_TOO_LARGE: i32 = 223;
const NO_SYSTEM_RESOURCES: i32 = 1450;
const COMMITMENT_LIMIT: i32 = 1455;

/// Creates `len` bytes of zeroed shared memory, whose size no process can change.
pub fn create(_label: &str, len: usize) -> io::Result<OwnedHandle> {
    create_known(len, &nt::random_name()?)
}

/// Creates memory that [`open_known`] finds while it exists.
pub(super) fn create_known(len: usize, id: &str) -> io::Result<OwnedHandle> {
    // The system refuses sections without bytes.
    match nt::create_section(&name_of(len, id), len.max(1))? {
        (_, true) => Err(io::ErrorKind::AlreadyExists.into()),
        (section, false) => Ok(section),
    }
}

pub(super) fn open_known(len: usize, id: &str) -> io::Result<OwnedHandle> {
    nt::open_section(&name_of(len, id))
}

fn name_of(len: usize, id: &str) -> String {
    format!("Local\\{PREFIX}{len:x}-{id}")
}

/// Returns the length of memory and its number, if `handle` leads to memory that this module made.
fn parts(handle: isize) -> Option<(usize, u128)> {
    let name = nt::object_name(handle)?;
    let (len, id) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((usize::from_str_radix(len, 16).ok()?, u128::from_str_radix(id, 16).ok()?))
}

/// Returns the number of the memory, which is the same in every process, and its length.
pub(super) fn id_and_len(handle: BorrowedHandle<'_>) -> Option<(u128, usize)> {
    parts(handle.as_raw()).map(|(len, id)| (id, len))
}

fn not_memory() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the handle does not lead to shared memory of maniple")
}

/// Returns whether no process can change the size of the memory.
pub fn is_fixed(handle: impl AsHandle) -> bool {
    parts(handle.as_handle().as_raw()).is_some()
}

/// Returns the greatest number: the system limits only the sum of all memory.
pub fn longest() -> u64 {
    u64::MAX
}

/// Returns false: the address space is not limited.
pub fn is_narrow() -> bool {
    false
}

/// Returns whether an error reports that memory would exceed a limit on its length.
pub fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(FILE_TOO_LARGE)
}

/// Returns whether an error reports that the process cannot map more.
pub fn is_scarce(error: &io::Error) -> bool {
    let all = [NOT_ENOUGH_MEMORY, OUT_OF_MEMORY, NO_SYSTEM_RESOURCES, COMMITMENT_LIMIT];
    error.raw_os_error().is_some_and(|number| all.contains(&number))
}

/// Returns the error for data that does not fit into memory that could not be made longer.
pub fn too_long() -> io::Error {
    io::Error::from_raw_os_error(FILE_TOO_LARGE)
}

/// Returns the error for a lack of memory.
pub fn out_of_memory() -> io::Error {
    io::Error::from_raw_os_error(NOT_ENOUGH_MEMORY)
}

/// Returns a second handle on the same memory.
pub fn duplicate(handle: impl AsHandle) -> io::Result<OwnedHandle> {
    handle.as_handle().try_clone_to_owned()
}

/// Prevents programs that this process starts from inheriting a handle that came from another process.
pub fn close_on_exec(handle: impl AsHandle) -> io::Result<()> {
    nt::set_inherit(handle.as_handle().as_raw(), false)
}

/// Returns the number of bytes of the memory behind `handle`.
pub fn len(handle: impl AsHandle) -> io::Result<usize> {
    parts(handle.as_handle().as_raw()).map(|(len, _)| len).ok_or_else(not_memory)
}

/// Maps the part of memory that contains `len` bytes from `offset` on, and calls `with` with their address. The last
/// argument is the error if the memory ends before.
fn with_part(
    handle: BorrowedHandle<'_>,
    offset: u64,
    bytes: usize,
    beyond: io::ErrorKind,
    with: impl FnOnce(*mut u8),
) -> io::Result<()> {
    let whole = len(handle)? as u64;
    if offset.checked_add(bytes as u64).is_none_or(|end| end > whole) {
        return Err(beyond.into());
    }
    if bytes == 0 {
        return Ok(());
    }
    let start = offset & !(PAGES as u64 - 1);
    let ahead = (offset - start) as usize;
    let view = View::new(handle.as_raw(), start, ahead + bytes, FILE_MAP_READ | FILE_MAP_WRITE, 0)?;
    with(view.start.as_ptr().wrapping_add(ahead));
    Ok(())
}

/// Copies `bytes` to `offset`.
pub fn write_at(handle: BorrowedHandle<'_>, bytes: &[u8], offset: u64) -> io::Result<()> {
    with_part(handle, offset, bytes.len(), io::ErrorKind::WriteZero, |to| {
        // SAFETY: `with_part` has mapped as many bytes from `to` on. No Rust reference to them exists.
        unsafe { std::ptr::copy(bytes.as_ptr(), to, bytes.len()) };
    })
}

/// Fills `bytes` from `offset` on. If others write meanwhile, `bytes` contains old or new values of each byte.
pub fn read_at(handle: BorrowedHandle<'_>, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let len = bytes.len();
    with_part(handle, offset, len, io::ErrorKind::UnexpectedEof, |from| {
        // SAFETY: `with_part` has mapped as many bytes from `from` on. No Rust reference to them exists.
        unsafe { std::ptr::copy(from, bytes.as_mut_ptr(), len) };
    })
}

/// Returns all bytes of the memory behind `handle`.
pub fn read_all(handle: BorrowedHandle<'_>) -> io::Result<Vec<u8>> {
    let len = len(handle)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| out_of_memory())?;
    bytes.resize(len, 0);
    read_at(handle, &mut bytes, 0)?;
    Ok(bytes)
}

/// Not supported: the system does not free single pages of a section.
pub fn release(_handle: BorrowedHandle<'_>, _offset: u64, _len: u64) -> io::Result<()> {
    Err(super::unsupported("freeing single pages of shared memory"))
}

/// One view of a section.
#[derive(Debug)]
struct View {
    start: NonNull<u8>,
}

impl View {
    /// Maps `len` bytes from `offset` on, at an address (0: any).
    fn new(section: isize, offset: u64, len: usize, access: FILE_MAP, at: usize) -> io::Result<View> {
        let (high, low) = ((offset >> 32) as u32, offset as u32);
        // SAFETY: the system chooses unused addresses, or refuses addresses in use.
        let found = unsafe { MapViewOfFileEx(nt::raw(section), access, high, low, len, at as *const _) };
        NonNull::new(found.Value.cast()).map(|start| View { start }).ok_or_else(io::Error::last_os_error)
    }
}

/// Returns the length of a view of a whole section.
pub(super) fn mapped_len(section: isize) -> io::Result<usize> {
    let view = View::new(section, 0, 0, FILE_MAP_READ, 0)?;
    // SAFETY: all zeros is a valid value of the type.
    let mut told: MEMORY_BASIC_INFORMATION = unsafe { std::mem::zeroed() };
    // SAFETY: writes at most as many bytes as `told` has. The view exists during the call.
    match unsafe { VirtualQuery(view.start.as_ptr().cast(), &mut told, size_of_val(&told)) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(told.RegionSize),
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the view is this value's, whose users keep it alive.
        unsafe { UnmapViewOfFile(MEMORY_MAPPED_VIEW_ADDRESS { Value: self.start.as_ptr().cast() }) };
    }
}

/// The length of a view, the text that names its memory for all processes, and its offset in that memory.
type Place = (usize, Arc<str>, u64);

/// Which memory is mapped at which address.
static VIEWS: RwLock<BTreeMap<usize, Place>> = RwLock::new(BTreeMap::new());

/// Returns the text that names the memory at an address for all processes, and the address's offset in that memory.
/// `None`: no mapping of this module contains it.
pub(super) fn place_of(address: usize) -> Option<(Arc<str>, u64)> {
    let views = VIEWS.read().unwrap_or_else(PoisonError::into_inner);
    let (start, (len, name, offset)) = views.range(..=address).next_back()?;
    (address - start < *len).then(|| (name.clone(), offset + (address - start) as u64))
}

/// Returns the number of mappings of this process.
#[cfg(any(test, feature = "testing"))]
pub(super) fn mappings() -> usize {
    VIEWS.read().unwrap_or_else(PoisonError::into_inner).len()
}

/// A piece of shared memory in this process's address space, which is unmapped when it is dropped.
#[derive(Debug)]
pub struct Mapping {
    views: Vec<View>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is memory of the process, not of a thread, and this type only returns its address. The code that
// dereferences the address (ring, blocks) states which thread may access which byte.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

fn access(share: Share) -> FILE_MAP {
    match share {
        Share::All => FILE_MAP_READ | FILE_MAP_WRITE,
        Share::CopyOnWrite => FILE_MAP_COPY,
    }
}

impl Mapping {
    /// Maps the first `len` bytes of `handle`, readable and writable.
    pub fn new(handle: impl AsHandle, len: usize, share: Share) -> io::Result<Mapping> {
        Mapping::at(handle, 0, len, share)
    }

    /// Maps `len` bytes of `handle` from `offset` on (whole pages), readable and writable.
    pub fn at(handle: impl AsHandle, offset: u64, len: usize, share: Share) -> io::Result<Mapping> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let section = handle.as_handle().as_raw();
        let view = View::new(section, offset, len, access(share), 0)?;
        let start = view.start;
        let mapping = Mapping { views: vec![view], start, len };
        mapping.note(0, len, section, offset, share);
        Ok(mapping)
    }

    /// Records where the memory is mapped, for waits on its words.
    fn note(&self, at: usize, len: usize, section: isize, offset: u64, share: Share) {
        if share == Share::All
            && let Some(name) = nt::object_name(section)
        {
            let start = self.start.as_ptr() as usize + at;
            VIEWS.write().unwrap_or_else(PoisonError::into_inner).insert(start, (len, name.into(), offset));
        }
    }

    /// Returns false: there are no forks.
    pub fn keep_from_children(&self) -> bool {
        false
    }

    /// Maps several pieces of memory in sequence, `len` bytes in total: every piece as a whole, except that the last
    /// may be cut. All pieces except the last consist of whole pages.
    pub fn joined(pieces: &[(&OwnedHandle, usize)], len: usize, share: Share) -> io::Result<Mapping> {
        /// How often another thread may take the addresses between their reservation and the last view.
        const ATTEMPTS: usize = 50;
        if let [(handle, whole)] = pieces
            && len <= *whole
        {
            return Mapping::new(handle, len, share);
        }
        let total = pieces.iter().try_fold(0usize, |sum, (_, piece)| sum.checked_add(*piece));
        if len == 0 || total.is_none_or(|total| total < len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut failed = out_of_memory();
        for _ in 0..ATTEMPTS {
            // SAFETY: the system chooses unused addresses.
            let free = unsafe { VirtualAlloc(std::ptr::null(), len, MEM_RESERVE, PAGE_NOACCESS) };
            let Some(start) = NonNull::new(free.cast::<u8>()) else { return Err(io::Error::last_os_error()) };
            // SAFETY: the range was reserved above, and nothing uses it.
            unsafe { VirtualFree(free, 0, MEM_RELEASE) };
            let mut mapping = Mapping { views: Vec::new(), start, len };
            let (mut at, mut is_whole) = (0, true);
            for (handle, piece) in pieces {
                let piece = (*piece).min(len - at);
                if piece == 0 {
                    break;
                }
                match View::new(handle.as_raw(), 0, piece, access(share), start.as_ptr() as usize + at) {
                    Ok(view) => mapping.views.push(view),
                    Err(error) => {
                        (failed, is_whole) = (error, false);
                        break;
                    }
                }
                mapping.note(at, piece, handle.as_raw(), 0, share);
                at += piece;
            }
            if is_whole {
                return Ok(mapping);
            }
        }
        Err(failed)
    }

    /// Does nothing: the system does not free single pages of a section.
    pub fn release(&self, _offset: usize, _len: usize) {}

    /// Does nothing: the system has reserved memory for all pages.
    pub fn prepare(&self, _offset: usize, _len: usize) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing.
    pub fn map_in(&self, _len: usize) {}

    /// Returns the address of the first byte.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns the number of mapped bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no byte is mapped (never: the system refuses empty views).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut views = VIEWS.write().unwrap_or_else(PoisonError::into_inner);
        // Before the views are unmapped: another thread may map other memory at their addresses.
        self.views.iter().for_each(|view| drop(views.remove(&(view.start.as_ptr() as usize))));
    }
}
