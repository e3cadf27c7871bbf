//! Where locks lie: descriptors, memory, and when a cell is used again. Each test runs in a process of its own, since the arenas are the
//! process's.

use crate::support::alone;
#[cfg(not(windows))]
use crate::support::{self, Elsewhere};
use maniple_engine::sync::Released;
use maniple_engine::sync::arena::{Arena, CellRef};
use maniple_engine::sync::lock::{Lock, RLock};
use maniple_engine::sync::semaphore::Semaphore;
#[cfg(not(windows))]
use maniple_engine::{sync::Outcome, wait::Until};
use maniple_sys::{self as sys, testing};

/// How many arenas this process has mapped, and how many descriptors it has of them.
fn mapped() -> (usize, usize) {
    testing::shared_memory("maniple-sync")
}

/// Runs `work` in a forked child; where there are none, here.
fn apart(work: impl FnOnce()) {
    #[cfg(not(windows))]
    Elsewhere::fork(work).ends_well();
    #[cfg(windows)]
    work();
}

fn duplicate(arena: &Arena) -> sys::OwnedHandle {
    sys::memory::duplicate(arena.handle()).unwrap()
}

#[test]
fn a_thousand_locks_cost_one_descriptor_and_leave_none() {
    alone(|| {
        let locks: Vec<_> = (0..1000).map(|_| Lock::new().unwrap()).collect();
        assert_eq!(mapped(), (1, 1));
        let more: Vec<_> = (0..1000).map(|_| Semaphore::new(1, 1).unwrap()).collect();
        assert_eq!(mapped(), (2, 2));
        drop(locks);
        drop(more);
        assert_eq!(mapped(), (0, 0));
    });
}

#[test]
fn a_cell_that_nobody_else_knows_is_used_again_and_is_as_new() {
    alone(|| {
        let kept = Lock::new().unwrap();
        let first = Semaphore::new(7, 9).unwrap();
        let number = first.place().number();
        drop(first);
        let second = RLock::new().unwrap();
        assert_eq!(second.lock().place().number(), number);
        assert!(!second.lock().is_held() && second.try_acquire());
        for _ in 0..5000 {
            drop(Lock::new().unwrap());
        }
        assert_eq!(mapped(), (1, 1));
        drop(kept);
    });
}

// Windows has no forks.
#[cfg(not(windows))]
#[test]
fn a_cell_that_a_forked_child_may_know_is_not_used_again() {
    alone(|| {
        let (kept, lock) = (Lock::new().unwrap(), Lock::new().unwrap());
        let number = lock.place().number();
        Elsewhere::fork(|| {}).ends_well();
        drop(lock);
        let other = Lock::new().unwrap();
        assert_ne!(other.place().number(), number);
        drop(kept);
    });
}

#[test]
fn a_cell_that_was_sent_is_not_used_again() {
    alone(|| {
        let (kept, lock) = (Lock::new().unwrap(), Lock::new().unwrap());
        let ticket = lock.place().send();
        drop(lock);
        assert_ne!(Lock::new().unwrap().place().number(), ticket.number);
        drop(kept);
    });
}

// Windows has no forks.
#[cfg(not(windows))]
#[test]
fn a_forked_child_makes_its_locks_elsewhere_and_uses_its_parents() {
    alone(|| {
        let inherited = Lock::new().unwrap();
        Elsewhere::fork(|| {
            let own = Lock::new().unwrap();
            assert_ne!(own.place().send().arena.id(), inherited.place().send().arena.id());
            assert!(inherited.try_acquire() && inherited.is_held_here());
            drop(inherited);
            drop(own);
            assert_eq!(mapped(), (0, 0), "what a child dropped is not kept for its parent's sake");
        })
        .ends_well();
    });
}

#[test]
fn an_arena_that_comes_in_twice_is_mapped_once() {
    alone(|| {
        let lock = Lock::new().unwrap();
        let ticket = lock.place().send();
        let handle = duplicate(&ticket.arena);
        // As a fresh process would see it: without what it has inherited.
        apart(|| {
            drop((lock, ticket));
            drop(Lock::new());
            let second = handle.try_clone().unwrap();
            testing::set_inherited(&handle, true);
            let (first, number) = (Arena::open(handle).unwrap(), second.as_raw());
            let again = Arena::open(second).unwrap();
            assert_eq!((first.id(), mapped()), (again.id(), (1, 1)));
            assert!(!testing::is_open(number), "the spare descriptor is closed");
            assert!(!testing::is_inherited(first.handle()), "no program that is started later gets it");
            // And the very descriptor that it has. (A started process of Windows gets none twice.)
            if cfg!(not(windows)) {
                // SAFETY: what is being tested: the arena does not close a descriptor that it holds already.
                let same = unsafe { sys::OwnedHandle::from_raw(first.handle().as_raw()) };
                drop(Arena::open(same).unwrap());
            }
            assert!(testing::is_open(first.handle().as_raw()));
        });
    });
}

#[test]
fn what_is_no_arena_or_no_such_lock_is_refused() {
    alone(|| {
        assert!(Arena::open(sys::process::nothing().unwrap()).is_err());
        assert!(Arena::open(sys::memory::create("other", 64 << 10).unwrap()).is_err());
        let lock = Lock::new().unwrap();
        let ticket = lock.place().send();
        assert!(RLock::open(ticket.clone()).is_err(), "another kind");
        for number in [0, ticket.number + 1, 1 << 20] {
            assert!(Lock::open(CellRef { number, ..ticket.clone() }).is_err(), "cell {number}");
        }
        let same = Lock::open(ticket).unwrap();
        assert!(lock.try_acquire() && !same.try_acquire());
        assert_eq!(same.release(), Released::Done);
    });
}

// Windows has one space of process numbers.
#[cfg(not(windows))]
#[test]
fn nobody_is_judged_dead_once_an_arena_is_used_from_another_pid_namespace() {
    alone(|| {
        let lock = Lock::new().unwrap();
        if !testing::new_pid_namespace() {
            eprintln!("not checked: this user may make no pid namespaces");
            return;
        }
        // The first process in there: it holds the lock and lives, but here its number is another process's, or free.
        let release = Semaphore::new(0, 1).unwrap();
        let holder = Elsewhere::fork(|| {
            assert!(lock.try_acquire());
            release.acquire(Until::Ever, &mut || true);
            lock.release();
        });
        support::until(|| lock.is_held());
        let short = Until::after(std::time::Duration::from_millis(300));
        assert_eq!(lock.acquire(short, &mut || true), Outcome::TimedOut);
        release.release();
        holder.ends_well();
        assert_eq!(lock.acquire(short, &mut || true), Outcome::Taken);
    });
}
