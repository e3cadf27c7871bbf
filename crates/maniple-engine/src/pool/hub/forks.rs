//! Hubs across forks of their process.
//!
//! A forked child has a copy of each hub, whose workers belong to the parent: it may take outcomes that have arrived,
//! and nothing else ([`Hub::check`](super::Hub::check)). For that, the copy must be consistent, and its locks free. So
//! a fork waits until it has the locks of all hubs, and frees them afterwards on both sides. A hub's lock is a leaf,
//! held for moments, by threads that wait for no fork. The locks are acquired before the gate of `process::atfork`
//! closes, because some of those threads may still have to pass the gate.
#![allow(unsafe_code)]

use super::{Inner, State};
use crate::shm::blocks;
use maniple_sys::atfork::{self, Handlers};
use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

static HUBS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// A hub's locks, in the order in which they are freed. The hub itself goes last.
struct Locks {
    _arena: MutexGuard<'static, blocks::State>,
    _unused: MutexGuard<'static, Vec<u32>>,
    _state: MutexGuard<'static, State>,
    // Not dropped in a forked child: a hub's content belongs to the parent.
    hub: ManuallyDrop<Arc<Inner>>,
}

struct Held {
    hubs: Vec<Locks>,
    _all: MutexGuard<'static, Vec<Weak<Inner>>>,
}

thread_local! {
    // The same thread runs the handlers before and after a fork.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

fn lock<'a, T>(mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Locks {
    fn of(hub: Arc<Inner>) -> Locks {
        // SAFETY: the hub lives at least as long as the guards: it is dropped after them, or, in a forked child, never.
        let inner: &'static Inner = unsafe { &*Arc::as_ptr(&hub) };
        let state = lock(&inner.state);
        let unused = lock(&inner.unused);
        let arena = inner.packer.arena().lock();
        Locks { _arena: arena, _unused: unused, _state: state, hub: ManuallyDrop::new(hub) }
    }
}

extern "C" fn before() {
    let all = lock(&HUBS);
    let hubs = all.iter().filter_map(Weak::upgrade).map(Locks::of).collect();
    let _ = HELD.try_with(|held| held.replace(Some(Held { hubs, _all: all })));
}

extern "C" fn in_parent() {
    let Ok(Some(Held { hubs, _all })) = HELD.try_with(RefCell::take) else { return };
    let hubs: Vec<_> = hubs.into_iter().map(|Locks { hub, .. }| hub).collect();
    drop(_all);
    // Its last owner may have dropped it meanwhile.
    hubs.into_iter().for_each(|hub| drop(ManuallyDrop::into_inner(hub)));
}

extern "C" fn in_child() {
    drop(HELD.try_with(RefCell::take));
}

/// Makes forks wait for the locks of registered hubs.
///
/// # Errors
/// If the operating system cannot register the fork handlers (out of memory).
pub(crate) fn watch_forks() -> io::Result<()> {
    static HANDLERS: Handlers = Handlers::new(before, in_parent, in_child);
    // Before a fork, handlers that were registered later are called first.
    atfork::hold_forks()?;
    HANDLERS.register()
}

/// Makes forks wait for this hub's locks.
///
/// # Errors
/// If the operating system cannot register the fork handlers (out of memory).
pub(super) fn register(hub: &Arc<Inner>) -> io::Result<()> {
    watch_forks()?;
    let mut hubs = lock(&HUBS);
    hubs.retain(|hub| hub.strong_count() > 0);
    hubs.push(Arc::downgrade(hub));
    Ok(())
}
