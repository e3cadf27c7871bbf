//! Returns kept memory and descriptors to the system when they have not been used for a while.
//!
//! Memory that was used a moment ago is several times faster than fresh memory, so queues and pipes keep some for the next message. An
//! idle program must not keep it. A thread, the *sweeper*, checks all kept things every [`PERIOD`]. It exists only while something is kept,
//! and **never during a fork**: a process with threads cannot be forked safely, and Python warns its user of it. So before a fork everything
//! that is kept is returned, and the sweeper ends.
//!
//! Order of locks: a kept thing may hold its own lock when it calls [`watch`]; so the sweeper, which holds the lock of the list, only
//! tries the locks of kept things and does not wait for them.

mod shelf;

pub use shelf::{Limits, Shelf};

use maniple_sys::atfork::{self, Handlers};
use maniple_sys::quiet::{self, Number};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// The sweeper's period. Unused things are returned after one to two periods.
pub const PERIOD: Duration = Duration::from_secs(1);

/// Something that keeps memory or descriptors to use them again.
pub trait Kept: Send + Sync {
    /// Returns to the system what was not used for so long, unless it is in use now; it must not wait. Returns whether to call it again.
    fn trim(&self, unused: Duration) -> bool;
}

/// Whether a kept thing is registered.
#[derive(Debug, Default)]
pub struct Watched(AtomicBool);

impl Watched {
    /// Registers the thing if it is not registered. False: the sweeper cannot run, and the thing must keep nothing.
    #[inline]
    pub fn begin<K: Kept + 'static>(&self, kept: &Arc<K>) -> bool {
        if self.is_on() || self.0.swap(true, Ordering::Relaxed) {
            return true;
        }
        let weak: Weak<dyn Kept> = Arc::downgrade(kept) as Weak<dyn Kept>;
        let watched = watch(weak);
        if !watched {
            self.end();
        }
        watched
    }

    /// The thing keeps nothing more, and its `trim` says so.
    pub fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it is.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Sweeper {
    kept: Vec<Weak<dyn Kept>>,
    thread: Option<JoinHandle<()>>,
    number: Option<Number>,
    // How many forks are about to happen.
    forks: usize,
}

static SWEEPER: Mutex<Sweeper> = Mutex::new(Sweeper { kept: Vec::new(), thread: None, number: None, forks: 0 });
static NEWS: Condvar = Condvar::new();
static ENDS: AtomicBool = AtomicBool::new(false);

fn sweeper() -> MutexGuard<'static, Sweeper> {
    SWEEPER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes forks wait for the sweeper.
///
/// # Errors
/// If the operating system cannot register the fork handlers (out of memory).
pub(crate) fn watch_forks() -> io::Result<()> {
    static HANDLERS: Handlers = Handlers::new(before_fork, after_fork, in_child);
    // In this order: before a fork, the handlers that were registered last run first, and the sweeper may be waiting for the gate.
    atfork::hold_forks()?;
    HANDLERS.register()
}

/// Registers a kept thing: the sweeper calls it until it keeps nothing more. False: the sweeper cannot run, and the thing must keep nothing.
pub fn watch(kept: Weak<dyn Kept>) -> bool {
    if watch_forks().is_err() {
        return false;
    }
    // A fork finds the list consistent, and its lock free.
    atfork::making(|| {
        let mut sweeper = sweeper();
        if sweeper.forks > 0 {
            return false;
        }
        if sweeper.thread.is_none() {
            match start() {
                Ok(thread) => sweeper.thread = Some(thread),
                Err(_) => return false,
            }
        }
        sweeper.kept.push(kept);
        true
    })
}

fn start() -> io::Result<JoinHandle<()>> {
    ENDS.store(false, Ordering::Relaxed);
    quiet::spawn("maniple-sweeper", sweep)
}

fn sweep() {
    let mut sweeper = sweeper();
    sweeper.number = Some(Number::own());
    while !ENDS.load(Ordering::Relaxed) {
        let (next, waited) = NEWS.wait_timeout(sweeper, PERIOD).unwrap_or_else(PoisonError::into_inner);
        sweeper = next;
        if !waited.timed_out() {
            continue;
        }
        sweeper.kept.retain(|kept| kept.upgrade().is_some_and(|kept| kept.trim(PERIOD)));
        if sweeper.kept.is_empty() {
            // Not joined: it accesses nothing more.
            sweeper.thread = None;
            return;
        }
    }
}

// Another thread may be forking at the same time. Its child has a copy of the list's lock, so the lock is taken only where no fork can come.
extern "C" fn before_fork() {
    let (thread, number) = atfork::making(|| {
        let mut list = sweeper();
        list.forks += 1;
        let thread = list.thread.take();
        let number = if thread.is_some() { list.number.take() } else { list.number };
        ENDS.store(true, Ordering::Relaxed);
        (thread, number)
    });
    NEWS.notify_all();
    if let Some(thread) = thread {
        let _ = thread.join();
    }
    // A count of the threads of a process that forks would still include it.
    for _ in 0..1000 {
        if !number.is_some_and(Number::is_there) {
            break;
        }
        std::thread::yield_now();
    }
    atfork::making(|| {
        let mut list = sweeper();
        list.number = None;
        let kept = std::mem::take(&mut list.kept);
        drop(list);
        // The user of a thing that is in use at this moment registers it again. The locks of kept things are copied as well.
        kept.iter().filter_map(Weak::upgrade).for_each(|kept| {
            kept.trim(Duration::ZERO);
        });
    });
}

extern "C" fn after_fork() {
    atfork::making(|| sweeper().forks -= 1);
}

extern "C" fn in_child() {
    sweeper().forks = 0;
}
