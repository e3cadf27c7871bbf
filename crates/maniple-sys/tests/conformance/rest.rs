//! Threads, time, errors, and what this process is.

use maniple_sys::memory::{self, Mapping, PAGES, Share};
use maniple_sys::quiet::{self, Number};
use maniple_sys::{AsHandle, clock, error_number, stream};
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

#[test]
fn a_thread_is_counted_until_it_has_ended() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = quiet::spawn("conformance", move || sender.send(Number::own()).unwrap()).unwrap();
    let number = receiver.recv().unwrap();
    thread.join().unwrap();
    let until = Instant::now() + crate::LONG;
    while number.is_there() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
}

#[test]
fn work_aside_leaves_what_it_has_mapped_and_no_handle() {
    let (kept, other) = stream::pair().unwrap();
    let worked = maniple_sys::aside(&[kept.as_handle()], || {
        let memory = memory::create("conformance", PAGES).unwrap();
        memory::write_at(memory.as_handle(), b"aside", 0).unwrap();
        stream::write_all(kept.as_handle(), b"!").unwrap();
        Mapping::new(&memory, PAGES, Share::All).unwrap()
    });
    let Ok(mapping) = worked else { return };
    let mut bytes = [0; 5];
    // SAFETY: the mapping is longer, and no thread writes to it.
    unsafe { std::ptr::copy_nonoverlapping(mapping.start().as_ptr(), bytes.as_mut_ptr(), 5) };
    assert_eq!(&bytes, b"aside");
    assert_eq!(stream::read_into(other.as_handle(), &mut bytes).unwrap(), 1);
}

#[test]
fn time_advances() {
    let before = clock::now();
    std::thread::sleep(Duration::from_millis(2));
    assert!(clock::now() >= before + 2_000_000);
}

#[test]
fn this_process_is_known() {
    assert_eq!(maniple_sys::process_id(), std::process::id());
    assert!(maniple_sys::cores() >= 1 && maniple_sys::most_handles() >= 3);
    assert!(!std::thread::spawn(maniple_sys::is_first_thread).join().unwrap());
}

#[test]
fn a_thread_keeps_to_the_processors_that_it_was_limited_to() {
    let before = maniple_sys::allowed_cores().unwrap();
    // macOS has no call that limits a thread.
    if cfg!(any(target_os = "macos", maniple_posix)) {
        let refused = maniple_sys::keep_to_cores(&before).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
        return;
    }
    assert_eq!(before.len(), maniple_sys::cores());
    let (first, all) = (before[0], before.clone());
    let limited = std::thread::spawn(move || {
        maniple_sys::keep_to_cores(&[first]).unwrap();
        let of_child = std::thread::spawn(maniple_sys::allowed_cores).join().unwrap().unwrap();
        assert_eq!(of_child, [first]);
        // A refusal changes nothing.
        assert!(maniple_sys::keep_to_cores(&[]).is_err() && maniple_sys::keep_to_cores(&[usize::MAX]).is_err());
        let limited = maniple_sys::allowed_cores().unwrap();
        maniple_sys::keep_to_cores(&all).unwrap();
        (limited, maniple_sys::allowed_cores().unwrap())
    });
    assert_eq!(limited.join().unwrap(), (vec![first], before.clone()));
    assert_eq!(maniple_sys::allowed_cores().unwrap(), before);
}

#[test]
fn an_error_that_is_no_shortage_is_none() {
    let error = std::io::Error::from(std::io::ErrorKind::NotFound);
    assert!(!maniple_sys::is_shortage(&error) && maniple_sys::advice(&error).is_empty());
}

#[test]
fn an_error_of_the_system_has_the_number_of_the_c_library() {
    let _calm = crate::calm();
    const ENOENT: i32 = 2;
    const EEXIST: i32 = 17;
    const EPIPE: i32 = 32;
    let number = |error: io::Error| (error_number(&error), error.to_string());
    let folder = std::env::temp_dir();
    let (missing, error) = number(std::fs::File::open(folder.join("maniple-conformance-no-such-file")).unwrap_err());
    assert_eq!(missing, Some(ENOENT), "{error}");
    let (missing, error) = number(std::fs::read_dir(folder.join("maniple-no-such-folder").join("at all")).unwrap_err());
    assert_eq!(missing, Some(ENOENT), "{error}");
    let (exists, error) = number(std::fs::create_dir(&folder).unwrap_err());
    assert_eq!(exists, Some(EEXIST), "{error}");
    for (reader, writer) in [stream::pipe().unwrap(), stream::pair().unwrap()] {
        drop(reader);
        let (broken, error) = number(stream::write(writer.as_handle(), &[IoSlice::new(b"x")]).unwrap_err());
        assert_eq!(broken, Some(EPIPE), "{error}");
    }
    // The network has one list of numbers on each system.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = std::net::TcpStream::connect(port).unwrap_err();
    assert_eq!(error_number(&refused), refused.raw_os_error());
    // It is an error of this program.
    assert_eq!(error_number(&io::Error::other("text")), None);
}
