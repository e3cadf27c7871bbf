//! A backend for systems on which maniple does not run yet. It compiles everywhere, so that the other crates are
//! type-checked for every target. Every call that can fail returns [`unsupported`]. The calls that no system can refuse
//! (the clock, this process's number, private memory) work.
//!
//! A new backend begins as a copy of this one, and is complete when the conformance suite passes with it.

pub mod futex;
pub mod holder;
pub mod memory;
pub mod mutex;
pub mod named;
#[cfg(not(unix))]
pub mod own;
pub mod plain;
pub mod process;
pub mod quiet;
pub mod ready;
pub mod socket;
pub mod socket_dir;
pub mod standoff;
pub mod stream;
pub mod tap;
pub mod wire;

use crate::BorrowedHandle;
#[cfg(not(unix))]
pub use crate::lacking::{atfork, epoch};
#[cfg(unix)]
pub use crate::unix::own;
use std::io;

/// Returns the error of every call that can fail.
pub fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "maniple does not support this system yet")
}

/// Monotonic time.
pub mod clock {
    use std::sync::OnceLock;
    use std::time::Instant;

    /// Returns the nanoseconds since the first call.
    pub fn now() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Returns the error "not supported".
pub fn aside<R: Send>(_keep: &[BorrowedHandle<'_>], _work: impl FnOnce() -> R + Send) -> io::Result<R> {
    Err(unsupported())
}

/// Returns the error's own number.
pub fn error_number(error: &io::Error) -> Option<i32> {
    error.raw_os_error()
}

/// Returns false.
pub fn is_limit_of_processes(_error: &io::Error) -> bool {
    false
}

/// Returns false: no shortage is known.
pub fn is_shortage(_error: &io::Error) -> bool {
    false
}

/// Returns no advice.
pub fn advice(_error: &io::Error) -> &'static str {
    ""
}

/// Returns the standard library's number of processors.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the error "not supported".
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn keep_to_cores(_cores: &[usize]) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the greatest number: no limit is known.
pub fn most_handles() -> usize {
    usize::MAX
}

/// Returns this process's number.
pub fn process_id() -> u32 {
    std::process::id()
}

/// Returns false: the first thread is unknown.
pub fn is_first_thread() -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::AsHandle;
    use crate::terms::{Place, Share};
    use std::io::IoSlice;
    use std::time::Duration;

    /// Checks that each call returns the error "not supported".
    macro_rules! unsupported {
        ($($call:expr),+ $(,)?) => {
            $(assert_eq!($call.map(drop).unwrap_err().kind(), io::ErrorKind::Unsupported, stringify!($call));)+
        };
    }

    #[test]
    fn a_call_that_can_fail_is_not_supported() {
        let (one, other) = crate::stream::pair().unwrap();
        let (here, mut room) = (one.as_handle(), [0; 8]);
        let mut handles = Vec::new();
        let path = Place::Local(std::path::Path::new("/nowhere"));
        let start = process::Start {
            program: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            stdio: Default::default(),
            handles: Vec::new(),
        };
        unsupported!(
            aside(&[], || ()),
            socket_dir::SocketDir::new([0; 8]),
            memory::create("stub", 1),
            memory::duplicate(here),
            allowed_cores(),
            keep_to_cores(&[0]),
            memory::close_on_exec(here),
            memory::len(here),
            memory::read_at(here, &mut room, 0),
            memory::read_all(here),
            memory::write_at(here, b"", 0),
            memory::release(here, 0, 1),
            memory::Mapping::new(here, 1, Share::All),
            memory::Mapping::at(here, 0, 1, Share::All),
            memory::Mapping::joined(&[(&one, 1)], 1, Share::All),
            named::open("/stub", 0, 0),
            named::create("/stub", 1),
            named::find("/stub"),
            named::reserve(here, 1),
            named::unlink("/stub"),
            process::start(&start, None),
            process::open(1),
            process::kill(here, 1),
            process::terminate(here, 1),
            process::family::kill_family(here, 1),
            process::family::interrupt(here, 1),
            process::reap(here, 1),
            process::nothing(),
            process::lifeline(),
            process::hung_up(here),
            process::die_when_hung_up(here),
            process::maker::end_after(here, 1, Duration::ZERO),
            process::packet::pair(),
            process::packet::send(here, b"", &[]),
            process::packet::receive(here, &mut room, &mut handles),
            ready::wait(&mut [ready::Interest::new(here)], None),
            ready::wait_for(ready::Interest::room(here)),
            ready::Kick::new(),
            socket::listen(path, 1),
            socket::address(here),
            socket::accept(here),
            socket::Dial::new(path),
            socket::send_at_once(here),
            socket::keep_alive(here),
            socket::send_now(here, b""),
            socket::file(std::path::Path::new("/nowhere")),
            socket::random(&mut room),
            standoff::unread(here),
            standoff::Said::new(here),
            stream::set_blocking(here),
            stream::shut(here, true),
            stream::pair(),
            stream::pipe(),
            stream::packet_pair(),
            stream::read(here, &mut Vec::new(), 1),
            stream::read_into(here, &mut room),
            stream::read_to_end(here),
            stream::read_with(here, &mut room, &mut handles),
            stream::read_now(here, &mut room, None),
            stream::write(here, &[IoSlice::new(b"x")]),
            stream::write_all(here, b"x"),
            stream::write_with(here, b"x", &[]),
            stream::write_now(here, &[IoSlice::new(b"x")], &[]),
            stream::send_packet(here, b"x", &[]),
            stream::peek_packet(here, &mut room),
            stream::receive(here, &mut Vec::new()),
            stream::send(here, b"x", false),
            stream::mark(here),
            tap::pair(),
            tap::records(),
            tap::redirect(other),
            tap::drain(here, &mut room),
            wire::Wire::pair(),
            wire::Wire::for_worker(),
        );
        let wire = wire::Wire::from_handle(one);
        unsupported!(wire.send(0, &[]), wire.receive(), wire.wait(None), wire.take(|_| true, wire::Wire::receive));
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_call_that_no_system_refuses_works() {
        let memory = plain::Plain::new(10).unwrap();
        assert!(memory.len() >= 10 && !memory.is_empty());
        assert_eq!(process_id(), std::process::id());
        assert!(clock::now() <= clock::now() && cores() > 0);
        assert!(process::limits::most_processes().is_empty() && process::limits::most_memory().is_none());
        let word = std::sync::atomic::AtomicU32::new(1);
        assert_eq!(futex::wait(&word, 0, None), futex::Woken::Rung);
        assert_eq!(futex::wait(&word, 1, Some(Duration::ZERO)), futex::Woken::TimedOut);
        quiet::spawn("stub", || ()).unwrap().join().unwrap();
        // SAFETY: the stub's `fork` does not fork.
        assert_eq!(unsafe { process::fork() }.map(drop).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
