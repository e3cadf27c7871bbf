//! Words, locks and handles that are waited for.

use crate::{Child, LONG, calm, is_ready, is_ready_within};
use maniple_sys::futex::{self, Woken};
use maniple_sys::holder;
use maniple_sys::memory::{self, Mapping, PAGES, Share};
use maniple_sys::mutex::{Found, Mutex};
use maniple_sys::process::Exit;
use maniple_sys::ready::{self, Interest, Kick};
use maniple_sys::{AsHandle, OwnedHandle, stream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(20);

fn mapped(memory: &OwnedHandle) -> Mapping {
    Mapping::new(memory, PAGES, Share::All).unwrap()
}

fn word(mapping: &Mapping) -> &AtomicU32 {
    // SAFETY: at the start of the mapping, which lives as long; used by atomic operations alone.
    unsafe { mapping.start().cast().as_ref() }
}

#[test]
fn a_word_that_has_changed_is_not_waited_for() {
    let word = AtomicU32::new(1);
    assert_eq!(futex::wait(&word, 0, None), Woken::Rung);
}

#[test]
fn a_word_that_is_not_rung_is_waited_for_until_the_time_is_up() {
    let word = AtomicU32::new(0);
    let until = Instant::now() + SHORT;
    // It may return early, for no reason.
    while futex::wait(&word, 0, Some(until.saturating_duration_since(Instant::now()))) != Woken::TimedOut {}
    assert!(Instant::now() >= until);
}

/// The part of the process that changes the word and rings it.
pub fn ring(handles: Vec<OwnedHandle>) -> i32 {
    let mapping = mapped(&handles[0]);
    std::thread::sleep(SHORT);
    word(&mapping).store(1, Ordering::SeqCst);
    futex::wake(word(&mapping), u32::MAX);
    0
}

#[test]
fn another_process_wakes_sleepers_of_a_word() {
    let memory = memory::create("conformance", PAGES).unwrap();
    let mapping = mapped(&memory);
    let mut child = Child::plays("rings a word", vec![memory]);
    let until = Instant::now() + LONG;
    while word(&mapping).load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "nobody has rung");
        futex::wait(word(&mapping), 0, Some(LONG));
    }
    assert_eq!(child.ends(), Exit::Code(0));
}

fn lock(mapping: &Mapping) -> &Mutex {
    // SAFETY: a lock was made at the start of the mapping, which lives as long.
    unsafe { mapping.start().cast().as_ref() }
}

#[test]
fn a_lock_has_one_holder() {
    let memory = memory::create("conformance", PAGES).unwrap();
    let mapping = mapped(&memory);
    // SAFETY: fresh, aligned memory that no other code uses.
    unsafe { Mutex::init(mapping.start().cast().as_ptr()).unwrap() };
    assert_eq!(lock(&mapping).try_lock().unwrap(), Found::Ours);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = mapped(&memory);
            assert_eq!(lock(&other).try_lock().unwrap(), Found::Taken);
            assert_eq!(lock(&other).lock_within(SHORT).unwrap(), Found::Taken);
        });
    });
    // SAFETY: this thread holds it.
    unsafe { lock(&mapping).unlock() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(lock(&mapping).lock_within(LONG).unwrap(), Found::Ours);
            // SAFETY: this thread holds it.
            unsafe { lock(&mapping).unlock() };
        });
    });
}

/// The part of the process that ends with the lock.
pub fn die_with_a_lock(handles: Vec<OwnedHandle>) -> i32 {
    let mapping = mapped(&handles[0]);
    let found = lock(&mapping).try_lock().unwrap();
    // The system finds the lock only while the process has its memory.
    std::mem::forget(mapping);
    i32::from(found == Found::Taken)
}

#[test]
fn a_lock_whose_holder_died_is_handed_on_and_says_so() {
    let memory = memory::create("conformance", PAGES).unwrap();
    let mapping = mapped(&memory);
    // SAFETY: fresh, aligned memory that no other code uses.
    unsafe { Mutex::init(mapping.start().cast().as_ptr()).unwrap() };
    for _ in 0..2 {
        let memory = memory::duplicate(&memory).unwrap();
        assert_eq!(Child::plays("dies with a lock", vec![memory]).ends(), Exit::Code(0));
    }
    assert_eq!(lock(&mapping).lock_within(LONG).unwrap(), Found::Orphaned);
    // SAFETY: this thread holds it.
    unsafe { lock(&mapping).unlock() };
    assert_eq!(lock(&mapping).try_lock().unwrap(), Found::Ours);
    // SAFETY: as above.
    unsafe { lock(&mapping).unlock() };
}

#[test]
fn a_running_process_is_distinguished_from_ended_ones() {
    let me = holder::identity();
    assert_eq!((me, me.pid), (holder::identity(), maniple_sys::process_id()));
    assert!(!holder::is_gone(me.pid, me.born));
    let mut child = Child::plays("idles", Vec::new());
    assert!(!holder::is_gone(child.pid, 0));
    maniple_sys::process::kill(child.handle.as_handle(), child.pid).unwrap();
    child.ends();
}

#[test]
fn several_handles_are_waited_for_and_those_that_are_ready_say_so() {
    let pipes: Vec<_> = (0..100).map(|_| stream::pipe().unwrap()).collect();
    let mut interests: Vec<_> = pipes.iter().map(|(reader, _)| Interest::new(reader.as_handle())).collect();
    assert_eq!(ready::wait(&mut interests, Some(SHORT)).unwrap(), 0);
    assert!(!interests.iter().any(Interest::ready));
    stream::write_all(pipes[3].1.as_handle(), b"x").unwrap();
    stream::write_all(pipes[99].1.as_handle(), b"x").unwrap();
    assert_eq!(ready::wait(&mut interests, Some(LONG)).unwrap(), 2);
    let found: Vec<_> = (0..100).filter(|&place| interests[place].ready()).collect();
    assert_eq!(found, [3, 99]);
}

#[test]
fn room_is_waited_for() {
    let _calm = calm();
    let (here, there) = stream::pair().unwrap();
    assert!(ready::wait_for(Interest::room(here.as_handle())).unwrap());
    let bytes = [0; 10_000];
    while stream::write_now(here.as_handle(), &[std::io::IoSlice::new(&bytes)], &[]).unwrap().is_some() {}
    let mut interest = [Interest::room(here.as_handle())];
    assert_eq!(ready::wait(&mut interest, Some(SHORT)).unwrap(), 0);
    drop(there);
    assert_eq!(ready::wait(&mut interest, Some(LONG)).unwrap(), 1);
}

#[test]
fn a_kick_wakes_and_stays_until_it_is_cleared() {
    let kick = Kick::new().unwrap();
    assert!(!is_ready(kick.as_handle()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(SHORT);
            kick.kick();
        });
        assert!(is_ready_within(kick.as_handle(), LONG));
    });
    assert!(is_ready(kick.as_handle()));
    let same = Kick::from_handle(kick.as_handle().try_clone_to_owned().unwrap());
    kick.clear();
    assert!(!is_ready(same.as_handle()));
    same.kick();
    assert!(is_ready(kick.as_handle()));
}
