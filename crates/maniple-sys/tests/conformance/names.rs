//! Names: of memory, of sockets, of folders.

use crate::LONG;
use maniple_sys::memory::{Mapping, Share};
use maniple_sys::socket::{self, Dial, Place};
use maniple_sys::socket_dir::SocketDir;
use maniple_sys::{AsHandle, memory, named, stream};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

fn random() -> [u8; 8] {
    let mut bytes = [0; 8];
    socket::random(&mut bytes).unwrap();
    bytes
}

#[test]
fn random_bytes_differ() {
    assert_ne!(random(), random());
}

#[test]
fn a_name_leads_to_memory_until_it_is_taken_away() {
    // A name has at most 31 bytes on macOS.
    let name = format!("/maniple-{:x}", u64::from_ne_bytes(random()));
    let first = named::create(&name, 10).unwrap();
    assert_eq!(named::create(&name, 10).unwrap_err().kind(), ErrorKind::AlreadyExists);
    memory::write_at(first.as_handle(), b"here", 0).unwrap();
    let second = named::find(&name).unwrap();
    let bytes = memory::read_all(second.as_handle()).unwrap();
    assert!(bytes.starts_with(b"here\0\0\0\0\0\0") && is_len(bytes.len()));
    assert!(named::leads_to(&name, &second));
    named::unlink(&name).unwrap();
    assert_eq!(named::unlink(&name).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(named::find(&name).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!named::leads_to(&name, &first));
    assert!(is_len(memory::len(&first).unwrap()));
}

#[test]
fn a_name_of_the_systems_for_memory_lasts_as_long_as_its_handles() {
    let name = format!("maniple-section-{:x}", u64::from_ne_bytes(random()));
    let (first, len) = match named::section(&name, Some(10)) {
        Err(error) => {
            // `open` has flags for it there.
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(named::section(&name, None).unwrap_err().kind(), ErrorKind::Unsupported);
            return;
        }
        Ok(made) => made,
    };
    assert!((10..=memory::PAGES).contains(&len), "{len}");
    assert_eq!(named::section(&name, Some(10)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let (second, same) = named::section(&name, None).unwrap();
    assert_eq!(same, len);
    let share = |memory| Mapping::new(memory, len, Share::All).unwrap();
    let (here, there) = (share(&first), share(&second));
    // SAFETY: both mappings have `len` bytes, and only this thread uses them.
    unsafe {
        here.start().as_ptr().add(9).write_volatile(7);
        assert_eq!(there.start().as_ptr().add(9).read_volatile(), 7);
    }
    drop((first, here));
    assert_eq!(named::section(&name, None).unwrap().1, len);
    drop(second);
    // SAFETY: as above. The memory is there as long as a mapping, the name perhaps is not.
    assert_eq!(unsafe { there.start().as_ptr().add(9).read_volatile() }, 7);
    drop(there);
    assert_eq!(named::section(&name, None).unwrap_err().kind(), ErrorKind::NotFound);
    for wrong in ["", "with\0zero"] {
        assert_eq!(named::section(wrong, Some(10)).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// Whether memory of 10 bytes has this length. macOS makes named memory of whole pages.
fn is_len(len: usize) -> bool {
    if cfg!(target_os = "macos") { (10..=memory::PAGES).contains(&len) } else { len == 10 }
}

/// A client and what the listener took, at some place.
fn meet(place: Place<'_>) {
    let listening = socket::listen(place, 5).unwrap();
    assert!(socket::accept(listening.as_handle()).unwrap().is_none());
    let at = match place {
        Place::Tcp(_) => Place::Tcp(socket::address(listening.as_handle()).unwrap()),
        local => local,
    };
    let dial = Dial::new(at).unwrap();
    dial.connect(Some(LONG)).unwrap();
    let client = dial.into_handle();
    let taken = socket::is_taken(client.as_handle());
    assert!(taken.is_none() || taken == Some(false));
    assert!(crate::is_ready_within(listening.as_handle(), LONG));
    let server = socket::accept(listening.as_handle()).unwrap().unwrap();
    assert!(taken.is_none() || socket::is_taken(client.as_handle()) == Some(true));
    for end in [&client, &server] {
        socket::send_at_once(end.as_handle()).unwrap();
        socket::keep_alive(end.as_handle()).unwrap();
        assert!(!socket::peer(end.as_handle()).is_empty());
    }
    stream::write_all(client.as_handle(), b"hello").unwrap();
    drop(client);
    assert_eq!(stream::read_to_end(server.as_handle()).unwrap(), b"hello");
}

#[test]
fn a_client_and_a_listener_meet_on_the_network() {
    meet(Place::Tcp("127.0.0.1:0".parse::<SocketAddr>().unwrap()));
}

#[test]
fn a_client_and_a_listener_meet_at_a_path() {
    let folder = SocketDir::new(random()).unwrap();
    let path = folder.socket();
    meet(Place::Local(&path));
    let first = socket::file(&path).unwrap();
    assert!(first.is_some() && first == socket::file(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    folder.remove();
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn a_name_of_ones_own_goes_with_its_listener() {
    let Some(name) = socket::own_name("maniple-conformance", random()) else { return };
    meet(Place::Local(&name));
    assert!(Dial::new(Place::Local(&name)).unwrap().connect(Some(LONG)).is_err());
    assert!(socket::file(&name).unwrap().is_none());
}

#[test]
fn a_client_that_is_not_taken_within_the_time_may_retry() {
    let folder = SocketDir::new(random()).unwrap();
    let path = folder.socket();
    let listening = socket::listen(Place::Local(&path), 0).unwrap();
    let mut waiting = Vec::new();
    let late = loop {
        let dial = Dial::new(Place::Local(&path)).unwrap();
        match dial.connect(Some(Duration::from_millis(20))) {
            Ok(()) => waiting.push(dial),
            Err(error) => {
                // macOS refuses a client if the queue is full.
                let refused = cfg!(target_os = "macos") && error.kind() == ErrorKind::ConnectionRefused;
                assert!(refused || error.kind() == ErrorKind::TimedOut, "{error}");
                break dial;
            }
        }
        assert!(waiting.len() < 100, "a backlog without an end");
    };
    (0..waiting.len()).for_each(|_| assert!(socket::accept(listening.as_handle()).unwrap().is_some()));
    late.connect(Some(LONG)).unwrap();
    std::fs::remove_file(&path).unwrap();
    folder.remove();
}

#[test]
fn a_path_that_is_too_long_is_refused() {
    let path = PathBuf::from("/".to_owned() + &"x".repeat(socket::LONGEST_PATH));
    assert!(socket::listen(Place::Local(&path), 1).is_err());
}
