//! Descriptors of the hub that no forked child may keep.
//!
//! A `fork()` anywhere in the hub (by the user's code, or by a fork start method) copies every descriptor,
//! close-on-exec or not. A copied lifeline would keep workers alive after the hub's death, and a copied link would hide
//! that death. So this module has a table of the hub's ends, and a handler closes them in every forked child.
//!
//! # The table
//! The table is a list of chunks of slots, which are never freed. A slot holds a descriptor, `FREE`, or `TAKEN` while
//! it is filled in. A compare-and-swap takes or frees a slot, so the handler, which runs while other threads may have
//! stopped at any point, finds each slot consistent. The handler uses only loads, swaps, `fstat` and `close`, which are
//! async-signal-safe. The slot also identifies the file of the number: a program that has closed all its descriptors
//! has other files under these numbers, which stay open.
//!
//! # The gate
//! A child that is forked after a descriptor is made and before it is registered would keep the descriptor. So
//! descriptors are made inside [`making`], and the handler that runs before a fork waits until no thread is inside.
//! `GATE` counts the threads inside, or holds `FORKING`.
//!
//! # First uses
//! A child that is forked while another thread initialises a value would wait for that thread forever. [`OnceLock`]
//! makes its value inside [`making`]. [`Handlers`] cannot: in glibc before 2.36 a fork and a registration exclude each
//! other. A front registers them when it is loaded, before the program has other threads.

use super::own::{File, Own};
use crate::{AsHandle, BorrowedHandle, OwnedHandle, RawHandle};
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

const FREE: i32 = -1;
const TAKEN: i32 = -2;
const CHUNK: usize = 64;
const FORKING: usize = usize::MAX;

struct Slot {
    fd: AtomicI32,
    // `File::mixed`. It is written before the number, and read after it.
    file: AtomicU64,
}

struct Chunk {
    slots: [Slot; CHUNK],
    // It is set once, inside `making`, so no fork happens meanwhile.
    next: std::sync::OnceLock<Box<Chunk>>,
}

impl Chunk {
    const fn new() -> Chunk {
        Chunk {
            slots: [const { Slot { fd: AtomicI32::new(FREE), file: AtomicU64::new(0) } }; CHUNK],
            next: std::sync::OnceLock::new(),
        }
    }
}

static FIRST: Chunk = Chunk::new();
static GATE: AtomicUsize = AtomicUsize::new(0);

/// Calls `visit` with every slot until it returns true. Returns the last chunk if it never does.
fn visit(mut visit: impl FnMut(&Slot) -> bool) -> Option<&'static Chunk> {
    let mut chunk: &'static Chunk = &FIRST;
    loop {
        if chunk.slots.iter().any(&mut visit) {
            return None;
        }
        match chunk.next.get() {
            Some(next) => chunk = next,
            None => return Some(chunk),
        }
    }
}

/// Makes descriptors such that a fork in another thread either happens before they exist or finds them registered.
/// `make` must register its descriptors, and must not fork.
pub fn making<T>(make: impl FnOnce() -> T) -> T {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            // Pairs with the acquire in `before_fork`, which then sees the registrations from inside.
            GATE.fetch_sub(1, Ordering::Release);
        }
    }
    while GATE.fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| (n < FORKING - 1).then(|| n + 1)).is_err() {
        std::thread::yield_now();
    }
    let _inside = Inside;
    make()
}

/// A value that is made at its first use, while no thread forks.
#[derive(Debug)]
pub struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> OnceLock<T> {
    /// Creates a cell without a value.
    #[expect(clippy::new_without_default, reason = "as the standard library's, which a `static` holds")]
    pub const fn new() -> OnceLock<T> {
        OnceLock(std::sync::OnceLock::new())
    }

    /// Returns the value, which `make` makes if there is none. `make` must not fork.
    #[inline]
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        match self.0.get() {
            Some(value) => value,
            None => making(|| self.0.get_or_init(make)),
        }
    }
}

/// Functions that the C library calls at every `fork()`: before it, after it in the parent, and after it in the child. Before a fork, it first
/// calls those that were registered last.
#[derive(Debug)]
pub struct Handlers {
    before: extern "C" fn(),
    in_parent: extern "C" fn(),
    in_child: extern "C" fn(),
    is_registered: AtomicBool,
    registering: Mutex<()>,
}

