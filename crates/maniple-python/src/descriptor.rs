//! A descriptor that an object of Python owns, and that several threads may use.
//!
//! A thread that waits for a message, or for room for one, goes from one system call to the next by the descriptor's
//! number. If another thread closes the object meanwhile, and the number is given to another file, the first thread would
//! read from that file, or write to it. So the descriptor stays open until the last operation that has begun is over. An
//! operation learns from [`Descriptor::number`] that the object is closed.
//!
//! A forked child has only the thread that forked, so the operations of other threads count no more.
#![allow(unsafe_code)]

use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::own::{File, is_open};
use maniple_sys::{AtomicRawHandle, BorrowedHandle, OwnedHandle, RawHandle, stream};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A descriptor, or none if it is closed.
pub struct Descriptor {
    number: AtomicRawHandle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The file that the descriptor referred to when this object received it.
    file: Option<File>,
    /// Whether it was open then.
    is_open: bool,
    /// The number of operations, and the epoch in which the first of them began.
    uses: usize,
    began: Option<Epoch>,
    /// What is closed when the last operation is over.
    due: Vec<(RawHandle, Option<File>)>,
}

/// An operation. The descriptor stays open as long as it exists.
pub struct Use<'a> {
    descriptor: &'a Descriptor,
    handle: BorrowedHandle<'static>,
}

impl Default for Descriptor {
    fn default() -> Self {
        Descriptor { number: AtomicRawHandle::new(-1), state: Mutex::default() }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.close();
    }
}

impl Descriptor {
    fn state(&self) -> MutexGuard<'_, State> {
        // The lock is held for moments, and with the interpreter lock; no thread forks without the interpreter lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number; `None` if it is closed.
    pub fn number(&self) -> Option<RawHandle> {
        Some(self.number.load(Ordering::Relaxed)).filter(|&number| number >= 0)
    }

    /// Owns this descriptor from now on. The former one belongs to the caller.
    pub fn set(&self, number: Option<RawHandle>) {
        let mut state = self.state();
        state.file = number.and_then(File::at);
        // Where the system does not tell files apart, no other code closes a number.
        state.is_open = state.file.is_some() || number.is_some_and(is_open);
        self.number.store(number.unwrap_or(-1), Ordering::Relaxed);
    }

    /// Begins an operation. `None`: it is closed.
    pub fn begin(&self) -> Option<Use<'_>> {
        let mut state = self.state();
        let number = self.number()?;
        state.forget_other_threads();
        if state.uses == 0 {
            // If forks cannot be counted, a child keeps the descriptor open.
            let _ = count_forks();
            state.began = Some(Epoch::now());
        }
        state.uses += 1;
        // SAFETY: the descriptor is open until the operation is over. If the program closes it during a call, the kernel
        // refuses the number or uses another file of the program; no memory is affected.
        let handle = unsafe { BorrowedHandle::borrow_raw(number) };
        Some(Use { descriptor: self, handle })
    }

    /// Closes it, at the latest when the last operation is over.
    pub fn close(&self) {
        let mut state = self.state();
        let number = self.number.swap(-1, Ordering::Relaxed);
        state.forget_other_threads();
        let file = state.file.take();
        if std::mem::take(&mut state.is_open) && number >= 0 {
            state.due.push((number, file));
        }
        state.close_due();
    }
}

impl State {
    /// In a forked child: the operations of the threads that it does not have are over.
    fn forget_other_threads(&mut self) {
        if self.began.is_some_and(|epoch| epoch.since() == Since::Born) {
            (self.uses, self.began) = (0, None);
            self.close_due();
        }
    }

    fn close_due(&mut self) {
        if self.uses > 0 {
            return;
        }
        for (number, file) in self.due.drain(..) {
            // If the program has closed the descriptor, another file may have its number.
            if File::at(number) == file {
                // SAFETY: `set` has passed the descriptor to this object, which forgets it here. It still refers to the
                // same file.
                drop(unsafe { OwnedHandle::from_raw(number) });
            }
        }
    }
}

impl Use<'_> {
    /// The descriptor.
    pub fn handle(&self) -> BorrowedHandle<'static> {
        self.handle
    }

    /// Whether it leads to a pipe, or to the file that the object received: the program has not closed it, and opened
    /// another file under its number. (A pipe of the program is not told from the object's own.)
    pub fn is_pipe_or_there(&self) -> bool {
        if stream::is_pipe(self.handle) {
            return true;
        }
        let state = self.descriptor.state();
        state.is_open && File::of(self.handle) == state.file
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut state = self.descriptor.state();
        state.forget_other_threads();
        state.uses = state.uses.saturating_sub(1);
        state.close_due();
    }
}
