//! Shared memory without a name: a POSIX object, whose name is removed at once.
//!
//! From bsd/kern/posix_shm.c: one `ftruncate` makes the memory, and every other one is refused (`pshm_truncate`), so
//! the size is fixed; its length is rounded up to whole pages; `fstat` returns neither a device nor an inode
//! (`pshm_stat`); a mapping must be shared (`pshm_mmap`); there is no read and no write (`pshmops`). `proc_pidfdinfo`
//! returns the name, also after its removal (`fill_pshminfo`), and fails for other files (bsd/kern/proc_info.c).

use super::super::{Object, name};
use crate::{BorrowedHandle, OwnedHandle};
use rustix::fs::Mode;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::shm::OFlags;
use std::io;

/// `PROC_PIDFDPSHMINFO`.
const SHM_INFO: i32 = 5;

/// `struct pshm_fdinfo` (bsd/sys/proc_info.h): `struct proc_fileinfo`, `struct vinfo_stat`, the address, the name.
#[repr(C)]
struct Info {
    file: [u64; 3],
    stat_before_size: [u64; 11],
    size: i64,
    stat_after_size: [u64; 5],
    address: u64,
    name: [u8; 1024],
}
const _: () = assert!(size_of::<Info>() == 24 + 136 + 8 + 1024);

/// The greatest length of an object. The kernel makes it of pieces of 4 GiB, each with a structure of its own
/// (`pshm_truncate`), so it should not be as long as addresses permit; and a queue in so much memory is never full.
pub const LONGEST: u64 = 1 << 40;

/// Creates an object under a name, which it removes.
pub fn create(name: &str, _label: &str, len: u64) -> io::Result<OwnedHandle> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    // The kernel sets close-on-exec.
    let made = rustix::shm::open(name, flags, Mode::RUSR | Mode::WUSR)?;
    let removed = rustix::shm::unlink(name);
    rustix::fs::ftruncate(&made, len)?;
    removed?;
    crate::own::above_stdio(made)
}

/// Returns the object behind a handle. `None`: it is another kind of file. Takes no memory and no lock: the handler of
/// a fork calls it.
pub fn of(handle: BorrowedHandle<'_>) -> Option<Object> {
    let found = rustix::fs::fstat(handle).ok()?;
    if found.st_dev != 0 || found.st_ino != 0 {
        return None;
    }
    // SAFETY: all zero is a valid value of this structure of numbers.
    let mut info: Info = unsafe { std::mem::zeroed() };
    let room = size_of::<Info>() as i32;
    // SAFETY: there is as much room as the call receives as its size, which outlives the call.
    let got = unsafe { libc::proc_pidfdinfo(libc::getpid(), handle.as_raw(), SHM_INFO, (&raw mut info).cast(), room) };
    if got != room {
        return None;
    }
    let bytes = &info.name[..info.name.iter().position(|&byte| byte == 0).unwrap_or(info.name.len())];
    let size = u64::try_from(found.st_size).unwrap_or(0);
    Some(match name::read(bytes) {
        Some((len, id)) => Object { id, len: len.min(size), is_fixed: size > 0 },
        None => {
            let id = number_of(handle).unwrap_or_else(|| name::hash(bytes));
            Object { id, len: size, is_fixed: size > 0 }
        }
    })
}

unsafe extern "C" {
    // mach/mach_init.h and mach/mach_vm.h.
    static mach_task_self_: u32;
    fn mach_vm_region(
        task: u32,
        address: *mut u64,
        size: *mut u64,
        flavor: i32,
        info: *mut u32,
        count: *mut u32,
        name: *mut u32,
    ) -> i32;
}

/// Returns the kernel's number of the memory behind a handle (`obj_id` of `VM_REGION_TOP_INFO`, mach/vm_region.h): a
/// name that is used again leads to another number. No two objects have the same one at the same time
/// (osfmk/vm/vm_map.c: `vm_map_region_top_walk`). `None`: it has no memory yet.
fn number_of(handle: BorrowedHandle<'_>) -> Option<u64> {
    const TOP_INFO: i32 = 12;
    const COUNT: usize = 5;
    let (len, access) = (rustix::param::page_size(), ProtFlags::READ);
    // SAFETY: the kernel chooses unused addresses, so the mapping overlaps no other memory of this process.
    let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, handle, 0) }.ok()?;
    let (mut address, mut size) = (start.addr() as u64, 0);
    let (mut info, mut count, mut name) = ([0u32; COUNT], COUNT as u32, 0);
    // SAFETY: the pointers are to values that outlive the call, and `info` has `count` places; the mapping is this
    // function's.
    let error = unsafe {
        let error = mach_vm_region(
            mach_task_self_,
            &raw mut address,
            &raw mut size,
            TOP_INFO,
            info.as_mut_ptr(),
            &raw mut count,
            &raw mut name,
        );
        let _ = rustix::mm::munmap(start, len);
        error
    };
    (error == 0 && address == start.addr() as u64).then_some(u64::from(info[0]))
}

/// Makes forked children not have a mapping (`minherit(2)`).
pub fn keep_from_children(start: *mut u8, len: usize) -> bool {
    // SAFETY: the caller passes a mapping of its own; the call changes nothing in this process.
    unsafe { libc::minherit(start.cast(), len, libc::VM_INHERIT_NONE) == 0 }
}

/// Makes the pages of a range of an object zeros, and frees them when memory is short.
///
/// The kernel drops the pages of `MADV_FREE` also where other processes map them, if the object is never copied
/// (osfmk/vm/vm_map.c: `vm_map_msync`), as these objects are (osfmk/vm/vm_memory_entry.c). Until then their content
/// stays, so it is made zero first.
///
/// # Safety
/// The range is mapped, and its users expect zeros at any time.
pub unsafe fn discard(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller ensures that the range is mapped.
    unsafe {
        start.write_bytes(0, len);
        match libc::madvise(start.cast(), len, libc::MADV_FREE) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