impl Handlers {
    /// Names three functions, which are not registered yet.
    pub const fn new(before: extern "C" fn(), in_parent: extern "C" fn(), in_child: extern "C" fn()) -> Handlers {
        Handlers { before, in_parent, in_child, is_registered: AtomicBool::new(false), registering: Mutex::new(()) }
    }

    /// Registers the functions once. After an error, the next call tries again.
    ///
    /// # Errors
    /// The system has no memory for the fork handlers.
    pub fn register(&self) -> io::Result<()> {
        // Acquire and Release: no other data depends on it, but a thread that finds it set relies on the registration.
        if self.is_registered.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_registered.load(Ordering::Acquire) {
            // SAFETY: the three are functions of this library. (glibc removes them when it unloads the library; musl
            // never unloads one.)
            #[allow(unsafe_code)]
            let error = unsafe { libc::pthread_atfork(Some(self.before), Some(self.in_parent), Some(self.in_child)) };
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            self.is_registered.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Makes forks wait for the threads inside [`making`], without registering a descriptor: for tables that a forked child
/// must find consistent.
///
/// # Errors
/// The system has no memory for the fork handlers.
pub fn hold_forks() -> io::Result<()> {
    static HANDLERS: Handlers = Handlers::new(before_fork, after_fork, in_child);
    HANDLERS.register()
}

/// Makes every forked child close `fd` from now on. Call it inside [`making`].
///
/// # Errors
/// The system has no memory for the fork handlers.
pub fn register(fd: BorrowedHandle<'_>) -> io::Result<()> {
    hold_forks()?;
    let file = File::of(fd).map_or(0, File::mixed);
    let fd = fd.as_raw();
    let take = |slot: &Slot| {
        let taken = slot.fd.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if taken {
            slot.file.store(file, Ordering::Relaxed);
            slot.fd.store(fd, Ordering::Release);
        }
        taken
    };
    while let Some(last) = visit(take) {
        last.next.get_or_init(|| Box::new(Chunk::new()));
    }
    Ok(())
}

/// Ends the registration of `fd`. `false`: it was not registered, for example in a forked child, where it is closed and
/// its number may have another owner by now; then the caller must not close it.
pub fn unregister(fd: RawHandle) -> bool {
    visit(|slot| slot.fd.compare_exchange(fd, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok()).is_none()
}

extern "C" fn before_fork() {
    while GATE.compare_exchange_weak(0, FORKING, Ordering::Acquire, Ordering::Relaxed).is_err() {
        std::thread::yield_now();
    }
}

extern "C" fn after_fork() {
    GATE.store(0, Ordering::Release);
}

/// Returns the file of this number in the form of a slot.
fn file_at(fd: RawHandle) -> u64 {
    super::own::File::at(fd).map_or(0, File::mixed)
}

extern "C" fn in_child() {
    visit(|slot| {
        // The load comes first because a write in a child copies the page.
        if slot.fd.load(Ordering::Relaxed) == FREE {
            return false;
        }
        let file = slot.file.load(Ordering::Relaxed);
        let fd = slot.fd.swap(FREE, Ordering::AcqRel);
        if fd >= 0 && file_at(fd) == file {
            // SAFETY: only this handler has taken it out of its slot, and it leads to the registered file: the copy of
            // a parent's handle, which its owner here (`HubOnly`) does not use in a child.
            #[allow(unsafe_code)]
            unsafe {
                super::process::close_number(fd);
            }
        }
        false
    });
    GATE.store(0, Ordering::Release);
}

/// A descriptor that only the hub may hold: it is registered while this value exists, and closed when it is dropped. A
/// forked child has closed it, and its copy of this value does not use it.
#[derive(Debug)]
pub struct HubOnly {
    handle: ManuallyDrop<Own>,
    // The process in which it is open. In a forked child its number may have another owner by now, even a registered
    // one.
    process: u32,
}

impl HubOnly {
    /// Registers `handle`. Call it inside [`making`], where `handle` was made.
    ///
    /// # Errors
    /// As for [`register`].
    pub fn new(handle: OwnedHandle) -> io::Result<HubOnly> {
        register(handle.as_handle())?;
        Ok(HubOnly { handle: ManuallyDrop::new(Own::new(handle)), process: crate::process_id() })
    }

    /// Whether this process has it, and the program has not closed it.
    pub fn is_there(&self) -> bool {
        self.process == crate::process_id() && self.handle.is_there()
    }

    /// Returns the handle, which forked children may have from now on.
    ///
    /// # Errors
    /// This is the copy of a forked child, or the program has closed the descriptor.
    pub fn into_handle(self) -> io::Result<OwnedHandle> {
        let mut this = ManuallyDrop::new(self);
        let ours = this.process == crate::process_id() && unregister(this.handle.as_raw());
        if !ours {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: `this` is never dropped, so the handle is taken out of it only here.
        #[allow(unsafe_code)]
        Ok(unsafe { ManuallyDrop::take(&mut this.handle) }.into_handle())
    }
}

/// Another owner's descriptor that forked children must not keep. Its owner closes it after this value is dropped.
#[derive(Debug)]
pub struct NotForChildren {
    number: RawHandle,
    process: u32,
}

impl NotForChildren {
    /// Registers `fd`.
    ///
    /// # Errors
    /// As for [`register`].
    pub fn new(fd: BorrowedHandle<'_>) -> io::Result<NotForChildren> {
        making(|| register(fd))?;
        Ok(NotForChildren { number: fd.as_raw(), process: crate::process_id() })
    }
}

impl Drop for NotForChildren {
    fn drop(&mut self) {
        if self.process == crate::process_id() {
            unregister(self.number);
        }
    }
}

crate::as_handle!(impl[] for HubOnly, |this| this.handle.as_handle());

impl Drop for HubOnly {
    fn drop(&mut self) {
        if self.process != crate::process_id() {
            return;
        }
        // Both steps happen inside `making`: a fork between them would find the descriptor open and not registered.
        making(|| {
            if unregister(self.handle.as_raw()) {
                // SAFETY: `drop` runs once, and `into_handle` forgets the value, so the handle is dropped only here and
                // not used afterwards.
                #[allow(unsafe_code)]
                unsafe {
                    ManuallyDrop::drop(&mut self.handle);
                }
            }
        });
    }
}

/// Keeps a descriptor open until this process ends. Its forked children and programs do not have it.
///
/// # Errors
/// As for [`register`].
pub fn hold_until_the_end(handle: OwnedHandle) -> io::Result<()> {
    std::mem::forget(making(|| HubOnly::new(handle))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (OwnedHandle, OwnedHandle) {
        crate::process::lifeline().unwrap()
    }

    #[test]
    fn a_forked_child_has_only_unregistered_descriptors() {
        let (read, write) = pipe();
        let number = write.as_raw();
        let mine = making(|| HubOnly::new(write).unwrap());
        let (kept, _kept_write) = pipe();
        let open = crate::testing::in_forked_child(|| {
            i32::from(crate::testing::is_open(number)) + 2 * i32::from(crate::testing::is_open(kept.as_raw()))
        });
        assert_eq!(open, 2);
        assert!(crate::testing::is_open(number));
        drop(mine);
        assert_eq!(rustix::io::read(&read, &mut [0u8; 1]).unwrap(), 0);
    }

    #[test]
    fn a_forked_childs_copy_does_not_close_the_childs_own_descriptors() {
        let (_read, write) = pipe();
        let number = write.as_raw();
        let mut mine = Some(hub_only(write));
        let code = crate::testing::in_forked_child(|| {
            // The number is free here, and the system assigns it soon.
            let mut own = Vec::new();
            while !crate::testing::is_open(number) {
                let (read, write) = pipe();
                own.extend([hub_only(read), hub_only(write)]);
            }
            drop(mine.take());
            i32::from(!crate::testing::is_open(number))
        });
        assert_eq!(code, 0);
    }

    fn hub_only(handle: OwnedHandle) -> HubOnly {
        making(|| HubOnly::new(handle).unwrap())
    }

    #[test]
    fn the_table_holds_more_descriptors_than_one_chunk() {
        let pairs: Vec<_> = (0..2 * CHUNK + 3).map(|_| pipe()).collect();
        for (read, _) in &pairs {
            register(read.as_handle()).unwrap();
        }
        for (read, _) in &pairs {
            assert!(unregister(read.as_raw()));
            assert!(!unregister(read.as_raw()));
        }
    }

    #[test]
    fn forks_and_registrations_in_many_threads_do_not_stop_each_other() {
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..200 {
                        let (_read, write) = pipe();
                        drop(making(|| HubOnly::new(write).unwrap()));
                    }
                });
            }
            s.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(crate::testing::in_forked_child(|| 7), 7);
                }
            });
        });
    }
}
