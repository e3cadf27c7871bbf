//! What is kept for later goes back when it has not been used for a while.
//!
//! Memory that was used a moment ago is several times faster than fresh memory, so queues and pipes keep some; but a program that has
//! nothing to do must not. A thread, the *sweeper*, looks at what is kept every [`PERIOD`]. It is there only while something is kept, and
//! **never over a fork**: a process with threads is not fit to be forked, and Python says so to its user. So before a fork all that is kept
//! goes back, and the sweeper ends.
//!
//! Order of locks: a thing that is kept may hold its own lock when it calls [`watch`]; so the sweeper, which holds the list, only ever
//! tries those.

use maniple_sys::atfork;
use maniple_sys::process::at_fork;
use maniple_sys::quiet::{self, Number};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the sweeper looks. What is not used goes back after one to two of these.
pub const PERIOD: Duration = Duration::from_secs(1);

/// Something that keeps memory or descriptors to use them again.
pub trait Kept: Send + Sync {
    /// Returns to the system what was not used for so long, if it is not in use now; it must not wait. Whether it is to be called again.
    fn trim(&self, unused: Duration) -> bool;
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

/// Has something called until it says that it keeps nothing more. False: no thread will call it, and it must not keep anything.
pub fn watch(kept: Weak<dyn Kept>) -> bool {
    static HANDLERS: OnceLock<bool> = OnceLock::new();
    // In this order: before a fork, the handlers that were taken last run first, and the sweeper may be waiting for the gate.
    let taken = || atfork::hold_forks().is_ok() && at_fork(before_fork, after_fork, in_child).is_ok();
    if !HANDLERS.get_or_init(taken) {
        return false;
    }
    // A fork finds the list whole, and its lock free.
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
            // Not joined: it touches nothing more.
            sweeper.thread = None;
            return;
        }
    }
}

// Another thread may be forking at the same time. Its child has a copy of the list's lock, so that is only taken where no fork can come.
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
        // The user of what is in use at this moment has it watched again. The locks of what is kept are copied as well.
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
