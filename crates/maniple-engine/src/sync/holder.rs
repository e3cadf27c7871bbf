//! The identity of this process, and the check whether another holder still lives.
//!
//! A holder is a process, not a thread: a process whose holding thread has ended still runs and may release. It is
//! named by its number and its birth, so a reused number does not make a dead holder look alive. Zombies are dead: the
//! process that should reap them may be the waiting process.
//!
//! Numbers of another pid namespace mean other processes or none. The first process of an arena writes its namespace
//! into it. Any other process that is in another namespace marks the arena *mixed* when it opens the arena or first
//! uses it after a fork, before it acquires anything in it. In a mixed arena no process determines that another is
//! dead, and an abandoned lock stays locked, as it does in the standard package. The same applies if neither `/proc`
//! nor the kernel (6.11 and later) identifies this process, and to processes of several time namespaces if birth is a
//! time.

use super::word::lock::Holder;
use maniple_sys as sys;
use maniple_sys::atfork::{self, Handlers};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

static ME: AtomicU64 = AtomicU64::new(0);
static SPACE: AtomicU64 = AtomicU64::new(0);

extern "C" fn nothing() {}

extern "C" fn in_child() {
    ME.store(0, Ordering::Relaxed);
}

/// Makes forked children determine their identity again. Call it before any other function of this module.
///
/// # Errors
/// If the operating system cannot register the fork handlers (out of memory).
pub fn watch_forks() -> io::Result<()> {
    static HANDLERS: Handlers = Handlers::new(nothing, nothing, in_child);
    atfork::hold_forks()?;
    HANDLERS.register()
}

/// This process, if it is already known.
#[inline]
pub fn known() -> Option<Holder> {
    let bits = ME.load(Ordering::Relaxed);
    (bits != 0).then(|| Holder::from_bits(bits))
}

/// This process, and the namespace its number belongs to (0: unknown).
pub fn identify() -> (Holder, u64) {
    // Acquire: partner is the Release below.
    let bits = ME.load(Ordering::Acquire);
    if bits != 0 {
        return (Holder::from_bits(bits), SPACE.load(Ordering::Relaxed));
    }
    let found = sys::holder::identity();
    let me = Holder::new(found.pid, found.born);
    SPACE.store(found.space, Ordering::Relaxed);
    ME.store(me.bits(), Ordering::Release);
    (me, found.space)
}

/// Whether `holder` has certainly ended. Only for a holder of this process's own namespace.
pub fn is_gone(holder: Holder) -> bool {
    sys::holder::is_gone(holder.pid(), holder.born())
}

/// A number that distinguishes this thread from all other living threads of this process.
#[inline]
pub fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}
