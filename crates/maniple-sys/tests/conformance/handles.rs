//! Handles, and what keeps them.

use crate::{calm, is_ready};
use maniple_sys::atfork::{self, HubOnly, NotForChildren};
use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::own::{File, Lent, Own, above_stdio, is_open};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, stream};

#[test]
fn an_owned_handle_is_closed_when_it_is_dropped_and_not_before() {
    let _calm = calm();
    let (reader, writer) = stream::pipe().unwrap();
    let copy = writer.try_clone().unwrap();
    let another = writer.as_handle().try_clone_to_owned().unwrap();
    drop((writer, another));
    assert!(!is_ready(reader.as_handle()));
    drop(copy);
    assert!(is_ready(reader.as_handle()));
}

#[test]
fn a_handle_is_the_same_by_its_number() {
    let _calm = calm();
    let (reader, writer) = stream::pipe().unwrap();
    let number = writer.into_raw();
    // SAFETY: it is open until the next line takes it over.
    let borrowed = unsafe { BorrowedHandle::borrow_raw(number) };
    assert_eq!(borrowed.as_raw(), number);
    stream::write_all(borrowed, b"x").unwrap();
    // SAFETY: `into_raw` gave it to this test.
    drop(unsafe { OwnedHandle::from_raw(number) });
    assert_eq!(stream::read_to_end(reader.as_handle()).unwrap(), b"x");
}

#[test]
fn what_is_owned_is_there_until_it_is_given_away() {
    let _calm = calm();
    let (reader, writer) = stream::pipe().unwrap();
    let own = Own::new(writer);
    assert!(own.is_there() && own.found().is_ok());
    assert_eq!(File::of(own.as_handle()), File::at(own.as_raw()));
    // SAFETY: `own` outlives it.
    let lent = unsafe { Lent::new(own.as_handle()) };
    stream::write_all(lent.as_handle(), b"lent").unwrap();
    let writer = above_stdio(own.into_handle()).unwrap();
    stream::write_all(writer.as_handle(), b" given").unwrap();
    let number = writer.as_raw();
    assert!(is_open(number));
    // Another test may open a handle under the number at once.
    let is_closed = |copy: OwnedHandle| {
        let number = copy.as_raw();
        drop(copy);
        !is_open(number)
    };
    assert!((0..100).any(|_| is_closed(writer.try_clone().unwrap())));
    drop(writer);
    assert_eq!(stream::read_to_end(reader.as_handle()).unwrap(), b"lent given");
}

#[test]
fn what_children_must_not_have_is_this_processs_to_use_and_to_give_away() {
    let _calm = calm();
    atfork::hold_forks().unwrap();
    let (reader, writer) = stream::pipe().unwrap();
    let mine = atfork::making(|| HubOnly::new(writer)).unwrap();
    stream::write_all(mine.as_handle(), b"mine").unwrap();
    let writer = mine.into_handle().unwrap();
    let number = writer.as_raw();
    atfork::making(|| atfork::register(writer.as_handle())).unwrap();
    assert!(atfork::unregister(number));
    drop(NotForChildren::new(writer.as_handle()).unwrap());
    drop(atfork::making(|| HubOnly::new(writer)).unwrap());
    assert_eq!(stream::read_to_end(reader.as_handle()).unwrap(), b"mine");
}

#[test]
fn a_handle_that_is_held_stays_open() {
    let _calm = calm();
    let (reader, writer) = stream::pipe().unwrap();
    atfork::hold_until_the_end(writer).unwrap();
    assert!(!is_ready(reader.as_handle()));
}

#[test]
fn without_a_fork_nothing_has_happened_since() {
    let _calm = calm();
    count_forks().unwrap();
    assert_eq!(Epoch::now().since(), Since::Nothing);
}
