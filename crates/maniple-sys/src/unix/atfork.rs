//! Descriptors of the hub that no forked child may keep.
//!
//! A `fork()` anywhere in the hub (the user's own, or a fork start method's) copies every descriptor, close-on-exec or
//! not. A copied lifeline would keep workers alive after the hub's death, and a copied link would hide that it is gone. So
//! the hub's ends are listed here, and a handler that runs in every forked child closes them.
//!
//! # The table
//! Chunks of slots, linked, never freed; a slot holds a descriptor, `FREE`, or `TAKEN` while it is filled in. Taking and freeing one are a
//! compare-and-swap each, so the handler, which runs while any thread may have been frozen anywhere, finds each slot
//! whole. It does nothing but loads, swaps, `fstat` and `close`, all of which are async-signal-safe. The slot also identifies the file of
//! the number: a program that has closed all its descriptors has other files under these numbers, which stay open.
//!
//! # The gate
//! A fork between the making of a descriptor and its registration would let it slip through. So descriptors are made
//! inside [`making`], and the handler that runs before a fork waits until no thread is inside. `GATE` counts those inside, or
//! holds `FORKING`.
//!
//! # First uses
//! A child that is forked while another thread makes a value at its first use would wait for that thread forever. [`OnceLock`] makes its value
//! inside [`making`]. [`Handlers`] cannot: in glibc before 2.36 a fork and a registration exclude each other. A front registers them when it is
//! loaded, before the program has other threads.

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
    // `File::mixed`. Written before the number is, and read after it.
    file: AtomicU64,
}

struct Chunk {
    slots: [Slot; CHUNK],
    // Set once; a fork does not come while it is being set, as that happens inside `making`.
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

/// Calls `visit` with every slot until it says that it is done.
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

/// Makes descriptors so that a fork in another thread either comes before they exist or finds them registered.
/// `make` must register what it makes, and must not fork.
pub fn making<T>(make: impl FnOnce() -> T) -> T {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            // Pairs with the acquire in `before_fork`: what was registered inside is seen there.
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
    /// Without a value.
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
    /// Three functions that are not registered yet.
    pub const fn new(before: extern "C" fn(), in_parent: extern "C" fn(), in_child: extern "C" fn()) -> Handlers {
        Handlers { before, in_parent, in_child, is_registered: AtomicBool::new(false), registering: Mutex::new(()) }
    }

    /// Registers them, if they are not. After an error, the next call tries again.
    ///
    /// # Errors
    /// When the operating system cannot take the fork handlers (out of memory).
    pub fn register(&self) -> io::Result<()> {
        // Acquire and Release: no other data depends on it, but a thread that finds it set relies on the registration.
        if self.is_registered.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_registered.load(Ordering::Acquire) {
            // SAFETY: the three are ordinary functions that live as long as the program.
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

/// Makes forks wait for the threads inside [`making`], without registering a descriptor: for tables that a forked child must find
/// whole.
///
/// # Errors
/// When the operating system cannot take the fork handlers (out of memory).
pub fn hold_forks() -> io::Result<()> {
    static HANDLERS: Handlers = Handlers::new(before_fork, after_fork, in_child);
    HANDLERS.register()
}

/// From now on `fd` is closed in every forked child. To be called inside [`making`].
///
/// # Errors
/// When the operating system cannot take the fork handlers (out of memory).
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

/// Ends the registration of `fd`. `false`: it was not registered, as in a forked child, where it is closed and its number
/// may have another owner by now; then it must not be closed.
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

/// The file in the slot of this number.
fn file_at(fd: RawHandle) -> u64 {
    super::own::File::at(fd).map_or(0, File::mixed)
}

extern "C" fn in_child() {
    visit(|slot| {
        // Looked at first: what is written to in a child has to be copied.
        if slot.fd.load(Ordering::Relaxed) == FREE {
            return false;
        }
        let file = slot.file.load(Ordering::Relaxed);
        let fd = slot.fd.swap(FREE, Ordering::AcqRel);
        if fd >= 0 && file_at(fd) == file {
            // SAFETY: taken out of its slot by this handler alone, and it leads to what was registered: a handle of the parent's, whose
            // owners here (`HubOnly`) leave it alone in a child.
            #[allow(unsafe_code)]
            unsafe {
                super::process::close_number(fd);
            }
        }
        false
    });
    GATE.store(0, Ordering::Release);
}

/// A descriptor that only the hub may hold: registered while it lives, closed when dropped, and not touched any more in a
/// forked child, where it is closed already.
#[derive(Debug)]
pub struct HubOnly {
    handle: ManuallyDrop<Own>,
    // Where it is open. In a forked child its number may be another's by now, even one that is registered there.
    process: u32,
}

impl HubOnly {
    /// Registers `handle`; to be called inside [`making`], where `handle` was made.
    ///
    /// # Errors
    /// As [`register`].
    pub fn new(handle: OwnedHandle) -> io::Result<HubOnly> {
        register(handle.as_handle())?;
        Ok(HubOnly { handle: ManuallyDrop::new(Own::new(handle)), process: crate::process_id() })
    }

    /// The handle, which forked children may have from now on.
    ///
    /// # Errors
    /// This is the copy of a forked child, or the program has closed the descriptor.
    pub fn into_handle(self) -> io::Result<OwnedHandle> {
        let mut this = ManuallyDrop::new(self);
        let ours = this.process == crate::process_id() && unregister(this.handle.as_raw());
        if !ours {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: `this` is not dropped, so the handle is taken out of it once.
        #[allow(unsafe_code)]
        Ok(unsafe { ManuallyDrop::take(&mut this.handle) }.into_handle())
    }
}

/// Another owner's descriptor that forked children must not keep. Its owner closes it after this was dropped.
#[derive(Debug)]
pub struct NotForChildren {
    number: RawHandle,
    process: u32,
}

impl NotForChildren {
    /// Registers `fd`.
    ///
    /// # Errors
    /// As [`register`].
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
        // As one step: a fork in between would find it open and not registered.
        making(|| {
            if unregister(self.handle.as_raw()) {
                // SAFETY: not used after this; elsewhere it is never dropped.
                #[allow(unsafe_code)]
                unsafe {
                    ManuallyDrop::drop(&mut self.handle);
                }
            }
        });
    }
}

/// Keeps a descriptor open until this process ends, and its forked children and programs from having it.
///
/// # Errors
/// As [`register`].
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
    fn a_forked_child_has_no_registered_descriptor_and_all_others() {
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
    fn a_forked_childs_copy_leaves_alone_what_the_child_has_registered_since() {
        let (_read, write) = pipe();
        let number = write.as_raw();
        let mut mine = Some(hub_only(write));
        let code = crate::testing::in_forked_child(|| {
            // The number is free here, and among the next to be given out.
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
    fn more_descriptors_than_one_chunk_holds_are_kept_and_found_again() {
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
