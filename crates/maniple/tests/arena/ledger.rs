//! How often each task has begun: a byte each, in a file that all processes map.
#![allow(unsafe_code)]

use super::TASKS;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

pub struct Ledger(NonNull<AtomicU8>);

// SAFETY: it is a mapping of atomic bytes, which belongs to this value.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

impl Ledger {
    pub fn open(path: &Path) -> io::Result<Ledger> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), TASKS as usize, access, MapFlags::SHARED, &file, 0)? };
        Ok(Ledger(NonNull::new(start.cast()).ok_or(io::ErrorKind::Other)?))
    }

    fn of(&self, number: u64) -> &AtomicU8 {
        assert!(number < TASKS);
        // SAFETY: inside the mapping, which is as long as the file.
        unsafe { self.0.add(number as usize).as_ref() }
    }

    pub fn begin(&self, number: u64) {
        self.of(number).fetch_add(1, Ordering::Relaxed);
    }

    pub fn times(&self, number: u64) -> u8 {
        self.of(number).load(Ordering::Relaxed)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // SAFETY: nobody borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), TASKS as usize) };
    }
}
