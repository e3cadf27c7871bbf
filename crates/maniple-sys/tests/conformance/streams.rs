//! Streams, packets, the wire and the tap.

use crate::{LONG, calm, is_ready};
use maniple_sys::atfork::making;
use maniple_sys::process::packet;
use maniple_sys::standoff::{self, Said};
use maniple_sys::stream::{self, Kind, Received};
use maniple_sys::wire::{self, Note, Wire};
use maniple_sys::{AsHandle, OwnedHandle, RawHandle, memory, tap};
use std::io::{ErrorKind, IoSlice, Read};

/// Memory with a word in it, to be recognised behind another handle.
fn marked_memory(word: &[u8]) -> OwnedHandle {
    let memory = memory::create("conformance", word.len()).unwrap();
    memory::write_at(memory.as_handle(), word, 0).unwrap();
    memory
}

fn word(memory: &OwnedHandle) -> Vec<u8> {
    memory::read_all(memory.as_handle()).unwrap()
}

#[test]
fn bytes_go_both_ways_and_end_with_the_other_end() {
    let _calm = calm();
    let (here, there) = stream::pair().unwrap();
    assert_eq!((stream::kind(here.as_handle()), stream::is_packets(here.as_handle())), (Kind::Local, false));
    stream::set_blocking(here.as_handle()).unwrap();
    let parts = [IoSlice::new(b"one "), IoSlice::new(b"two")];
    assert_eq!(stream::write(here.as_handle(), &parts).unwrap(), 7);
    let mut bytes = Vec::new();
    assert_eq!(stream::read(there.as_handle(), &mut bytes, 100).unwrap(), 7);
    assert_eq!(bytes, b"one two");
    assert_eq!(stream::send(there.as_handle(), b"three", false).unwrap(), 5);
    let mut room = [0; 10];
    assert_eq!(stream::read_into(here.as_handle(), &mut room).unwrap(), 5);
    drop(there);
    assert_eq!(stream::read_into(here.as_handle(), &mut room).unwrap(), 0);
    assert_eq!(stream::write(here.as_handle(), &[IoSlice::new(b"x")]).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_direction_can_be_shut_and_a_connection_hung_up() {
    let _calm = calm();
    let (here, there) = stream::pair().unwrap();
    stream::write_all(here.as_handle(), b"last").unwrap();
    stream::shut(here.as_handle(), false).unwrap();
    assert_eq!(stream::read_to_end(there.as_handle()).unwrap(), b"last");
    stream::write_all(there.as_handle(), b"back").unwrap();
    let copy = here.try_clone().unwrap();
    stream::hang_up(copy.as_handle());
    stream::hang_up(copy.as_handle());
    assert!(is_ready(here.as_handle()));
    assert_eq!(stream::read_to_end(there.as_handle()).unwrap(), b"");
}

#[test]
fn any_stream_is_read_without_waiting() {
    let _calm = calm();
    for (here, there) in [stream::pair().unwrap(), stream::pipe().unwrap()] {
        let mut room = [0; 10];
        assert_eq!(stream::read_available(here.as_handle(), &mut room).unwrap(), None);
        stream::write_all(there.as_handle(), b"abc").unwrap();
        assert_eq!(stream::read_available(here.as_handle(), &mut room[..2]).unwrap(), Some(2));
        assert_eq!(stream::read_available(here.as_handle(), &mut room).unwrap(), Some(1));
        assert_eq!(stream::read_available(here.as_handle(), &mut room).unwrap(), None);
        drop(there);
        assert_eq!(stream::read_available(here.as_handle(), &mut room).unwrap(), Some(0));
    }
}

#[test]
fn what_is_not_there_is_not_waited_for() {
    let _calm = calm();
    let (here, there) = stream::pair().unwrap();
    let (mut room, mut handles, mut bytes) = ([0; 10], Vec::new(), Vec::with_capacity(10));
    assert_eq!(stream::read_now(here.as_handle(), &mut room, None).unwrap(), None);
    assert_eq!(stream::read_now(here.as_handle(), &mut room, Some(&mut handles)).unwrap(), None);
    assert_eq!(stream::receive(here.as_handle(), &mut bytes).unwrap(), Received::Nothing);
    stream::write_all(there.as_handle(), b"abc").unwrap();
    assert_eq!(stream::receive(here.as_handle(), &mut bytes).unwrap(), Received::Bytes(3));
    let many = vec![1; 100_000];
    while stream::write_now(there.as_handle(), &[IoSlice::new(&many)], &[]).unwrap().is_some() {}
    assert_eq!(maniple_sys::socket::send_now(there.as_handle(), &many).unwrap(), 0);
    drop(there);
    let mut sink = vec![0; 1 << 20];
    while stream::read_now(here.as_handle(), &mut sink, None).unwrap() != Some(0) {}
    bytes.clear();
    assert_eq!(stream::receive(here.as_handle(), &mut bytes).unwrap(), Received::Closed);
}

#[test]
fn handles_go_with_bytes() {
    let _calm = calm();
    let (here, there) = stream::pair().unwrap();
    let (first, second) = (marked_memory(b"first"), marked_memory(b"second"));
    let both = [first.as_handle(), second.as_handle()];
    assert_eq!(stream::write_with(here.as_handle(), b"two", &both).unwrap(), 3);
    assert_eq!(stream::write_now(here.as_handle(), &[IoSlice::new(b"!")], &both[..1]).unwrap(), Some(1));
    let (mut bytes, mut handles) = ([0; 10], Vec::new());
    let mut got = stream::read_with(there.as_handle(), &mut bytes, &mut handles).unwrap();
    while got < 4 {
        got += stream::read_now(there.as_handle(), &mut bytes[got..], Some(&mut handles)).unwrap().unwrap();
    }
    assert_eq!(&bytes[..4], b"two!");
    assert_eq!(handles.iter().map(word).collect::<Vec<_>>(), [&b"first"[..], b"second", b"first"]);
    assert!(!stream::take_cut());
    let many = vec![first.as_handle(); stream::MOST_HANDLES];
    assert_eq!(stream::write_with(here.as_handle(), b"m", &many).unwrap(), 1);
}

#[test]
fn packets_come_as_they_were_sent() {
    let _calm = calm();
    let (here, there) = stream::packet_pair().unwrap();
    assert!(stream::is_packets(here.as_handle()));
    let memory = marked_memory(b"beside");
    assert!(stream::send_packet(here.as_handle(), b"one", &[memory.as_handle()]).unwrap());
    assert!(stream::send_packet(here.as_handle(), b"second", &[]).unwrap());
    let (mut bytes, mut handles) = ([0; 100], Vec::new());
    assert_eq!(stream::peek_packet(there.as_handle(), &mut bytes).unwrap(), Some(3));
    assert_eq!(stream::read_now(there.as_handle(), &mut bytes, Some(&mut handles)).unwrap(), Some(3));
    assert_eq!((&bytes[..3], word(&handles[0])), (&b"one"[..], b"beside".to_vec()));
    assert_eq!(stream::read_now(there.as_handle(), &mut bytes, Some(&mut handles)).unwrap(), Some(6));
    assert_eq!(stream::peek_packet(there.as_handle(), &mut bytes).unwrap(), None);
    let large = [7; 1000];
    let mut sent = 0;
    while stream::send_packet(here.as_handle(), &large, &[]).unwrap() {
        sent += 1;
    }
    assert!(sent > 0);
    let mut room = [0; 2000];
    (0..sent).for_each(|_| assert_eq!(stream::read_now(there.as_handle(), &mut room, None).unwrap(), Some(1000)));
}

#[test]
fn a_mark_is_seen_at_both_ends() {
    let _calm = calm();
    let (here, there) = stream::pair().unwrap();
    assert!(!stream::is_marked(here.as_handle()) && !stream::is_peer_marked(there.as_handle()));
    if stream::mark(here.as_handle()).is_ok() {
        assert!(stream::is_marked(here.as_handle()) && stream::is_peer_marked(there.as_handle()));
        assert!(!stream::is_marked(there.as_handle()) && !stream::is_peer_marked(here.as_handle()));
    }
}

#[test]
fn an_end_that_waits_for_room_may_say_so() {
    let _calm = calm();
    let (here, there) = stream::pair().unwrap();
    assert_eq!(standoff::unread(here.as_handle()).unwrap(), None);
    stream::write_all(here.as_handle(), b"x").unwrap();
    assert_eq!(standoff::unread(here.as_handle()).unwrap(), None);
    stream::write_all(there.as_handle(), b"x").unwrap();
    let unread = standoff::unread(here.as_handle()).unwrap().unwrap();
    assert!(unread.here > 0 && unread.there > 0);
    drop(Said::new(there.as_handle()));
}

#[test]
fn a_packet_to_a_fork_server_carries_handles() {
    let _calm = calm();
    let (here, there) = packet::pair().unwrap();
    let memory = marked_memory(b"given");
    packet::send(here.as_handle(), b"fork", &[memory.as_handle()]).unwrap();
    let (mut bytes, mut handles) = ([0; 24], Vec::new());
    assert_eq!(packet::receive(there.as_handle(), &mut bytes, &mut handles).unwrap(), (4, true));
    assert_eq!((&bytes[..4], word(&handles[0])), (&b"fork"[..], b"given".to_vec()));
    assert!(packet::send(here.as_handle(), b"x", &vec![memory.as_handle(); packet::MOST_HANDLES + 1]).is_err());
    drop(here);
    assert_eq!(packet::receive(there.as_handle(), &mut bytes, &mut handles).unwrap().0, 0);
}

#[test]
fn notes_are_heard_in_order_and_after_the_end_is_gone() {
    let _calm = calm();
    let (here, there) = Wire::pair().unwrap();
    assert!(matches!(here.receive().unwrap(), Note::Nothing) && !here.is_hung_up());
    let memory = marked_memory(b"noted");
    there.send(1, &vec![memory.as_handle(); wire::MOST]).unwrap();
    there.send(2, &[]).unwrap();
    here.send(9, &[]).unwrap();
    drop(there);
    here.wait(Some(LONG)).unwrap();
    assert!(here.is_hung_up());
    let taken = here.take(|_| true, |wire| wire.receive().unwrap());
    assert!(matches!(taken, Note::Tag(1, handles) if handles.len() == wire::MOST && word(&handles[0]) == b"noted"));
    assert!(matches!(here.receive().unwrap(), Note::Tag(2, handles) if handles.is_empty()));
    assert!(matches!(here.receive().unwrap(), Note::Closed));
}

#[test]
fn a_wire_that_is_full_says_so() {
    let _calm = calm();
    let (hub, worker) = making(Wire::for_worker).unwrap();
    let full = (0..1 << 20).find_map(|tag| hub.send(tag, &[]).err()).unwrap();
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    let worker = Wire::from_handle(worker);
    assert!(matches!(worker.receive().unwrap(), Note::Tag(0, _)));
}

#[test]
fn too_few_handles_are_an_error_of_their_own() {
    let _calm = calm();
    let error = wire::out_of_handles();
    assert!(wire::is_out_of_handles(&error) && !wire::is_crowded(&error) && maniple_sys::is_shortage(&error));
    assert!(!maniple_sys::advice(&error).is_empty());
}

#[test]
fn what_is_said_through_a_tap_is_read_without_waiting() {
    let _calm = calm();
    let (hub, worker) = tap::pair().unwrap();
    let mut buffer = [0; 100];
    assert_eq!(tap::drain(hub.as_handle(), &mut buffer).unwrap(), Some(0));
    stream::write_all(worker.as_handle(), b"last words").unwrap();
    assert_eq!(tap::drain(hub.as_handle(), &mut buffer).unwrap(), Some(10));
    drop(worker);
    assert_eq!(tap::drain(hub.as_handle(), &mut buffer).unwrap(), None);
    tap::forward_until_closed(hub.as_handle());
    tap::forward(b"");
    assert_eq!(tap::forward_at_once(b""), 0);
}

#[test]
fn records_stay_in_one_piece() {
    let _calm = calm();
    let (reader, writer) = tap::records().unwrap();
    let record = [5; tap::RECORD];
    let mut written = 0;
    while tap::record(writer.as_handle(), &record) {
        written += 1;
    }
    let mut bytes = vec![0; tap::RECORD];
    for _ in 0..written {
        assert_eq!(tap::drain(reader.as_handle(), &mut bytes).unwrap(), Some(tap::RECORD));
    }
    assert_eq!(tap::drain(reader.as_handle(), &mut bytes).unwrap(), Some(0));
    drop(reader);
    assert!(!tap::record(writer.as_handle(), b"nobody reads"));
}

/// Takes over a number as from other code, of which this crate knows nothing.
fn taken_over(number: RawHandle) -> OwnedHandle {
    stream::recognize(number);
    // SAFETY: the callers leave the number to this function.
    unsafe { OwnedHandle::from_raw(number) }
}

#[test]
fn a_number_that_other_code_has_opened_is_used_and_closed_as_its_kind_requires() {
    let _calm = calm();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // A number is used again for something of another kind.
    for _ in 0..3 {
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let number = socket.as_handle().as_raw();
        std::mem::forget(socket);
        let taken = taken_over(number);
        assert_eq!(stream::kind(taken.as_handle()), Kind::Remote);
        stream::write_all(taken.as_handle(), b"over the network").unwrap();
        drop(taken);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "over the network");

        let (here, there) = stream::pair().unwrap();
        let taken = taken_over(here.into_raw());
        assert_eq!(stream::kind(taken.as_handle()), Kind::Local);
        stream::write_all(taken.as_handle(), b"on this machine").unwrap();
        drop(taken);
        assert_eq!(stream::read_to_end(there.as_handle()).unwrap(), b"on this machine");

        let (here, there) = stream::pipe().unwrap();
        let taken = taken_over(there.into_raw());
        assert!(stream::is_pipe(taken.as_handle()));
        stream::write_all(taken.as_handle(), b"through a pipe").unwrap();
        drop(taken);
        assert_eq!(stream::read_to_end(here.as_handle()).unwrap(), b"through a pipe");

        let taken = taken_over(marked_memory(b"memory").into_raw());
        assert_eq!((stream::kind(taken.as_handle()), word(&taken)), (Kind::Other, b"memory".to_vec()));
    }
}

#[test]
fn what_was_written_lasts_with_a_copy_of_the_end_and_its_companion() {
    let _calm = calm();
    let (here, there) = stream::pair().unwrap();
    stream::write_all(here.as_handle(), b"written before").unwrap();
    let companion = stream::companion(there.as_handle());
    let copy = there.try_clone().unwrap();
    drop((here, there));
    assert_eq!(stream::read_to_end(copy.as_handle()).unwrap(), b"written before");
    drop(companion);
    // All there is to other handles is the handle.
    let (reader, writer) = stream::pipe().unwrap();
    for other in [reader, writer, marked_memory(b"memory")] {
        assert!(stream::companion(other.as_handle()).is_none());
    }
}
