//! Whether a backend keeps the contract (`src/lib.rs`), by the contract alone: nothing here names a system. The backend of the target that
//! the tests are compiled for is tested. (The stub is no backend; what it answers is tested beside it.)
//!
//! Other processes are this program once more: a test starts it with the name of a part that it is to play.
#![allow(unsafe_code, clippy::unwrap_used)]

mod handles;
mod memory;
mod names;
mod processes;
mod rest;
mod streams;
mod waiting;

use maniple_sys::process::{self, Exit, Start, Stdio};
use maniple_sys::ready::{self, Interest};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// No test waits for longer; a test that does has failed.
const LONG: Duration = Duration::from_secs(30);

const PART: &str = "MANIPLE_CONFORMANCE_PART";
const HANDLES: &str = "MANIPLE_CONFORMANCE_HANDLES";

/// What a part has been given, and how it ends: with an exit code.
type Part = fn(Vec<OwnedHandle>) -> i32;

const PARTS: [(&str, Part); 12] = [
    ("ends with 7", |_| 7),
    ("idles", |_| idle()),
    ("looks about", processes::look_about),
    ("has handles", processes::has_handles),
    ("rings a word", waiting::ring),
    ("dies with a lock", waiting::die_with_a_lock),
    ("dies with its maker", processes::die_with_its_maker),
    ("ends after its maker", processes::end_after_its_maker),
    ("starts a free process", processes::start_free),
    ("answers", processes::answer),
    ("writes to memory", memory::write),
    ("grows", processes::grow),
];

/// Not a test of its own: plays a part where another test has started this program to.
#[test]
fn part() {
    let Ok(name) = std::env::var(PART) else { return };
    let numbers = std::env::var(HANDLES).unwrap_or_default();
    let numbers = numbers.split(',').filter(|number| !number.is_empty()).map(|number| number.parse().unwrap());
    // SAFETY: the test opened them for this process, which has announced nothing else.
    let handles = numbers.map(|number| unsafe { process::claim(number) }.unwrap()).collect();
    let (_, play) = PARTS.iter().find(|(part, _)| *part == name).unwrap();
    process::leave(play(handles));
}

fn idle() -> ! {
    loop {
        std::thread::sleep(LONG);
    }
}

/// `start`, or `start_free`.
type StartCall = fn(&Start, Option<OwnedHandle>) -> std::io::Result<(u32, OwnedHandle)>;

/// A started process; killed and reaped when dropped.
struct Child {
    pid: u32,
    handle: OwnedHandle,
    exit: Option<Exit>,
}

impl Child {
    /// Starts this program to play a part, with these handles.
    fn plays(part: &str, handles: Vec<OwnedHandle>) -> Child {
        Child::starts(part, handles, |_| {})
    }

    fn starts(part: &str, handles: Vec<OwnedHandle>, change: impl FnOnce(&mut Start)) -> Child {
        Child::begins(process::start, part, handles, change)
    }

    /// The same, by a call of the contract's.
    fn begins(call: StartCall, part: &str, handles: Vec<OwnedHandle>, change: impl FnOnce(&mut Start)) -> Child {
        let (watch, held) = if process::has_handles() { None } else { Some(process::lifeline().unwrap()) }.unzip();
        let numbers: Vec<_> = handles.iter().map(|handle| handle.as_raw().to_string()).collect();
        let changed = [PART, HANDLES];
        let mut environment: Vec<_> =
            std::env::vars_os().filter(|(name, _)| !changed.iter().any(|other| name == other)).collect();
        environment.push((PART.into(), part.into()));
        environment.push((HANDLES.into(), numbers.join(",").into()));
        let arguments = [std::env::args_os().next().unwrap_or_default()];
        let mut start = Start {
            program: None,
            arguments: arguments.into_iter().chain(["--exact", "part", "--nocapture"].map(Into::into)).collect(),
            environment,
            folder: None,
            stdio: [Stdio::Null, Stdio::Null, Stdio::Inherit],
            handles: handles.into_iter().chain(held).collect(),
        };
        change(&mut start);
        let starting = STARTS.write().unwrap_or_else(PoisonError::into_inner);
        let (pid, handle) = call(&start, watch).unwrap();
        drop(starting);
        Child { pid, handle, exit: None }
    }

    fn runs(&mut self) -> bool {
        self.exit = self.exit.or_else(|| process::reap(self.handle.as_handle(), self.pid).unwrap());
        self.exit.is_none()
    }

    /// How it ended, which it does soon.
    fn ends(&mut self) -> Exit {
        assert!(is_ready_within(self.handle.as_handle(), LONG), "the child still runs");
        assert!(!self.runs(), "the child's handle tells of its end, and it has none");
        self.exit.unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.runs() {
            process::kill(self.handle.as_handle(), self.pid).unwrap();
            self.ends();
        }
    }
}

/// For a moment a process that is being started has copies of all handles of this one. A test that closes an end and looks at the other at
/// once begins with [`calm`].
static STARTS: RwLock<()> = RwLock::new(());

/// While this is there no process is started.
fn calm() -> RwLockReadGuard<'static, ()> {
    STARTS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a handle is readable, or gone at its other end, before the time is up.
fn is_ready_within(handle: BorrowedHandle<'_>, limit: Duration) -> bool {
    let until = std::time::Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let mut interest = [Interest::new(handle)];
        if ready::wait(&mut interest, Some(left)).unwrap() > 0 {
            assert!(interest[0].ready());
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

fn is_ready(handle: BorrowedHandle<'_>) -> bool {
    is_ready_within(handle, Duration::ZERO)
}
