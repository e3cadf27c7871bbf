//! Shared memory under a name.
//!
//! A name of the system's cannot be removed while its object exists. So a name leads to an *entry*, a page with the
//! number of the memory, and removing the name clears the entry. An entry exists as long as a handle that was opened by
//! its name: when the last of them is closed, the name is gone, as it is for all memory of this system.
#![allow(unsafe_code)]

use super::memory::{self, Mapping};
use super::nt::{self, Closing};
use super::unsupported;
use crate::handle::known::{self, Known};
use crate::mutex::{Found, Mutex};
use crate::terms::Share;
use crate::{AsHandle, OwnedHandle};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const LEN: usize = 4096;

/// What is at the start of an entry. All zeros is a free lock and no memory.
#[repr(C)]
struct Shared {
    lock: Mutex,
    len: AtomicU64,
    /// The number of the memory; zeros: the name leads to none.
    id: [AtomicU64; 2],
}

struct Entry {
    mapping: Mapping,
    section: OwnedHandle,
}

impl Entry {
    fn open(name: &str, creates: bool) -> io::Result<Entry> {
        let name = name.strip_prefix('/').unwrap_or(name);
        if name.is_empty() || name.contains(['\\', '/']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name of memory contains a slash, or nothing"));
        }
        let name = format!("Local\\maniple-n-{name}");
        let section = if creates { nt::create_section(&name, LEN)?.0 } else { nt::open_section(&name)? };
        let mapping = Mapping::new(&section, LEN, Share::All)?;
        Ok(Entry { mapping, section })
    }

    fn locked<T>(&self, with: impl FnOnce(&Shared) -> T) -> io::Result<T> {
        // SAFETY: the mapping has `LEN` bytes; they began as zeros, and all processes use them by atomic operations.
        let shared: &Shared = unsafe { self.mapping.start().cast().as_ref() };
        // An entry whose holder died is whole: its last word is written last.
        if shared.lock.lock_within(Duration::from_secs(10))? == Found::Taken {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock of a name of memory"));
        }
        let done = with(shared);
        // SAFETY: this thread has acquired it above.
        unsafe { shared.lock.unlock() };
        Ok(done)
    }

    /// The memory, if the name leads to some that exists.
    fn memory(shared: &Shared) -> io::Result<OwnedHandle> {
        match id(shared) {
            0 => Err(io::ErrorKind::NotFound.into()),
            id => memory::open_known(shared.len.load(Relaxed) as usize, &format!("{id:032x}")),
        }
    }

    /// Makes the entry exist as long as the handle.
    fn kept_by(self, handle: OwnedHandle) -> OwnedHandle {
        known::note(handle.as_raw(), Known::Named(Arc::new(Closing::new(self.section))));
        handle
    }
}

fn id(shared: &Shared) -> u128 {
    u128::from(shared.id[0].load(Relaxed)) << 64 | u128::from(shared.id[1].load(Relaxed))
}

fn set_id(shared: &Shared, id: u128) {
    shared.id[0].store((id >> 64) as u64, Relaxed);
    shared.id[1].store(id as u64, Relaxed);
}

/// Not supported: the flags are those of another system. [`create`] and [`find`] do both.
pub fn open(_name: &str, _flags: i32, _mode: u32) -> io::Result<OwnedHandle> {
    Err(unsupported("shared memory by the flags of shm_open"))
}

/// Creates (with a length) or finds memory under a name of the system's, as the standard package does: the name lasts
/// as long as a handle on the memory; a mapping alone does not keep it. Returns its length, which the system rounds up.
pub fn section(name: &str, len: Option<usize>) -> io::Result<(OwnedHandle, usize)> {
    if name.is_empty() || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name of memory is empty, or contains NUL"));
    }
    let section = match len {
        None => nt::open_section(name)?,
        Some(len) => match nt::create_section(name, len)? {
            (_, true) => return Err(io::ErrorKind::AlreadyExists.into()),
            (section, false) => section,
        },
    };
    let len = memory::mapped_len(section.as_raw())?;
    Ok((section, len))
}

/// Creates `len` bytes under a name that is not in use; only this user may open them.
pub fn create(name: &str, len: usize) -> io::Result<OwnedHandle> {
    let entry = Entry::open(name, true)?;
    let made = entry.locked(|shared| -> io::Result<OwnedHandle> {
        if Entry::memory(shared).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let text = nt::random_name()?;
        let number = u128::from_str_radix(&text, 16).map_err(io::Error::other)?;
        let made = memory::create_known(len, &text)?;
        set_id(shared, 0);
        shared.len.store(len as u64, Relaxed);
        set_id(shared, number);
        Ok(made)
    })??;
    Ok(entry.kept_by(made))
}

/// Does nothing: the system has reserved all of it.
pub fn reserve(_handle: impl AsHandle, _len: usize) -> io::Result<()> {
    Ok(())
}

/// Opens the memory with this name for reads and writes.
pub fn find(name: &str) -> io::Result<OwnedHandle> {
    let entry = Entry::open(name, false)?;
    let found = entry.locked(Entry::memory)??;
    Ok(entry.kept_by(found))
}

/// Returns whether the name still leads to the memory behind `handle`.
pub fn leads_to(name: &str, handle: impl AsHandle) -> bool {
    let number = memory::id_and_len(handle.as_handle()).map_or(0, |(id, _)| id);
    number != 0 && Entry::open(name, false).and_then(|entry| entry.locked(id)).is_ok_and(|id| id == number)
}

/// Removes the name; the system frees the memory with its last user.
pub fn unlink(name: &str) -> io::Result<()> {
    Entry::open(name, false)?.locked(|shared| {
        let was = id(shared);
        set_id(shared, 0);
        if was == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
    })?
}
