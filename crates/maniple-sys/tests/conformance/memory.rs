//! Memory.

use crate::Child;
use maniple_sys::memory::{self, Mapping, PAGES, Share};
use maniple_sys::plain::Plain;
use maniple_sys::process::Exit;
use maniple_sys::{AsHandle, OwnedHandle};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU8, Ordering};

/// A byte of a mapping.
fn byte(mapping: &Mapping, at: usize) -> &AtomicU8 {
    assert!(at < mapping.len());
    // SAFETY: inside the mapping, which exists as long; all its users access it by atomic bytes.
    unsafe { &*mapping.start().as_ptr().add(at).cast() }
}

fn get(mapping: &Mapping, at: usize) -> u8 {
    byte(mapping, at).load(Ordering::SeqCst)
}

fn set(mapping: &Mapping, at: usize, value: u8) {
    byte(mapping, at).store(value, Ordering::SeqCst);
}

#[test]
fn memory_is_zeroed_and_keeps_its_size() {
    let memory = memory::create("conformance", 100_000).unwrap();
    assert!(memory::is_fixed(&memory));
    assert_eq!(memory::len(&memory).unwrap(), 100_000);
    assert_eq!(memory::read_all(memory.as_handle()).unwrap(), vec![0; 100_000]);
}

#[test]
fn what_is_copied_in_is_copied_out_by_every_handle() {
    let memory = memory::create("conformance", 10).unwrap();
    let other = memory::duplicate(&memory).unwrap();
    memory::close_on_exec(&other).unwrap();
    memory::write_at(memory.as_handle(), b"words", 3).unwrap();
    drop(memory);
    let mut bytes = [0; 5];
    memory::read_at(other.as_handle(), &mut bytes, 3).unwrap();
    assert_eq!(&bytes, b"words");
    assert!(memory::write_at(other.as_handle(), b"beyond", 8).is_err());
    assert_eq!(memory::read_at(other.as_handle(), &mut bytes, 8).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(memory::len(&other).unwrap(), 10);
}

#[test]
fn a_mapping_shows_what_others_write_and_a_copy_shows_others_nothing() {
    let memory = memory::create("conformance", 2 * PAGES).unwrap();
    let one = Mapping::new(&memory, 2 * PAGES, Share::All).unwrap();
    let other = Mapping::new(&memory, 2 * PAGES, Share::All).unwrap();
    set(&one, 7, 1);
    assert_eq!(get(&other, 7), 1);
    let copy = Mapping::new(&memory, 2 * PAGES, Share::CopyOnWrite).unwrap();
    set(&copy, 7, 2);
    assert_eq!((get(&one, 7), get(&copy, 7)), (1, 2));
    let end = Mapping::at(&memory, PAGES as u64, PAGES, Share::All).unwrap();
    set(&end, 0, 3);
    assert_eq!((get(&one, PAGES), end.len(), end.is_empty()), (3, PAGES, false));
    // A mapping outlives its memory's handles.
    drop(memory);
    set(&one, 8, 4);
    assert_eq!(get(&other, 8), 4);
}

#[test]
fn pieces_are_mapped_one_behind_the_other() {
    let pieces: Vec<OwnedHandle> = (0..3).map(|_| memory::create("conformance", PAGES).unwrap()).collect();
    let list: Vec<_> = pieces.iter().map(|piece| (piece, PAGES)).collect();
    let joined = Mapping::joined(&list, 2 * PAGES + 100, Share::All).unwrap();
    assert_eq!(joined.len(), 2 * PAGES + 100);
    for (number, piece) in pieces.iter().enumerate() {
        set(&joined, number * PAGES + 50, 9);
        assert_eq!(memory::read_all(piece.as_handle()).unwrap()[50], 9);
    }
    assert!(Mapping::joined(&list, 4 * PAGES, Share::All).is_err());
}

#[test]
fn pages_that_are_released_are_zeros() {
    let memory = memory::create("conformance", 4 * PAGES).unwrap();
    let mapping = Mapping::new(&memory, 4 * PAGES, Share::All).unwrap();
    mapping.prepare(0, 4 * PAGES).unwrap();
    mapping.map_in(4 * PAGES);
    (0..4).for_each(|page| set(&mapping, page * PAGES, 1));
    mapping.release(PAGES, PAGES);
    if memory::release(memory.as_handle(), 2 * PAGES as u64, PAGES as u64).is_ok() {
        assert_eq!(get(&mapping, 2 * PAGES), 0);
    }
    assert_eq!((get(&mapping, 0), get(&mapping, 3 * PAGES)), (1, 1));
}

#[test]
fn errors_of_memory_are_distinguished() {
    assert!(memory::is_too_long(&memory::too_long()) && !memory::is_too_long(&memory::out_of_memory()));
    assert!(maniple_sys::is_shortage(&memory::out_of_memory()) && maniple_sys::is_shortage(&memory::too_long()));
    assert!(memory::is_scarce(&memory::out_of_memory()) && !memory::is_scarce(&memory::too_long()));
    assert!(memory::longest() > 0);
    assert!(usize::try_from(memory::longest()).is_ok(), "no memory is longer than a word can say");
    let _ = memory::is_narrow();
}

/// The part of the process that has the memory as well.
pub fn write(handles: Vec<OwnedHandle>) -> i32 {
    let mapping = Mapping::new(&handles[0], PAGES, Share::All).unwrap();
    set(&mapping, 5, get(&mapping, 4) + 1);
    0
}

#[test]
fn another_process_writes_to_the_same_memory() {
    let memory = memory::create("conformance", PAGES).unwrap();
    let mapping = Mapping::new(&memory, PAGES, Share::All).unwrap();
    let _ = mapping.keep_from_children();
    set(&mapping, 4, 10);
    assert_eq!(Child::plays("writes to memory", vec![memory]).ends(), Exit::Code(0));
    assert_eq!(get(&mapping, 5), 11);
}

#[test]
fn memory_of_ones_own_is_zeroed_and_can_be_given_back() {
    for len in [1, 5 * PAGES, 40 * PAGES] {
        let memory = Plain::new(len).unwrap();
        assert!(memory.len() >= len && !memory.is_empty());
        // SAFETY: it is this test's alone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), memory.len()) };
        assert!(bytes.iter().step_by(1000).all(|&byte| byte == 0));
        bytes.fill(7);
        memory.forget(0, memory.len());
        bytes.fill(8);
    }
}
